//! Policies about devices against the real server with its controllers: nobody is given a device before it was found fit, whoever dies when,
//! and what is not fit is kept from everybody until it is. What looks at devices find, these tests say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use claw_client::{
    Client, Delta,
    api::Object,
    request::{DeleteOptions, ListOptions, PatchKind},
};
use claw_controllers::{
    device_check::{DeviceChecks, NAMESPACE},
    device_policy::DevicePolicies,
};
use claw_e2e::{
    history::revision_of,
    mortal::Mortal,
    wait::{LATER, SOON, check, until_async},
};
use claw_runtime::{Env, Leadership, Runtime, conditions};
use claw_schemas::{
    api::{DEVICES_FIT, DeviceCheck, DevicePolicy},
    gpu::{CLASS, DRIVER, NAMED, RESOURCE},
};
use claw_testing::{TestCluster, object};
use k8s_openapi::api::{
    core::v1::{Event, Node, Pod},
    resource::{
        v1::{ResourceClaimTemplate, ResourceSlice},
        v1beta2::DeviceTaintRule,
    },
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NS: &str = "default";
const GPUS: [&str; 2] = ["gpu-a", "gpu-b"];

/// A machine with two GPUs, and a template for a claim on one.
async fn cluster() -> TestCluster {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", |_| None).await;
    let amount = json!({RESOURCE: GPUS.len().to_string()});
    let status = json!({"status": {"capacity": amount, "allocatable": amount}});
    cluster
        .client
        .all::<Node>()
        .patch("n1", Some("status"), PatchKind::Merge, &status)
        .await
        .expect("a valid status");
    let device = |name: &&str| json!({"name": name, "attributes": {"uuid": {"string": name.to_uppercase()}, "type": {"string": "gpu"}}});
    let slice: ResourceSlice = object(json!({"metadata": {"name": "n1-gpus"}, "spec": {
        "driver": DRIVER, "nodeName": "n1", "devices": GPUS.iter().map(device).collect::<Vec<_>>(),
        "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
    }}));
    cluster.client.all::<ResourceSlice>().create(&slice).await.expect("a valid slice");
    let request = json!({"name": "gpu", "exactly": {"deviceClassName": CLASS}});
    let template: ResourceClaimTemplate = object(json!({
        "metadata": {"name": "one", "namespace": NS},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }));
    cluster.client.namespaced::<ResourceClaimTemplate>(NS).create(&template).await.expect("a valid template");
    cluster
}

async fn policy(cluster: &TestCluster, spec: Value) {
    let policy: DevicePolicy = object(json!({"metadata": {"name": "every"}, "spec": spec}));
    cluster.client.all::<DevicePolicy>().create(&policy).await.expect("a sound policy");
}

async fn wants(cluster: &TestCluster, name: &str, resources: Value, claims: Value) {
    let pod: Pod = object(json!({
        "metadata": {"name": name, "namespace": NS},
        "spec": {"resourceClaims": claims, "containers": [{"name": "c", "image": "i", "resources": resources}]},
    }));
    cluster.client.namespaced::<Pod>(NS).create(&pod).await.expect("a valid pod");
}

async fn counts(cluster: &TestCluster, name: &str) {
    wants(cluster, name, json!({"limits": {RESOURCE: "1"}}), json!([])).await;
}

async fn claims(cluster: &TestCluster, name: &str) {
    let claim = json!([{"name": "gpu", "resourceClaimTemplateName": "one"}]);
    wants(cluster, name, json!({"claims": [{"name": "gpu"}]}), claim).await;
}

fn is_placed(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

fn waits_for(words: &'static str) -> impl Fn(&Pod) -> bool {
    move |pod| {
        let all = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let told = conditions::find(all, "PodScheduled").and_then(|told| told.message.clone());
        told.is_some_and(|told| told.contains(words))
    }
}

/// The pods that look at devices and have not ended.
async fn looks(cluster: &TestCluster) -> Vec<Pod> {
    let options = ListOptions::default();
    let all = cluster.client.namespaced::<Pod>(NAMESPACE).list(options).await.expect("lists").items;
    let is_over = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    all.into_iter().filter(|pod| !is_over(pod)).collect()
}

/// A look ends with what it found, as a node would tell; `None` if it crashed without a word.
async fn end(cluster: &TestCluster, pod: &Pod, passed: Option<bool>) {
    let finding = json!({
        "check": "Memory", "passed": passed == Some(true), "words": "3 words differ", "figures": {"memoryBytes": 1.0},
    });
    let found = json!({
        "device": {"id": "cuda:0", "model": "some"}, "level": "Quick", "findings": [finding], "seconds": 1.0,
    });
    let report = json!({"state": "Complete", "doing": "load", "runs": 0, "qualification": found});
    let message = passed.map_or_else(String::new, |_| report.to_string());
    let exit_code = i32::from(passed.is_none());
    let worker = json!({
        "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": exit_code, "message": message}},
    });
    let phase = if passed.is_some() { "Succeeded" } else { "Failed" };
    let patch = json!({"status": {"phase": phase, "containerStatuses": [worker]}});
    let name = pod.metadata.name.as_deref().expect("pods have names");
    cluster
        .client
        .namespaced::<Pod>(NAMESPACE)
        .patch(name, Some("status"), PatchKind::Merge, &patch)
        .await
        .expect("the pod is there");
}

/// Ends looks that run with that, until the policy has counted so many devices that are fit and so many that are not.
async fn looked_at_until(cluster: &TestCluster, passed: bool, fit: i32, not_fit: i32) {
    until_async(&format!("{fit} are fit and {not_fit} are not"), LATER, async || {
        for pod in looks(cluster).await.iter().filter(|pod| is_placed(pod)) {
            end(cluster, pod, Some(passed)).await;
        }
        let status = cluster.client.all::<DevicePolicy>().get("every").await.expect("it is there").status;
        let status = status.unwrap_or_default();
        check((status.fit, status.not_fit) == (Some(fit), Some(not_fit)), format!("{status:?}"))
    })
    .await;
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that was told of pods and checks, in the order in which it happened.
#[derive(Default)]
struct Told(Mutex<Vec<Value>>);

fn follow<K: Object>(cluster: &mut TestCluster, told: &Arc<Told>) {
    let told = Arc::clone(told);
    cluster.watch::<K>().subscribe(move |delta: &Delta<K>| {
        if let Delta::Applied { new, .. } = delta {
            lock(&told.0).push(serde_json::to_value(&**new).expect("it came as JSON"));
        }
    });
}

impl Told {
    /// Pods that ask for GPUs by number and were given one that no look had found fit by then.
    fn too_early(&self) -> Vec<String> {
        let mut all = lock(&self.0).clone();
        all.sort_by_key(revision_of);
        let (mut fit, mut early) = (BTreeSet::new(), Vec::new());
        for object in &all {
            if object["status"]["verdict"] == "Fit" {
                fit.insert(object["spec"]["device"]["name"].as_str().unwrap_or_default().to_owned());
            }
            let named = object["metadata"]["annotations"][NAMED].as_str().unwrap_or_default();
            early.extend(
                named
                    .split(',')
                    .map(str::to_lowercase)
                    .filter(|name| !name.is_empty() && !fit.contains(name)),
            );
        }
        early
    }

    /// How many pods looked at devices for each check.
    fn pods_by_check(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut by_check: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pod in lock(&self.0).iter().filter(|object| object["metadata"]["namespace"] == NAMESPACE) {
            let owner = &pod["metadata"]["ownerReferences"][0];
            if owner["kind"] == "DeviceCheck" {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                by_check.entry(text(&owner["uid"])).or_default().insert(text(&pod["metadata"]["uid"]));
            }
        }
        by_check
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_given_a_device_before_a_look_has_found_it_fit() {
    let mut cluster = cluster().await;
    let told = Arc::new(Told::default());
    follow::<Pod>(&mut cluster, &told);
    follow::<DeviceCheck>(&mut cluster, &told);
    policy(&cluster, json!({})).await;
    counts(&cluster, "counts").await;
    claims(&cluster, "claims").await;
    cluster.controllers();
    cluster.until("it says why it waits", NS, "counts", waits_for("clawbernetes.io/unchecked")).await;
    cluster.until("it says why it waits", NS, "claims", waits_for("clawbernetes.io/unchecked")).await;
    until_async("the first look has its device", SOON, async || {
        check(looks(&cluster).await.iter().any(is_placed), "none is placed")
    })
    .await;
    looked_at_until(&cluster, true, 2, 0).await;
    cluster.until("it is placed", NS, "counts", is_placed).await;
    cluster.until("it is placed", NS, "claims", is_placed).await;
    assert_eq!(told.too_early(), [""; 0]);
    // What comes later waits for the first look at it, too.
    let slices = cluster.client.all::<ResourceSlice>();
    let device =
        json!({"name": "gpu-c", "attributes": {"uuid": {"string": "GPU-C"}, "type": {"string": "gpu"}}});
    let slice = json!({"metadata": {"name": "n1-more"}, "spec": {
        "driver": DRIVER, "nodeName": "n2", "devices": [device],
        "pool": {"name": "n2", "generation": 1, "resourceSliceCount": 1},
    }});
    cluster.machine("n2", |_| None).await;
    slices.create(&object(slice)).await.expect("a valid slice");
    claims(&cluster, "later").await;
    cluster.until("it says why it waits", NS, "later", waits_for("clawbernetes.io/unchecked")).await;
    // Without the policy nobody holds it back.
    cluster.client.all::<DevicePolicy>().delete("every", DeleteOptions::default()).await.expect("deletes");
    cluster.until("it is placed", NS, "later", is_placed).await;
    until_async("the checks go with the policy", SOON, async || {
        let checks =
            cluster.client.all::<DeviceCheck>().list(ListOptions::default()).await.expect("lists").items;
        check(checks.is_empty(), checks.len())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_fit_is_kept_from_everybody_until_a_look_finds_it_fit() {
    let mut cluster = cluster().await;
    cluster.controllers();
    policy(&cluster, json!({"holdBack": false, "maxParallelPerNode": 2})).await;
    looked_at_until(&cluster, false, 0, 2).await;
    counts(&cluster, "counts").await;
    claims(&cluster, "claims").await;
    cluster.until("it says why it waits", NS, "counts", waits_for("clawbernetes.io/not-fit")).await;
    cluster.until("it says why it waits", NS, "claims", waits_for("clawbernetes.io/not-fit")).await;
    let rules = cluster.client.all::<DeviceTaintRule>();
    let all = rules.list(ListOptions::default()).await.expect("lists").items;
    let checks = cluster.client.all::<DeviceCheck>().list(ListOptions::default()).await.expect("lists").items;
    let named: BTreeSet<_> = all.iter().map(|rule| rule.spec.taint.value.clone()).collect();
    let made: BTreeSet<_> = checks.iter().map(|check| check.metadata.name.clone()).collect();
    assert_eq!((all.len(), named), (2, made));
    let says = |status: &'static str, words: &'static str| {
        move |node: &Node| {
            let all = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let told = conditions::find(all, DEVICES_FIT);
            told.is_some_and(|told| {
                told.status == status
                    && told.message.as_deref().is_some_and(|message| message.contains(words))
            })
        }
    };
    let against = "gpu-a: Memory: 3 words differ; gpu-b: Memory: 3 words differ";
    cluster.until("the node says so", "", "n1", says("False", against)).await;
    until_async("an event on the node", SOON, async || {
        let events =
            cluster.client.namespaced::<Event>(NS).list(ListOptions::default()).await.expect("lists").items;
        let is_it = |event: &Event| {
            event.involved_object.kind.as_deref() == Some("Node")
                && event.reason.as_deref() == Some("DevicesNotFit")
        };
        check(events.iter().any(is_it), events.len())
    })
    .await;
    // Somebody has repaired them, and wants another look.
    let options = DeleteOptions::default;
    for name in checks.iter().filter_map(|check| check.metadata.name.as_deref()) {
        cluster.client.all::<DeviceCheck>().delete(name, options()).await.expect("deletes");
    }
    looked_at_until(&cluster, true, 2, 0).await;
    cluster.until("it is placed", NS, "counts", is_placed).await;
    cluster.until("it is placed", NS, "claims", is_placed).await;
    cluster.until("the node says so", "", "n1", says("True", "fit")).await;
    assert_eq!(rules.list(ListOptions::default()).await.expect("lists").items.len(), 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_could_not_be_carried_out_is_made_again_and_says_nothing_of_the_device() {
    let mut cluster = cluster().await;
    cluster.controllers();
    policy(&cluster, json!({"maxParallel": 1})).await;
    let first = until_async("the first look has its device", SOON, async || {
        let pod = looks(&cluster).await.into_iter().find(is_placed);
        pod.ok_or_else(|| "none is placed".to_owned())
    })
    .await;
    end(&cluster, &first, None).await;
    let name = first.metadata.name.clone().expect("pods have names");
    let is_failed = |check: &DeviceCheck| {
        check.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, "Failed"))
    };
    cluster.until("it failed", "", &name, is_failed).await;
    looked_at_until(&cluster, true, 2, 0).await;
    assert_eq!(
        cluster
            .client
            .all::<DeviceTaintRule>()
            .list(ListOptions::default())
            .await
            .expect("lists")
            .items
            .len(),
        0
    );
    cluster.stop().await;
}

/// Runs the two controllers until they die at their write number `dies_at`, and then others; whether they died.
async fn survives_a_death(dies_at: u64) -> bool {
    let mut cluster = cluster().await;
    let told = Arc::new(Told::default());
    follow::<Pod>(&mut cluster, &told);
    let died = CancellationToken::new();
    let wire = Mortal::new(Arc::clone(cluster.client_for("mortal").transport()), dies_at, died.clone());
    let client = Client::new(Arc::new(wire), "mortal");
    let env = Env::real();
    let runtime = Runtime::start(client, env.clone(), "mortal", Leadership::unchallenged(), died.clone());
    runtime.spawn(DevicePolicies::default());
    runtime.spawn(DeviceChecks);
    policy(&cluster, json!({})).await;
    let work = async |cluster: &TestCluster| {
        for pod in looks(cluster).await {
            let is_first = pod.metadata.name.as_deref().is_some_and(|name| name.ends_with("-0"));
            end(cluster, &pod, Some(!is_first)).await;
        }
        cluster
            .client
            .all::<DevicePolicy>()
            .get("every")
            .await
            .expect("it is there")
            .status
            .unwrap_or_default()
    };
    until_async("both were looked at, or the controllers are dead", LATER, async || {
        let status = work(&cluster).await;
        check(status.not_fit == Some(2) || died.is_cancelled(), format!("{status:?}"))
    })
    .await;
    let has_died = died.is_cancelled();
    died.cancel();
    env.join().await;
    cluster.run(DevicePolicies::default());
    cluster.run(DeviceChecks);
    until_async("both were looked at", LATER, async || {
        let status = work(&cluster).await;
        check((status.not_fit, status.running) == (Some(2), Some(0)), format!("{status:?}"))
    })
    .await;
    let by_check = told.pods_by_check();
    assert_eq!(by_check.len(), 2, "dead at write {dies_at}: each device is looked at once: {by_check:?}");
    assert!(by_check.values().all(|pods| pods.len() == 1), "dead at write {dies_at}: {by_check:?}");
    let rules =
        cluster.client.all::<DeviceTaintRule>().list(ListOptions::default()).await.expect("lists").items;
    assert_eq!(rules.len(), 2, "dead at write {dies_at}");
    cluster.stop().await;
    has_died
}

#[tokio::test(start_paused = true)]
async fn controllers_that_die_at_any_of_their_writes_look_at_no_device_twice_and_forget_no_verdict() {
    let mut dies_at = 0;
    while survives_a_death(dies_at).await {
        dies_at += 1;
    }
    assert!(dies_at > 12, "they wrote {dies_at} times: they should have died more often");
}
