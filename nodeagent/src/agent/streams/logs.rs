//! The log of a container, as a stream.

use std::time::Duration;

use claw_schemas::proto::{LogsRequest, StreamFrame};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::{FRAME_BYTES, Job, Refusal, broken, deliver, hung_up};
use crate::{
    agent::worker::RunView,
    logs::{LogReader, Selection},
};

/// How often a followed log is looked at.
const FOLLOW_POLL: Duration = Duration::from_millis(100);

pub(super) async fn serve(job: &Job, request: &LogsRequest) -> Result<(), Refusal> {
    let (run, reader) = find(job, request)?;
    let Some((frames, answers)) = job.open().await else { return Ok(()) };
    tokio::select! {
        () = hung_up(answers) => {}
        () = async {
            let ended = follow(job, request, &run, reader, &frames).await;
            deliver(frames, ended.err().map(|error| broken(error.to_string()))).await;
        } => {}
    }
    Ok(())
}

fn find(job: &Job, request: &LogsRequest) -> Result<(RunView, LogReader), Refusal> {
    let LogsRequest { pod, uid, container, .. } = request;
    let runs = job.runs(pod, uid, container)?;
    let wanted = if request.previous { runs.len().checked_sub(2) } else { runs.len().checked_sub(1) };
    let run = wanted.and_then(|at| runs.get(at)).cloned().ok_or_else(|| {
        Refusal::bad(if request.previous {
            format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
        } else {
            format!("container \"{container}\" in pod \"{pod}\" is waiting to start")
        })
    })?;
    let folder = job.shared.runtime.log_folder(&run.key).map_err(|error| Refusal::bad(error.full()))?;
    let selection = selection(request, Timestamp::now()).map_err(Refusal::bad)?;
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

async fn follow(
    job: &Job,
    request: &LogsRequest,
    run: &RunView,
    reader: LogReader,
    frames: &mpsc::Sender<StreamFrame>,
) -> std::io::Result<()> {
    // Asked before reading: what was written before the end is then read for certain.
    let mut over = is_over(job, request, run);
    let (mut reader, mut bytes) = read(reader, true).await?;
    loop {
        if bytes.is_empty() {
            if over || !request.follow {
                break;
            }
            tokio::time::sleep(FOLLOW_POLL).await;
        } else if !send(frames, &bytes).await {
            break;
        }
        if reader.is_full() {
            break;
        }
        over = is_over(job, request, run);
        (reader, bytes) = read(reader, false).await?;
    }
    Ok(())
}

fn is_over(job: &Job, request: &LogsRequest, run: &RunView) -> bool {
    let runs = job.pods.runs(&request.uid, &request.container).unwrap_or_default();
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
