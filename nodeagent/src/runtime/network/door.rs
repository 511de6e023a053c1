//! Ways between two networks that this process has a foot in: from pods to the API server, where whoever connects to the bridge is
//! connected to where this node's agent dials; and, for an ordinary user, from the machine to pods.
//!
//! Bytes pass as they are; pods and server see each other's certificates. So a pod reaches the server from wherever its node
//! does, behind any router.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{home::Home, seats::Seats};
use crate::{Error, sockets::Sockets};

/// Connections at once, of all who call and of one. Who comes when all are taken waits; who has its share is turned away.
const CONNECTIONS_MAX: usize = 1_024;
const CONNECTIONS_EACH: usize = 128;

/// How long the server may take to answer a call.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// After the machine could not take a connection: it is out of files, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on the bridge of a home, at any port, or where an earlier agent did.
pub(super) fn open(home: &Home, kept: &Sockets, gateway: Ipv4Addr) -> Result<(TcpListener, u16), Error> {
    let failed = move || Error::io("listening for calls to the API server on", gateway.to_string());
    let listener = kept.get(&format!("door {gateway}"), || {
        home.run(move || Ok(std::net::TcpListener::bind((gateway, 0)).map_err(failed())?.into()))
    })?;
    let listener = watched(listener).map_err(failed())?;
    let port = listener.local_addr().map_err(failed())?.port();
    Ok((listener, port))
}

/// As the runtime takes it.
pub(super) fn watched(listener: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Where it leads.
#[derive(Debug)]
pub(super) enum Way {
    /// To the API server, `host:port`, by the machine's network.
    ToServer(String),
    /// To who is on a bridge.
    Inside(Home, SocketAddr),
}

impl Way {
    async fn connect(&self) -> io::Result<TcpStream> {
        match self {
            Self::ToServer(server) => TcpStream::connect(server).await,
            Self::Inside(home, address) => home.connect(*address).await,
        }
    }
}

/// Serves until dropped; the connections go with it.
pub(super) async fn serve(listener: TcpListener, way: Way) {
    let seats = Seats::new(CONNECTIONS_MAX, CONNECTIONS_EACH);
    let way = Arc::new(way);
    let mut open = JoinSet::new();
    while let Some(seat) = seats.free().await {
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, from)) => {
                let Some(seat) = seats.give(seat, from.ip()) else { continue };
                let way = Arc::clone(&way);
                open.spawn(async move {
                    connect(client, &way).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, ?way, "a connection was not taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who cannot be connected sees the connection closed, as if the other end had done it.
async fn connect(mut client: TcpStream, way: &Way) {
    match timeout(CONNECT_LIMIT, way.connect()).await {
        Ok(Ok(mut upstream)) => {
            let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
            let _ = copy_bidirectional(&mut client, &mut upstream).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, ?way, "who called could not be connected"),
        Err(_) => tracing::debug!(?way, "nobody answered a call"),
    }
}
