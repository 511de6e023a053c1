//! `clawbernetes up`: server, controllers and nodes in one process. What a separate process of each would do over
//! the network happens here over channels, by the same code.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use claw_apiserver::Server;
use claw_client::{Client, node::NodeLink, request::ListOptions};
use claw_nodeagent::{
    Agent,
    hollow::{self, Company},
    runtime::containers,
};
use claw_runtime::{Env, Figures, Readiness};
use k8s_openapi::api::core::v1::Node;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    data_dir::{self, Stay},
    figures, node, server,
    signal::Stop,
    sweep,
};
use crate::telemetry;

/// An agent registers within a second; a thousand of them on two busy cores within ten.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(60);

/// How often to look whether all nodes are there.
const REGISTRATION_POLL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
#[group(id = "up")]
pub struct Options {
    #[command(flatten)]
    server: server::Options,
    /// How many nodes: the first is this machine and runs containers, the others are hollow and only pretend; they
    /// are tainted, so that only pods that tolerate clawbernetes.io/hollow land there
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: usize,
    /// Make every node hollow: a cluster to try the API on, without root and without containers
    #[arg(long)]
    hollow: bool,
    /// When stopped, delete all pods and the data folder: nothing stays behind
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    node: node::Machine,
}

impl Options {
    /// Goes to where an ordinary user may have containers, if there are to be some.
    pub fn become_root(&mut self) -> anyhow::Result<()> {
        if self.nodes == 0 || self.hollow {
            return Ok(());
        }
        data_dir::become_root(&mut self.server.data_dir, Stay::WithTheNode)
            .context("try the API without containers by `clawbernetes up --hollow`")
    }

    /// Where to send traces.
    pub fn telemetry(&self) -> &telemetry::Options {
        &self.server.telemetry
    }
}

/// Runs until asked to stop, or until a part of it ends by itself, which is a failure.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let Options { server, nodes, hollow, rm, node } = options;
    let has_containers = nodes > 0 && !hollow;
    let mut stop = Stop::listen()?;
    let data_dir = data_dir::or_default(server.data_dir.clone())?;
    ensure!(
        !rm || data_dir::is_disposable(&data_dir),
        "--rm deletes {} at the end, but it holds what is not ours: choose another folder with --data-dir",
        data_dir.display()
    );
    let server = server::Options { data_dir: Some(data_dir.clone()), ..server };
    let server = tokio::select! {
        () = stop.asked() => return Ok(()),
        started = server.start() => started?,
    };
    let cancel = CancellationToken::new();
    let mut parts = Parts::new(cancel.clone());
    parts.start_controllers(&server);
    if has_containers {
        parts.start_machine(&server, &data_dir, &node).await?;
    }
    let (real, company) = if has_containers { (1, Company::BesideReal) } else { (0, Company::Alone) };
    let names = (1 + real..=nodes).map(|number| format!("hollow-{number}")).collect();
    parts.start_hollow(&server, names, company);

    let client = Client::new(server.transport("clawbernetes"), "clawbernetes");
    let work = async {
        all_ready(&client, nodes).await?;
        server::announce(&server);
        std::future::pending().await
    };
    let outcome = tokio::select! {
        () = stop.asked() => Ok(()),
        ended = parts.first_to_end() => ended,
        failed = work => failed,
    };
    if has_containers && !rm {
        tracing::info!(
            "stopping; containers go on, and the next start finds them (`up --rm` ends them when it stops)"
        );
    } else {
        tracing::info!("stopping");
    }
    let mut swept = Ok(());
    if rm && outcome.is_ok() {
        // Only living agents and controllers can take pods down; a second signal skips it.
        swept = tokio::select! {
            swept = sweep::all_pods(&client) => swept,
            () = stop.asked() => Err(anyhow::anyhow!("asked to stop at once; pods may still run")),
        };
    }
    cancel.cancel();
    stop.in_order(async {
        parts.join().await;
        server.shutdown().await;
    })
    .await?;
    let is_swept = rm && swept.is_ok() && outcome.is_ok();
    if has_containers {
        // The agent may have been stopped before it had dropped the records of the last pods.
        let go = if is_swept { containers::abandon } else { containers::leave };
        go(&data_dir.join("node"))?;
    }
    if is_swept {
        std::fs::remove_dir_all(&data_dir).with_context(|| format!("removing {}", data_dir.display()))?;
    }
    outcome.and(swept)
}

/// Everything beside the server that runs until it is cancelled.
struct Parts {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    cancel: CancellationToken,
}

impl Parts {
    fn new(cancel: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), cancel }
    }

    fn start_controllers(&mut self, server: &Server) {
        let client = Client::new(server.transport("controllers"), "clawbernetes-controllers");
        let (cancel, root_ca) = (self.cancel.clone(), Some(server.ca_pem().into()));
        let (figures, readiness) = (Figures::default(), Readiness::default());
        let (shown, told) = (figures.clone(), readiness.clone());
        server.service().metrics().add_source(move |text| figures::write(&shown, &told, text));
        self.tasks.spawn(async move {
            // Nobody else writes to this server's store, so there is nobody to elect against.
            let options = claw_controllers::Options { elect_as: None, root_ca, figures, readiness };
            claw_controllers::run(client, Env::real(), options, cancel).await;
            ("the controllers", Ok(()))
        });
    }

    async fn start_machine(
        &mut self,
        server: &Server,
        data_dir: &Path,
        machine: &node::Machine,
    ) -> anyhow::Result<()> {
        let mut config = machine.agent_config()?;
        config.server = Some(dialled(server.address()).to_string());
        let runtime = machine.open_containers(data_dir).await?;
        let link = server.node_link(&config.node_name);
        let client = Client::new(server.node_transport(&config.node_name), "clawbernetes-node");
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            let ended = Agent::run(config, link, client, runtime, cancel).await;
            ("the node agent", ended.context("the node agent failed"))
        });
        Ok(())
    }

    fn start_hollow(&mut self, server: &Server, names: Vec<String>, company: Company) {
        if names.is_empty() {
            return;
        }
        let links: std::collections::BTreeMap<String, Arc<dyn NodeLink>> =
            names.iter().map(|name| (name.clone(), server.node_link(name))).collect();
        let client = Client::new(server.transport("hollow-nodes"), "clawbernetes-node");
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            let ended = hollow::run(names, company, |name| links[name].clone(), client, cancel).await;
            ("the hollow nodes", ended.context("the hollow nodes failed"))
        });
    }

    /// A part that ends before it is asked to has failed, whatever it says.
    async fn first_to_end(&mut self) -> anyhow::Result<()> {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            Some(Ok((part, ended))) => {
                ended?;
                bail!("{part} ended by itself")
            }
            Some(Err(error)) => Err(error).context("a part of the cluster failed"),
        }
    }

    async fn join(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((_, Err(error))) => tracing::warn!("{error:#}"),
                Err(error) => tracing::warn!("a part of the cluster failed: {error}"),
            }
        }
    }
}

/// Where this machine itself reaches a listener.
fn dialled(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port());
    }
    address
}

/// Waits until every node has registered and is ready: `ready` means that pods can run.
async fn all_ready(client: &Client, nodes: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + REGISTRATION_LIMIT;
    loop {
        let list = client.all::<Node>().list(ListOptions::default()).await?;
        let ready = list.items.iter().filter(|node| is_ready(node)).count();
        if ready >= nodes {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "only {ready} of {nodes} nodes registered within {} s; the log above says why",
            REGISTRATION_LIMIT.as_secs()
        );
        sleep(REGISTRATION_POLL).await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}
