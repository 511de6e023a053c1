//! Kernel jobs against the real server: one pod at a time whoever dies when, names that are taken, suspension, evictions, and the time
//! to go. What workers do, these tests say.

use std::sync::{Arc, Mutex};

use claw_client::{
    Client, Delta, ResourceRef, Verb,
    request::{DeleteOptions, ListOptions, PatchKind, Propagation},
};
use claw_controllers::kernel_job::KernelJobs;
use claw_e2e::{
    mortal::Mortal,
    runs::Runs,
    unreliable::{Faults, Unreliable},
    wait::{SOON, check, until_async},
};
use claw_runtime::{Env, Leadership, Runtime, conditions};
use claw_schemas::api::{JOB_FINALIZER, JOB_LABEL, KernelJob, KernelJobStatus};
use claw_testing::{TestCluster, object};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NS: &str = "default";
const HELD: &str = "example.com/held";

async fn create(cluster: &TestCluster, name: &str, more: Value) {
    let mut spec = json!({
        "inputs": [{"name": "a", "dtype": "f32", "shape": [2], "values": [1.0, 2.0]}],
        "operations": [{"name": "b", "op": "Add", "inputs": ["a", "a"]}],
        "outputs": [{"value": "b"}],
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let job: KernelJob = object(json!({"metadata": {"name": name}, "spec": spec}));
    cluster.client.namespaced::<KernelJob>(NS).create(&job).await.expect("a sound job");
}

async fn job(cluster: &TestCluster, name: &str) -> KernelJob {
    cluster.client.namespaced::<KernelJob>(NS).get(name).await.expect("it is there")
}

fn status(job: &KernelJob) -> KernelJobStatus {
    job.status.clone().unwrap_or_default()
}

fn is(kind: &'static str) -> impl Fn(&KernelJob) -> bool {
    move |job| conditions::is_true(&status(job).conditions, kind)
}

/// The try of that number has a pod, which was seen.
fn has_begun(number: usize) -> impl Fn(&KernelJob) -> bool {
    move |job| status(job).attempts.get(number).is_some_and(|attempt| attempt.uid.is_some())
}

fn reason_of(job: &KernelJob, number: usize) -> Option<String> {
    status(job).attempts.get(number)?.reason.clone()
}

async fn pods_of(cluster: &TestCluster, job: &str) -> Vec<Pod> {
    let options = ListOptions { label_selector: format!("{JOB_LABEL}={job}"), ..ListOptions::default() };
    cluster.client.namespaced::<Pod>(NS).list(options).await.expect("lists").items
}

/// What a worker leaves behind that was complete, and one whose device failed.
fn report(complete: bool) -> Value {
    let mut report =
        json!({"state": "Complete", "doing": "done", "runs": 1, "device": {"id": "cpu", "model": "some"}});
    if complete {
        let outputs =
            json!([{"value": "b", "dtype": "f32", "shape": [2], "digest": "sha256:0", "values": ["2", "4"]}]);
        (report["outputs"], report["figures"]) = (
            outputs,
            json!({
                "secondsMin": 0.5, "secondsMedian": 0.5, "secondsMax": 0.5, "flops": 2, "bytes": 24, "memoryBytes": 16,
            }),
        );
    } else {
        report["state"] = json!("Failed");
        report["failure"] = json!({"reason": "DeviceFailed", "message": "it broke"});
    }
    report
}

/// The worker of a pod ends with a report, as a node would tell.
async fn end(cluster: &TestCluster, pod: &Pod, complete: bool) {
    let end = json!({"exitCode": i32::from(!complete), "message": report(complete).to_string()});
    let worker = json!({
        "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": end},
    });
    let phase = if complete { "Succeeded" } else { "Failed" };
    let patch = json!({"status": {"phase": phase, "containerStatuses": [worker]}});
    let pods = cluster.client.namespaced::<Pod>(NS);
    let name = pod.metadata.name.as_deref().expect("pods have names");
    pods.patch(name, Some("status"), PatchKind::Merge, &patch).await.expect("the pod is there");
}

/// A node takes its time to end a pod; here a finalizer beside that of the pod's job does.
async fn hold(cluster: &TestCluster, pod: &str) {
    change_finalizers(cluster, pod, &json!({"finalizers": [HELD]})).await;
}

async fn free(cluster: &TestCluster, pod: &str) {
    change_finalizers(cluster, pod, &json!({"$deleteFromPrimitiveList/finalizers": [HELD]})).await;
}

async fn change_finalizers(cluster: &TestCluster, pod: &str, metadata: &Value) {
    let pods = cluster.client.namespaced::<Pod>(NS);
    pods.patch(pod, None, PatchKind::Strategic, &json!({"metadata": metadata})).await.expect("a valid patch");
}

fn is_kept(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|name| name == JOB_FINALIZER)
}

/// Every first try's device fails, every other is complete.
async fn work(cluster: &TestCluster, job: &str) {
    for pod in pods_of(cluster, job).await {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_first = pod.metadata.name.as_deref().is_some_and(|name| name.ends_with("-0"));
        if !matches!(phase, Some("Succeeded" | "Failed")) {
            end(cluster, &pod, !is_first).await;
        }
    }
}

async fn worked_until_complete(cluster: &TestCluster, name: &str) -> KernelJob {
    until_async(&format!("{name} is complete"), SOON, || async {
        work(cluster, name).await;
        let job = job(cluster, name).await;
        if is("Complete")(&job) { Ok(job) } else { Err(format!("{:?}", job.status)) }
    })
    .await
}

/// Looks at every change of jobs and pods; what must not be is in the list.
fn observe(cluster: &mut TestCluster) -> Arc<Mutex<Vec<String>>> {
    let (runs, wrong) = (Arc::new(Mutex::new(Runs::default())), Arc::new(Mutex::new(Vec::new())));
    let (books, found) = (Arc::clone(&runs), Arc::clone(&wrong));
    cluster.watch::<Pod>().subscribe(move |delta| {
        let mut books = books.lock().expect("no look panics");
        let held = match delta {
            Delta::Applied { new, .. } => books.pod(&json!(**new), false),
            Delta::Deleted { last } => books.pod(&json!(**last), true),
            Delta::Synced => Ok(()),
        };
        found.lock().expect("no look panics").extend(held.err());
    });
    let found = Arc::clone(&wrong);
    cluster.watch::<KernelJob>().subscribe(move |delta| {
        let Delta::Applied { new, .. } = delta else { return };
        let held = runs.lock().expect("no look panics").job(&json!(**new));
        found.lock().expect("no look panics").extend(held.err());
    });
    wrong
}

#[tokio::test(start_paused = true)]
async fn a_job_becomes_one_pod_after_the_other_until_one_is_complete_and_says_what_came_out() {
    let mut cluster = TestCluster::start().await;
    let wrong = observe(&mut cluster);
    cluster.machine("n1", |_| None).await;
    cluster.controllers();
    create(&cluster, "sum", json!({})).await;
    let done = worked_until_complete(&cluster, "sum").await;
    let said = status(&done);
    assert_eq!(
        (said.attempts.len(), reason_of(&done, 0).as_deref(), reason_of(&done, 1)),
        (2, Some("DeviceFailed"), None)
    );
    assert_eq!(
        (said.phase.as_deref(), said.figures.map(|figures| figures.flops)),
        (Some("Complete"), Some(2))
    );
    assert_eq!(said.outputs[0].values, ["2", "4"]);
    let map = cluster.client.namespaced::<ConfigMap>(NS).get("sum-order").await.expect("the order is there");
    assert_eq!(map.immutable, Some(true));
    let events = cluster.client.namespaced::<Event>(NS);
    until_async("the events", SOON, || async {
        let all = events.list(ListOptions::default()).await.map_err(|error| error.to_string())?.items;
        let of = |reason: &str| all.iter().filter(|one| one.reason.as_deref() == Some(reason)).count();
        check((of("SuccessfulCreate"), of("Failed"), of("Completed")) == (2, 1, 1), format!("{all:?}"))
    })
    .await;
    cluster
        .client
        .namespaced::<KernelJob>(NS)
        .delete("sum", DeleteOptions::default())
        .await
        .expect("deletes");
    for name in ["sum-0", "sum-1"] {
        cluster.until_gone::<Pod>(NS, name).await;
    }
    cluster.until_gone::<ConfigMap>(NS, "sum-order").await;
    assert_eq!(*wrong.lock().expect("no panic"), [""; 0]);
    cluster.stop().await;
}

/// Runs the controller alone until it dies at its write number `dies_at`, and then another; whether it died.
async fn survives_a_death(dies_at: u64) -> bool {
    let mut cluster = TestCluster::start().await;
    let wrong = observe(&mut cluster);
    let died = CancellationToken::new();
    let wire = Mortal::new(Arc::clone(cluster.client_for("mortal").transport()), dies_at, died.clone());
    let client = Client::new(Arc::new(wire), "mortal");
    let env = Env::real();
    Runtime::start(client, env.clone(), "mortal", Leadership::unchallenged(), died.clone()).spawn(KernelJobs);
    create(&cluster, "sum", json!({})).await;
    let complete = until_async("it is complete, or its controller dead", SOON, || async {
        work(&cluster, "sum").await;
        let job = job(&cluster, "sum").await;
        if is("Complete")(&job) || died.is_cancelled() {
            Ok(is("Complete")(&job))
        } else {
            Err(format!("{:?}", job.status))
        }
    })
    .await;
    let has_died = died.is_cancelled();
    died.cancel();
    env.join().await;
    cluster.run(KernelJobs);
    let done = worked_until_complete(&cluster, "sum").await;
    assert!(has_died || complete);
    assert_eq!(
        (status(&done).attempts.len(), reason_of(&done, 0).as_deref()),
        (2, Some("DeviceFailed")),
        "{dies_at}"
    );
    // Nothing runs after that, though its pods are gone: what comes later is done, and this is not done again.
    for pod in pods_of(&cluster, "sum").await {
        let name = pod.metadata.name.expect("pods have names");
        cluster.client.namespaced::<Pod>(NS).delete(&name, DeleteOptions::default()).await.expect("deletes");
    }
    until_async("they are gone", SOON, || async {
        let left = pods_of(&cluster, "sum").await.len();
        check(left == 0, left)
    })
    .await;
    create(&cluster, "later", json!({})).await;
    worked_until_complete(&cluster, "later").await;
    assert_eq!((pods_of(&cluster, "sum").await.len(), job(&cluster, "sum").await.status), (0, done.status));
    assert_eq!(*wrong.lock().expect("no panic"), [""; 0], "dead at write {dies_at}");
    cluster.stop().await;
    has_died
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_dies_at_any_of_its_writes_leaves_no_second_pod_and_no_second_result() {
    let mut dies_at = 0;
    while survives_a_death(dies_at).await {
        dies_at += 1;
    }
    assert!(dies_at > 8, "it wrote {dies_at} times: it should have died more often");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_late_watches_make_no_second_pod() {
    let mut cluster = TestCluster::start().await;
    let wrong = observe(&mut cluster);
    let faults = Faults { lost_percent: 5, lag_ms_max: 20, events_max: 30 };
    let bad = Unreliable::new(Arc::clone(cluster.client_for("controllers").transport()), faults, 31);
    let client = Client::new(Arc::new(bad), "controllers");
    cluster.controllers_over(client, Env::real(), claw_controllers::Options::default());
    let names: Vec<String> = (0..6).map(|number| format!("sum{number}")).collect();
    for name in &names {
        create(&cluster, name, json!({})).await;
    }
    for name in &names {
        assert_eq!(status(&worked_until_complete(&cluster, name).await).attempts.len(), 2);
    }
    assert_eq!(*wrong.lock().expect("no panic"), [""; 0]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_somebody_else_has_fails_the_job_and_harms_nobody() {
    let mut cluster = TestCluster::start().await;
    let pods = cluster.client.namespaced::<Pod>(NS);
    let foreign =
        json!({"metadata": {"name": "sum-0"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let foreign = pods.create(&object(foreign)).await.expect("a valid pod");
    let maps = cluster.client.namespaced::<ConfigMap>(NS);
    maps.create(&object(json!({"metadata": {"name": "product-order"}}))).await.expect("a valid map");
    cluster.run(KernelJobs);
    for (name, what) in [("sum", "sum-0"), ("product", "product-order")] {
        create(&cluster, name, json!({})).await;
        let failed = cluster.until("it failed", NS, name, is("Failed")).await;
        let said = status(&failed);
        let condition = conditions::find(&said.conditions, "Failed").expect("it is there");
        assert_eq!(condition.reason, "NameTaken");
        assert!(condition.message.contains(what), "{}", condition.message);
    }
    assert_eq!(pods.get("sum-0").await.expect("it is left alone").metadata.uid, foreign.metadata.uid);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_made_anew_under_its_name_waits_until_the_pods_of_the_old_one_are_gone() {
    let mut cluster = TestCluster::start().await;
    cluster.controllers();
    create(&cluster, "sum", json!({})).await;
    let old = cluster.until("its pod is seen", NS, "sum", has_begun(0)).await;
    let jobs = cluster.client.namespaced::<KernelJob>(NS);
    hold(&cluster, "sum-0").await;
    jobs.delete("sum", DeleteOptions::default()).await.expect("deletes");
    cluster.until_gone::<KernelJob>(NS, "sum").await;
    create(&cluster, "sum", json!({})).await;
    let going = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    cluster.until("the old pod goes", NS, "sum-0", going).await;
    cluster.until("a try is entered", NS, "sum", |job: &KernelJob| !status(job).attempts.is_empty()).await;
    free(&cluster, "sum-0").await;
    let new = cluster.until("its own pod is seen", NS, "sum", has_begun(0)).await;
    assert_ne!(status(&new).attempts[0].uid, status(&old).attempts[0].uid);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_has_no_pod_and_begins_anew_when_it_goes_on() {
    let mut cluster = TestCluster::start().await;
    let wrong = observe(&mut cluster);
    cluster.controllers();
    create(&cluster, "sum", json!({"backoffLimit": 1})).await;
    cluster.until("its pod is seen", NS, "sum", has_begun(0)).await;
    let jobs = cluster.client.namespaced::<KernelJob>(NS);
    for number in 0..3 {
        let suspend = |suspend: bool| json!({"spec": {"suspend": suspend}});
        jobs.patch("sum", None, PatchKind::Merge, &suspend(true)).await.expect("a valid patch");
        let stands = move |job: &KernelJob| {
            reason_of(job, number).is_some() && status(job).attempts[number].end_time.is_some()
        };
        let still = cluster.until("it stands still", NS, "sum", stands).await;
        assert_eq!(
            (reason_of(&still, number).as_deref(), status(&still).phase.as_deref()),
            (Some("Suspended"), Some("Suspended"))
        );
        assert_eq!(pods_of(&cluster, "sum").await.len(), 0);
        jobs.patch("sum", None, PatchKind::Merge, &suspend(false)).await.expect("a valid patch");
        cluster.until("its next pod is seen", NS, "sum", has_begun(number + 1)).await;
    }
    let pod = cluster.client.namespaced::<Pod>(NS).get("sum-3").await.expect("it is there");
    end(&cluster, &pod, true).await;
    let done = cluster.until("it is complete", NS, "sum", is("Complete")).await;
    assert_eq!(status(&done).attempts.len(), 4, "none of the tries counted");
    assert_eq!(*wrong.lock().expect("no panic"), [""; 0]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_pod_costs_nothing_and_a_deleted_one_a_try() {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", |_| None).await;
    cluster.controllers();
    create(&cluster, "sum", json!({"backoffLimit": 1})).await;
    let pods = cluster.client.namespaced::<Pod>(NS);
    for (number, expected) in
        [(0, "Disrupted"), (1, "Disrupted"), (2, "PodDeleted"), (3, "Disrupted"), (4, "PodDeleted")]
    {
        cluster.until("its pod is seen", NS, "sum", has_begun(number)).await;
        let name = format!("sum-{number}");
        cluster
            .until("it has a node", NS, &name, |pod: &Pod| {
                pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
            })
            .await;
        hold(&cluster, &name).await;
        if expected == "Disrupted" {
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NS}});
            let target =
                ResourceRef::collection("", "v1", "pods").in_namespace(NS).named(&name).sub("eviction");
            let verb =
                Verb::Create { body: eviction.to_string().into(), options: cluster.client.write_options() };
            cluster.client.call(target, verb).await.expect("nothing forbids it");
            let noted = move |job: &KernelJob| reason_of(job, number).is_some();
            cluster.until("it is written down", NS, "sum", noted).await;
        } else {
            pods.delete(&name, DeleteOptions::default()).await.expect("deletes");
        }
        free(&cluster, &name).await;
        let ended = move |job: &KernelJob| status(job).attempts[number].end_time.is_some();
        let said = cluster.until("the try ended", NS, "sum", ended).await;
        assert_eq!(reason_of(&said, number).as_deref(), Some(expected));
    }
    let failed = cluster.until("it failed", NS, "sum", is("Failed")).await;
    let said = status(&failed);
    assert_eq!(
        conditions::find(&said.conditions, "Failed").expect("it is there").reason,
        "BackoffLimitExceeded"
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_completed_and_was_deleted_while_nobody_looked_is_not_calculated_again() {
    let mut cluster = TestCluster::start().await;
    let wrong = observe(&mut cluster);
    let (env, away) = (Env::real(), CancellationToken::new());
    let client = cluster.client_for("first");
    Runtime::start(client, env.clone(), "first", Leadership::unchallenged(), away.clone()).spawn(KernelJobs);
    create(&cluster, "sum", json!({})).await;
    cluster.until("its pod is seen", NS, "sum", has_begun(0)).await;
    away.cancel();
    env.join().await;

    let pods = cluster.client.namespaced::<Pod>(NS);
    end(&cluster, &pods.get("sum-0").await.expect("it is there"), true).await;
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    pods.delete("sum-0", now).await.expect("deletes");
    let kept = pods.get("sum-0").await.expect("what it has to say was not heard yet");
    assert!(is_kept(&kept) && kept.metadata.deletion_timestamp.is_some(), "{kept:?}");

    cluster.run(KernelJobs);
    let done = cluster.until("it is complete", NS, "sum", is("Complete")).await;
    assert_eq!((status(&done).attempts.len(), reason_of(&done, 0)), (1, None));
    assert_eq!(status(&done).outputs[0].values, ["2", "4"]);
    cluster.until_gone::<Pod>(NS, "sum-0").await;
    assert_eq!(*wrong.lock().expect("no panic"), [""; 0]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_held_up_for_a_job_that_goes() {
    let mut cluster = TestCluster::start().await;
    cluster.controllers();
    let (jobs, pods) = (cluster.client.namespaced::<KernelJob>(NS), cluster.client.namespaced::<Pod>(NS));
    for (name, propagation) in [
        ("background", Propagation::Background),
        ("foreground", Propagation::Foreground),
        ("orphan", Propagation::Orphan),
    ] {
        create(&cluster, name, json!({})).await;
        cluster.until("its pod is seen", NS, name, has_begun(0)).await;
        let pod = format!("{name}-0");
        assert!(is_kept(&pods.get(&pod).await.expect("it is there")), "{name}");
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        jobs.delete(name, options).await.expect("deletes");
        cluster.until_gone::<KernelJob>(NS, name).await;
        if propagation == Propagation::Orphan {
            cluster.until("it is nobody's", NS, &pod, |pod: &Pod| !is_kept(pod)).await;
            pods.delete(&pod, DeleteOptions::default()).await.expect("it stayed");
        }
        cluster.until_gone::<Pod>(NS, &pod).await;
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_over_is_kept_as_long_as_it_says_and_takes_its_pods_along() {
    let mut cluster = TestCluster::start().await;
    cluster.controllers();
    create(&cluster, "sum", json!({"ttlSecondsAfterFinished": 86_400})).await;
    worked_until_complete(&cluster, "sum").await;
    tokio::time::advance(std::time::Duration::from_secs(86_000)).await;
    assert!(is("Complete")(&job(&cluster, "sum").await), "it went before its time");
    tokio::time::advance(std::time::Duration::from_secs(500)).await;
    cluster.until_gone::<KernelJob>(NS, "sum").await;
    cluster.until_gone::<Pod>(NS, "sum-1").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_too_long_ends_its_pod_and_fails() {
    let mut cluster = TestCluster::start().await;
    cluster.controllers();
    create(&cluster, "sum", json!({"activeDeadlineSeconds": 3600})).await;
    cluster.until("its pod is seen", NS, "sum", has_begun(0)).await;
    tokio::time::advance(std::time::Duration::from_secs(3600)).await;
    let failed = cluster.until("it failed", NS, "sum", is("Failed")).await;
    let said = status(&failed);
    assert_eq!(conditions::find(&said.conditions, "Failed").expect("it is there").reason, "DeadlineExceeded");
    cluster.until_gone::<Pod>(NS, "sum-0").await;
    cluster.stop().await;
}
