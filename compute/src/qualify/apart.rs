//! Qualification in a process of its own: a device that hangs or takes the process down is found out by it, and harms nobody.
//!
//! The process writes lines of JSON ([`Said`]) to its standard output: what it does, then what it found.

use super::qualify;
use crate::device::Device;
use claw_graph::order::ReportDevice;
use claw_graph::qualification::{Check, Finding, Level, Qualification};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The longest that a sound device works without a word: kernels are compiled meanwhile, and large pieces of memory are filled.
pub const SILENCE: Duration = Duration::from_secs(120);

/// A line of the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// What it does from here on.
    Doing(Check, String),
    /// The last line.
    Found(Qualification),
}

/// Looks at a device in this process, and says so on standard output, for whoever started it by [`watch`].
///
/// # Errors
/// When nobody listens any more.
pub fn say(name: &str, level: Level) -> std::io::Result<()> {
    let found = match Device::open(name) {
        Ok(device) => qualify(&device, level, &mut |check, words| {
            // Whoever no longer listens ends this process.
            let _ = line(&Said::Doing(check, words.to_owned()));
        }),
        Err(error) => objected(name, level, Check::Open, error.to_string(), Duration::ZERO),
    };
    line(&Said::Found(found))
}

/// The same for the link between two devices: what is said of it is a finding, or none where they do not reach each other.
///
/// # Errors
/// As [`say`].
pub fn say_peers(names: [&str; 2], level: Level) -> std::io::Result<()> {
    let start = Instant::now();
    let finding = super::peer::peer(names, &mut |check, words| {
        let _ = line(&Said::Doing(check, words.to_owned()));
    });
    line(&Said::Found(Qualification {
        device: ReportDevice { id: names.join(" and "), model: String::new() },
        driver: None,
        level,
        findings: finding.into_iter().collect(),
        seconds: start.elapsed().as_secs_f64(),
    }))
}

fn line(said: &Said) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(said)?;
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

/// Starts a process that calls [`say`] or [`say_peers`] for this device and level, and follows it to its end. One that says nothing for so long has
/// hung, and is killed.
///
/// # Errors
/// If it cannot be started.
pub fn watch(
    mut process: Command,
    name: &str,
    level: Level,
    silence: Duration,
    tell: &mut dyn FnMut(Check, &str),
) -> std::io::Result<Qualification> {
    let start = Instant::now();
    let mut child = process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (said, complaints) = listen(&mut child);
    let mut doing = (Check::Open, "opening it".to_owned());
    let (complaints, ended) = loop {
        match said.recv_timeout(silence) {
            Ok(Said::Doing(check, words)) => {
                tell(check, &words);
                doing = (check, words);
            }
            Ok(Said::Found(found)) => {
                // It has nothing more to say, and a driver may hang when it lets go of its device.
                dismiss(child)?;
                return Ok(found);
            }
            Err(RecvTimeoutError::Timeout) => {
                dismiss(child)?;
                break (None, format!("it said nothing for {} s", silence.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                break (Some(complaints), format!("its process ended ({})", child.wait()?));
            }
        }
    };
    let last_words = complaints.and_then(|complaints| complaints.recv().ok()).unwrap_or_default();
    let complaint = last_words.lines().rev().find(|line| !line.trim().is_empty());
    let complaint = complaint.map_or_else(String::new, |line| format!(": {}", line.trim()));
    let words = format!("{ended} while this was done: {}{complaint}", doing.1);
    Ok(objected(name, level, doing.0, words, start.elapsed()))
}

/// Ends a process without waiting for that: one that hangs in its driver does not even die of being killed before the driver lets it.
fn dismiss(mut child: Child) -> std::io::Result<()> {
    child.kill()?;
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// What a process says, line by line, and all that it complains of, at its end.
fn listen(child: &mut Child) -> (Receiver<Said>, Receiver<String>) {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (say, said) = channel();
    std::thread::spawn(move || {
        let lines = out.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok));
        // A driver that writes to standard output is not listened to.
        let _ = lines.filter_map(|line| serde_json::from_str(&line).ok()).try_for_each(|one| say.send(one));
    });
    let (complain, complaints) = channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = err.map(|mut err| err.read_to_end(&mut text));
        let _ = complain.send(String::from_utf8_lossy(&text).into_owned());
    });
    (said, complaints)
}

fn objected(name: &str, level: Level, check: Check, words: String, took: Duration) -> Qualification {
    Qualification {
        device: ReportDevice { id: name.to_owned(), model: String::new() },
        driver: None,
        level,
        findings: vec![Finding { check, passed: false, words, figures: [].into() }],
        seconds: took.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than a busy machine takes until a shell says something.
    const PATIENCE: Duration = Duration::from_secs(300);

    fn watched(script: &str, silence: Duration) -> (Qualification, Vec<String>) {
        let mut told = Vec::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        let tell = &mut |_: Check, words: &str| told.push(words.to_owned());
        let found = watch(shell, "cuda:0", Level::Quick, silence, tell).unwrap();
        (found, told)
    }

    #[test]
    fn a_process_that_dies_or_hangs_speaks_against_its_device() {
        let doing = r#"echo '{"Doing":["Memory","memory: ones"]}'"#;
        let script = format!("{doing}; echo noise; echo Xid 79 >&2; kill -9 $$");
        let (dead, told) = watched(&script, PATIENCE);
        assert_eq!(told, ["memory: ones"]);
        let objection = dead.objection().expect("it died");
        assert_eq!(objection.check, Check::Memory);
        assert!(
            objection.words.contains("signal: 9") && objection.words.ends_with("memory: ones: Xid 79"),
            "{}",
            objection.words
        );
        let (hung, _) = watched(&format!("{doing}; exec sleep 1000"), Duration::from_secs(10));
        assert_eq!(
            hung.objection().map(|found| found.words.as_str()),
            Some("it said nothing for 10 s while this was done: memory: ones")
        );
    }

    #[test]
    fn what_was_found_arrives_as_it_was_said() {
        let found =
            objected("vulkan:1", Level::Full, Check::Open, "missing".to_owned(), Duration::from_secs(1));
        let text = serde_json::to_string(&Said::Found(found.clone())).unwrap();
        assert_eq!(watched(&format!("echo '{text}'"), PATIENCE).0, found);
        let (heard, _) = watched(&format!("echo '{text}'; exec sleep 1000"), PATIENCE);
        assert_eq!(heard, found, "nobody waits for its end");
    }
}
