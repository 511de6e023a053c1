//! Answers what the server asks for with streams of their own: logs, talks with processes, connections to ports.
//!
//! Each is refused over the session, or opened and served to its end. The server ends its side when whoever asked hangs
//! up, and both sides wait for each other's reading: so nothing piles up anywhere.

mod forward;
mod logs;
mod talk;

use std::{sync::Arc, time::Duration};

use claw_client::node::{NodeLink, StreamFrames};
use claw_schemas::proto::{
    AgentMessage, StreamFrame, StreamRefused, agent_message::Message, open_stream::Request,
};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Pods, Shared, worker::RunView};

/// Frames on their way: 32 KiB each, so 256 KiB for a reader that is slow.
const FRAMES_MAX: usize = 8;

/// Largest frame.
const FRAME_BYTES: usize = 32 * 1024;

/// How long the last frames may take to be delivered to a slow reader.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);

/// One request.
pub(super) struct Job {
    pub shared: Arc<Shared>,
    pub pods: Arc<Pods>,
    pub link: Arc<dyn NodeLink>,
    /// Where refusals go.
    pub session: mpsc::Sender<AgentMessage>,
    pub cancel: CancellationToken,
    pub stream_id: String,
}

struct Refusal {
    code: i32,
    message: String,
}

impl Refusal {
    fn bad(message: impl Into<String>) -> Self {
        Self { code: 400, message: message.into() }
    }
}

/// Serves it to the end.
pub(super) async fn serve(job: Job, request: Request) {
    let cancel = job.cancel.clone();
    let served = cancel.run_until_cancelled(async {
        let served = match request {
            Request::Logs(request) => logs::serve(&job, &request).await,
            Request::Talk(request) => talk::serve(&job, &request).await,
            Request::Forward(request) => forward::serve(&job, &request).await,
        };
        if let Err(Refusal { code, message }) = served {
            let refused = StreamRefused { stream_id: job.stream_id.clone(), code, message };
            let _ = job.session.send(AgentMessage { message: Some(Message::StreamRefused(refused)) }).await;
        }
    });
    served.await;
}

impl Job {
    /// The runs of a container, oldest first.
    fn runs(&self, pod: &str, uid: &str, container: &str) -> Result<Vec<RunView>, Refusal> {
        self.pods.runs(uid, container).ok_or_else(|| self.no_such_pod(pod))
    }

    fn no_such_pod(&self, pod: &str) -> Refusal {
        let node = &self.shared.config.node_name;
        Refusal { code: 404, message: format!("pod \"{pod}\" is not on node \"{node}\"") }
    }

    /// Opens the stream: where frames go, and where they come from. `None` when nobody waits for it any more.
    async fn open(&self) -> Option<(mpsc::Sender<StreamFrame>, StreamFrames)> {
        let (frames, receiver) = mpsc::channel(FRAMES_MAX);
        let first = StreamFrame { stream_id: self.stream_id.clone(), ..StreamFrame::default() };
        frames.send(first).await.ok()?;
        let answers = self.link.stream(receiver).await.ok()?;
        Some((frames, answers))
    }
}

/// The server has ended its side, which is how one learns that nobody listens.
async fn hung_up(mut answers: StreamFrames) {
    while let Some(Ok(_)) = answers.next().await {}
}

/// Nobody may drop a stream before its last frame is delivered; the server then ends its side.
async fn deliver(frames: mpsc::Sender<StreamFrame>, last: Option<StreamFrame>) {
    if let Some(last) = last {
        let _ = frames.send(last).await;
    }
    if frames.is_closed() {
        return;
    }
    drop(frames);
    tokio::time::sleep(DELIVERY_LIMIT).await;
}

fn broken(error: impl Into<String>) -> StreamFrame {
    StreamFrame { error: error.into(), ..StreamFrame::default() }
}
