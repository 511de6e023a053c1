//! The simulated network as our clients and our server use it. Connections carry no TLS: who a peer is follows from the
//! host it comes from, as if that host had shown its certificate.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use claw_client::{Client, Duplex, Endpoint, GrpcNodeLink, GrpcTransport, HttpTransport, Network, Transport};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use super::trace::{Trace, What, hash_of};

/// The server's host.
pub const SERVER: &str = "server";
/// Its port for HTTP/1.1.
pub const HTTP1_PORT: u16 = 80;
/// Its port for HTTP/2.
pub const HTTP2_PORT: u16 = 81;

/// As long as our clients wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long a client waits for an answer: short, since simulated time is not free.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

#[derive(Debug)]
struct Simulated {
    http2: bool,
}

impl Network for Simulated {
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let to = (host.to_owned(), port);
        async move {
            let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(to)).await;
            let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        }
        .boxed()
    }

    fn is_http2(&self) -> bool {
        self.http2
    }
}

fn endpoint(http2: bool) -> Endpoint {
    let port = if http2 { HTTP2_PORT } else { HTTP1_PORT };
    Endpoint::new(format!("http://{SERVER}:{port}"))
        .network(Arc::new(Simulated { http2 }))
        .trust(claw_client::Trust::Anything)
        .request_timeout(ANSWER_LIMIT)
}

/// The wires of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// REST over HTTP/1.1.
    Http1,
    /// REST over HTTP/2.
    Http2,
    Grpc,
}

/// A client for the host that asks for it.
pub fn client(wire: Wire, name: &str) -> Client {
    let transport: Arc<dyn Transport> = match wire {
        Wire::Http1 => Arc::new(HttpTransport::new(&endpoint(false)).expect("the endpoint is sound")),
        Wire::Http2 => Arc::new(HttpTransport::new(&endpoint(true)).expect("the endpoint is sound")),
        Wire::Grpc => Arc::new(GrpcTransport::new(&endpoint(true)).expect("the endpoint is sound")),
    };
    Client::new(transport, name)
}

/// The link of a node for the host that asks for it.
pub fn node_link() -> Arc<GrpcNodeLink> {
    Arc::new(GrpcNodeLink::new(&endpoint(true)).expect("the endpoint is sound"))
}

/// A connection whose every byte is traced.
pub struct Tapped {
    pub stream: TcpStream,
    pub peer: String,
    pub trace: Arc<Trace>,
}

impl Tapped {
    fn passed(&self, sent: bool, bytes: &[u8]) {
        let (peer, length, hash) = (self.peer.clone(), bytes.len(), hash_of(bytes));
        self.trace.add(What::Bytes { peer, sent, length, hash });
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            self.passed(false, &buffer.filled()[before..]);
        }
        read
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(length)) = written {
            self.passed(true, &bytes[..length]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
