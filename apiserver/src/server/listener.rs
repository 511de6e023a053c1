//! The accept loop and the life of a connection: TLS, then HTTP/1.1 or HTTP/2, through the [`Door`].
//!
//! Whatever a stranger does before a whole request has arrived costs one task with a deadline.
//!
//! Must never know: what requests mean.

use std::{convert::Infallible, future, io, pin::pin, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;

use super::{Stop, again::Again, gate::Gate, tls::ALPN_HTTP2};
use crate::auth::Peer;

/// Open connections. Each costs about 50 KiB (TLS and HTTP buffers), so a flood is held under 1 GiB; 5,000 nodes
/// and 10,000 watchers that do not share connections fit.
const CONNECTIONS_MAX: usize = 16_384;

/// A handshake is two round trips; 10 s lets the slowest link through.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Time for a request's headers, and how long an idle HTTP/1.1 connection is kept. client-go closes idle
/// connections after 90 s: the server waits longer, so that no client writes into a connection being closed.
const HTTP1_HEADERS_LIMIT: Duration = Duration::from_secs(120);

/// Bytes of one request's headers: label selectors travel in the URL, and kubectl's longest are a few KiB.
const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// What an HTTP/1.1 connection buffers at most: one request's headers, and reads of its body.
const HTTP1_BUFFER_BYTES_MAX: usize = 2 * HEADERS_BYTES_MAX;

/// HTTP/2 pings a quiet peer so often, and gives up on it after the second figure: half-open connections of
/// machines that lost power are gone within 30 s, less than a node's grace period.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
const HTTP2_PING_LIMIT: Duration = Duration::from_secs(10);

/// Requests at a time on one HTTP/2 connection. One process of hollow nodes runs 1,000 sessions over one
/// connection and opens log streams beside them.
const HTTP2_STREAMS_MAX: u32 = 4_096;

/// Receive windows: one request body is at most 3 MiB, and most are 1 KiB. A stream may have 256 KiB under way, a
/// connection 1 MiB.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// How long a connection stays open by which nobody has shown who they are. Whoever has a certificate or a token shows it
/// with the first request; a probe without credentials connects again. So a stranger who opens connections to keep them
/// must open them again and again.
const STRANGER_LIMIT: Duration = Duration::from_secs(60);

/// How long a stranger's requests may still take then: probes take milliseconds.
const STRANGER_LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// When the process is out of file descriptors, accepting waits for some to come back.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The first byte of TLS: a record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What somebody reads who speaks plain HTTP to this port.
const NOT_PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis port speaks HTTPS only: use https://\n";

/// What is behind TLS: HTTP on both versions, and the gate.
#[derive(Clone)]
pub struct Door {
    http1: http1::Builder,
    http2: auto::Builder<TokioExecutor>,
    pub(super) gate: Arc<Gate>,
    stop: Stop,
}

/// Why a connection ended badly.
type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Door {
    pub fn new(gate: Arc<Gate>, stop: Stop) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP1_HEADERS_LIMIT)
            .max_buf_size(HTTP1_BUFFER_BYTES_MAX);
        let mut http2 = auto::Builder::new(TokioExecutor::new()).http2_only();
        http2
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_LIMIT)
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_header_list_size(u32::try_from(HEADERS_BYTES_MAX).expect("64 KiB fits 32 bits"));
        Self { http1, http2, gate, stop }
    }

    /// Answers the requests of one connection until either side ends it.
    pub async fn serve<S>(&self, stream: S, peer: Peer, is_http2: bool) -> Ended
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (gate, peer) = (self.gate.clone(), Arc::new(peer));
        let stays_strange = stays_strange(peer.clone());
        let service = service_fn(move |request| {
            let (gate, peer) = (gate.clone(), peer.clone());
            async move { Ok::<_, Infallible>(gate.answer(&peer, request).await) }
        });
        let (stream, drain) = (TokioIo::new(stream), &self.stop.drain);
        if is_http2 {
            let mut connection = pin!(self.http2.serve_connection(stream, service));
            let is_stranger = tokio::select! {
                ended = connection.as_mut() => return ended,
                () = drain.cancelled() => false,
                () = stays_strange => true,
            };
            connection.as_mut().graceful_shutdown();
            if is_stranger {
                return timeout(STRANGER_LEAVE_LIMIT, connection).await?;
            }
            return connection.await;
        }
        // Only here connections into pods begin.
        let mut connection = pin!(self.http1.serve_connection(stream, service).with_upgrades());
        let is_stranger = tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = drain.cancelled() => false,
            () = stays_strange => true,
        };
        connection.as_mut().graceful_shutdown();
        if is_stranger {
            timeout(STRANGER_LEAVE_LIMIT, connection).await??;
        } else {
            connection.await?;
        }
        Ok(())
    }
}

/// Comes to an end if the peer is nobody for too long.
async fn stays_strange(peer: Arc<Peer>) {
    sleep(STRANGER_LIMIT).await;
    if peer.is_known() {
        future::pending().await
    }
}

/// Accepts connections until told to stop. Connections run as tasks of `tasks`.
pub async fn accept(listener: TcpListener, acceptor: TlsAcceptor, door: Door, tasks: TaskTracker) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.stop.drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::select! {
                    () = door.stop.drain.cancelled() => return,
                    () = sleep(ACCEPT_RETRY_DELAY) => continue,
                }
            }
        };
        // A client that is turned away learns so at once, and may try again.
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!("refused a connection: {CONNECTIONS_MAX} are open");
            continue;
        };
        tasks.spawn(Again::new(connection(stream, slot, acceptor.clone(), door.clone())));
    }
}

async fn connection(stream: TcpStream, _slot: OwnedSemaphorePermit, acceptor: TlsAcceptor, door: Door) {
    let ended = tokio::select! {
        () = door.stop.cut.cancelled() => Ok(()),
        ended = serve(stream, &acceptor, &door) => ended,
    };
    // Clients go away all the time; it is worth a line only to somebody who looks for it.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, door: &Door) -> Ended {
    // Small writes matter here: one watch event is one packet.
    stream.set_nodelay(true)?;
    let handshake = tokio::select! {
        () = door.stop.drain.cancelled() => return Ok(()),
        handshake = timeout(HANDSHAKE_LIMIT, shake_hands(stream, acceptor)) => handshake,
    };
    let Some(stream) = handshake.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? else {
        return Ok(());
    };
    let (_, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(ALPN_HTTP2);
    let peer = Peer::from_certificates(session.peer_certificates());
    door.serve(stream, peer, is_http2).await
}

/// The TLS handshake. `None` when the peer does not speak TLS, which it is told in words it may understand.
async fn shake_hands(
    mut stream: TcpStream,
    acceptor: &TlsAcceptor,
) -> io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
        stream.write_all(NOT_PLAIN_HTTP).await?;
        stream.shutdown().await?;
        return Ok(None);
    }
    acceptor.accept(stream).await.map(Some)
}
