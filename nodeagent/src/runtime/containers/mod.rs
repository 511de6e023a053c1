//! The real runtime: Linux containers behind shims, all of whose state is on disk.
//!
//! ```text
//! ROOT/images/…                          images (see `image::store`)
//! ROOT/state/ID/                         libcontainer's own state
//! ROOT/seccomp/…                         profiles that people put there
//! ROOT/network.json                      which bridge is ours
//! ROOT/starter.lock                      held by the starter for its life
//! ROOT/{holder.lock,network.ns,…}        of an ordinary user's namespaces (see `rootless`)
//! ROOT/pods/UID/pod.json                 the pod, written before anything is done for it
//!              /gpus.json                which container holds which GPU that was asked for by number
//!              /claims.json              what its claims have
//!              /sandbox.json             its address
//!              /ns/{net,ipc,uts}         its namespaces, pinned
//!              /pause/                   the container that holds the processes it shares, if it does
//!              /shm/                     the memory that its containers share, mounted
//!              /volumes/NAME/            its volumes
//!              /subpaths/CONTAINER/N     parts of volumes, mounted
//!              /etc/{hosts,…}            files every container gets
//!              /containers/NAME/ATTEMPT/ one run: run.json, config.json, log, shim.json, exit.json
//! ```

mod adopt;
mod end;
mod goods;
mod gpus;
mod host_files;
mod images;
mod reach;
mod together;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use claw_schemas::{api::places, quantity::Quantity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerImage, Pod};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpStream, sync::watch};
use tokio_util::sync::CancellationToken;

use self::host_files::{names, remove_if_there, unmount_below};
pub use self::images::images_in_use;
use super::{
    Counts, ExecReply, ExitRecord, HeldDevice, Host, Instance, InstanceKey, Machine, ProbeTarget,
    RecoveredPod, Refusal, Runtime, Sandbox, Sources, StartFailure, StartRequest, Talk, TalkWish, cgroups,
    devices,
    environment::{self, Fields},
    network::{self, Network, namespace},
    pod_files, probe, records,
    seccomp::Seccomp,
    spec::{self, Bind, Processes},
    sub_path, termination,
    unsupported::unsupported,
    usage, volumes,
};
use crate::{
    Error,
    gpu::{
        AskVulkan, Gpus, Inventory, Recording, Sharing,
        ledger::{HeldClaim, Ledger},
        machine, mps,
    },
    ids::hex,
    image::{self, Image, Images, ImagesConfig},
    pressure::{Good, Level, Thresholds},
    rootless::{self, Ids},
    services::Services,
    shim::{self, ExecJob, Filter, RunJob, Tenant, client::Starter, files},
};

/// First two bytes of pod addresses; the third numbers the agents of a machine.
const POD_NETWORK: [u8; 2] = [10, 88];

/// How long a shim that is found starting may take to get somewhere.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// How long a shim may take to clean up after the exit of its container.
const SHIM_END_LIMIT: Duration = Duration::from_secs(20);

/// How often to look at a lock that cannot be waited for.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Where and how containers run.
#[derive(Clone, Debug)]
pub struct ContainersConfig {
    /// Folder that holds everything the node must remember.
    pub root_dir: PathBuf,
    /// Cgroup under which all pods live: `/clawbernetes`.
    pub cgroup_parent: String,
    /// First two bytes of pod addresses.
    pub pod_network: [u8; 2],
    /// Who knows the GPUs.
    pub gpus: GpuSource,
    /// Which of them containers take turns on.
    pub gpu_sharing: Sharing,
    /// Where images come from.
    pub images: ImagesConfig,
    /// What is never given to pods, by resource name.
    pub reserved: BTreeMap<String, Quantity>,
    /// How little of what pods share is too little: nobody is promised that.
    pub evict_below: Thresholds,
}

/// Who knows the GPUs of the machine.
#[derive(Clone, Debug)]
pub enum GpuSource {
    /// Its drivers, if there are some; those of Vulkan only where it is said how they are asked.
    Machine(Option<AskVulkan>),
    /// A recording of another machine's: pods get names of GPUs and no GPUs.
    Recording(PathBuf),
}

impl ContainersConfig {
    /// The defaults, with all state under `root_dir`.
    pub fn new(root_dir: impl Into<PathBuf>) -> Self {
        Self {
            root_dir: root_dir.into(),
            cgroup_parent: "/clawbernetes".to_owned(),
            pod_network: POD_NETWORK,
            gpus: GpuSource::Machine(None),
            gpu_sharing: Sharing::default(),
            images: ImagesConfig::default(),
            reserved: BTreeMap::new(),
            evict_below: Thresholds::default(),
        }
    }
}

/// Linux containers on this machine.
pub struct Containers {
    root_dir: PathBuf,
    cgroup_parent: String,
    images: Arc<Images>,
    network: Arc<Network>,
    starter: Starter,
    machine: Machine,
    gpus: Arc<Gpus>,
    seccomp: Arc<Seccomp>,
    /// Held while a namespace of processes is looked for or made.
    pausing: tokio::sync::Mutex<()>,
    ledger: Mutex<Ledger>,
}

/// One run, recorded before it is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RunRecord {
    id: String,
    image: String,
    image_id: String,
    restart_delay_ms: u64,
    cgroup: String,
    /// When its sandbox was made.
    #[serde(default)]
    sandbox: Option<Timestamp>,
    /// The image in the store, which stays as long as this record.
    #[serde(default)]
    image_key: Option<image::Digest>,
    /// What asks it to stop, if it is not SIGTERM.
    #[serde(default)]
    stop_signal: Option<i32>,
}

const POD_RECORD: &str = "pod.json";
const SANDBOX_RECORD: &str = "sandbox.json";
const RUN_RECORD: &str = "run.json";

impl Containers {
    /// Opens the state under the root folder.
    ///
    /// # Errors
    /// When this process is not root, or the machine lacks what containers need; the message says what.
    pub async fn open(config: ContainersConfig) -> Result<Arc<Self>, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::Unsupported(
                "containers need a root, of the machine or of namespaces of one's own".to_owned(),
            ));
        }
        if !Path::new("/sys/fs/cgroup").exists() {
            return Err(Error::Unsupported(
                "containers need control groups: mount them under /sys/fs/cgroup".to_owned(),
            ));
        }
        let root = &config.root_dir;
        for folder in ["", "images", "state", "pods"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(Error::io("creating", &path))?;
        }
        // Logs, secrets and sockets are for root alone.
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(Error::io("setting the mode of", root))?;
        let root_dir = fs::canonicalize(root).map_err(Error::io("resolving", root))?;
        if rootless::is_inside() && Ids::of_users().is_single() {
            tracing::warn!(
                "this user has no subordinate ids (/etc/subuid, /etc/subgid): images with files of several owners, and containers \
                 that do not run as root, are refused"
            );
        }
        let (sharing, mps) = (config.gpu_sharing, mps::Place::of(&root_dir));
        let gpus = match config.gpus {
            GpuSource::Machine(vulkan) => Gpus::open(machine(vulkan), sharing, mps).await,
            GpuSource::Recording(file) => Gpus::open(Recording(file), sharing, mps).await,
        };
        Ok(Arc::new(Self {
            gpus: gpus.map_err(|error| Error::Unsupported(error.to_string()))?,
            ledger: Mutex::default(),
            pausing: tokio::sync::Mutex::default(),
            seccomp: Arc::new(Seccomp::new(root_dir.join("seccomp"))),
            images: Images::open(&root_dir.join("images"), config.images)?,
            network: Arc::new(Network::open(&root_dir, config.pod_network)?),
            starter: Starter::new(root_dir.join("starter.lock")),
            machine: Machine::detect(&root_dir).keeping(&config.reserved, &config.evict_below).of_user(),
            cgroup_parent: config.cgroup_parent,
            root_dir,
        }))
    }

    fn pod_folder(&self, uid: &str) -> Result<PathBuf, Error> {
        Ok(self.root_dir.join("pods").join(plain_name(uid)?))
    }

    fn bundle(&self, key: &InstanceKey) -> Result<PathBuf, Error> {
        let containers = self.pod_folder(&key.pod_uid)?.join("containers");
        Ok(containers.join(plain_name(&key.container)?).join(key.attempt.to_string()))
    }

    fn pod_cgroup(&self, uid: &str) -> String {
        format!("{}/pod{uid}", self.cgroup_parent.trim_end_matches('/'))
    }

    fn run_cgroup(&self, key: &InstanceKey) -> String {
        format!("{}/{}", self.pod_cgroup(&key.pod_uid), self.container_id(key))
    }

    /// The API's id for a run: the same after every restart of the agent.
    fn container_id(&self, key: &InstanceKey) -> String {
        self.container_id_of(&key.pod_uid, &key.container, key.attempt)
    }

    fn container_id_of(&self, pod_uid: &str, container: &str, attempt: u32) -> String {
        let name = format!("{}\n{pod_uid}\n{container}\n{attempt}", self.root_dir.display());
        hex(&Sha256::digest(name.as_bytes()))
    }

    fn fields<'a>(&'a self, pod: &'a Pod, host: &'a Host, sandbox: Option<&'a Sandbox>) -> Fields<'a> {
        Fields { pod, host, sandbox, machine: &self.machine }
    }

    /// The OCI configuration of a run, with everything it refers to resolved, and what filters its system calls.
    async fn configure(
        &self,
        request: &StartRequest<'_>,
        image: &Image,
        bundle: &Path,
        run: &RunRecord,
        processes: Processes,
    ) -> Result<(Spec, Option<Filter>), StartFailure> {
        let (pod, container) = (request.pod, request.container);
        let folder = uid(pod)
            .and_then(|uid| self.pod_folder(uid))
            .map_err(|error| StartFailure::new("CreateContainerError", error.full()))?;
        let fields = self.fields(pod, request.host, Some(request.sandbox));
        let environment =
            environment::resolve(container, &image.environment(), request.services, &fields, request.sources)
                .await?;
        let mut mounts = pod_files::binds(&folder, pod);
        mounts.extend(together::memory(&folder, pod));
        mounts.extend(kept_bind(pod, image).await);
        mounts.extend(volume_binds(&folder, pod, container, &environment).await?);
        mounts.push(termination::bind(bundle, container));
        let mut spec = spec::build(&spec::Plan {
            pod,
            container,
            image,
            environment: &environment,
            cgroup: &run.cgroup,
            mounts: without_doubles(mounts),
            namespaces: shared_namespaces(&folder, pod),
            processes,
            memory_bytes: self.machine.capacity.get("memory").map_or(0, |memory| memory.units()),
        })?;
        self.add_gpus(pod.metadata.uid.as_deref().unwrap_or_default(), container, image, &mut spec)?;
        self.confine(pod.clone(), container.clone(), spec).await
    }

    async fn confine(
        &self,
        pod: Pod,
        container: Container,
        mut spec: Spec,
    ) -> Result<(Spec, Option<Filter>), StartFailure> {
        let seccomp = Arc::clone(&self.seccomp);
        let confine = move || Ok(seccomp.confine(&pod, &container, &mut spec).map(|filter| (spec, filter)));
        let failed = |error: Error| StartFailure::new("CreateContainerError", error.full());
        blocking(confine).await.map_err(failed)?
    }

    /// The record of a run and the bundle it is in.
    fn run_record(&self, key: &InstanceKey) -> Result<(PathBuf, RunRecord), Error> {
        let bundle = self.bundle(key)?;
        let record = records::read_if_whole(&bundle.join(RUN_RECORD))?.ok_or_else(|| {
            Error::NotFound(format!(
                "container {} of pod {} has no run {}",
                key.container, key.pod_uid, key.attempt
            ))
        })?;
        Ok((bundle, record))
    }

    /// Before a container starts or a command runs in one: both go into a cgroup, after some milliseconds.
    fn expect_moves(&self) {
        if let Some(starter) = self.starter.pid() {
            tokio::task::spawn_blocking(move || cgroups::expect_moves(starter));
        }
    }

    fn tenant(&self, key: &InstanceKey, command: &[String]) -> Result<Tenant, Error> {
        Ok(Tenant {
            id: self.container_id(key),
            bundle: self.bundle(key)?,
            state_root: self.root_dir.join("state"),
            command: command.to_vec(),
        })
    }
}

/// Makes the folder of a run, with all that its shim reads.
fn write_bundle(bundle: &Path, config: &Spec, filter: Option<&Filter>, run: &RunRecord) -> Result<(), Error> {
    fs::create_dir_all(bundle).map_err(Error::io("creating", bundle))?;
    records::write(&bundle.join("config.json"), config)?;
    if let Some(filter) = filter {
        records::write(&bundle.join(files::FILTER), filter)?;
    }
    let lock = bundle.join(files::LOCK);
    fs::write(&lock, []).map_err(Error::io("creating", &lock))?;
    // About a process, which a power cut ends too: no need to wait for the disk.
    records::write(&bundle.join(RUN_RECORD), run)
}

/// Parts of volumes are opened and mounted for this: on a share whose server is gone that may take for ever.
async fn volume_binds(
    folder: &Path,
    pod: &Pod,
    container: &Container,
    environment: &environment::Environment,
) -> Result<Vec<Bind>, StartFailure> {
    let (folder, pod, container, environment) =
        (folder.to_owned(), pod.clone(), container.clone(), environment.clone());
    let find = move || Ok(volumes::binds(&folder, &pod, &container, &environment));
    blocking(find).await.map_err(create_error)?
}

/// Lets go of the namespaces of an ordinary user, and of daemons that have containers share GPUs, unless there are pods. For an agent that
/// has ended.
///
/// # Errors
/// When the state cannot be read.
pub fn leave(root_dir: &Path) -> Result<(), Error> {
    if names(&root_dir.join("pods"))?.is_empty() { abandon(root_dir) } else { Ok(()) }
}

/// The same whatever is in them: the state is about to be deleted.
///
/// # Errors
/// When something cannot be unmounted.
pub fn abandon(root_dir: &Path) -> Result<(), Error> {
    mps::end_all(root_dir);
    if !rootless::is_inside() {
        return Ok(());
    }
    // Of mounts that go with their namespace, too: a folder with some cannot be removed.
    unmount_below(root_dir)?;
    rootless::leave(root_dir)
}

/// Guards paths against names the server should never have accepted.
fn plain_name(name: &str) -> Result<&str, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.chars().all(plain) {
        Ok(name)
    } else {
        Err(Error::Unsupported(format!("\"{name}\" cannot name a pod or container")))
    }
}

/// Runs blocking work on a thread made for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Unsupported(error.to_string()))?
}

fn uid(pod: &Pod) -> Result<&str, Error> {
    pod.metadata.uid.as_deref().ok_or_else(|| Error::Unsupported("the pod has no uid".to_owned()))
}

fn uses_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

fn sandbox_failure(error: &Error) -> StartFailure {
    StartFailure::new("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {}", error.full()))
}

fn create_error(error: Error) -> StartFailure {
    StartFailure::new("CreateContainerError", error.full())
}

#[async_trait]
impl Runtime for Containers {
    fn machine(&self) -> Machine {
        self.machine.clone().with_gpus(&self.gpus.present())
    }

    async fn admit(&self, pod: &Pod, going: &HashSet<String>, sources: &Sources) -> Result<(), Refusal> {
        self.admit_to_gpus(pod, going, sources).await
    }

    fn held(&self, pod: &Pod) -> BTreeMap<String, Vec<HeldDevice>> {
        self.held_gpus(pod)
    }

    fn held_claims(&self) -> Vec<HeldClaim> {
        self.ledger.lock().claims()
    }

    async fn mend_devices(&self, key: &InstanceKey) -> Result<Vec<String>, Error> {
        let (bundle, run) = self.run_record(key)?;
        blocking(move || {
            let spec = shim::configuration(&bundle)?;
            devices::mend(&run.cgroup, &spec).map_err(Error::io("mending the devices of", &bundle))
        })
        .await
    }

    fn gpus(&self) -> Option<watch::Receiver<Arc<Inventory>>> {
        Some(self.gpus.subscribe())
    }

    fn routes_services(&self) -> bool {
        true
    }

    async fn route(
        &self,
        services: watch::Receiver<Arc<Services>>,
        server: Option<String>,
        cancel: CancellationToken,
    ) {
        network::keep(Arc::clone(&self.network), services, server, cancel).await;
    }

    async fn recover(&self) -> Result<Vec<RecoveredPod>, Error> {
        self.starter.outlive_earlier().await?;
        let folder = self.root_dir.join("pods");
        let mut pods = Vec::new();
        for pod_uid in names(&folder)? {
            let path = folder.join(&pod_uid);
            let record = path.join(POD_RECORD);
            let pod = records::read::<Pod>(&record).inspect_err(|_| {
                tracing::error!(
                    file = %record.display(),
                    "a pod's record cannot be read; once the file is removed, the pod's containers are stopped and started anew"
                );
            })?;
            match pod {
                Some(pod) => pods.push(self.recover_pod(&path, pod).await?),
                // Died while remembering it, so there is nothing but the folder; or the record was lost.
                None => {
                    self.release(&pod_uid).await?;
                    self.forget(&pod_uid).await?;
                }
            }
        }
        Ok(pods)
    }

    async fn remember(&self, pod: &Pod) -> Result<(), Error> {
        let folder = self.pod_folder(uid(pod)?)?;
        let pod = pod.clone();
        blocking(move || {
            fs::create_dir_all(&folder).map_err(Error::io("creating", &folder))?;
            records::write_durably(&folder.join(POD_RECORD), &pod)
        })
        .await
    }

    async fn prepare(&self, pod: &Pod, host: &Host, sources: &Sources) -> Result<Sandbox, StartFailure> {
        if let Some(field) = unsupported(pod) {
            return Err(sandbox_failure(&Error::Unsupported(format!(
                "{field} is not supported on this node"
            ))));
        }
        // The first container follows at once.
        self.expect_moves();
        let folder =
            uid(pod).and_then(|uid| self.pod_folder(uid)).map_err(|error| sandbox_failure(&error))?;
        volumes::prepare(&folder.join("volumes"), &self.fields(pod, host, None), sources).await?;
        let (pod, host, network) = (pod.clone(), host.clone(), Arc::clone(&self.network));
        blocking(move || make_sandbox(&folder, &pod, &host, &network))
            .await
            .map_err(|error| sandbox_failure(&error))
    }

    async fn refresh(
        &self,
        pod: &Pod,
        host: &Host,
        sources: &Sources,
        given_up: &CancellationToken,
    ) -> Result<(), Error> {
        if !volumes::can_change(pod) {
            return Ok(());
        }
        let folder = self.pod_folder(uid(pod)?)?.join("volumes");
        volumes::refresh(&folder, &self.fields(pod, host, None), sources, given_up).await
    }

    async fn start(&self, request: StartRequest<'_>) -> Result<Instance, StartFailure> {
        self.expect_moves();
        let key = InstanceKey {
            pod_uid: uid(request.pod).map_err(create_error)?.to_owned(),
            container: request.container.name.clone(),
            attempt: request.attempt,
        };
        let image = self.image(&request).await?;
        let bundle = self.bundle(&key).map_err(create_error)?;
        let run = RunRecord {
            id: self.container_id(&key),
            image: request.container.image.clone().unwrap_or_default(),
            image_id: image.id.clone(),
            restart_delay_ms: u64::try_from(request.restart_delay.as_millis()).unwrap_or(u64::MAX),
            cgroup: self.run_cgroup(&key),
            sandbox: Some(request.sandbox.created_at),
            image_key: image.key.clone(),
            stop_signal: images::stop_signal(request.container, &image.settings),
        };
        self.clear(&bundle, &run).await.map_err(create_error)?;

        let processes = self.processes(&request).await?;
        let shares_processes = processes != Processes::Own;
        let (config, filter) = self.configure(&request, &image, &bundle, &run, processes).await?;
        let (folder, container, record) = (bundle.clone(), request.container.clone(), run.clone());
        let write = move || {
            write_bundle(&folder, &config, filter.as_ref(), &record)?;
            termination::create(&folder, &container)
        };
        blocking(write).await.map_err(create_error)?;
        let job = RunJob {
            id: run.id.clone(),
            bundle: bundle.clone(),
            state_root: self.root_dir.join("state"),
            layers: image.layers,
            cgroup: run.cgroup.clone(),
            stdin: reach::stdin(request.container),
            tty: request.container.tty == Some(true),
            shares_processes,
        };
        match self.starter.run(job).await {
            Ok(shim) => Ok(instance(key, run, Some(shim.started_at), None)),
            Err(error) => {
                self.end_shim(&bundle, &run).await.map_err(create_error)?;
                self.not_started(key, run, &bundle, &error).await.map_err(create_error)
            }
        }
    }

    async fn count(&self, runs: Vec<InstanceKey>) -> Counts {
        let groups: Vec<_> = runs.into_iter().map(|key| (self.run_cgroup(&key), key)).collect();
        let counted = tokio::task::spawn_blocking(|| Counts {
            machine: usage::of_machine(),
            runs: groups
                .into_iter()
                .filter_map(|(group, key)| Some((key, usage::of_group(&group)?)))
                .collect(),
        });
        counted.await.unwrap_or_default()
    }

    async fn images(&self) -> Vec<ContainerImage> {
        self.listed_images().await
    }

    fn images_changed(&self) -> Option<watch::Receiver<()>> {
        Some(self.images.subscribe())
    }

    async fn levels(&self) -> BTreeMap<Good, Level> {
        self.measured_levels().await
    }

    async fn usage(&self, pod_uid: &str, good: Good) -> u64 {
        self.measured_use(pod_uid, good).await
    }

    async fn make_room(&self) {
        self.sweep_images().await;
        self.collect_images().await;
    }

    fn stop_signal(&self, key: &InstanceKey) -> i32 {
        let record = self.run_record(key).ok();
        record.and_then(|(_, run)| run.stop_signal).unwrap_or(nix::libc::SIGTERM)
    }

    async fn wait(&self, key: &InstanceKey) -> Result<ExitRecord, Error> {
        let (bundle, run) = self.run_record(key)?;
        loop {
            if let Some(exit) = self.outcome(&bundle, &run).await? {
                return blocking(move || Ok(termination::with_message(&bundle, exit))).await;
            }
            if shim::client::wait(&bundle).await.is_err() {
                tokio::time::sleep(LOCK_POLL).await;
            }
        }
    }

    fn tells_progress(&self, run: &Instance) -> bool {
        image::kernels::is_id(&run.image_id)
    }

    async fn progress(&self, key: &InstanceKey) -> Option<String> {
        let bundle = self.bundle(key).ok()?;
        blocking(move || Ok(termination::progress(&bundle))).await.ok()?
    }

    async fn signal(&self, key: &InstanceKey, signal: i32) -> Result<(), Error> {
        let bundle = self.bundle(key)?;
        match shim::client::signal(&bundle, signal).await {
            Ok(()) => Ok(()),
            // A shim that is gone, or about to go, has nothing left to signal.
            Err(_) if bundle.join(files::EXIT).exists() || !self.is_locked(&bundle)? => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn exec(
        &self,
        key: &InstanceKey,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecReply, Error> {
        self.expect_moves();
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.starter.exec(ExecJob { tenant: self.tenant(key, command)?, timeout_ms }).await
    }

    async fn talk(&self, key: &InstanceKey, wish: &TalkWish, talk: Talk) -> Result<Option<i32>, Error> {
        self.talk_to(key, wish, talk).await
    }

    async fn dial(&self, pod_uid: &str, port: u16) -> Result<TcpStream, Error> {
        self.dial_inside(pod_uid, port).await
    }

    async fn probe(&self, key: &InstanceKey, target: &ProbeTarget, timeout: Duration) -> Result<(), String> {
        let ProbeTarget::Exec(command) = target else {
            return probe::over_network(&self.network, target, timeout).await;
        };
        match self.exec(key, command, timeout).await {
            Ok(ExecReply::Exited { code: 0, .. }) => Ok(()),
            Ok(ExecReply::Exited { code, output }) if output.is_empty() => Err(format!("exit code {code}")),
            Ok(ExecReply::Exited { output, .. }) => Err(output),
            Ok(ExecReply::TimedOut) => Err(format!("command timed out after {} s", timeout.as_secs())),
            Ok(ExecReply::Failed(why)) => Err(why),
            Err(error) => Err(error.full()),
        }
    }

    fn log_folder(&self, key: &InstanceKey) -> Result<PathBuf, Error> {
        self.run_record(key).map(|(bundle, _)| bundle)
    }

    async fn discard(&self, key: &InstanceKey) -> Result<(), Error> {
        let Ok((bundle, run)) = self.run_record(key) else { return Ok(()) };
        self.end_shim(&bundle, &run).await?;
        blocking(move || remove_if_there(&bundle)).await
    }

    async fn release(&self, pod_uid: &str) -> Result<(), Error> {
        let folder = self.pod_folder(pod_uid)?;
        self.end_all(&folder, pod_uid).await?;
        let cgroup = self.pod_cgroup(pod_uid);
        let kill = blocking(move || cgroups::kill_and_remove(&cgroup));
        kill.await?;
        self.free_gpus(&folder, pod_uid).await?;
        let (network, pod_uid) = (Arc::clone(&self.network), pod_uid.to_owned());
        blocking(move || {
            network.detach(&pod_uid)?;
            unmount_below(&folder)?;
            for name in ["ns", "volumes", "etc", sub_path::FOLDER, together::MEMORY, together::PAUSE] {
                remove_if_there(&folder.join(name))?;
            }
            remove_if_there(&folder.join(SANDBOX_RECORD))
        })
        .await
    }

    async fn forget(&self, pod_uid: &str) -> Result<(), Error> {
        let folder = self.pod_folder(pod_uid)?;
        blocking(move || remove_if_there(&folder)).await
    }

    async fn close(&self) -> Result<(), Error> {
        let network = Arc::clone(&self.network);
        let parent = self.cgroup_parent.clone();
        blocking(move || {
            cgroups::remove_if_empty(&parent);
            network.close()
        })
        .await
    }
}

fn instance(
    key: InstanceKey,
    run: RunRecord,
    started_at: Option<Timestamp>,
    exit: Option<ExitRecord>,
) -> Instance {
    Instance {
        key,
        id: run.id,
        image: run.image,
        image_id: run.image_id,
        restart_delay: Duration::from_millis(run.restart_delay_ms),
        sandbox: run.sandbox,
        started_at,
        exit,
    }
}

/// What containers of the image kept, of the same namespace. Without it everything works all the same, more slowly.
async fn kept_bind(pod: &Pod, image: &Image) -> Option<Bind> {
    let kept = image.kept.clone()?;
    let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    match blocking(move || kept.for_namespace(&namespace)).await {
        Ok(source) => {
            Some(Bind { source, target: places::KEPT.to_owned(), read_only: false, propagation: "rprivate" })
        }
        Err(error) => {
            tracing::warn!(error = %error.full(), "a container begins without what others of its namespace kept");
            None
        }
    }
}

/// A volume may take the place of one of the pod's own files.
fn without_doubles(mounts: Vec<Bind>) -> Vec<Bind> {
    let mut kept: Vec<Bind> = Vec::new();
    for mount in mounts {
        kept.retain(|other| other.target != mount.target);
        kept.push(mount);
    }
    kept
}

fn shared_namespaces(folder: &Path, pod: &Pod) -> Vec<(LinuxNamespaceType, PathBuf)> {
    [(LinuxNamespaceType::Network, "net"), (LinuxNamespaceType::Ipc, "ipc"), (LinuxNamespaceType::Uts, "uts")]
        .into_iter()
        .filter(|(kind, _)| !(*kind == LinuxNamespaceType::Ipc && together::uses_host_ipc(pod)))
        .map(|(kind, name)| (kind, folder.join("ns").join(name)))
        .filter(|(_, path)| path.exists())
        .collect()
}

fn make_sandbox(folder: &Path, pod: &Pod, host: &Host, network: &Network) -> Result<Sandbox, Error> {
    let record = folder.join(SANDBOX_RECORD);
    let pins = folder.join("ns");
    if let Some(sandbox) = records::read::<Sandbox>(&record)?
        && namespace::is_pinned(&pins.join("ipc"))
    {
        return Ok(sandbox);
    }
    // What an attempt that failed in between left.
    for left in [&pins, &folder.join(together::MEMORY)] {
        unmount_below(left)?;
        remove_if_there(left)?;
    }
    let own_network = !uses_host_network(pod);
    namespace::create(&pins, &environment::hostname(pod), own_network)?;
    let ip = if own_network { network.attach(uid(pod)?, pod, &pins.join("net"))? } else { host.ip };
    pod_files::write(folder, pod, ip, network.resolver())?;
    together::make_memory(folder, pod)?;
    let sandbox = Sandbox { ip: Some(ip), created_at: Timestamp::now() };
    records::write_durably(&record, &sandbox)?;
    Ok(sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        assert!(plain_name("6f3c0b7e-1a1f-4a94-8c52-0a5ef7b2a001").is_ok());
        for name in ["", ".", "..", "a/b", ".hidden", "a b"] {
            assert!(plain_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_volume_takes_the_place_of_the_pods_own_file() {
        let bind = |source: &str| Bind {
            source: source.into(),
            target: "/etc/hosts".to_owned(),
            read_only: false,
            propagation: "rprivate",
        };
        assert_eq!(without_doubles(vec![bind("own"), bind("volume")]), [bind("volume")]);
    }
}
