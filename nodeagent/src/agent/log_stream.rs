//! Answers a request for logs with a stream of its own.

use std::{sync::Arc, time::Duration};

use claw_client::node::NodeLink;
use claw_schemas::proto::{AgentMessage, LogsRequest, StreamFrame, StreamRefused, agent_message::Message};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Pods, Shared, worker::RunView};
use crate::logs::{LogReader, Selection};

/// Frames on their way: 32 KiB each, so 256 KiB for a reader that is slow.
const FRAMES_MAX: usize = 8;

/// Largest frame.
const FRAME_BYTES: usize = 32 * 1024;

/// How often a followed log is looked at.
const FOLLOW_POLL: Duration = Duration::from_millis(100);

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
    pub request: LogsRequest,
}

struct Refusal {
    code: i32,
    message: String,
}

/// Serves it to the end.
pub(super) async fn serve(job: Job) {
    match open(&job) {
        Ok((run, reader)) => {
            let cancel = job.cancel.clone();
            tokio::select! {
                () = cancel.cancelled() => {}
                () = stream(job, run, reader) => {}
            }
        }
        Err(Refusal { code, message }) => {
            let refused = StreamRefused { stream_id: job.stream_id, code, message };
            let _ = job.session.send(AgentMessage { message: Some(Message::StreamRefused(refused)) }).await;
        }
    }
}

fn open(job: &Job) -> Result<(RunView, LogReader), Refusal> {
    let request = &job.request;
    let bad = |message: String| Refusal { code: 400, message };
    let runs = job.pods.runs(request).ok_or_else(|| Refusal {
        code: 404,
        message: format!("pod \"{}\" is not on node \"{}\"", request.pod, job.shared.config.node_name),
    })?;
    let wanted = if request.previous { runs.len().checked_sub(2) } else { runs.len().checked_sub(1) };
    let run = wanted.and_then(|at| runs.get(at)).cloned().ok_or_else(|| {
        bad(if request.previous {
            format!(
                "previous terminated container \"{}\" in pod \"{}\" not found",
                request.container, request.pod
            )
        } else {
            format!("container \"{}\" in pod \"{}\" is waiting to start", request.container, request.pod)
        })
    })?;
    let folder = job.shared.runtime.log_folder(&run.key).map_err(|error| bad(error.full()))?;
    let selection = selection(request, Timestamp::now()).map_err(bad)?;
    Ok((run, LogReader::new(&folder, selection)))
}

fn selection(request: &LogsRequest, now: Timestamp) -> Result<Selection, String> {
    let count = |name: &str, value: Option<i64>| {
        value
            .map(|value| usize::try_from(value).map_err(|_| format!("{name}: must not be negative")))
            .transpose()
    };
    let since = if request.since_time.is_empty() {
        request.since_seconds.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok())
    } else {
        Some(
            request
                .since_time
                .parse()
                .map_err(|_| format!("sinceTime: \"{}\" is not a time", request.since_time))?,
        )
    };
    Ok(Selection {
        since,
        tail: count("tailLines", request.tail_lines)?,
        timestamps: request.timestamps,
        limit_bytes: count("limitBytes", request.limit_bytes)?,
    })
}

async fn stream(job: Job, run: RunView, reader: LogReader) {
    let (frames, receiver) = mpsc::channel(FRAMES_MAX);
    let first = StreamFrame { stream_id: job.stream_id.clone(), ..StreamFrame::default() };
    if frames.send(first).await.is_err() {
        return;
    }
    let Ok(mut answers) = job.link.stream(receiver).await else { return };
    // The server ends its side when the reader of the log hangs up.
    let hung_up = async { while let Some(Ok(_)) = answers.next().await {} };
    tokio::select! {
        () = hung_up => {}
        () = send_all(&job, &run, reader, frames) => {}
    }
}

async fn send_all(job: &Job, run: &RunView, reader: LogReader, frames: mpsc::Sender<StreamFrame>) {
    let outcome = follow(job, run, reader, &frames).await;
    if let Err(error) = outcome {
        let _ = frames.send(StreamFrame { error: error.to_string(), ..StreamFrame::default() }).await;
    }
    // Nobody may drop the stream before the last frame is delivered; the server then ends its side.
    drop(frames);
    tokio::time::sleep(DELIVERY_LIMIT).await;
}

async fn follow(
    job: &Job,
    run: &RunView,
    reader: LogReader,
    frames: &mpsc::Sender<StreamFrame>,
) -> std::io::Result<()> {
    // Asked before reading: what was written before the end is then read for certain.
    let mut over = is_over(job, run);
    let (mut reader, mut bytes) = read(reader, true).await?;
    loop {
        if bytes.is_empty() {
            if over || !job.request.follow {
                break;
            }
            tokio::time::sleep(FOLLOW_POLL).await;
        } else if !send(frames, &bytes).await {
            break;
        }
        if reader.is_full() {
            break;
        }
        over = is_over(job, run);
        (reader, bytes) = read(reader, false).await?;
    }
    Ok(())
}

fn is_over(job: &Job, run: &RunView) -> bool {
    let runs = job.pods.runs(&job.request).unwrap_or_default();
    runs.iter().find(|known| known.key == run.key).is_none_or(|known| known.over)
}

async fn read(mut reader: LogReader, from_start: bool) -> std::io::Result<(LogReader, Vec<u8>)> {
    tokio::task::spawn_blocking(move || {
        let bytes = if from_start { reader.start() } else { reader.more() }?;
        Ok((reader, bytes))
    })
    .await
    .map_err(std::io::Error::other)?
}

/// `false` once nobody listens.
async fn send(frames: &mpsc::Sender<StreamFrame>, bytes: &[u8]) -> bool {
    for chunk in bytes.chunks(FRAME_BYTES) {
        let frame = StreamFrame { data: chunk.to_vec().into(), ..StreamFrame::default() };
        if frames.send(frame).await.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_that_makes_no_sense_is_refused_by_name() {
        let request = LogsRequest { tail_lines: Some(-1), ..LogsRequest::default() };
        assert!(selection(&request, Timestamp::UNIX_EPOCH).unwrap_err().contains("tailLines"));
        let request = LogsRequest { since_time: "yesterday".to_owned(), ..LogsRequest::default() };
        assert!(selection(&request, Timestamp::UNIX_EPOCH).unwrap_err().contains("yesterday"));
    }

    #[test]
    fn since_seconds_count_back_from_now() {
        let now = Timestamp::from_second(1_000).unwrap();
        let request = LogsRequest { since_seconds: Some(10), ..LogsRequest::default() };
        assert_eq!(selection(&request, now).unwrap().since, Some(Timestamp::from_second(990).unwrap()));
    }
}
