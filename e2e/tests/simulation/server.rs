//! The API server's host: the real server over the disk that outlives it, behind the simulated network.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use claw_apiserver::{
    Core,
    auth::{Identity, Peer},
    pki::LEAF_LIFE,
};
use turmoil::net::{TcpListener, TcpStream};

use super::{
    net::{HTTP1_PORT, HTTP2_PORT, Tapped},
    world::World,
};

/// A node that is silent for this long is unreachable.
const NODE_GRACE: Duration = Duration::from_secs(8);

/// Hosts whose names begin so show the certificate of a node.
pub const NODE_PREFIX: &str = "node-";

/// Longer than any simulation.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Serves until its host crashes.
pub async fn run(world: Arc<World>) -> turmoil::Result {
    let listen = |port| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    let (http1, http2) = (listen(HTTP1_PORT).await?, listen(HTTP2_PORT).await?);
    let core = Core::start(world.disk.clone(), &world.pki, NODE_GRACE, LEAF_LIFE).await?;
    loop {
        let ((stream, from), is_http2) = tokio::select! {
            biased;
            accepted = http1.accept() => (accepted?, false),
            accepted = http2.accept() => (accepted?, true),
        };
        serve(&core, &world, stream, from, is_http2);
    }
}

fn serve(core: &Core, world: &World, stream: TcpStream, from: SocketAddr, is_http2: bool) {
    let host = turmoil::reverse_lookup(from.ip()).unwrap_or_default();
    let identity = match host.starts_with(NODE_PREFIX) {
        true => Identity::of_node(&host),
        false => Identity::loopback(&host),
    };
    let peer = Peer::proven(identity, SystemTime::now() + CERTIFICATE_LIFE);
    let tapped = Tapped { stream, peer: format!("{host}:{}", from.port()), trace: world.trace.clone() };
    core.serve(tapped, peer, is_http2);
}
