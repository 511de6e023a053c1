//! Short-lived processes that have to do with drivers: each may crash, or hang for good, and nobody waits for it longer than he wants to.

use std::{
    io::{Read as _, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Between looks whether a process has ended.
const POLL: Duration = Duration::from_millis(5);

/// For one that was killed to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(1);

/// The most that is read of what one says.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Why nothing came of a process.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It could not be started.
    #[error("no process could be started: {0}")]
    Start(#[from] std::io::Error),
    /// It ended, and not well; what it said on standard output.
    #[error("{}", ended_in_words(*.0, .1))]
    Ended(ExitStatus, String),
    /// It did not end.
    #[error("a process did not end within {:.0} s", .0.as_secs_f32())]
    Late(Duration),
    /// One before it did not end, and cannot be killed: a driver in the kernel holds it.
    #[error("a process before cannot be ended")]
    Stuck,
}

fn ended_in_words(status: ExitStatus, said: &str) -> String {
    match said.trim() {
        "" => format!("its process ended ({status})"),
        said => format!("its process ended ({status}): {said}"),
    }
}

/// Starts processes, one at a time.
#[derive(Debug, Default)]
pub(super) struct Apart {
    stuck: Option<Child>,
}

impl Apart {
    /// What a process says until its end. `input` is what it reads.
    ///
    /// # Errors
    /// When it is not over well in time.
    pub fn ask(&mut self, mut command: Command, input: &str, limit: Duration) -> Result<String, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        self.run(command, input, limit)
    }

    /// Waits for the end of a process, which may leave another behind.
    ///
    /// # Errors
    /// When it is not over well in time.
    pub fn start(&mut self, mut command: Command, limit: Duration) -> Result<(), Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.run(command, "", limit).map(drop)
    }

    fn run(&mut self, mut command: Command, input: &str, limit: Duration) -> Result<String, Failure> {
        if let Some(child) = &mut self.stuck {
            match child.try_wait() {
                Ok(None) => return Err(Failure::Stuck),
                _ => self.stuck = None,
            }
        }
        let deadline = Instant::now() + limit;
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            // Who does not read does not want to know.
            let _ = pipe.write_all(input.as_bytes());
        }
        let said = said(&mut child, deadline);
        match (said, ended(&mut child, deadline)) {
            (Some(said), Some(status)) if status.success() => Ok(said),
            (said, Some(status)) => Err(Failure::Ended(status, said.unwrap_or_default())),
            (_, None) => {
                let _ = child.kill();
                let is_dead = ended(&mut child, Instant::now() + KILL_LIMIT).is_some();
                self.stuck = (!is_dead).then_some(child);
                Err(Failure::Late(limit))
            }
        }
    }
}

/// All that it says until it ends; `None` if it does not.
fn said(child: &mut Child, deadline: Instant) -> Option<String> {
    let Some(out) = child.stdout.take() else { return Some(String::new()) };
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        let mut answer = Vec::new();
        let _ = out.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
        let _ = sender.send(String::from_utf8_lossy(&answer).into_owned());
    };
    thread::Builder::new().name("apart".to_owned()).spawn(read).ok()?;
    receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

fn ended(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            _ if Instant::now() >= deadline => return None,
            _ => thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// None of these hangs.
    const LONG: Duration = Duration::from_secs(60);

    fn script(text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn a_process_reads_and_says_and_is_believed_only_if_it_ends_well() {
        let mut apart = Apart::default();
        assert_eq!(apart.ask(script("read word; echo heard $word"), "this\n", LONG).unwrap(), "heard this\n");
        assert_eq!(apart.ask(script("echo deaf"), "this\n", LONG).unwrap(), "deaf\n");
        let crashed = apart.ask(script("echo much; kill -SEGV $$"), "", LONG).unwrap_err().to_string();
        assert!(crashed.contains("SIGSEGV") && crashed.contains("much"), "{crashed}");
        let missing = apart.ask(Command::new("/nowhere/at/all"), "", LONG).unwrap_err();
        assert!(matches!(missing, Failure::Start(_)), "{missing}");
    }

    #[test]
    fn one_that_hangs_is_ended_and_one_that_leaves_another_behind_is_over() {
        let mut apart = Apart::default();
        let short = Duration::from_millis(50);
        let hung = apart.ask(script("exec sleep 600"), "", short).unwrap_err();
        assert!(matches!(hung, Failure::Late(_)) && apart.stuck.is_none(), "{hung}");
        apart.start(script("sleep 1 & exit 0"), LONG).unwrap();
    }
}
