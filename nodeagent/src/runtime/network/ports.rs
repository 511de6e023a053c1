//! Ports of the machine that lead to pods, where the kernel's rules are not the machine's: this process listens, and passes on what
//! comes. TCP alone. Who calls while it restarts waits for the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use tokio_util::task::AbortOnDropHandle;

use super::{
    door::{self, Way},
    home::Home,
    rules::HostPort,
};
use crate::{
    Error,
    services::{Protocol, Services},
    sockets::Sockets,
};

/// Address and port of the machine.
type Port = (Ipv4Addr, u16);

/// What is open.
pub(super) struct Ports {
    home: Home,
    kept: Arc<Sockets>,
    open: BTreeMap<Port, (SocketAddr, AbortOnDropHandle<()>)>,
    /// Those that could not be had, which was said.
    refused: BTreeSet<Port>,
}

impl Ports {
    pub(super) fn new(home: Home, kept: Arc<Sockets>) -> Self {
        Self { home, kept, open: BTreeMap::new(), refused: BTreeSet::new() }
    }

    /// Opens what is wanted and closes what is not any more. Whether all of it is open.
    pub(super) fn set(&mut self, wanted: &BTreeMap<Port, SocketAddr>) -> bool {
        for port in self.open.keys().filter(|port| !wanted.contains_key(port)) {
            self.kept.close(&name(port));
        }
        self.open.retain(|port, (leads_to, _)| wanted.get(port) == Some(leads_to));
        self.refused.retain(|port| wanted.contains_key(port));
        for (port, leads_to) in wanted {
            if self.open.contains_key(port) {
                continue;
            }
            match self.listen(port) {
                Ok(listener) => {
                    let way = Way::Inside(self.home.clone(), *leads_to);
                    let serving = AbortOnDropHandle::new(tokio::spawn(door::serve(listener, way)));
                    self.open.insert(*port, (*leads_to, serving));
                    self.refused.remove(port);
                }
                Err(error) => {
                    if self.refused.insert(*port) {
                        let (address, port) = port;
                        tracing::warn!(error = %error.full(), %address, port, "a port of this machine does not lead to its pod");
                    }
                }
            }
        }
        self.refused.is_empty()
    }

    fn listen(&self, port: &Port) -> Result<tokio::net::TcpListener, Error> {
        let failed = || Error::io("listening on", format!("{}:{}", port.0, port.1));
        let listener =
            self.kept.get(&name(port), || TcpListener::bind(port).map(Into::into).map_err(failed()))?;
        door::watched(listener).map_err(failed())
    }
}

/// Under which it is kept.
fn name((address, port): &Port) -> String {
    format!("port {address}:{port}")
}

/// Which ports there should be: of pods, and of services on every node.
pub(super) fn wanted(host_ports: &[HostPort], services: &Services) -> BTreeMap<Port, SocketAddr> {
    let of_pods = host_ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| {
        let address = port.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        ((address, port.port), SocketAddr::from(port.to))
    });
    let routes = services.routes.iter().filter(|route| route.protocol == Protocol::Tcp);
    let of_services = routes.filter_map(|route| {
        // What comes from outside alone has no address of its own; its service has.
        let mut of_same =
            services.routes.iter().filter(|other| other.service == route.service && other.port == route.port);
        let address = route.address.or_else(|| of_same.find_map(|other| other.address))?;
        Some(((Ipv4Addr::UNSPECIFIED, route.node_port?), SocketAddr::from((address, route.port))))
    });
    // A pod's own port goes before a service's, as in rules.
    of_services.chain(of_pods).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_open_for_as_long_as_it_is_wanted() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let kept = Arc::new(Sockets::new(folder.path(), "a network".to_owned()));
        let mut ports = Ports::new(Home::open(folder.path()).unwrap(), kept);
        let at = |port| ((Ipv4Addr::LOCALHOST, port), taken.local_addr().unwrap());
        let is_open = async || tokio::net::TcpStream::connect(("127.0.0.1", free)).await.is_ok();
        assert!(ports.set(&[at(free)].into()) && is_open().await);
        assert!(!ports.set(&[at(free), at(taken_port)].into()), "somebody else has that");
        assert!(is_open().await);
        assert!(ports.set(&BTreeMap::new()));
        // What was told to end does so when it is polled next.
        while is_open().await {
            tokio::task::yield_now().await;
        }
    }
}
