//! Connections into pods, as a client: a WebSocket whose messages begin with the number of a channel.
//!
//! Must never know: which channel is what.

use bytes::{BufMut as _, Bytes, BytesMut};
use claw_schemas::ApiError;
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderValue, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::Role,
    },
};

use crate::{HttpTransport, ResourceRef, rest};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What the server says.
pub struct Hearing(SplitStream<Socket>);

/// What is said to it.
pub struct Speaking(SplitSink<Socket, Message>);

impl HttpTransport {
    /// Opens a connection by one of the protocols of channels: `v5.channel.k8s.io`. When this returns, the server has taken
    /// the request.
    ///
    /// # Errors
    /// What the server refused, or that it could not be reached.
    pub async fn channels(
        &self,
        resource: &ResourceRef,
        query: &[(String, String)],
        protocol: &'static str,
    ) -> Result<(Speaking, Hearing), ApiError> {
        let key = generate_key();
        let mut headers = HeaderMap::from_iter([
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol)),
        ]);
        headers.insert(
            header::SEC_WEBSOCKET_KEY,
            HeaderValue::from_str(&key).map_err(|error| ApiError::internal(error.to_string()))?,
        );
        let (answer, connection) = self.upgrade(rest::stream(resource, query), headers).await?;
        let says = |name: header::HeaderName, text: &str| answer.get(name).is_some_and(|value| value == text);
        if !says(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
            || !says(header::SEC_WEBSOCKET_PROTOCOL, protocol)
        {
            let server = self.server();
            return Err(ApiError::internal(format!("{server} answers in another protocol than {protocol}")));
        }
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Client, None).await;
        let (sink, stream) = socket.split();
        Ok((Speaking(sink), Hearing(stream)))
    }
}

impl Hearing {
    /// What comes next, with its channel; `None` after the end.
    pub async fn next(&mut self) -> Option<Result<(u8, Bytes), ApiError>> {
        loop {
            let mut data = match self.0.next().await? {
                Ok(Message::Binary(data)) => data,
                Ok(Message::Text(text)) => Bytes::from(text),
                Ok(Message::Close(_)) => return None,
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Err(error) => return Some(Err(broken(&error))),
            };
            if !data.is_empty() {
                let channel = data.split_to(1)[0];
                return Some(Ok((channel, data)));
            }
        }
    }
}

impl Speaking {
    /// Says something on a channel.
    ///
    /// # Errors
    /// That the server is not there any more.
    pub async fn say(&mut self, channel: u8, data: &[u8]) -> Result<(), ApiError> {
        let mut message = BytesMut::with_capacity(1 + data.len());
        message.put_u8(channel);
        message.put_slice(data);
        self.0.send(Message::Binary(message.freeze())).await.map_err(|error| broken(&error))
    }
}

fn broken(error: &tokio_tungstenite::tungstenite::Error) -> ApiError {
    ApiError::new(claw_schemas::status::Reason::ServiceUnavailable, format!("the connection broke: {error}"))
}
