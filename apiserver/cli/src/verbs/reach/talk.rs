//! A conversation with a process of a pod.
//!
//! Source of the protocol: `v5.channel.k8s.io`, messages whose first byte names a part of the process.

use std::{convert::Infallible, io, process::ExitCode};

use anyhow::bail;
use bytes::Bytes;
use claw_client::{Hearing, ResourceRef, Speaking};
use claw_schemas::ApiError;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::verbs::session::Session;

const PROTOCOL: &str = "v5.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// Ends the channel that is named.
const CLOSE: u8 = 255;

/// Pieces of input that wait.
pub const PIECES_MAX: usize = 4;

/// What somebody wants of a process.
#[derive(Debug, Default)]
pub struct Wish {
    pub container: String,
    /// Empty for the container's own process.
    pub command: Vec<String>,
    pub stdin: bool,
    pub tty: bool,
}

/// What is said to the process, and who listens to it.
pub struct Ends<L> {
    pub input: Option<mpsc::Receiver<Bytes>>,
    /// Columns and rows of the terminal.
    pub sizes: Option<mpsc::Receiver<(u16, u16)>>,
    pub listener: L,
}

/// Listens to a process.
pub trait Listener {
    /// What it wrote to its standard output, or to its terminal.
    async fn stdout(&mut self, data: Bytes) -> io::Result<()>;

    /// What it wrote to its standard error.
    async fn stderr(&mut self, data: Bytes) -> io::Result<()>;
}

/// What this program is to end with after a process that ended with `code`; says so, as kubectl does, when that is no success.
pub fn exit_code(code: u8) -> ExitCode {
    if code != 0 {
        eprintln!("command terminated with exit code {code}");
    }
    ExitCode::from(code)
}

/// Talks until the process is over; gives its exit code.
pub async fn talk(
    session: &Session,
    resource: &ResourceRef,
    wish: &Wish,
    mut ends: Ends<impl Listener>,
) -> anyhow::Result<u8> {
    let (mut speaking, hearing) = session.http.channels(resource, &query(wish), PROTOCOL).await?;
    tokio::select! {
        ended = listen(hearing, &mut ends.listener) => ended,
        never = speak(&mut speaking, ends.input, ends.sizes) => match never {},
    }
}

fn query(wish: &Wish) -> Vec<(String, String)> {
    let words = wish.command.iter().map(|word| ("command", word.as_str()));
    let asked = [("stdin", wish.stdin), ("stdout", true), ("stderr", !wish.tty), ("tty", wish.tty)];
    let asked = asked.into_iter().map(|(name, is_asked)| (name, if is_asked { "true" } else { "false" }));
    let all = words.chain([("container", wish.container.as_str())]).chain(asked);
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Never returns: a process that takes no more input is heard to its end.
async fn speak(
    speaking: &mut Speaking,
    mut input: Option<mpsc::Receiver<Bytes>>,
    mut sizes: Option<mpsc::Receiver<(u16, u16)>>,
) -> Infallible {
    loop {
        let said = tokio::select! {
            data = next(&mut input) => match data {
                Some(data) => speaking.say(STDIN, &data).await,
                None => speaking.say(CLOSE, &[STDIN]).await,
            },
            Some((columns, rows)) = next(&mut sizes) => {
                speaking.say(RESIZE, json!({"Width": columns, "Height": rows}).to_string().as_bytes()).await
            }
        };
        if said.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What comes next; `None` once, at its end.
async fn next<T>(source: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    let Some(receiver) = source else { return std::future::pending().await };
    let found = receiver.recv().await;
    if found.is_none() {
        *source = None;
    }
    found
}

async fn listen(mut hearing: Hearing, listener: &mut impl Listener) -> anyhow::Result<u8> {
    while let Some(heard) = hearing.next().await {
        match heard? {
            (STDOUT, data) if !data.is_empty() => listener.stdout(data).await?,
            (STDERR, data) if !data.is_empty() => listener.stderr(data).await?,
            (STATUS, data) if !data.is_empty() => return ended(&serde_json::from_slice(&data)?),
            _ => {}
        }
    }
    bail!("the connection ended before the process did")
}

/// From the `Status` that is told last.
fn ended(status: &Value) -> anyhow::Result<u8> {
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code =
        causes.filter(|cause| cause["reason"] == "ExitCode").find_map(|cause| cause["message"].as_str());
    match code.and_then(|code| code.parse().ok()) {
        // A code of 0 would be a success that is none.
        Some(code) if status["reason"] == "NonZeroExitCode" && code != 0 => Ok(code),
        _ => {
            let error: ApiError = serde_json::from_value(status.clone())?;
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_a_code_or_what_went_wrong() {
        assert_eq!(ended(&json!({"status": "Success"})).unwrap(), 0);
        let exited = |code: &str| {
            json!({
                "kind": "Status", "status": "Failure", "reason": "NonZeroExitCode", "message": "it failed", "code": 500,
                "details": {"causes": [{"reason": "ExitCode", "message": code}]},
            })
        };
        assert_eq!(ended(&exited("3")).unwrap(), 3);
        assert!(ended(&exited("0")).is_err() && ended(&exited("many")).is_err());
        let broken = json!({
            "kind": "Status", "status": "Failure", "reason": "InternalError", "message": "no such program", "code": 500,
        });
        assert!(ended(&broken).unwrap_err().to_string().contains("no such program"));
    }

    #[test]
    fn a_terminal_has_no_standard_error() {
        let wish = Wish { command: vec!["a".to_owned(), "b c".to_owned()], tty: true, ..Wish::default() };
        let query = query(&wish);
        let of = |name: &str| -> Vec<&str> {
            query.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!((of("command"), of("stderr"), of("tty")), (vec!["a", "b c"], vec!["false"], vec!["true"]));
    }
}
