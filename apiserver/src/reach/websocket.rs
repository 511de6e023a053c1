//! Clients that speak WebSocket: messages whose first byte names a channel, or a tunnel of bytes.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{
    SinkExt as _, StreamExt as _, future,
    stream::{SplitSink, SplitStream},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::session::{Ear, Mouth, Said, Told, size};

/// A message from a client. Most send 32 KiB at a time, some a whole file.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Buffers of a connection, each way.
const BUFFER_BYTES: usize = 32 * 1024;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Ends the channel that the second byte names; of version 5.
pub const CLOSE: u8 = 255;

/// A connection that was upgraded.
pub type Socket<S> = WebSocketStream<S>;

/// Speaks WebSocket on an upgraded connection.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(connection: S) -> Socket<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// What a client of `exec` and `attach` says.
pub struct Hearing<S>(pub SplitStream<Socket<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Ear for Hearing<S> {
    async fn next(&mut self) -> Option<Said> {
        loop {
            let data = match self.0.next().await? {
                Ok(Message::Binary(data)) => data,
                Ok(Message::Text(text)) => Bytes::from(text),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Ok(Message::Close(_)) | Err(_) => return None,
            };
            match (data.first(), data.get(1..).unwrap_or_default()) {
                (Some(&STDIN), said) if !said.is_empty() => return Some(Said::Stdin(data.slice(1..))),
                (Some(&RESIZE), said) => match size(said) {
                    Some(said) => return Some(said),
                    None => continue,
                },
                (Some(&CLOSE), [STDIN]) => return Some(Said::StdinEnd),
                _ => {}
            }
        }
    }
}

/// Where such a client listens.
pub struct Speaking<S>(pub SplitSink<Socket<S>, Message>);

impl<S: AsyncRead + AsyncWrite + Unpin> Speaking<S> {
    async fn say(&mut self, channel: u8, data: &[u8]) -> io::Result<()> {
        self.0.send(message(channel, data)).await.map_err(io::Error::other)
    }
}

/// The end of a connection that went well: clients take one without a code for a failure.
pub fn farewell() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

/// On a channel.
pub fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(1 + data.len());
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Mouth for Speaking<S> {
    async fn tell(&mut self, told: Told) -> io::Result<()> {
        match told {
            Told::Stdout(data) => self.say(STDOUT, &data).await,
            Told::Stderr(data) => self.say(STDERR, &data).await,
            Told::Ended(status) => self.say(ERROR, status.to_string().as_bytes()).await,
        }
    }

    async fn keep_alive(&mut self) -> io::Result<()> {
        self.0.send(Message::Ping(Bytes::new())).await.map_err(io::Error::other)
    }

    async fn close(mut self) {
        let _ = self.0.send(farewell()).await;
    }
}

/// The two directions of a tunnel.
pub fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
    socket: Socket<S>,
) -> (impl AsyncRead + Unpin, impl AsyncWrite + Unpin) {
    let (sink, stream) = socket.split();
    let bytes = stream.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(data)) => Some(Ok(data)),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let messages = sink
        .with(|data: Bytes| future::ready(Ok::<_, Error>(Message::Binary(data))))
        .sink_map_err(io::Error::other);
    (StreamReader::new(bytes), SinkWriter::new(CopyToBytes::new(messages)))
}
