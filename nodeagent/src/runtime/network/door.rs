//! The way from pods to the API server: whoever connects to the bridge is connected to where this node's agent dials.
//!
//! Bytes pass as they are; pods and server see each other's certificates. So a pod reaches the server from wherever its node
//! does, behind any router.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::seats::Seats;

/// Connections at once, of all pods and of one. Who comes when all are taken waits; who has its share is turned away.
const CONNECTIONS_MAX: usize = 1_024;
const CONNECTIONS_EACH: usize = 128;

/// How long the server may take to answer a call.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// After the machine could not take a connection: it is out of files, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on the bridge, at any port.
pub(super) async fn open(gateway: Ipv4Addr) -> std::io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((gateway, 0)).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Serves until dropped; the connections go with it.
pub(super) async fn serve(listener: TcpListener, server: String) {
    let seats = Seats::new(CONNECTIONS_MAX, CONNECTIONS_EACH);
    let server = Arc::<str>::from(server);
    let mut open = JoinSet::new();
    while let Some(seat) = seats.free().await {
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, from)) => {
                let Some(seat) = seats.give(seat, from.ip()) else { continue };
                let server = Arc::clone(&server);
                open.spawn(async move {
                    connect(client, &server).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a pod's connection to the API server was not taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A pod that cannot be connected sees its connection closed, as if the server had done it.
async fn connect(mut client: TcpStream, server: &str) {
    match timeout(CONNECT_LIMIT, TcpStream::connect(server)).await {
        Ok(Ok(mut upstream)) => {
            let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
            let _ = copy_bidirectional(&mut client, &mut upstream).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, server, "a pod could not be connected to the API server"),
        Err(_) => tracing::debug!(server, "the API server did not answer a pod's call"),
    }
}
