//! A talk between a client and a process on a node, whatever the client's protocol is.

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use claw_schemas::{
    ApiError,
    proto::{Channel, StreamFrame, TerminalSize},
    status::Reason,
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::presence::{Checks, Doubt};
use crate::nodes::NodeStream;

/// After the end, for the client to hang up.
const LINGER: Duration = Duration::from_secs(5);

/// Data in a frame to the node.
const FRAME_BYTES: usize = 32 * 1024;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// For the process to read.
    Stdin(Bytes),
    /// There is nothing more to read.
    StdinEnd,
    /// Its terminal has so many columns and rows now.
    Resize(u16, u16),
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// What the process wrote.
    Stdout(Bytes),
    /// What it wrote to its standard error.
    Stderr(Bytes),
    /// How it ended: a `Status`. The last.
    Ended(Value),
}

/// Where a client speaks.
pub trait Ear {
    /// What it says next; `None` when it is gone.
    fn next(&mut self) -> impl Future<Output = Option<Said>> + Send;
}

/// Where a client listens.
pub trait Mouth {
    /// Tells it something.
    fn tell(&mut self, told: Told) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes sure that it is there.
    fn keep_alive(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Nothing more is told.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Carries the talk until the process is over, or either side is gone. Leaving drops the node's stream, which the node
/// takes for a client that hung up.
pub async fn talk(
    mut ear: impl Ear,
    mut mouth: impl Mouth,
    node: NodeStream,
    has_exit_code: bool,
    closing: CancellationToken,
) {
    let NodeStream { mut frames, to_node } = node;
    let (over, doubt) = (CancellationToken::new(), Doubt::default());
    let mut listen = pin!(async {
        while let Some(said) = ear.next().await {
            // Once it is over, or the node takes nothing more, the rest is thrown away.
            over.run_until_cancelled(doubt.during(pass_on(said, &to_node))).await;
        }
    });
    let tell = async {
        let mut checks = Checks::new(&doubt);
        let told = loop {
            let frame = tokio::select! {
                frame = frames.recv() => frame,
                () = closing.cancelled() => Some(Err(stopping())),
                () = checks.due() => match mouth.keep_alive().await {
                    Ok(()) => continue,
                    Err(error) => break Err(error),
                }
            };
            let told = told(frame, has_exit_code);
            let is_last = matches!(told, Some(Told::Ended(_)));
            if let Some(told) = told
                && let Err(error) = mouth.tell(told).await
            {
                break Err(error);
            }
            if is_last {
                break Ok(());
            }
        };
        if told.is_ok() {
            mouth.close().await;
        }
        told.is_ok()
    };
    let is_told = tokio::select! {
        () = &mut listen => false,
        is_told = tell => is_told,
    };
    if is_told {
        over.cancel();
        // A connection that is closed with something unread in it is reset, and the end would be lost on its way.
        let _ = timeout(LINGER, listen).await;
    }
}

fn stopping() -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "the server is stopping")
}

/// `None` when the node takes nothing more.
async fn pass_on(said: Said, to_node: &mpsc::Sender<Result<StreamFrame, ApiError>>) -> Option<()> {
    let stdin = StreamFrame { channel: Channel::Stdin.into(), ..StreamFrame::default() };
    let send = async |frame| to_node.send(Ok(frame)).await.ok();
    match said {
        Said::Stdin(mut data) => {
            while !data.is_empty() {
                let piece = data.split_to(data.len().min(FRAME_BYTES));
                send(StreamFrame { data: piece, ..stdin.clone() }).await?;
            }
            Some(())
        }
        Said::StdinEnd => send(StreamFrame { end: true, ..stdin }).await,
        Said::Resize(columns, rows) => {
            let size = TerminalSize { columns: columns.into(), rows: rows.into() };
            send(StreamFrame { resize: Some(size), ..stdin }).await
        }
    }
}

/// What the node says, for the client. An end without a word is one where there is no exit code to tell.
fn told(frame: Option<Result<StreamFrame, ApiError>>, has_exit_code: bool) -> Option<Told> {
    match frame {
        None if has_exit_code => {
            Some(failed(&ApiError::internal("the node did not say how the program ended")))
        }
        None => Some(Told::Ended(success())),
        Some(Err(error)) => Some(failed(&error)),
        Some(Ok(StreamFrame { exit_code: Some(0), .. })) => Some(Told::Ended(success())),
        Some(Ok(StreamFrame { exit_code: Some(code), .. })) => Some(Told::Ended(exited(code))),
        Some(Ok(frame)) if frame.data.is_empty() => None,
        Some(Ok(frame)) if frame.channel() == Channel::Stderr => Some(Told::Stderr(frame.data)),
        Some(Ok(frame)) => Some(Told::Stdout(frame.data)),
    }
}

fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

/// By which clients exit with the same code.
fn exited(code: i32) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failed(error: &ApiError) -> Told {
    Told::Ended(serde_json::from_slice(&error.to_json()).unwrap_or_default())
}

/// A terminal's size, as clients write it.
pub fn size(text: &[u8]) -> Option<Said> {
    let size: Value = serde_json::from_slice(text).ok()?;
    let number = |name: &str| u16::try_from(size[name].as_u64()?).ok();
    Some(Said::Resize(number("Width")?, number("Height")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(frame: Option<Result<StreamFrame, ApiError>>, has_exit_code: bool) -> Value {
        match told(frame, has_exit_code) {
            Some(Told::Ended(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_exit_code_reaches_the_client_as_a_cause() {
        let exit = |code| Some(Ok(StreamFrame { exit_code: Some(code), ..StreamFrame::default() }));
        assert_eq!(ended(exit(0), true)["status"], "Success");
        let status = ended(exit(3), true);
        assert_eq!((&status["status"], &status["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
        assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
    }

    #[test]
    fn an_end_without_a_word_is_a_failure_where_there_should_be_an_exit_code() {
        assert_eq!(ended(None, true)["status"], "Failure");
        assert_eq!(ended(None, false)["status"], "Success");
        let broken = ended(Some(Err(ApiError::internal("it broke"))), false);
        assert!(broken["message"].as_str().is_some_and(|message| message.contains("it broke")), "{broken}");
    }

    /// Says more than anybody takes.
    struct Talker;

    impl Ear for Talker {
        async fn next(&mut self) -> Option<Said> {
            Some(Said::Stdin(Bytes::from_static(b"and so on")))
        }
    }

    /// Is gone, which shows with the second thing that is written to it.
    #[derive(Default)]
    struct Gone {
        is_reset: bool,
    }

    impl Mouth for Gone {
        async fn tell(&mut self, told: Told) -> io::Result<()> {
            panic!("nothing is told, not even {told:?}")
        }

        async fn keep_alive(&mut self) -> io::Result<()> {
            if std::mem::replace(&mut self.is_reset, true) {
                Err(io::ErrorKind::BrokenPipe.into())
            } else {
                Ok(())
            }
        }

        async fn close(self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_behind_words_that_wait_is_noticed_soon() {
        // A program that neither reads nor writes.
        let ((to_node, _not_read), (_not_written, frames)) = (mpsc::channel(1), mpsc::channel(1));
        let (node, closing) = (NodeStream { frames, to_node }, CancellationToken::new());
        let talking = talk(Talker, Gone::default(), node, true, closing);
        timeout(Duration::from_secs(5), talking).await.expect("a second check comes soon");
    }

    #[test]
    fn the_size_of_a_terminal_is_read_as_clients_write_it() {
        assert_eq!(size(br#"{"Width":80,"Height":24}"#), Some(Said::Resize(80, 24)));
        for nonsense in [&b"{}"[..], b"", br#"{"Width":-1,"Height":70000}"#] {
            assert_eq!(size(nonsense), None);
        }
    }
}
