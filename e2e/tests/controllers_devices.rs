//! Claims and numbers of GPUs against the real server with its controllers, which are killed right after they allocate.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claw_client::{
    Api, Delta,
    api::Object,
    request::{DeleteOptions, ListOptions, PatchKind},
};
use claw_e2e::{
    devices::Devices,
    history::revision_of,
    wait::{LATER, check, until_async},
};
use claw_schemas::{
    gpu::{CLASS, DRIVER, RESOURCE},
    status::Reason,
};
use claw_testing::{TestCluster, healthy, object};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    resource::v1::{ResourceClaim, ResourceClaimTemplate, ResourceSlice},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NS: &str = "default";
const NODES: [&str; 2] = ["n1", "n2"];
const GPUS_OF_A_NODE: usize = 3;
const GPUS: usize = GPUS_OF_A_NODE * NODES.len();

/// How often the controllers die.
const DEATHS: usize = 6;

/// Everything that was told of claims and pods.
#[derive(Default)]
struct Told {
    changes: Mutex<Vec<(Value, bool)>>,
    /// What to end when the next claim is seen to be allocated.
    victim: Mutex<Option<CancellationToken>>,
}

impl Told {
    fn note(&self, object: Value, gone: bool) {
        if object["status"]["allocation"].is_object()
            && let Some(victim) = lock(&self.victim).take()
        {
            victim.cancel();
        }
        lock(&self.changes).push((object, gone));
    }

    /// Who has what after all of it, in the order in which it happened.
    fn replay(&self) -> Devices {
        let mut changes = lock(&self.changes).clone();
        changes.sort_by_key(|(object, _)| revision_of(object));
        let mut devices = Devices::default();
        for (object, gone) in &changes {
            let is_claim = object["spec"]["devices"].is_object();
            let held = if is_claim { devices.claim(object, *gone) } else { devices.pod(object, *gone) };
            held.unwrap_or_else(|why| panic!("at {:?}: {why}", revision_of(object)));
        }
        devices
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_that_die_right_after_they_allocate_give_no_gpu_twice_and_leave_none_behind() {
    let mut cluster = cluster().await;
    let told = Arc::new(Told::default());
    follow::<ResourceClaim>(&mut cluster, &told);
    follow::<Pod>(&mut cluster, &told);
    let pods = cluster.client.namespaced::<Pod>(NS);
    for at in 0..GPUS {
        pods.create(&claimer(&format!("claims-{at}"))).await.expect("a valid pod");
    }
    let mut died = 0;
    for round in 0..DEATHS {
        let controllers = cluster.controllers();
        *lock(&told.victim) = Some(controllers.clone());
        until_async("the controllers have died, or given all that there is", LATER, async || {
            let (is_dead, given) = (controllers.is_cancelled(), told.replay().count());
            check(is_dead || given == GPUS, format!("{given} are given"))
        })
        .await;
        died += usize::from(controllers.is_cancelled());
        controllers.cancel();
        pods.create(&counter(&format!("counts-{round}"))).await.expect("a valid pod");
        // One of those that run goes, so that there is something to give again.
        let all = pods.list(ListOptions::default()).await.expect("a list").items;
        let runs = |pod: &&Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
        };
        let names = all.iter().filter(runs).filter_map(|pod| pod.metadata.name.clone());
        if let Some(name) = names.into_iter().nth(round % 2) {
            let_go(&pods, &name).await;
        }
    }
    assert!(died > 0, "no claim was ever seen to be allocated");

    *lock(&told.victim) = None;
    cluster.controllers();
    until_async("all GPUs are given", LATER, async || {
        let given = told.replay().count();
        check(given == GPUS, given)
    })
    .await;
    let all = pods.list(ListOptions::default()).await.expect("a list").items;
    for name in all.iter().filter_map(|pod| pod.metadata.name.as_deref()) {
        let_go(&pods, name).await;
    }
    let claims = cluster.client.namespaced::<ResourceClaim>(NS);
    until_async("no claim and no pod is left", LATER, async || {
        let options = ListOptions::default;
        let left = claims.list(options()).await.map_err(|error| error.to_string())?.items.len();
        let pods = pods.list(options()).await.map_err(|error| error.to_string())?.items.len();
        check(left == 0 && pods == 0, format!("{left} claims, {pods} pods"))
    })
    .await;
    cluster.stop().await;
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deletes a pod, which may be gone by then.
async fn let_go(pods: &Api<Pod>, name: &str) {
    match pods.delete(name, DeleteOptions::default()).await {
        Err(error) if error.reason != Reason::NotFound => panic!("{name} cannot be deleted: {error}"),
        _ => {}
    }
}

/// Two machines with three GPUs each, and a template for one.
async fn cluster() -> TestCluster {
    let mut cluster = TestCluster::start().await;
    for node in NODES {
        cluster.machine(node, healthy).await;
        let amount = json!({RESOURCE: GPUS_OF_A_NODE.to_string()});
        let status = json!({"status": {"capacity": amount, "allocatable": amount}});
        let nodes = cluster.client.all::<Node>();
        nodes.patch(node, Some("status"), PatchKind::Merge, &status).await.expect("a valid status");
        cluster.client.all::<ResourceSlice>().create(&slice(node)).await.expect("a valid slice");
    }
    let request = json!({"name": "gpu", "exactly": {"deviceClassName": CLASS}});
    let template: ResourceClaimTemplate = object(json!({
        "metadata": {"name": "one", "namespace": NS},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }));
    let templates = cluster.client.namespaced::<ResourceClaimTemplate>(NS);
    templates.create(&template).await.expect("a valid template");
    cluster
}

fn slice(node: &str) -> ResourceSlice {
    let device = |at: usize| {
        let uuid = format!("GPU-{node}-{at}");
        let attributes = json!({"uuid": {"string": uuid}, "type": {"string": "gpu"}});
        json!({"name": uuid.to_lowercase(), "attributes": attributes})
    };
    object(json!({
        "metadata": {"name": format!("{node}-{DRIVER}")},
        "spec": {
            "driver": DRIVER, "nodeName": node, "devices": (0..GPUS_OF_A_NODE).map(device).collect::<Vec<_>>(),
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        },
    }))
}

fn claimer(name: &str) -> Pod {
    pod(
        name,
        json!({"claims": [{"name": "gpu"}]}),
        json!([{"name": "gpu", "resourceClaimTemplateName": "one"}]),
    )
}

fn counter(name: &str) -> Pod {
    pod(name, json!({"limits": {RESOURCE: "1"}}), json!([]))
}

fn pod(name: &str, resources: Value, claims: Value) -> Pod {
    object(json!({
        "metadata": {"name": name, "namespace": NS},
        "spec": {
            "terminationGracePeriodSeconds": 1, "resourceClaims": claims,
            "containers": [{"name": "c", "image": "i", "resources": resources}],
        },
    }))
}

fn follow<K: Object>(cluster: &mut TestCluster, told: &Arc<Told>) {
    let told = Arc::clone(told);
    cluster.watch::<K>().subscribe(move |delta: &Delta<K>| {
        let plain = |object: &K| serde_json::to_value(object).expect("it came as JSON");
        match delta {
            Delta::Applied { new, .. } => told.note(plain(new), false),
            Delta::Deleted { last } => told.note(plain(last), true),
            Delta::Synced => {}
        }
    });
}
