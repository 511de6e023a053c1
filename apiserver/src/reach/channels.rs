//! Ports of a pod over the channels of a WebSocket: two for each port that the client names, one for data and one for
//! what went wrong. Each port is one connection, made at once. A client may end its side of one, as it ends the input of a
//! process; in Kubernetes it cannot.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use claw_schemas::{ApiError, proto::StreamFrame};
use futures::{
    FutureExt as _, SinkExt as _, StreamExt as _,
    future::{join_all, try_join},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::{
    forward::Ports,
    presence::{Checks, Doubt},
    websocket::{CLOSE, Socket, farewell, message},
};
use crate::nodes::NodeStream;

/// Messages that wait, each way.
const MESSAGES_MAX: usize = 4;

/// How long a port may take nothing of what waits for it. All others wait as long: what comes from the client comes in one row.
const STUCK_LIMIT: Duration = Duration::from_secs(10);

/// Where what a client says to a port goes.
struct Input {
    /// `None` once nothing more comes.
    to: Option<mpsc::Sender<Bytes>>,
    /// Cancelled when the port takes nothing.
    stuck: CancellationToken,
}

impl Input {
    async fn pass_on(&mut self, data: Bytes) {
        let Some(to) = &self.to else { return };
        // One that is over takes nothing more.
        if timeout(STUCK_LIMIT, to.send(data)).await.is_err() {
            self.stuck.cancel();
            self.to = None;
        }
    }
}

/// Serves a client until it is gone, or all its connections are over.
pub async fn serve<S>(socket: Socket<S>, ports: Ports, numbers: Vec<u16>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sink, mut stream) = socket.split();
    let (out, mut outgoing) = mpsc::channel(MESSAGES_MAX);
    let channels = numbers.iter().map(|_| mpsc::channel(MESSAGES_MAX));
    let (mut inputs, outputs): (Vec<_>, Vec<_>) = channels
        .map(|(to, output)| {
            let stuck = CancellationToken::new();
            (Input { to: Some(to), stuck: stuck.clone() }, (output, stuck))
        })
        .unzip();
    let connections = numbers.into_iter().zip(outputs).enumerate().map(|(index, (port, from_client))| {
        let channel = u8::try_from(2 * index).unwrap_or(u8::MAX);
        carry(&ports, port, channel, from_client, out.clone())
    });
    let connections = join_all(connections.collect::<Vec<_>>());
    drop(out);
    let doubt = Doubt::default();
    let hear = async {
        while let Some(Ok(heard)) = stream.next().await {
            let Message::Binary(mut data) = heard else { continue };
            if data.is_empty() {
                continue;
            }
            match data.get_u8() {
                CLOSE if data.len() == 1 && data[0] % 2 == 0 => {
                    if let Some(input) = inputs.get_mut(usize::from(data[0]) / 2) {
                        input.to = None;
                    }
                }
                channel if channel % 2 == 0 && !data.is_empty() => {
                    if let Some(input) = inputs.get_mut(usize::from(channel) / 2) {
                        doubt.during(input.pass_on(data)).await;
                    }
                }
                _ => {}
            }
        }
    };
    let tell = async {
        let mut checks = Checks::new(&doubt);
        loop {
            let told = tokio::select! {
                told = outgoing.recv() => told,
                () = checks.due() => Some(Message::Ping(Bytes::new())),
            };
            let Some(told) = told else { break };
            sink.send(told).await.map_err(drop)?;
        }
        sink.send(farewell()).await.map_err(drop)
    };
    // Whoever hears nothing any more ends the rest.
    tokio::select! {
        () = hear => {}
        _ = try_join(connections.map(Ok), tell) => {}
    }
}

/// One connection. Both its channels begin with the number of the port.
async fn carry(
    ports: &Ports,
    port: u16,
    channel: u8,
    (from_client, stuck): (mpsc::Receiver<Bytes>, CancellationToken),
    out: mpsc::Sender<Message>,
) {
    for channel in [channel, channel + 1] {
        let _ = out.send(message(channel, &port.to_le_bytes())).await;
    }
    let work = async { exchange(ports.dial(port).await?, channel, from_client, &out).await };
    let failed = tokio::select! {
        ended = work => ended.err(),
        () = stuck.cancelled() => Some(ApiError::internal("it takes nothing of what it is sent")),
    };
    if let Some(failed) = failed {
        let _ = out.send(message(channel + 1, ports.failure(port, &failed).as_bytes())).await;
    }
}

async fn exchange(
    node: NodeStream,
    channel: u8,
    mut from_client: mpsc::Receiver<Bytes>,
    out: &mpsc::Sender<Message>,
) -> Result<(), ApiError> {
    let NodeStream { mut frames, to_node } = node;
    let upwards = async {
        while let Some(data) = from_client.recv().await {
            if to_node.send(Ok(StreamFrame { data, ..StreamFrame::default() })).await.is_err() {
                break;
            }
        }
        // One that says nothing more may still hear something.
        let _ = to_node.send(Ok(StreamFrame { end: true, ..StreamFrame::default() })).await;
        std::future::pending::<()>().await;
    };
    let downwards = async {
        while let Some(frame) = frames.recv().await {
            let StreamFrame { data, end, .. } = frame?;
            let is_told = data.is_empty() || out.send(message(channel, &data)).await.is_ok();
            if !is_told || end {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        () = upwards => Ok(()),
        ended = downwards => ended,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use claw_schemas::proto::{ForwardRequest, open_stream::Request};
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

    use super::*;
    use crate::{nodes::NodeStreams, reach::websocket};

    /// One port reads nothing, all others say back what they hear.
    struct Node;

    const DEAF: u32 = 1;

    #[async_trait]
    impl NodeStreams for Node {
        async fn open(&self, _: &str, request: Request) -> Result<NodeStream, ApiError> {
            let Request::Forward(ForwardRequest { port, .. }) = request else { panic!("{request:?}") };
            let ((to_node, mut said), (answers, frames)) = (mpsc::channel(1), mpsc::channel(1));
            tokio::spawn(async move {
                if port == DEAF {
                    answers.closed().await;
                }
                while let Some(frame) = said.recv().await {
                    let _ = answers.send(frame).await;
                }
            });
            Ok(NodeStream { frames, to_node })
        }
    }

    fn client(numbers: Vec<u16>) -> (impl Future<Output = ()>, DuplexStream) {
        let (ours, theirs) = duplex(1 << 20);
        let ports =
            Ports { streams: Arc::new(Node), node: "n".to_owned(), request: ForwardRequest::default() };
        (async { serve(websocket::accept(ours).await, ports, numbers).await }, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_reads_nothing_is_given_up_and_the_others_go_on() {
        let (served, connection) = client(vec![1, 2]);
        let served = tokio::spawn(served);
        let mut client = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
        for _ in 0..2 * MESSAGES_MAX {
            client.send(message(0, b"nobody hears")).await.unwrap();
        }
        client.send(message(2, b"hello")).await.unwrap();
        let (mut told, mut failed) = (Vec::new(), None);
        while told != b"hello" || failed.is_none() {
            match client.next().await.unwrap().unwrap() {
                Message::Binary(data) if data[0] == 2 && data.len() > 3 => told.extend_from_slice(&data[1..]),
                Message::Binary(data) if data[0] == 1 && data.len() > 3 => {
                    failed = Some(String::from_utf8_lossy(&data[1..]).into_owned());
                }
                _ => {}
            }
        }
        assert!(failed.unwrap().contains("takes nothing"));
        drop(client);
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_pinged_and_who_is_gone_is_noticed() {
        let (served, connection) = client(vec![2]);
        let served = tokio::spawn(served);
        let mut client = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
        while !matches!(client.next().await.unwrap().unwrap(), Message::Ping(_)) {}
        drop(client);
        served.await.unwrap();
    }
}
