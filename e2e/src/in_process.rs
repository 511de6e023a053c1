//! The API server and the controllers in this process, with machines whose pods do as a test says.
//!
//! The server is the real one (memory store, the pipeline of `ObjectService`), and so are the controllers; only the
//! containers are missing: a [`Machine`] plays the node agent and reports what its script says.

use std::{sync::Arc, time::Duration};

use claw_apiserver::{
    auth::{Access, Identity},
    local::LocalTransport,
    service::ObjectService,
    store,
};
use claw_client::{
    ApiError, Client, Reflector, Store,
    api::Object,
    request::{DeleteOptions, PatchKind},
};
use claw_runtime::{Env, env::Host};
use claw_schemas::{Registry, status::Reason};
use futures::future::BoxFuture;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::wait::{SOON, until_async};

/// A server in this process.
pub struct InProcess {
    /// Acts as an administrator.
    pub client: Client,
    service: Arc<ObjectService>,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// What a machine reports of a pod: `None` leaves it as it is.
pub type Script = fn(&Pod) -> Option<Report>;

/// What a machine says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Running and serving.
    Ready,
    /// Running, but not serving.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// Every pod serves at once, except those whose image says `broken`: they run and never serve.
pub fn healthy(pod: &Pod) -> Option<Report> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let broken = containers.iter().any(|c| c.image.as_deref().is_some_and(|image| image.contains("broken")));
    Some(if broken { Report::Running } else { Report::Ready })
}

impl InProcess {
    /// A server with its bootstrap objects, and nothing else.
    pub async fn start() -> Self {
        let store = store::memory();
        let access = Access::start(store.clone()).await.expect("a fresh store can be read");
        let service = Arc::new(ObjectService::new(store, Registry::builtin(), access));
        service.ensure_bootstrap_objects().await.expect("a fresh store takes the bootstrap objects");
        let client = client_of(&service, "test");
        let cancel = CancellationToken::new();
        let following = cancel.child_token().run_until_cancelled_owned(service.clone().follow_definitions());
        let keeping = cancel.child_token().run_until_cancelled_owned(service.clone().keep_quotas());
        let tasks = vec![tokio::spawn(async move {
            let _ = tokio::join!(following, keeping);
        })];
        Self { client, service, cancel, tasks }
    }

    /// A client of its own for a component.
    pub fn client_for(&self, component: &str) -> Client {
        client_of(&self.service, component)
    }

    /// Drops the history that watches and pages of lists could go on from. It writes something out of the way first, so
    /// that whatever was seen before is too old now.
    pub async fn forget_history(&self) {
        let maps = self.client.namespaced::<ConfigMap>("kube-system");
        let map = object(json!({"metadata": {"generateName": "forgotten-"}}));
        maps.add(&map).await.expect("a valid map");
        let store = self.service.store();
        store.compact(store.revision()).await.expect("the store is open");
    }

    /// Starts all controllers; the token stops them alone.
    pub fn controllers(&mut self) -> CancellationToken {
        self.controllers_with(Env::real(), claw_controllers::Options::default())
    }

    /// The same with options, on a clock of the test's choice.
    pub fn controllers_with(&mut self, env: Env, options: claw_controllers::Options) -> CancellationToken {
        let client = self.client_for("controllers");
        self.controllers_over(client, env, options)
    }

    /// The same over a client of the test's choice.
    pub fn controllers_over(
        &mut self,
        client: Client,
        env: Env,
        options: claw_controllers::Options,
    ) -> CancellationToken {
        let cancel = self.cancel.child_token();
        self.tasks.push(tokio::spawn(claw_controllers::run(client, env, options, cancel.clone())));
        cancel
    }

    /// Adds a machine with room for 1,000 pods, whose pods follow the script.
    pub async fn machine(&mut self, name: &str, script: Script) {
        let room = json!({"cpu": "1000", "memory": "1000Gi", "pods": "1000", "ephemeral-storage": "1000Gi"});
        let node: Node =
            object(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}));
        let nodes = self.client.all::<Node>();
        nodes.create(&node).await.expect("the node is new");
        let ready = json!({"type": "Ready", "status": "True", "reason": "AgentReady", "message": "",
            "lastHeartbeatTime": Time(Timestamp::now()), "lastTransitionTime": Time(Timestamp::now())});
        let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
        nodes.patch(name, Some("status"), PatchKind::Merge, &status).await.expect("a node takes its status");
        let machine = Machine { client: self.client_for("machine"), script };
        let reflector = Reflector::new(&machine.client.all::<Pod>()).fields(format!("spec.nodeName={name}"));
        let pods = reflector.store();
        self.tasks.push(tokio::spawn(reflector.run(self.cancel.clone())));
        let cancel = self.cancel.clone();
        self.tasks.push(tokio::spawn(async move {
            cancel.run_until_cancelled_owned(machine.run(pods)).await;
        }));
    }

    /// A cache of a kind, for assertions on every state it goes through.
    pub fn watch<K: Object>(&mut self) -> Store<K> {
        let reflector = Reflector::new(&self.client.all::<K>());
        let store = reflector.store();
        self.tasks.push(tokio::spawn(reflector.run(self.cancel.clone())));
        store
    }

    /// Waits until an object is as the test wants it, and returns it.
    pub async fn until<K: Object>(
        &self,
        what: &str,
        namespace: &str,
        name: &str,
        holds: impl Fn(&K) -> bool,
    ) -> K {
        let api = self.client.namespaced::<K>(namespace);
        let (api, holds) = (&api, &holds);
        until_async(what, SOON, || async move {
            let found = api.get(name).await.map_err(|error| error.to_string())?;
            if holds(&found) { Ok(found) } else { Err(format!("{found:?}")) }
        })
        .await
    }

    /// Waits until an object is gone.
    pub async fn until_gone<K: Object>(&self, namespace: &str, name: &str) {
        let mut api = self.client.all::<K>();
        if !namespace.is_empty() {
            api = self.client.namespaced::<K>(namespace);
        }
        let api = &api;
        until_async(&format!("{} {name} goes", K::KIND), SOON, || async move {
            match api.find(name).await {
                Ok(None) => Ok(()),
                Ok(Some(object)) => Err(format!("{object:?}")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Stops everything and waits for it.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.service.close_watches();
        for task in self.tasks {
            task.await.expect("no task of the cluster panics");
        }
    }
}

/// A clock that is ahead of the real one and runs faster, for what takes minutes or hours.
pub struct Warp {
    /// How far ahead of the real time.
    pub ahead: Duration,
    /// How many times faster than the real time.
    pub speed: u32,
    real: Env,
}

impl Warp {
    /// An environment on such a clock.
    pub fn env(ahead: Duration, speed: u32) -> Env {
        Env::on(Arc::new(Self { ahead, speed, real: Env::real() }))
    }
}

impl Host for Warp {
    fn now(&self) -> Timestamp {
        let extra = self.real.uptime() * (self.speed - 1) + self.ahead;
        self.real.now() + extra
    }

    fn uptime(&self) -> Duration {
        self.real.uptime() * self.speed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (real, duration) = (self.real.clone(), duration / self.speed);
        Box::pin(async move { real.sleep(duration).await })
    }

    fn random(&self) -> u64 {
        self.real.random()
    }
}

/// From JSON that the test wrote itself.
pub fn object<K: DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).expect("the test writes valid objects")
}

fn client_of(service: &Arc<ObjectService>, component: &str) -> Client {
    let identity = Identity::loopback(component);
    Client::new(Arc::new(LocalTransport::new(Arc::clone(service), identity)), component)
}

/// Plays the node agent.
struct Machine {
    client: Client,
    script: Script,
}

/// A scripted machine looks at its pods this often, beside every change.
const LOOK: Duration = Duration::from_millis(50);

impl Machine {
    async fn run(&self, pods: Store<Pod>) {
        loop {
            for pod in pods.list() {
                if let Err(error) = self.look_at(&pod).await {
                    // The pod changed or went meanwhile: the next look sees it.
                    assert!(matches!(error.reason, Reason::NotFound | Reason::Conflict), "{error}");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look_at(&self, pod: &Pod) -> Result<(), ApiError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let pods = self.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
        if pod.metadata.deletion_timestamp.is_some() {
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                precondition_uid: pod.metadata.uid.clone(),
                ..DeleteOptions::default()
            };
            return pods.delete(name, options).await;
        }
        let Some(report) = (self.script)(pod) else { return Ok(()) };
        let (phase, ready) = match report {
            Report::Ready => ("Running", "True"),
            Report::Running => ("Running", "False"),
            Report::Succeeded => ("Succeeded", "False"),
            Report::Failed => ("Failed", "False"),
        };
        let status = pod.status.clone().unwrap_or_default();
        let mut conditions = status.conditions.unwrap_or_default();
        let reported = conditions.iter().any(|c| c.type_ == "Ready" && c.status == ready);
        if status.phase.as_deref() == Some(phase) && reported {
            return Ok(());
        }
        conditions.retain(|condition| condition.type_ != "Ready");
        let mut conditions: Vec<Value> = conditions.iter().map(|c| json!(c)).collect();
        conditions
            .push(json!({"type": "Ready", "status": ready, "lastTransitionTime": Time(Timestamp::now())}));
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"phase": phase, "conditions": conditions},
        });
        pods.patch(name, Some("status"), PatchKind::Merge, &patch).await.map(drop)
    }
}
