//! Ports of a pod, for clients of `port-forward`: each connection is a stream of its own to the node.
//!
//! By SPDY a client opens a pair of streams for each connection, as they come. By channels of a WebSocket it names ports
//! beforehand, and each is one connection.

use std::{collections::HashMap, sync::Arc, time::Duration};

use claw_schemas::{
    ApiError,
    proto::{ForwardRequest, StreamFrame, open_stream},
};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::spdy::{Cancelled, Connection, Incoming, Stream, Writer};
use crate::nodes::{NodeStream, NodeStreams};

/// How long half of a pair may wait for the other. Kubernetes' figure.
const PAIR_LIMIT: Duration = Duration::from_secs(30);

/// A pod whose ports are reached.
#[derive(Clone)]
pub struct Ports {
    pub streams: Arc<dyn NodeStreams>,
    pub node: String,
    /// Without a port.
    pub request: ForwardRequest,
}

impl Ports {
    /// Connects to a port.
    pub async fn dial(&self, port: u16) -> Result<NodeStream, ApiError> {
        let request = ForwardRequest { port: port.into(), ..self.request.clone() };
        self.streams.open(&self.node, open_stream::Request::Forward(request)).await
    }

    /// What a client reads about a connection that failed.
    pub fn failure(&self, port: u16, error: &ApiError) -> String {
        let ForwardRequest { pod, uid, .. } = &self.request;
        format!("error forwarding port {port} to pod {pod}, uid {uid}: {}", error.message)
    }
}

/// One half of a pair whose other half has yet to come.
struct Half {
    stream: Stream,
    is_error: bool,
    until: Instant,
}

/// Serves the connections of a client until it is gone.
pub async fn serve(mut connection: Connection, ports: Ports) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut under_way: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    loop {
        let oldest = halves.values().map(|half| half.until).min();
        tokio::select! {
            stream = connection.accept() => match stream {
                Some(stream) => {
                    if let Some((data, error)) = pair(&mut halves, stream) {
                        under_way.push(carry(&ports, data, error).boxed());
                    }
                }
                None => return,
            },
            Some(()) = under_way.next() => {}
            () = sleep_until(oldest.unwrap_or_else(Instant::now)), if oldest.is_some() => {
                let now = Instant::now();
                halves.retain(|_, half| half.until > now);
            }
        }
    }
}

/// The pair that a stream completes: data, then error.
fn pair(halves: &mut HashMap<String, Half>, stream: Stream) -> Option<(Stream, Stream)> {
    let is_error = match stream.header("streamtype") {
        Some("error") => true,
        Some("data") => false,
        _ => return None,
    };
    // A client that sends no numbers makes one connection at a time.
    let id = stream.header("requestid").unwrap_or_default().to_owned();
    match halves.remove(&id) {
        Some(other) if other.is_error && !is_error => Some((stream, other.stream)),
        Some(other) if !other.is_error && is_error => Some((other.stream, stream)),
        _ => {
            halves.insert(id, Half { stream, is_error, until: Instant::now() + PAIR_LIMIT });
            None
        }
    }
}

/// One connection, from its first byte to its last.
async fn carry(ports: &Ports, data: Stream, error: Stream) {
    let port = data.header("port").and_then(|port| port.parse().ok()).unwrap_or(0);
    let (from_client, mut to_client) = data.split();
    let (_heard, mut error) = error.split();
    let failed = match ports.dial(port).await {
        Ok(node) => exchange(node, from_client, &to_client).await.err(),
        Err(failed) => Some(failed),
    };
    if let Some(failed) = failed {
        let _ = error.write(ports.failure(port, &failed).into()).await;
    }
    let _ = to_client.finish().await;
    let _ = error.finish().await;
}

/// Until the port has said everything. What the client says after that reaches nobody: clients hang up then.
async fn exchange(node: NodeStream, mut from_client: Incoming, to_client: &Writer) -> Result<(), ApiError> {
    let NodeStream { mut frames, to_node } = node;
    let upwards = async {
        while let Some(data) = from_client.recv().await {
            let Ok(data) = data else { return Cancelled };
            if to_node.send(Ok(StreamFrame { data, ..StreamFrame::default() })).await.is_err() {
                break;
            }
        }
        let _ = to_node.send(Ok(StreamFrame { end: true, ..StreamFrame::default() })).await;
        std::future::pending().await
    };
    let downwards = async {
        while let Some(frame) = frames.recv().await {
            let StreamFrame { data, end, .. } = frame?;
            if to_client.write(data).await.is_err() || end {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        Cancelled = upwards => Ok(()),
        ended = downwards => ended,
    }
}
