//! Asks the drivers of Vulkan what they know, in a process of its own: some crash who asks them, and some never answer.

use std::{
    ffi::OsString,
    io::Read as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use claw_graph::known::{Adapter, Known};

/// The longest that drivers may take: others' GPUs are held up meanwhile, which have ten seconds for their first answer.
const LIMIT: Duration = Duration::from_secs(8);

/// Between looks whether a process has ended that has said everything.
const POLL: Duration = Duration::from_millis(5);

/// The most that is read of an answer: a machine with 16 GPUs says 10 KiB.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// How drivers of Vulkan are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskVulkan {
    /// A program that writes a list of [`Known`] to its standard output, and its arguments.
    pub command: Vec<OsString>,
    /// Whether software that calls itself a GPU counts as one.
    pub software: bool,
}

/// Starts processes, one at a time.
#[derive(Debug)]
pub(super) struct Process {
    limit: Duration,
    /// One that was killed and has not ended: a driver in the kernel holds it.
    stuck: Option<Child>,
}

impl Default for Process {
    fn default() -> Self {
        Self { limit: LIMIT, stuck: None }
    }
}

impl Process {
    /// Everything that Vulkan knows.
    ///
    /// # Errors
    /// Why nothing was said, in words.
    pub fn ask(&mut self, ask: &AskVulkan) -> Result<Vec<Adapter>, String> {
        if let Some(child) = &mut self.stuck {
            match child.try_wait() {
                Ok(None) => return Err("a process that asked before cannot be ended".to_owned()),
                _ => self.stuck = None,
            }
        }
        let (program, arguments) = ask.command.split_first().ok_or("there is no program to ask with")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("no process could be started: {error}"))?;
        let deadline = Instant::now() + self.limit;
        let answer = said(&mut child, deadline);
        match (answer, ended(&mut child, deadline)) {
            (Some(answer), Some(status)) if status.success() => {
                let known: Vec<Known> = serde_json::from_slice(&answer)
                    .map_err(|error| format!("what the process says is not understood: {error}"))?;
                Ok(known.into_iter().filter_map(|known| known.adapter).collect())
            }
            (_, Some(status)) => Err(format!("a driver took the process along that asked it ({status})")),
            (_, None) => {
                let _ = child.kill();
                // It may be beyond the reach of signals.
                let is_dead = ended(&mut child, Instant::now() + Duration::from_secs(1)).is_some();
                self.stuck = (!is_dead).then_some(child);
                Err(format!("a driver did not answer within {} s", self.limit.as_secs()))
            }
        }
    }
}

/// All that it says until it ends; `None` if it does not.
fn said(child: &mut Child, deadline: Instant) -> Option<Vec<u8>> {
    let mut out = child.stdout.take()?.take(ANSWER_BYTES_MAX);
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        let mut answer = Vec::new();
        let _ = out.read_to_end(&mut answer);
        let _ = sender.send(answer);
    };
    thread::Builder::new().name("vulkan".to_owned()).spawn(read).ok()?;
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

    fn ask(script: &str) -> Result<Vec<Adapter>, String> {
        let command = ["/bin/sh", "-c", script].map(OsString::from).to_vec();
        Process::default().ask(&AskVulkan { command, software: true })
    }

    #[test]
    fn what_a_process_says_is_believed_only_if_it_ends_well() {
        let answer = r#"[{"name":"cuda:0","isCpu":false},{"name":"vulkan:0","isCpu":true,"adapter":{"uuid":"VK-1","kind":"cpu"}}]"#;
        let said = ask(&format!("echo '{answer}'")).unwrap();
        assert_eq!(said.iter().map(|adapter| adapter.uuid.as_str()).collect::<Vec<_>>(), ["VK-1"]);
        let crashed = ask(&format!("echo '{answer}'; kill -SEGV $$")).unwrap_err();
        assert!(crashed.contains("took the process along") && crashed.contains("SIGSEGV"), "{crashed}");
        assert!(ask("echo nonsense").unwrap_err().contains("is not understood"));
        let command = vec!["/nowhere/at/all".into()];
        let none = Process::default().ask(&AskVulkan { command, software: false }).unwrap_err();
        assert!(none.contains("no process could be started"), "{none}");
    }

    #[test]
    fn one_that_hangs_is_ended() {
        let mut process = Process { limit: Duration::from_millis(50), stuck: None };
        let command = ["/bin/sh", "-c", "exec sleep 600"].map(OsString::from).to_vec();
        let why = process.ask(&AskVulkan { command, software: true }).unwrap_err();
        assert!(why.contains("did not answer") && process.stuck.is_none(), "{why}");
    }
}
