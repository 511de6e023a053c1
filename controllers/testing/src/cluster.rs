//! The API server in this process, and whatever a test wants to run against it.
//!
//! Must never know: any one controller's kinds.

use std::sync::Arc;

use claw_apiserver::{
    auth::{Access, Identity},
    local::LocalTransport,
    service::ObjectService,
    store,
};
use claw_client::{
    Api, Client, Reflector, Store,
    api::Object,
    custom::{self, Spec},
    request::PatchKind,
};
use claw_runtime::{Controller, Env, Leadership, Runtime};
use claw_schemas::Registry;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Node, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    machine::{Machine, Script},
    object,
    wait::await_condition,
};

/// A server in this process: the real one, with its whole pipeline, on a store that lives as long as the test.
///
/// What is started through it ends with [`Self::stop`], which also fails the test when any of it has panicked.
pub struct TestCluster {
    /// Acts as an administrator.
    pub client: Client,
    service: Arc<ObjectService>,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl TestCluster {
    /// A server with its bootstrap objects (namespaces, roles), and nothing else: no controllers, no machines.
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

    /// A client of its own for a component, which may do everything and writes under that name.
    pub fn client_for(&self, component: &str) -> Client {
        client_of(&self.service, component)
    }

    /// Defines the kind that `S` is the spec of, and waits until it is served.
    pub async fn define<S: Spec>(&self) {
        let definition = custom::definition::<S>();
        let name = definition.metadata.name.clone().unwrap_or_default();
        let definitions = self.client.all::<CustomResourceDefinition>();
        definitions.create(&definition).await.unwrap_or_else(|error| panic!("{name} is refused: {error}"));
        self.until("the kind is served", "", &name, custom::is_established).await;
    }

    /// Runs a controller on the runtime's clock, as its process would; the token stops it alone.
    pub fn run(&mut self, controller: impl Controller) -> CancellationToken {
        self.run_on(Env::real(), controller)
    }

    /// The same on a clock of the test's choice.
    pub fn run_on(&mut self, env: Env, controller: impl Controller) -> CancellationToken {
        let (client, env, cancel) =
            (self.client_for(controller.name()), env.fork(), self.cancel.child_token());
        let alone = Leadership::unchallenged();
        let runtime = Runtime::start(client, env.clone(), controller.name(), alone, cancel.clone());
        runtime.spawn(controller);
        self.tasks.push(tokio::spawn(async move { env.join().await }));
        cancel
    }

    /// Starts the cluster's own controllers (owners' references, Deployments, scheduler, ...); the token stops them alone.
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

    /// Adds a machine with room for 1,000 pods, whose pods follow the script. The scheduler, one of
    /// [`Self::controllers`], gives it pods; a pod may also name it in `spec.nodeName`.
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

    /// Waits until an object is as the test wants it, and returns it. `namespace` is empty for cluster-scoped kinds.
    pub async fn until<K: Object>(
        &self,
        what: &str,
        namespace: &str,
        name: &str,
        holds: impl Fn(&K) -> bool,
    ) -> K {
        let found =
            await_condition(&self.api(namespace), name, what, |found| found.is_some_and(&holds)).await;
        found.expect("what holds is there")
    }

    /// Waits until an object is gone.
    pub async fn until_gone<K: Object>(&self, namespace: &str, name: &str) {
        let what = format!("{} {name} goes", K::KIND);
        await_condition::<K>(&self.api(namespace), name, &what, |found| found.is_none()).await;
    }

    /// Drops the history that watches and pages of lists could go on from, so that they expire. It writes something out
    /// of the way first, so that whatever was seen before is too old now.
    pub async fn forget_history(&self) {
        let maps = self.client.namespaced::<ConfigMap>("kube-system");
        let map = object(json!({"metadata": {"generateName": "forgotten-"}}));
        maps.add(&map).await.expect("a valid map");
        let store = self.service.store();
        store.compact(store.revision()).await.expect("the store is open");
    }

    /// Stops everything and waits for it.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.service.close_watches();
        for task in self.tasks {
            task.await.expect("no task of the cluster panics");
        }
    }

    fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        if namespace.is_empty() { self.client.all() } else { self.client.namespaced(namespace) }
    }
}

fn client_of(service: &Arc<ObjectService>, component: &str) -> Client {
    let identity = Identity::loopback(component);
    Client::new(Arc::new(LocalTransport::new(Arc::clone(service), identity)), component)
}
