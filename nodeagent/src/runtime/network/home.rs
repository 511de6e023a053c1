//! The network namespace that bridges are in: the machine's; or one of the agent's own, where an ordinary user may make some.
//!
//! Sockets belong to the namespace of the thread that made them, and stay there whoever uses them. So all else in this process has the
//! machine's network, and what is to be among pods is made by a thread in here.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::{TcpSocket, TcpStream};

use super::namespace;
use crate::{Error, rootless};

/// What pins the agent's own.
const PIN: &str = "network.ns";

/// The network that this process was started in.
const OF_THE_MACHINE: &str = "/proc/self/ns/net";

/// Where bridges are.
#[derive(Clone, Debug)]
pub(in crate::runtime) struct Home(Option<Arc<Own>>);

#[derive(Debug)]
struct Own {
    pin: PathBuf,
    namespace: File,
}

impl Home {
    /// Where the agent whose state is in this folder has its bridge.
    pub(super) fn open(root_dir: &Path) -> Result<Self, Error> {
        if !rootless::is_inside() {
            return Ok(Self(None));
        }
        let pin = root_dir.join(PIN);
        if !namespace::is_pinned(&pin) {
            namespace::create_network(&pin)?;
        }
        let namespace = File::open(&pin).map_err(Error::io("opening", &pin))?;
        Ok(Self(Some(Arc::new(Own { pin, namespace }))))
    }

    /// What pins it, if it is the agent's own.
    pub(super) fn own(&self) -> Option<&Path> {
        self.0.as_ref().map(|own| own.pin.as_path())
    }

    /// What no other network on this machine is called for as long as somebody has a socket in this one: the kernel's number of it.
    pub(super) fn name(&self) -> Result<String, Error> {
        let found = match &self.0 {
            Some(own) => own.namespace.metadata(),
            None => fs::metadata(OF_THE_MACHINE),
        };
        found.map(|found| found.ino().to_string()).map_err(Error::io("looking at", OF_THE_MACHINE))
    }

    /// Does something there.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match &self.0 {
            Some(own) => namespace::run_inside(&own.namespace, work),
            None => work(),
        }
    }

    /// Connects to who is there.
    pub(in crate::runtime) async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let make = move || match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let made = self.run(move || make().map_err(Error::io("making", "a socket")));
        made.map_err(std::io::Error::other)?.connect(address).await
    }
}
