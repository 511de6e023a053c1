//! Streams that the server asks for and agents open.
//!
//! A request waits under a random id; the agent's `Stream` call that names the id is bridged to it. Between them
//! sits one short queue each way: who is slow slows the other down. The stream ends when either side leaves.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use claw_client::{ByteStream, node::StreamFrames};
use claw_schemas::{
    ApiError,
    proto::{StreamFrame, StreamRefused},
    status::Reason,
};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    hub::Hub,
    session::{HELLO_LIMIT, node_of},
};
use crate::auth::{Identity, random_hex};

/// Random bytes of a stream's id: it is a capability, and 128 bits cannot be guessed.
const ID_BYTES: usize = 16;

/// Requests waiting for an agent to open its stream, each for at most 10 s.
const WAITING_MAX: usize = 1_024;

/// Frames between an agent and a reader, each way. They carry up to 64 KiB: 2 MiB a stream.
const FRAMES_MAX: usize = 16;

/// What an agent sends into a stream.
pub type Frames = Pin<Box<dyn Stream<Item = Result<StreamFrame, ApiError>> + Send>>;

/// How a request learns that its stream is there, or will not be.
type Opened = Result<NodeStream, ApiError>;

/// A stream that an agent has opened, from the side of who asked for it. Dropping it ends it at the agent.
pub struct NodeStream {
    /// What the agent sends. An error is the last; the end without one is the agent's.
    pub frames: mpsc::Receiver<Result<StreamFrame, ApiError>>,
    /// What the agent is sent.
    pub to_node: mpsc::Sender<Result<StreamFrame, ApiError>>,
}

impl NodeStream {
    /// The data alone, of a stream that goes one way.
    pub fn bytes(self) -> ByteStream {
        let frames = ReceiverStream::new(self.frames).map(|frame| frame.map(|frame| frame.data));
        frames.filter(|data| std::future::ready(!matches!(data, Ok(data) if data.is_empty()))).boxed()
    }
}

/// Streams that have been asked for and not opened yet.
#[derive(Default)]
pub struct Streams {
    waiting: Mutex<HashMap<String, Waiting>>,
}

struct Waiting {
    node: String,
    opened: oneshot::Sender<Opened>,
}

/// Keeps a place among the waiting; dropped, it is given up.
pub struct Ticket<'a> {
    streams: &'a Streams,
    id: String,
}

impl Ticket<'_> {
    /// The stream's id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.streams.waiting.lock().remove(&self.id);
    }
}

impl Streams {
    /// Waits for a stream from a node.
    pub fn expect(&self, node: &str) -> Result<(Ticket<'_>, oneshot::Receiver<Opened>), ApiError> {
        let id = random_hex(ID_BYTES).map_err(|error| ApiError::internal(error.to_string()))?;
        let (opened, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            return Err(ApiError::too_many_requests(
                format!("{WAITING_MAX} requests wait for nodes to answer; try again soon"),
                1,
            ));
        }
        waiting.insert(id.clone(), Waiting { node: node.to_owned(), opened });
        drop(waiting);
        Ok((Ticket { streams: self, id }, answer))
    }

    /// A node cannot or will not open a stream.
    pub fn refused(&self, node: &str, refusal: StreamRefused) {
        if let Ok(opened) = self.claim(node, &refusal.stream_id) {
            let code =
                u16::try_from(refusal.code).ok().filter(|code| (400..600).contains(code)).unwrap_or(500);
            let _ = opened.send(Err(ApiError::of_code(code, refusal.message)));
        }
    }

    /// A node's session is over: what waits for it waits in vain.
    pub fn abandon(&self, node: &str) {
        self.waiting.lock().retain(|_, waiting| waiting.node != node);
    }

    /// Takes a place among the waiting. Only the node that was asked may.
    fn claim(&self, node: &str, id: &str) -> Result<oneshot::Sender<Opened>, ApiError> {
        let mut waiting = self.waiting.lock();
        if waiting.get(id).is_none_or(|waiting| waiting.node != node) {
            return Err(ApiError::new(Reason::NotFound, "nobody waits for this stream (any more)"));
        }
        waiting
            .remove(id)
            .map(|waiting| waiting.opened)
            .ok_or_else(|| ApiError::internal("the stream is gone"))
    }
}

/// Bridges a stream that an agent opens to the request that waits for it.
///
/// # Errors
/// `Forbidden` to everyone but nodes.
pub fn accept(hub: &Arc<Hub>, who: &Identity, incoming: Frames) -> Result<StreamFrames, ApiError> {
    let node = node_of(who)?;
    let (back, frames) = mpsc::channel(FRAMES_MAX);
    let hub_of_task = hub.clone();
    hub.tasks.spawn(async move {
        let ended = tokio::select! {
            () = hub_of_task.closing.cancelled() => Ok(()),
            ended = bridge(&hub_of_task.streams, &node, incoming, &back) => ended,
        };
        if let Err(error) = ended {
            let _ = back.try_send(Err(error));
        }
    });
    Ok(Box::pin(ReceiverStream::new(frames)))
}

async fn bridge(
    streams: &Streams,
    node: &str,
    mut incoming: Frames,
    back: &mpsc::Sender<Result<StreamFrame, ApiError>>,
) -> Result<(), ApiError> {
    let first = timeout(HELLO_LIMIT, incoming.next())
        .await
        .map_err(|_| ApiError::new(Reason::Timeout, format!("no first frame within {HELLO_LIMIT:?}")))?;
    let Some(mut frame) = first.transpose()? else { return Ok(()) };
    let opened = streams.claim(node, &frame.stream_id)?;
    let (reader, frames) = mpsc::channel(FRAMES_MAX);
    if opened.send(Ok(NodeStream { frames, to_node: back.clone() })).is_err() {
        return Ok(());
    }
    loop {
        let is_empty = frame == StreamFrame { stream_id: frame.stream_id.clone(), ..StreamFrame::default() };
        let item = if frame.error.is_empty() { Ok(frame) } else { Err(ApiError::internal(frame.error)) };
        let is_last = item.is_err();
        if !is_empty && reader.send(item).await.is_err() || is_last {
            return Ok(());
        }
        let next = tokio::select! {
            () = reader.closed() => return Ok(()),
            next = incoming.next() => next,
        };
        frame = match next {
            None => return Ok(()),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                let broken = format!("the connection to node \"{node}\" broke: {error}");
                let _ = reader.send(Err(ApiError::new(Reason::ServiceUnavailable, broken))).await;
                return Err(error);
            }
        };
    }
}
