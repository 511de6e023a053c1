//! `clawbernetes server`: the API server alone. Controllers and nodes connect to it from elsewhere. Its subcommands look
//! after what a server holds.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use anyhow::Context as _;
use claw_apiserver::{Config, Server, pki::LEAF_LIFE, server::NODE_GRACE_DEFAULT};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{backup, data_dir, signal::Stop};
use crate::{
    telemetry,
    verbs::{self, Global},
};

/// Where everybody expects a Kubernetes API; on this machine only, until somebody decides otherwise.
const LISTEN: &str = "127.0.0.1:6443";

/// Below this a node would be busy with nothing else; the authority itself is good for ten years.
const NODE_CERTIFICATE_SECONDS: RangeInclusive<u64> = 10..=10 * 365 * 24 * 3600;

/// A server to start, or something to do about one.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[group(id = "server-role")]
pub struct Role {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    task: Option<Task>,
}

impl Role {
    /// Where to send traces of a server.
    pub fn telemetry(&self) -> Option<&telemetry::Options> {
        self.task.is_none().then_some(&self.options.telemetry)
    }
}

/// What can be done about what a server holds.
#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Save all objects of a running server, as they are at one moment, and check what was saved
    Backup(backup::Backup),
    /// Make the data folder of a new server from a backup
    Restore(backup::Restore),
}

/// How an API server is reached and where it keeps its state; the same for every role that has one.
#[derive(Debug, clap::Args)]
#[group(id = "server")]
pub struct Options {
    /// Folder for all state (default: /var/lib/clawbernetes as root, else ~/.local/share/clawbernetes)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address to serve on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = LISTEN)]
    pub listen: SocketAddr,
    /// Name or address under which other machines reach this one
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Option<String>,
    /// Seconds without a heartbeat until a node counts as unreachable
    #[arg(long, value_name = "SECONDS", default_value_t = NODE_GRACE_DEFAULT.as_secs())]
    pub node_grace: u64,
    /// Seconds that the certificate of a node is good for; the node renews it after 70 to 90 % of them
    #[arg(long, value_name = "SECONDS", default_value_t = LEAF_LIFE.as_secs(), value_parser = clap::value_parser!(u64).range(NODE_CERTIFICATE_SECONDS))]
    pub node_certificate_life: u64,
    /// Seconds to go on serving after being asked to stop, while /readyz fails, so that load balancers turn away first
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub shutdown_delay: u64,
    #[command(flatten)]
    pub telemetry: telemetry::Options,
}

impl Options {
    /// Starts the server, ready when this returns.
    pub async fn start(self) -> anyhow::Result<Server> {
        allow_many_connections();
        let data_dir = data_dir::or_default(self.data_dir)?;
        let mut config = Config::new(data_dir, self.listen);
        config.advertise = self.advertise;
        config.node_grace = Duration::from_secs(self.node_grace);
        config.node_certificate_life = Duration::from_secs(self.node_certificate_life);
        config.shutdown_delay = Duration::from_secs(self.shutdown_delay);
        Server::start(config).await.context("the API server does not start")
    }
}

/// Every connection is a file descriptor, and the usual soft limit of 1,024 is there for programs that use `select`.
fn allow_many_connections() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// Does the task, or serves until asked to stop.
pub async fn run(role: Role, global: Global) -> anyhow::Result<()> {
    match role.task {
        None => serve(role.options).await,
        Some(Task::Backup(options)) => backup::save(options, global).await,
        Some(Task::Restore(options)) => backup::restore(&options),
    }
}

async fn serve(options: Options) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let server = tokio::select! {
        () = stop.asked() => return Ok(()),
        started = options.start() => started?,
    };
    announce(&server);
    stop.asked().await;
    tracing::info!("stopping");
    stop.in_order(server.shutdown()).await
}

/// The one line on standard output, for people and scripts alike; the rest of what they need goes to standard error.
pub fn announce(server: &Server) {
    tracing::info!("export KUBECONFIG={}", server.kubeconfig_path().display());
    if let Err(error) = verbs::print(&format!("ready {}\n", server.url())) {
        tracing::warn!(%error, "nobody reads standard output");
    }
}
