//! The agent: keeps the pods that the server wants on this node, and reports what they are.
//!
//! It is a reconciler too. The server sends levels; a worker a pod ([`worker`]) makes them so; an
//! outbox ([`outbox`]) holds what the server has yet to hear. Without a server, pods go on.
//!
//! Must never know: how containers run (that is [`Runtime`]), which wire the link uses.

mod claims;
pub mod events;
mod gpus;
mod hook;
mod images;
mod node_info;
pub mod outbox;
mod pressure;
mod report;
mod room;
mod services;
mod session;
mod statics;
mod streams;
mod usage;
mod worker;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use claw_client::{Client, Store, node::NodeLink};
use claw_schemas::quantity::Quantity;
use k8s_openapi::api::core::v1::{Pod, Service, Taint};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    outbox::Outbox,
    room::Room,
    statics::{Mirror, Statics, is_static},
    usage::Meter,
    worker::{RunView, RunViews, WISHES_MAX, Wish, Worker},
};
use crate::{
    clock::Clock,
    error::Error,
    ids,
    pod::Eviction,
    pressure::{SoftThresholds, Thresholds},
    runtime::{Host, Runtime, Sources},
};

/// First delay between restarts of a container that keeps exiting; doubles up to 30 times itself.
pub const RESTART_BACKOFF_BASE: Duration = Duration::from_secs(10);

/// How long containers wait, after the agent began, to be told of services. Without a server they start all the same: what ran
/// before must come up again.
pub const SERVICES_WAIT: Duration = Duration::from_secs(30);

/// Who this node is.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of the Node object.
    pub node_name: String,
    /// Labels for the Node object, beside the well-known ones that the agent finds out.
    pub labels: BTreeMap<String, String>,
    /// Taints for the Node object, if it is new: what people made of it since stays.
    pub taints: Vec<Taint>,
    /// Capacity to report instead of what the machine has, by resource name.
    pub capacity: BTreeMap<String, Quantity>,
    /// Address that other machines reach this one at.
    pub host_ip: IpAddr,
    /// First delay between restarts of a container that keeps exiting.
    pub restart_backoff: Duration,
    /// Where the API server is dialled, `host:port`: pods are led there.
    pub server: Option<String>,
    /// How long containers wait, after the start, until services are known.
    pub services_wait: Duration,
    /// How little of what pods share is too little.
    pub evict_below: Thresholds,
    /// How little is too little once it has lasted.
    pub evict_soft: SoftThresholds,
    /// What a pod has to end at the most that goes for that.
    pub evict_soft_grace: Duration,
    /// Folder of pods that run here whatever the server says.
    pub static_pods: Option<PathBuf>,
    /// Where the time of reports comes from.
    pub clock: Clock,
}

impl AgentConfig {
    /// A node with defaults, reachable on the loopback address.
    pub fn new(node_name: &str) -> Self {
        Self {
            node_name: node_name.to_owned(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            capacity: BTreeMap::new(),
            host_ip: IpAddr::from([127, 0, 0, 1]),
            restart_backoff: RESTART_BACKOFF_BASE,
            server: None,
            services_wait: SERVICES_WAIT,
            evict_below: Thresholds::none(),
            evict_soft: SoftThresholds::default(),
            evict_soft_grace: Duration::MAX,
            static_pods: None,
            clock: Clock::default(),
        }
    }
}

/// What all parts of one agent share.
struct Shared {
    config: AgentConfig,
    host: Host,
    runtime: Arc<dyn Runtime>,
    sources: Sources,
    outbox: Outbox,
    meter: Meter,
    /// Uids of pods that are ending here, or that the server takes for ended: what they hold will soon be free. A pod is
    /// among them before the server can give to others what it held.
    going: Mutex<HashSet<String>>,
    /// What pods are promised.
    room: Room,
    /// All services, once the first list of them is here.
    services: watch::Sender<Option<Store<Service>>>,
    /// Until when containers wait for that.
    services_until: Instant,
    /// By uid of the static pod.
    mirrors: Mutex<HashMap<String, Mirror>>,
    /// Random per run of the agent.
    instance_id: String,
}

impl Shared {
    /// What pods may have, by resource name, as the Node says it.
    fn allocatable(&self) -> BTreeMap<String, Quantity> {
        let mut amounts = self.runtime.machine().allocatable;
        amounts.extend(self.config.capacity.clone());
        amounts
    }
}

/// The agent of one node.
pub struct Agent;

impl Agent {
    /// Runs until cancelled. Pods go on running after it returns, and the next run adopts them.
    ///
    /// # Errors
    /// When the runtime cannot read back what an earlier run left.
    pub async fn run(
        config: AgentConfig,
        link: Arc<dyn NodeLink>,
        client: Client,
        runtime: Arc<dyn Runtime>,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        let host = Host { node_name: config.node_name.clone(), ip: config.host_ip };
        let shared = Arc::new(Shared {
            host,
            sources: Sources::new(client.clone()),
            outbox: Outbox::default(),
            meter: Meter::default(),
            going: Mutex::default(),
            room: Room::default(),
            services: watch::Sender::default(),
            services_until: Instant::now() + config.services_wait,
            mirrors: Mutex::default(),
            instance_id: ids::random()?,
            runtime,
            config,
        });
        // Workers end with this future too, if it is dropped instead of cancelled.
        let workers = cancel.child_token();
        let _end_workers = workers.clone().drop_guard();
        let pods = Arc::new(Pods::new(Arc::clone(&shared), workers));
        for recovered in shared.runtime.recover().await? {
            pods.adopt(recovered);
        }
        let mut statics = Statics::new(&shared, &pods);
        // Before the server is asked for anything, which may take long.
        statics.follow().await;
        let statics = statics.keep(client.clone(), cancel.clone());
        let gpus = gpus::keep(Arc::clone(&shared), client.clone(), cancel.clone());
        let claims = claims::keep(Arc::clone(&shared), client.clone(), cancel.clone());
        let services = services::keep(Arc::clone(&shared), client, cancel.clone());
        let images = images::keep(Arc::clone(&shared), cancel.clone());
        let pressure = pressure::keep(Arc::clone(&shared), Arc::clone(&pods), cancel.clone());
        let session = session::keep(&shared, &link, &pods, &cancel);
        tokio::join!(session, statics, gpus, claims, services, images, pressure);
        pods.join().await;
        shared.runtime.close().await
    }
}

/// The workers, one a pod.
struct Pods {
    shared: Arc<Shared>,
    /// By uid.
    workers: Mutex<HashMap<String, Handle>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

struct Handle {
    wishes: mpsc::Sender<Wish>,
    runs: RunViews,
    stake: pressure::Stake,
    /// The pod, if it comes from a file.
    from_file: Option<Pod>,
}

impl Pods {
    fn new(shared: Arc<Shared>, cancel: CancellationToken) -> Self {
        Self { shared, workers: Mutex::default(), tasks: TaskTracker::new(), cancel }
    }

    fn adopt(self: &Arc<Self>, recovered: crate::runtime::RecoveredPod) {
        let Some(uid) = recovered.pod.metadata.uid.clone() else { return };
        let (handle, wishes) = new_handle(&recovered.pod);
        let worker = Worker::adopt(Arc::clone(&self.shared), recovered, wishes, Arc::clone(&handle.runs));
        self.spawn(uid, handle, worker);
    }

    /// The server has this pod for us.
    async fn desire(self: &Arc<Self>, pod: Pod) {
        if !self.mirror(pod.clone()).await {
            self.run(pod).await;
        }
    }

    async fn run(self: &Arc<Self>, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if is_over(&pod) {
            self.shared.going.lock().insert(uid.clone());
        }
        let known = self.workers.lock().get(&uid).map(|handle| handle.wishes.clone());
        match known {
            // A worker that ended in this moment is found by the next snapshot.
            Some(wishes) => drop(wishes.send(Wish::Desired(Box::new(pod))).await),
            None => {
                let (handle, wishes) = new_handle(&pod);
                let worker = Worker::new(Arc::clone(&self.shared), pod, wishes, Arc::clone(&handle.runs));
                self.spawn(uid, handle, worker);
            }
        }
    }

    /// The server no longer has this pod.
    async fn remove(&self, uid: &str) {
        self.unmirror(uid);
        let known = {
            let workers = self.workers.lock();
            // Under the lock, so that a worker that ends takes it back.
            workers.get(uid).map(|handle| {
                self.shared.going.lock().insert(uid.to_owned());
                handle.wishes.clone()
            })
        };
        if let Some(wishes) = known {
            let _ = wishes.send(Wish::Removed).await;
        }
    }

    /// These are all pods the server has for us; others must not run here.
    async fn replace(self: &Arc<Self>, pods: Vec<Pod>) {
        let wanted: HashSet<String> = pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        let mut known: Vec<String> =
            self.shared.mirrors.lock().values().map(|mirror| mirror.uid.clone()).collect();
        let of_server = |(uid, handle): (&String, &Handle)| handle.from_file.is_none().then(|| uid.clone());
        known.extend(self.workers.lock().iter().filter_map(of_server));
        for uid in known.iter().filter(|uid| !wanted.contains(*uid)) {
            self.remove(uid).await;
        }
        for pod in pods {
            self.desire(pod).await;
        }
    }

    /// The pods that come from files, as they were last wanted.
    fn statics(&self) -> Vec<Pod> {
        self.workers.lock().values().filter_map(|handle| handle.from_file.clone()).collect()
    }

    /// A file says this pod. One of its name that still runs ends first.
    async fn start_static(self: &Arc<Self>, pod: &Pod) {
        let of_its_name = |known: &&Pod| {
            known.metadata.name == pod.metadata.name && known.metadata.namespace == pod.metadata.namespace
        };
        if self.statics().iter().find(of_its_name).is_none() {
            self.run(pod.clone()).await;
        }
    }

    /// What is wanted of a static pod, or known of its mirror, is new.
    async fn keep_static(&self, pod: Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let wishes = self.workers.lock().get_mut(&uid).map(|handle| {
            handle.from_file = Some(pod.clone());
            handle.wishes.clone()
        });
        if let Some(wishes) = wishes {
            let _ = wishes.send(Wish::Desired(Box::new(pod))).await;
        }
    }

    fn spawn(self: &Arc<Self>, uid: String, handle: Handle, worker: Worker) {
        self.workers.lock().insert(uid.clone(), handle);
        let pods = Arc::clone(self);
        self.tasks.spawn(async move {
            worker.run(pods.cancel.clone()).await;
            pods.workers.lock().remove(&uid);
            pods.shared.going.lock().remove(&uid);
            pods.shared.room.free(&uid);
        });
    }

    /// The runs of a container, oldest first.
    fn runs(&self, uid: &str, container: &str) -> Option<Vec<RunView>> {
        let runs = Arc::clone(&self.workers.lock().get(&*self.local(uid))?.runs);
        let runs = runs.lock().get(container).cloned();
        Some(runs.unwrap_or_default())
    }

    /// Pods that are not ending.
    fn stakes(&self) -> Vec<(String, pressure::Stake)> {
        let going = self.shared.going.lock().clone();
        let workers = self.workers.lock();
        let stays = workers.iter().filter(|(uid, _)| !going.contains(*uid));
        stays.map(|(uid, handle)| (uid.clone(), handle.stake.clone())).collect()
    }

    /// Ends a pod to make room.
    async fn evict(&self, uid: &str, eviction: Eviction) {
        let known = self.workers.lock().get(uid).map(|handle| handle.wishes.clone());
        if let Some(wishes) = known {
            let _ = wishes.send(Wish::Evict(eviction)).await;
        }
    }

    /// The runs that are not over, of all pods.
    fn running(&self) -> Vec<RunView> {
        let workers = self.workers.lock();
        let runs = |handle: &Handle| -> Vec<RunView> {
            handle.runs.lock().values().flatten().filter(|run| !run.over).cloned().collect()
        };
        workers.values().flat_map(runs).collect()
    }

    fn has(&self, uid: &str) -> bool {
        self.workers.lock().contains_key(uid)
    }

    async fn join(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Whether the server counts nothing any more that the pod holds.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn new_handle(pod: &Pod) -> (Handle, mpsc::Receiver<Wish>) {
    let (wishes, receiver) = mpsc::channel(WISHES_MAX);
    let from_file = is_static(pod).then(|| pod.clone());
    let handle = Handle { wishes, runs: RunViews::default(), stake: pressure::Stake::of(pod), from_file };
    (handle, receiver)
}
