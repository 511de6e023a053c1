//! `clawbernetes node`: this machine as a node of a cluster elsewhere. It dials out, so it needs no open port.

use std::{
    collections::BTreeMap,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use claw_apiserver::FileLock;
use claw_client::{Client, endpoint::Trust, grpc::GrpcNodeLink, node::NodeLink};
use claw_nodeagent::{
    Agent, AgentConfig, Containers, ContainersConfig, GpuSource, ImagesConfig, Runtime,
    gpu::Sharing,
    hollow::{self, Company},
    join::{Invitation, Membership, membership},
    pressure::{SoftThresholds, Thresholds},
    runtime::containers::leave,
};
use claw_schemas::quantity::Quantity;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    data_dir::{self, Stay},
    gpu, image,
    signal::Stop,
};
use crate::{memory, telemetry};

/// As the kubelet's default.
const PODS_MAX: u8 = 110;

/// Where CUDA's compiler and headers are, unless `CUDA_PATH` says otherwise: its installers agree on that.
const CUDA: &str = "/usr/local/cuda";

/// Threads of an agent, at most. It mostly waits: a machine with a hundred processors should not keep a hundred stacks for it.
const THREADS_MAX: usize = 4;

#[derive(Debug, clap::Args)]
#[group(id = "node")]
pub struct Options {
    /// URL of the API server
    #[arg(long, value_name = "URL")]
    server: String,
    /// One-time token, from `clawbernetes token create`; needed the first time only
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// File with the cluster's certificate authority, to know the server by
    #[arg(long, value_name = "FILE", conflicts_with = "ca_hash")]
    ca_cert: Option<PathBuf>,
    /// SHA-256 of the cluster's certificate authority instead, as `token create` prints it
    #[arg(long, value_name = "sha256:HEX")]
    ca_hash: Option<String>,
    /// Folder for all state (default: /var/lib/clawbernetes as root, else ~/.local/share/clawbernetes)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Only pretend to run containers: a node to try the API on, without root
    #[arg(long)]
    hollow: bool,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    pub telemetry: telemetry::Options,
}

/// How many threads an agent works with.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX)
}

impl Options {
    /// Goes to where an ordinary user may have containers.
    pub fn become_root(&mut self) -> anyhow::Result<()> {
        if self.hollow {
            return Ok(());
        }
        data_dir::become_root(&mut self.data_dir, Stay::WithTheNode)
    }
}

/// Joins, if this machine has not yet, and runs until asked to stop. Containers go on without it.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let data_dir = data_dir::or_default(options.data_dir.clone())?;
    let _lock = lock(&data_dir)?;
    let config = options.machine.agent_config()?;
    let invitation = Invitation {
        server: options.server.clone(),
        trust: trust(&options)?,
        token: options.token.clone(),
        node_name: config.node_name.clone(),
    };
    let identity = data_dir.join("identity");
    let mut member = tokio::select! {
        () = stop.asked() => return Ok(()),
        joined = membership(&identity, &invitation) => joined.with_context(|| cannot_join(&invitation.trust))?,
    };
    let runtime = match options.hollow {
        true => None,
        false => Some(options.machine.open_containers(&data_dir).await?),
    };
    loop {
        let cancel = CancellationToken::new();
        let mut agent = start(&config, &member, runtime.clone(), cancel.clone())?;
        let next = tokio::select! {
            () = stop.asked() => None,
            never = memory::hold_little() => match never {},
            // The agent starts anew with the new certificate; pods do not notice.
            renewed = member.renewed() => Some(renewed),
            ended = &mut agent => {
                ended.context("the node agent failed")??;
                bail!("the node agent ended by itself");
            }
        };
        cancel.cancel();
        stop.in_order(agent).await?.context("the node agent failed")??;
        match next {
            Some(renewed) => member = renewed,
            None => return Ok(leave(&data_dir.join("node"))?),
        }
    }
}

/// One agent a folder: two would report and stop each other's containers.
fn lock(data_dir: &Path) -> anyhow::Result<FileLock> {
    fs::create_dir_all(data_dir).with_context(|| format!("creating {}", data_dir.display()))?;
    let path = data_dir.join("node.lock");
    let lock = FileLock::take(&path).with_context(|| format!("locking {}", path.display()))?;
    lock.with_context(|| {
        format!(
            "another node agent uses {}; stop that one, or choose another folder with --data-dir",
            data_dir.display()
        )
    })
}

fn cannot_join(trust: &Trust) -> &'static str {
    match trust {
        Trust::System => {
            "this machine cannot join (without --ca-hash or --ca-cert, the system's authorities count)"
        }
        _ => "this machine cannot join",
    }
}

fn start(
    config: &AgentConfig,
    member: &Membership,
    runtime: Option<Arc<Containers>>,
    cancel: CancellationToken,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let endpoint = member.endpoint();
    let link: Arc<dyn NodeLink> = Arc::new(GrpcNodeLink::new(&endpoint)?);
    let client = Client::connect(&endpoint, "clawbernetes-node")?;
    tracing::info!(node = member.node_name(), server = %endpoint.server, "the node agent starts");
    let config = AgentConfig { server: endpoint.authority(), ..config.clone() };
    Ok(tokio::spawn(async move {
        match runtime {
            Some(runtime) => Agent::run(config, link, client, runtime as Arc<dyn Runtime>, cancel).await?,
            // Whoever joins a hollow node asked for one that takes pods.
            None => {
                let names = vec![config.node_name];
                hollow::run(names, Company::Alone, |_| link.clone(), client, cancel).await?;
            }
        }
        Ok(())
    }))
}

/// How to know the server before this machine has joined.
fn trust(options: &Options) -> anyhow::Result<Trust> {
    if let Some(path) = &options.ca_cert {
        return Ok(Trust::Roots(fs::read(path).with_context(|| format!("--ca-cert {}", path.display()))?));
    }
    let Some(hash) = &options.ca_hash else { return Ok(Trust::System) };
    let digits = hash.strip_prefix("sha256:").unwrap_or(hash);
    let bytes: Option<Vec<u8>> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect();
    let digest = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    digest
        .map(Trust::CaSha256)
        .with_context(|| format!("--ca-hash {hash}: expected sha256: and 64 hexadecimal digits"))
}

/// What this machine is as a node; the same for `up` and `node`.
#[derive(Debug, clap::Args)]
pub struct Machine {
    /// Name of the node (default: the host's name)
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Label of the node; may be given several times
    #[arg(long = "node-label", value_name = "KEY=VALUE")]
    node_labels: Vec<String>,
    /// How many pods it takes at most; its network has addresses for 253
    #[arg(long, value_name = "N", default_value_t = PODS_MAX, value_parser = clap::value_parser!(u8).range(1..=253))]
    max_pods: u8,
    /// Folder of static pods: each file is a Pod that runs here, also while the server cannot be reached
    #[arg(long, value_name = "DIR")]
    static_pods: Option<PathBuf>,
    /// Replay the GPUs of another machine, from a file of `clawbernetes gpu record`: pods are given names of GPUs, and no
    /// GPUs. To try scheduling on a machine that has none. Of AMD's also from a folder with its `sys`
    #[arg(long, value_name = "PATH", conflicts_with = "software_gpus")]
    gpu_replay: Option<PathBuf>,
    #[command(flatten)]
    software: gpu::Software,
    /// Which GPUs containers share, and how many at once: `sharing.timeSlicing` (they take turns) or `sharing.mps` (side by side, with a part
    /// each; needs `nvidia-cuda-mps-control` and `nvidia-smi`) of a configuration of NVIDIA's device plugin
    #[arg(long, value_name = "FILE")]
    gpu_sharing: Option<PathBuf>,
    /// What is never given to pods: cpu, memory or disk, such as `memory=1Gi`; may be given several times
    #[arg(long = "reserve", value_name = "RESOURCE=AMOUNT")]
    reserved: Vec<String>,
    /// Evict pods while less than this is available: memory (100Mi), disk (10%) or pids (5%), an amount or a share; 0 for
    /// never; may be given several times
    #[arg(long, value_name = "RESOURCE=AMOUNT")]
    evict_below: Vec<String>,
    /// Evict pods once less than this has been available for so long, such as `memory=500Mi:90s`; may be given several times
    #[arg(long, value_name = "RESOURCE=AMOUNT:TIME")]
    evict_soft: Vec<String>,
    /// What a pod has to end at the most that is evicted for that, in seconds (default: what it asks for)
    #[arg(long, value_name = "SECONDS")]
    evict_soft_grace: Option<u64>,
    #[command(flatten)]
    images: image::Options,
}

impl Machine {
    fn thresholds(&self) -> anyhow::Result<Thresholds> {
        let mut thresholds = Thresholds::default();
        for text in &self.evict_below {
            thresholds.set(text).map_err(|why| anyhow::anyhow!("--evict-below {why}"))?;
        }
        Ok(thresholds)
    }

    fn soft_thresholds(&self) -> anyhow::Result<SoftThresholds> {
        let mut thresholds = SoftThresholds::default();
        for text in &self.evict_soft {
            thresholds.set(text).map_err(|why| anyhow::anyhow!("--evict-soft {why}"))?;
        }
        Ok(thresholds)
    }

    fn reserved(&self) -> anyhow::Result<BTreeMap<String, Quantity>> {
        let one = |text: &String| {
            let pair = text.split_once('=').and_then(|(name, amount)| {
                let name = ["cpu", "memory", "disk"].into_iter().find(|known| *known == name)?;
                let name = if name == "disk" { "ephemeral-storage" } else { name };
                Some((name.to_owned(), amount.parse::<Quantity>().ok()?))
            });
            pair.with_context(|| {
                format!("--reserve {text}: use cpu, memory or disk, an equals sign, and an amount")
            })
        };
        self.reserved.iter().map(one).collect()
    }

    fn sharing(&self) -> anyhow::Result<Sharing> {
        let Some(file) = &self.gpu_sharing else { return Ok(Sharing::default()) };
        let text = fs::read_to_string(file).with_context(|| format!("--gpu-sharing {}", file.display()))?;
        Sharing::parse(&text).map_err(|why| anyhow::anyhow!("--gpu-sharing {}: {why}", file.display()))
    }

    /// What the agent is told.
    pub fn agent_config(&self) -> anyhow::Result<AgentConfig> {
        let name = match &self.node_name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        let labels = self.node_labels.iter().map(|label| {
            let pair = label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            pair.with_context(|| format!("--node-label {label}: a label is KEY=VALUE"))
        });
        let labels = labels.collect::<Result<BTreeMap<_, _>, _>>()?;
        let capacity = BTreeMap::from([("pods".to_owned(), Quantity::from_units(self.max_pods.into()))]);
        let (evict_below, static_pods) = (self.thresholds()?, self.static_pods.clone());
        Ok(AgentConfig {
            labels,
            capacity,
            evict_below,
            evict_soft: self.soft_thresholds()?,
            evict_soft_grace: self.evict_soft_grace.map_or(Duration::MAX, Duration::from_secs),
            static_pods,
            ..AgentConfig::new(&name)
        })
    }

    /// The containers of this machine.
    pub async fn open_containers(&self, data_dir: &Path) -> anyhow::Result<Arc<Containers>> {
        let gpus = match &self.gpu_replay {
            Some(recording) => GpuSource::Recording(recording.clone()),
            None => GpuSource::Machine(Some(self.software.ask())),
        };
        // As CUDA's own tools find it.
        let cuda = std::env::var_os("CUDA_PATH").map_or_else(|| CUDA.into(), PathBuf::from);
        let images = ImagesConfig { cuda: Some(cuda), ..self.images.config()? };
        let (reserved, evict_below) = (self.reserved()?, self.thresholds()?);
        let config = ContainersConfig {
            gpus,
            gpu_sharing: self.sharing()?,
            images,
            reserved,
            evict_below,
            ..ContainersConfig::new(data_dir.join("node"))
        };
        Containers::open(config).await.context("this machine cannot run containers")
    }
}

/// The host's name as a node's: lower case, and nothing that a name may not have.
pub fn host_name() -> anyhow::Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").context("the host's name cannot be read")?;
    let name: String = name
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    ensure!(!name.is_empty(), "this host has no name that a node could have; give one with --node-name");
    Ok(name)
}
