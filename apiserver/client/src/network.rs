//! How connections are opened: over the machine's TCP, unless an [`Endpoint`](crate::Endpoint) brings a network of its own.
//!
//! Must never know: TLS, HTTP, what the bytes mean.

use std::{
    fmt, io,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service;

/// Both directions of one connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

impl Connection for Box<dyn Duplex> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// A network other than the machine's: that of a simulation, say.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Opens a connection to a host, which is a name or an address.
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>>;

    /// Whether servers on it speak HTTP/2 without being asked; over TLS they are.
    fn is_http2(&self) -> bool {
        false
    }
}

/// Opens connections for hyper.
#[derive(Clone)]
pub(crate) enum Connector {
    Machine(HttpConnector),
    Brought(Arc<dyn Network>),
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Duplex>>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::Machine(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Self::Brought(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self {
            Self::Machine(tcp) => {
                let connecting = tcp.call(uri);
                async move { Ok(TokioIo::new(Box::new(connecting.await?.into_inner()) as Box<dyn Duplex>)) }
                    .boxed()
            }
            Self::Brought(network) => {
                let https = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
                let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
                let connecting = network.connect(uri.host().unwrap_or_default(), port);
                async move { Ok(TokioIo::new(connecting.await?)) }.boxed()
            }
        }
    }
}
