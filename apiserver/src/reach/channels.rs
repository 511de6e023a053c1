//! Ports of a pod over the channels of a WebSocket: two for each port that the client names, one for data and one for
//! what went wrong. Each port is one connection, made at once. A client may end its side of one, as it ends the input of a
//! process; in Kubernetes it cannot.

use bytes::{Buf as _, Bytes};
use claw_schemas::{ApiError, proto::StreamFrame};
use futures::{SinkExt as _, StreamExt as _, future::join_all};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    forward::Ports,
    websocket::{CLOSE, Socket, farewell, message},
};
use crate::nodes::NodeStream;

/// Messages that wait, each way.
const MESSAGES_MAX: usize = 4;

/// Serves a client until it is gone, or all its connections are over.
pub async fn serve<S>(socket: Socket<S>, ports: Ports, numbers: Vec<u16>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sink, mut stream) = socket.split();
    let (out, mut outgoing) = mpsc::channel(MESSAGES_MAX);
    let channels = numbers.iter().map(|_| mpsc::channel(MESSAGES_MAX));
    let (mut inputs, outputs): (Vec<_>, Vec<_>) =
        channels.map(|(input, output)| (Some(input), output)).unzip();
    let connections = numbers.into_iter().zip(outputs).enumerate().map(|(index, (port, from_client))| {
        let channel = u8::try_from(2 * index).unwrap_or(u8::MAX);
        carry(&ports, port, channel, from_client, out.clone())
    });
    let connections = join_all(connections.collect::<Vec<_>>());
    drop(out);
    let hear = async {
        while let Some(Ok(heard)) = stream.next().await {
            let Message::Binary(mut data) = heard else { continue };
            if data.is_empty() {
                continue;
            }
            match data.get_u8() {
                CLOSE if data.len() == 1 && data[0] % 2 == 0 => {
                    if let Some(input) = inputs.get_mut(usize::from(data[0]) / 2) {
                        *input = None;
                    }
                }
                channel if channel % 2 == 0 && !data.is_empty() => {
                    if let Some(Some(input)) = inputs.get(usize::from(channel) / 2) {
                        // One that is over takes nothing more.
                        let _ = input.send(data).await;
                    }
                }
                _ => {}
            }
        }
    };
    let tell = async {
        while let Some(told) = outgoing.recv().await {
            if sink.send(told).await.is_err() {
                return;
            }
        }
        let _ = sink.send(farewell()).await;
    };
    tokio::select! {
        () = hear => {}
        (_, ()) = async { tokio::join!(connections, tell) } => {}
    }
}

/// One connection. Both its channels begin with the number of the port.
async fn carry(
    ports: &Ports,
    port: u16,
    channel: u8,
    from_client: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Message>,
) {
    for channel in [channel, channel + 1] {
        let _ = out.send(message(channel, &port.to_le_bytes())).await;
    }
    let failed = match ports.dial(port).await {
        Ok(node) => exchange(node, channel, from_client, &out).await.err(),
        Err(failed) => Some(failed),
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
