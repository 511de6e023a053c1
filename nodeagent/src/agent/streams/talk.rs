//! A talk with a process of a container: a program that is started for it, or the container's own.

use bytes::Bytes;
use claw_client::node::StreamFrames;
use claw_schemas::proto::{Channel, StreamFrame, TalkRequest};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::{Job, Refusal, broken, deliver};
use crate::runtime::{Heard, InstanceKey, Said, Talk, TalkWish};

/// What waits between the stream and the process, each way: a few pieces, since both ends have buffers of their own.
const PIECES_MAX: usize = 4;

pub(super) async fn serve(job: &Job, request: &TalkRequest) -> Result<(), Refusal> {
    let key = running(job, request)?;
    let wish = TalkWish {
        command: request.command.clone(),
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        tty: request.tty,
    };
    let Some((frames, answers)) = job.open().await else { return Ok(()) };
    let (said, listening) = mpsc::channel(PIECES_MAX);
    let (heard, answering) = mpsc::channel(PIECES_MAX);
    let talk = job.shared.runtime.talk(&key, &wish, Talk { said: listening, heard });
    let answer = async {
        // Frames are sent on while the process is waited for, and to the last one after it. Who has hung up takes none: that
        // is found out here, since a process that does not read keeps `listen` waiting.
        let ended = tokio::select! {
            (ended, ()) = async { tokio::join!(talk, pass_on(answering, &frames)) } => ended,
            () = frames.closed() => return,
        };
        deliver(frames, last(ended)).await;
    };
    tokio::select! {
        () = listen(answers, said) => {}
        () = answer => {}
    }
    Ok(())
}

fn last(ended: Result<Option<i32>, crate::Error>) -> Option<StreamFrame> {
    match ended {
        Ok(None) => None,
        Ok(Some(code)) => Some(StreamFrame { exit_code: Some(code), ..StreamFrame::default() }),
        Err(error) => Some(broken(error.full())),
    }
}

/// The run of the container that is there to be talked to.
fn running(job: &Job, request: &TalkRequest) -> Result<InstanceKey, Refusal> {
    let TalkRequest { pod, uid, container, .. } = request;
    let runs = job.runs(pod, uid, container)?;
    match runs.last().filter(|run| !run.over) {
        Some(run) => Ok(run.key.clone()),
        None => Err(Refusal::bad(format!("container \"{container}\" in pod \"{pod}\" is not running"))),
    }
}

async fn pass_on(mut heard: mpsc::Receiver<Heard>, frames: &mpsc::Sender<StreamFrame>) {
    while let Some(heard) = heard.recv().await {
        let (channel, data): (Channel, Bytes) = match heard {
            Heard::Stdout(data) => (Channel::Stdout, data),
            Heard::Stderr(data) => (Channel::Stderr, data),
        };
        let frame = StreamFrame { channel: channel.into(), data, ..StreamFrame::default() };
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// Until the server ends its side.
async fn listen(mut answers: StreamFrames, said: mpsc::Sender<Said>) {
    while let Some(Ok(frame)) = answers.next().await {
        for one in parts(frame) {
            // Once the process is over nobody listens; the server then hears how it ended.
            let _ = said.send(one).await;
        }
    }
}

fn parts(frame: StreamFrame) -> impl Iterator<Item = Said> {
    let size = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let data = Some(frame.data).filter(|data| !data.is_empty()).map(Said::Stdin);
    let resize = frame.resize.map(|new| Said::Resize(size(new.columns), size(new.rows)));
    let end = frame.end.then_some(Said::StdinEnd);
    [data, resize, end].into_iter().flatten()
}
