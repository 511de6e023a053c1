//! One connection to a port inside the network of a pod.

use claw_client::node::StreamFrames;
use claw_schemas::proto::{ForwardRequest, StreamFrame};
use futures::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::mpsc,
};

use super::{FRAME_BYTES, Job, Refusal, broken, deliver};

pub(super) async fn serve(job: &Job, request: &ForwardRequest) -> Result<(), Refusal> {
    let ForwardRequest { pod, uid, .. } = request;
    let uid = &job.pods.local(uid);
    if !job.pods.has(uid) {
        return Err(job.no_such_pod(pod));
    }
    let port = u16::try_from(request.port)
        .map_err(|_| Refusal::bad(format!("{} is no number of a port", request.port)))?;
    let dialled = job.shared.runtime.dial(uid, port).await;
    let connection = dialled.map_err(|error| Refusal { code: 500, message: error.full() })?;
    let (reader, writer) = connection.into_split();
    let Some((frames, answers)) = job.open().await else { return Ok(()) };
    tokio::select! {
        () = write(answers, writer) => {}
        () = async {
            let last = read(reader, &frames).await;
            deliver(frames, Some(last)).await;
        } => {}
    }
    Ok(())
}

/// Passes on what the port says; how it ended.
async fn read(mut reader: OwnedReadHalf, frames: &mpsc::Sender<StreamFrame>) -> StreamFrame {
    let mut buffer = vec![0; FRAME_BYTES];
    loop {
        let read = tokio::select! {
            read = reader.read(&mut buffer) => read,
            // A port that neither speaks nor reads would keep who has hung up for ever.
            () = frames.closed() => return StreamFrame::default(),
        };
        let data = match read {
            Ok(0) => return StreamFrame { end: true, ..StreamFrame::default() },
            Ok(length) => bytes::Bytes::copy_from_slice(&buffer[..length]),
            Err(error) => return broken(format!("reading from the port: {error}")),
        };
        if frames.send(StreamFrame { data, ..StreamFrame::default() }).await.is_err() {
            return StreamFrame::default();
        }
    }
}

/// Passes on what is said to the port, until the server ends its side.
async fn write(mut answers: StreamFrames, mut writer: OwnedWriteHalf) {
    while let Some(Ok(frame)) = answers.next().await {
        // A port that does not listen any more may still say something.
        let _ = writer.write_all(&frame.data).await;
        if frame.end {
            let _ = writer.shutdown().await;
        }
    }
}
