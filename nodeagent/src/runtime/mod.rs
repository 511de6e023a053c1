//! What the agent needs from a machine, and the two that provide it: [`containers`] for real ones,
//! [`hollow`] for nodes that only pretend.
//!
//! Everything durable lives behind this trait too, so that the agent above is the same for both.
//!
//! Must never know: the NodeLink, restart policies, what a pod's status looks like.

pub mod cgroups;
pub mod containers;
pub mod devices;
pub mod hollow;
pub mod machine;
pub mod records;
pub mod sources;

mod environment;
mod network;
mod pod_files;
mod probe;
mod resources;
mod seccomp;
mod spec;
mod sub_path;
mod termination;
mod unsupported;
mod usage;
mod volumes;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerImage, Pod};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

pub use self::{machine::Machine, probe::ProbeTarget, resources::Qos, sources::Sources};
pub use crate::shim::{ExecReply, ExitReason, ExitRecord};
use crate::{
    Error,
    gpu::{Inventory, ledger::HeldClaim},
    pressure::{Good, Level},
    services::Services,
};

/// Names one run of one container of one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// Name of the container, init containers included.
    pub container: String,
    /// How many runs came before it: the restart count.
    pub attempt: u32,
}

/// One run of a container: intended, running or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Which.
    pub key: InstanceKey,
    /// The API's container id, without scheme.
    pub id: String,
    /// The image as the pod names it.
    pub image: String,
    /// What the image name stood for.
    pub image_id: String,
    /// How long to wait after its exit before the next run.
    pub restart_delay: Duration,
    /// The sandbox that it runs in, by when that was made; `None` if nobody wrote that down.
    pub sandbox: Option<Timestamp>,
    /// When it was started; `None` if it never was.
    pub started_at: Option<Timestamp>,
    /// How it ended; `None` while it runs.
    pub exit: Option<ExitRecord>,
}

/// What the containers of a pod share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Address of the pod.
    pub ip: Option<IpAddr>,
    /// When it was made, which tells it from others of its pod.
    pub created_at: Timestamp,
}

/// A pod that an earlier run of the agent left.
#[derive(Clone, Debug)]
pub struct RecoveredPod {
    /// As last remembered.
    pub pod: Pod,
    /// `None` when it is gone (a reboot) or was never made.
    pub sandbox: Option<Sandbox>,
    /// All runs still on record, in order of container and attempt.
    pub instances: Vec<Instance>,
}

/// Why a pod or container could not be started, in the API's words. Retried later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// `ErrImagePull`, `CreateContainerConfigError`, `FailedCreatePodSandBox`, ...
    pub reason: &'static str,
    /// A sentence that names the culprit.
    pub message: String,
}

impl StartFailure {
    /// With a reason of the API.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Why a pod cannot have what it needs for itself alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It may have it soon.
    Later(StartFailure),
    /// Nothing that is under way will change it: the pod has failed.
    Never(StartFailure),
}

/// What it takes to start a container.
pub struct StartRequest<'a> {
    /// The pod, with its uid.
    pub pod: &'a Pod,
    /// One of its containers, of any kind.
    pub container: &'a Container,
    /// Variables that say where services are. What the container says of a variable goes before.
    pub services: &'a [(String, String)],
    /// Another of them, whose processes it sees.
    pub target: Option<&'a str>,
    /// Which run.
    pub attempt: u32,
    /// To be recorded with the run.
    pub restart_delay: Duration,
    /// What [`Runtime::prepare`] made.
    pub sandbox: &'a Sandbox,
    /// Where the node is.
    pub host: &'a Host,
    /// Where config maps and secrets come from.
    pub sources: &'a Sources,
    /// Told how the image comes.
    pub tell: &'a (dyn Fn(ImageNews) + Send + Sync),
    /// The pod is ending: an image need not come any more.
    pub given_up: &'a CancellationToken,
}

/// What happens to the image of a container before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageNews {
    /// It is here.
    Present,
    /// It is asked for.
    Pulling,
    /// How far it is.
    Progress(String),
    /// It came.
    Pulled {
        /// Since it was asked for.
        took: Duration,
        /// Unpacked.
        bytes: u64,
    },
    /// Credentials for it cannot be had; it is tried without them.
    NoCredentials(String),
}

/// A device that a container has for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldDevice {
    /// What it was asked for by: `nvidia.com/gpu`, `claim:NAME/REQUEST`.
    pub resource: String,
    /// Which it is.
    pub id: String,
    /// Whether it works.
    pub is_well: bool,
}

/// Facts about the node that containers may ask for.
#[derive(Clone, Debug)]
pub struct Host {
    /// Name of the Node object.
    pub node_name: String,
    /// Address of the machine.
    pub ip: IpAddr,
}

/// Which process somebody wants to talk to, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TalkWish {
    /// The program to start and its arguments; empty for the container's own first process.
    pub command: Vec<String>,
    /// Somebody writes to it.
    pub stdin: bool,
    /// Somebody reads what it writes.
    pub stdout: bool,
    /// The same of its errors.
    pub stderr: bool,
    /// A program that is started gets a terminal.
    pub tty: bool,
}

/// The two directions of a talk. Both are short queues: who is slow slows the other down.
pub struct Talk {
    /// What is said to the process.
    pub said: mpsc::Receiver<Said>,
    /// What it answers.
    pub heard: mpsc::Sender<Heard>,
}

/// What is said to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// For it to read.
    Stdin(Bytes),
    /// There is nothing more to read.
    StdinEnd,
    /// Its terminal has so many columns and rows now.
    Resize(u16, u16),
}

/// What a process writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// To its standard output, or its terminal.
    Stdout(Bytes),
    /// To its standard error.
    Stderr(Bytes),
}

/// What something has used so far, and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// When this was so.
    pub at: Instant,
    /// Time of CPUs, ever growing.
    pub cpu_ns: u64,
    /// Memory, but for what the kernel drops as soon as it needs room.
    pub memory_bytes: u64,
}

/// What the machine and some runs of containers have used. What could not be read is not in it.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// All of the machine.
    pub machine: Option<Count>,
    /// The runs.
    pub runs: HashMap<InstanceKey, Count>,
}

/// Runs pods on a machine. Every method may be called again after a failure or a crash.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// What this machine is and has.
    fn machine(&self) -> Machine;

    /// Reads back what an earlier run left. Runs whose shim is gone come back with a lost exit.
    async fn recover(&self) -> Result<Vec<RecoveredPod>, Error>;

    /// Remembers a pod durably, before anything is done for it.
    async fn remember(&self, pod: &Pod) -> Result<(), Error>;

    /// Gives a pod what it needs for itself alone: its GPUs. Comes before [`Self::prepare`]; [`Self::release`] takes it
    /// back. `going` are the uids of pods that are about to give back what they hold.
    async fn admit(&self, _pod: &Pod, _going: &HashSet<String>, _sources: &Sources) -> Result<(), Refusal> {
        Ok(())
    }

    /// What each container of a pod was given by [`Self::admit`], and how that is now.
    fn held(&self, _pod: &Pod) -> BTreeMap<String, Vec<HeldDevice>> {
        BTreeMap::new()
    }

    /// The claims on devices here that pods were given.
    fn held_claims(&self) -> Vec<HeldClaim> {
        Vec::new()
    }

    /// Gives a running container the right to its devices again where somebody took it away, and says which it had lost.
    async fn mend_devices(&self, _key: &InstanceKey) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// The GPUs of the machine, as they change; `None` where there never are any.
    fn gpus(&self) -> Option<watch::Receiver<Arc<Inventory>>> {
        None
    }

    /// Whether pods here can be led to services.
    fn routes_services(&self) -> bool {
        false
    }

    /// Leads pods to services as these change, and to the API server at `server` (`host:port`), until cancelled.
    async fn route(
        &self,
        _services: watch::Receiver<Arc<Services>>,
        _server: Option<String>,
        _cancel: CancellationToken,
    ) {
    }

    /// What the machine and these runs have used so far.
    async fn count(&self, _runs: Vec<InstanceKey>) -> Counts {
        Counts::default()
    }

    /// The images on this machine, largest first.
    async fn images(&self) -> Vec<ContainerImage> {
        Vec::new()
    }

    /// Wakes when images came or went; `None` where there never are any.
    fn images_changed(&self) -> Option<watch::Receiver<()>> {
        None
    }

    /// How much is left of what pods share; nothing where nobody measures it.
    async fn levels(&self) -> BTreeMap<Good, Level> {
        BTreeMap::new()
    }

    /// How much a pod has of it.
    async fn usage(&self, _pod_uid: &str, _good: Good) -> u64 {
        0
    }

    /// Makes room on the disk if it is needed.
    async fn make_room(&self) {}

    /// Makes what the pod's containers share: namespaces, network, volumes.
    async fn prepare(&self, pod: &Pod, host: &Host, sources: &Sources) -> Result<Sandbox, StartFailure>;

    /// Brings changed config maps and secrets into the volumes of a running pod. Ends soon once it is given up.
    async fn refresh(
        &self,
        pod: &Pod,
        host: &Host,
        sources: &Sources,
        given_up: &CancellationToken,
    ) -> Result<(), Error>;

    /// Starts one run of a container.
    async fn start(&self, request: StartRequest<'_>) -> Result<Instance, StartFailure>;

    /// What asks a run to stop.
    fn stop_signal(&self, _key: &InstanceKey) -> i32 {
        libc::SIGTERM
    }

    /// Waits until a run is over.
    async fn wait(&self, key: &InstanceKey) -> Result<ExitRecord, Error>;

    /// Whether a run may say, while it goes on, what it does.
    fn tells_progress(&self, _run: &Instance) -> bool {
        false
    }

    /// What such a run says that it does, which may be nothing yet; `None` once it is over.
    async fn progress(&self, _key: &InstanceKey) -> Option<String> {
        None
    }

    /// Signals the first process of a run. Success if it is over already.
    async fn signal(&self, key: &InstanceKey, signal: i32) -> Result<(), Error>;

    /// Runs a command inside a running container.
    async fn exec(
        &self,
        key: &InstanceKey,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecReply, Error>;

    /// Talks to a process of a running container, for as long as this is polled: dropping it hangs up. Gives the exit code
    /// of a program that was started for it, and nothing when the container's own process is over.
    async fn talk(&self, key: &InstanceKey, wish: &TalkWish, talk: Talk) -> Result<Option<i32>, Error>;

    /// Connects to a port inside the network of a pod.
    async fn dial(&self, pod_uid: &str, port: u16) -> Result<TcpStream, Error>;

    /// Probes a running container once. The error is what to tell people.
    async fn probe(&self, key: &InstanceKey, target: &ProbeTarget, timeout: Duration) -> Result<(), String>;

    /// Folder with the log files of a run.
    fn log_folder(&self, key: &InstanceKey) -> Result<PathBuf, Error>;

    /// Drops a run that is over, with its log.
    async fn discard(&self, key: &InstanceKey) -> Result<(), Error>;

    /// Frees what the pod holds of the machine (network, mounts, cgroups). Its logs and records stay.
    async fn release(&self, pod_uid: &str) -> Result<(), Error>;

    /// Drops the records and logs of a released pod.
    async fn forget(&self, pod_uid: &str) -> Result<(), Error>;

    /// Frees what no pod needs once the agent stops.
    async fn close(&self) -> Result<(), Error>;
}
