//! The server as a whole: one TLS port in front of the object service, the node hub and the store.
//!
//! Owns start and shutdown, and their order. Every part it puts together is built elsewhere.
//!
//! Must never know: controllers, node agents' insides, the command line.

mod again;
mod answer;
mod audit;
mod core;
mod fairness;
mod gate;
mod listener;
mod lock;
#[cfg(test)]
mod stories;
mod tls;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use claw_client::{Transport, node::NodeLink};
use claw_schemas::ApiError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::core::Core;

use crate::{
    auth::Identity,
    error::Error,
    local::LocalTransport,
    pki::{self, LEAF_LIFE, Pki},
    service::{ObjectService, SERVER_ADDRESS},
    store::{self, Store},
};

/// How often the server looks at the age of its certificate. Leaves are renewed with 30 days left.
const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// A node without a heartbeat for so long counts as unreachable: the grace period of Kubernetes.
pub const NODE_GRACE_DEFAULT: Duration = Duration::from_secs(40);

/// Where desired state is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// On disk, in the data folder.
    #[default]
    Sled,
    /// In memory: gone when the server stops. For tests.
    Memory,
}

/// What a server needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Holds certificates, tokens, the administrator's kubeconfig and the store.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where desired state is kept.
    pub store: StoreKind,
    /// `host` or `host:port` under which clients reach the server, when that is not `listen`.
    pub advertise: Option<String>,
    /// How long a node may be silent before its `Ready` condition becomes `Unknown`.
    pub node_grace: Duration,
    /// How long the certificate of a node is good; the node renews it before.
    pub node_certificate_life: Duration,
    /// How long a server that is asked to stop goes on serving while `/readyz` fails already, so that load balancers find
    /// another one first.
    pub shutdown_delay: Duration,
}

impl Config {
    /// A durable server with the usual limits.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen,
            store: StoreKind::default(),
            advertise: None,
            node_grace: NODE_GRACE_DEFAULT,
            node_certificate_life: LEAF_LIFE,
            shutdown_delay: Duration::ZERO,
        }
    }
}

/// A running API server.
///
/// Dropping it stops it without care for requests under way; [`Self::shutdown`] is the orderly way.
pub struct Server {
    address: SocketAddr,
    url: String,
    data_dir: PathBuf,
    ca_pem: String,
    ca_hash: String,
    shutdown_delay: Duration,
    core: Core,
    _lock: lock::DataLock,
}

/// The two steps of stopping: first nothing new, then nothing at all.
#[derive(Clone, Default)]
struct Stop {
    /// No new connections; those that are finish what they do.
    drain: CancellationToken,
    /// Connections that are still there are cut.
    cut: CancellationToken,
}

impl Server {
    /// Starts a server. When this returns it is ready.
    ///
    /// # Errors
    /// When the port or the data folder is in use, or what is in the folder cannot be used.
    pub async fn start(config: Config) -> Result<Self, Error> {
        tls::install_provider();
        let lock = blocking({
            let folder = config.data_dir.clone();
            move || lock::DataLock::take(&folder)
        })
        .await?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| Error::Listen { address: config.listen, source })?;
        let address =
            listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?;
        let url = server_url(address, config.advertise.as_deref());
        let mut names = pki::server_names(address, config.advertise.as_deref());
        names.insert(SERVER_ADDRESS.to_string());
        let (pki, store) = open_files(&config, names.clone(), url.clone()).await?;

        let core = Core::start(store, &pki, config.node_grace, config.node_certificate_life).await?;
        if let Err(error) =
            core.service.publish_itself(public_address(address, config.advertise.as_deref())).await
        {
            tracing::warn!(%error, "pods do not find the API server as the service \"kubernetes\"");
        }

        let (ca_pem, ca_hash) = (pki.authority().certificate().to_owned(), pki.authority().hash());
        let certificates = tls::Certificates::new(&pki)?;
        let acceptor = certificates.acceptor(pki.authority())?;
        core.tasks.spawn(listener::accept(listener, acceptor, core.door.clone(), core.tasks.clone()));
        core.tasks.spawn(renew_certificates(pki, names, certificates, core.stop.drain.clone()));
        tracing::info!(%url, data_dir = %config.data_dir.display(), "the API server is ready");
        let (data_dir, shutdown_delay) = (config.data_dir, config.shutdown_delay);
        Ok(Self { address, url, data_dir, ca_pem, ca_hash, shutdown_delay, core, _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://host:port`, as clients on this machine or, with `advertise`, elsewhere reach it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The object service.
    pub fn service(&self) -> &Arc<ObjectService> {
        &self.core.service
    }

    /// A transport within this process, for a component of the control plane.
    pub fn transport(&self, component: &str) -> Arc<dyn Transport> {
        Arc::new(LocalTransport::new(self.core.service.clone(), Identity::loopback(component)))
    }

    /// The NodeLink of a node agent within this process: the same hub and rules as over the wire.
    pub fn node_link(&self, node_name: &str) -> Arc<dyn NodeLink> {
        self.core.hub.local_link(node_name)
    }

    /// A transport within this process with the rights of a node agent.
    pub fn node_transport(&self, node_name: &str) -> Arc<dyn Transport> {
        Arc::new(LocalTransport::new(self.core.service.clone(), Identity::of_node(node_name)))
    }

    /// The certificate authority that clients trust, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// `sha256:…` of the authority's certificate, for machines that join.
    pub fn ca_hash(&self) -> &str {
        &self.ca_hash
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig_path(&self) -> PathBuf {
        kubeconfig_path(&self.data_dir)
    }

    /// A token with which one machine may join once.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn create_join_token(&self, ttl: Duration) -> Result<String, ApiError> {
        self.core.tokens.create(ttl).await
    }

    /// Stops: `/readyz` fails at once; after [`Config::shutdown_delay`] there are no new connections, watches and sessions
    /// end cleanly, requests under way finish (10 s at most), then the store closes. The store refuses whoever still holds a transport.
    pub async fn shutdown(self) {
        self.core.stop(self.shutdown_delay).await;
        self.core.service.store().close().await;
    }
}

/// Work on the disk, away from the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Task(error.to_string()))?
}

/// What start has to read or make on disk.
async fn open_files(
    config: &Config,
    names: BTreeSet<String>,
    url: String,
) -> Result<(Pki, Arc<dyn Store>), Error> {
    let (data_dir, kind) = (config.data_dir.clone(), config.store);
    blocking(move || {
        let pki = Pki::open(&data_dir, &names)?;
        pki.write_kubeconfig(&kubeconfig_path(&data_dir), &url)?;
        let store = match kind {
            StoreKind::Sled => store::open_sled(&data_dir.join("store"))?,
            StoreKind::Memory => store::memory(),
        };
        Ok((pki, store))
    })
    .await
}

/// Keeps the server's certificate young while it runs.
async fn renew_certificates(
    mut pki: Pki,
    names: BTreeSet<String>,
    certificates: tls::Certificates,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CERTIFICATE_CHECK_INTERVAL) => {}
        }
        match pki.refresh(&names) {
            Ok(false) => {}
            Ok(true) => match certificates.replace(&pki) {
                Ok(()) => tracing::info!("the server's certificate is renewed"),
                Err(error) => tracing::error!(%error, "the renewed certificate cannot be used"),
            },
            Err(error) => tracing::error!(%error, "the server's certificate could not be renewed"),
        }
    }
}

/// Where a data folder's kubeconfig is.
pub fn kubeconfig_path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.kubeconfig")
}

/// `https://host:port`, with a host that can be dialled.
fn server_url(address: SocketAddr, advertise: Option<&str>) -> String {
    match advertise {
        Some(host) if pki::host_of(host) == host && host.contains(':') => {
            format!("https://[{host}]:{}", address.port())
        }
        Some(host) if pki::host_of(host) == host => format!("https://{host}:{}", address.port()),
        Some(host_and_port) => format!("https://{host_and_port}"),
        None if address.ip().is_unspecified() => format!("https://127.0.0.1:{}", address.port()),
        None => format!("https://{address}"),
    }
}

/// The address at which other machines reach the server; `None` if they do not, or by a name only.
fn public_address(listen: SocketAddr, advertise: Option<&str>) -> Option<SocketAddr> {
    let address = match advertise {
        Some(text) => match text.parse() {
            Ok(address) => address,
            Err(_) => SocketAddr::new(pki::host_of(text).parse().ok()?, listen.port()),
        },
        None if listen.ip().is_unspecified() => SocketAddr::new(own_address()?, listen.port()),
        None => listen,
    };
    (!address.ip().is_loopback() && !address.ip().is_unspecified()).then_some(address)
}

/// The address by which this machine would call others. Nothing is sent: the destination, which is nobody's (RFC 5737), only
/// chooses the route.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_others_can_call_is_told() {
        let listen = |text: &str| text.parse().unwrap();
        assert_eq!(public_address(listen("127.0.0.1:6443"), None), None);
        assert_eq!(public_address(listen("192.0.2.7:6443"), None), Some(listen("192.0.2.7:6443")));
        let advertised = |text: &str| public_address(listen("0.0.0.0:6443"), Some(text));
        assert_eq!(advertised("192.0.2.7"), Some(listen("192.0.2.7:6443")));
        assert_eq!(advertised("192.0.2.7:443"), Some(listen("192.0.2.7:443")));
        assert_eq!(advertised("gpu.example.com"), None);
    }

    #[test]
    fn the_url_can_be_dialled() {
        let any = "0.0.0.0:6443".parse().unwrap();
        assert_eq!(server_url(any, None), "https://127.0.0.1:6443");
        assert_eq!(server_url("[::1]:6443".parse().unwrap(), None), "https://[::1]:6443");
        assert_eq!(server_url(any, Some("gpu.example.com")), "https://gpu.example.com:6443");
        assert_eq!(server_url(any, Some("gpu.example.com:443")), "https://gpu.example.com:443");
        assert_eq!(server_url(any, Some("fd00::1")), "https://[fd00::1]:6443");
    }
}
