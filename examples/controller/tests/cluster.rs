//! The controller on a real API server in this process, with machines whose pods end as the test says and a clock that
//! the test owns.

use std::time::Duration;

use claw_client::request::{DeleteOptions, ListOptions, PatchKind};
use claw_runtime::conditions;
use claw_testing::{Report, TestCluster, object};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sweep_controller::{
    COMPLETE, SWEEP, Sweeps,
    kind::{Sweep, SweepSpec},
};

const NS: &str = "default";

/// Values that begin with `bad` end badly, `slow` ones never, the others well.
fn by_value(pod: &Pod) -> Option<Report> {
    let value = pod.spec.as_ref()?.containers[0].env.as_ref()?[0].value.as_deref()?;
    match value {
        bad if bad.starts_with("bad") => Some(Report::Failed),
        slow if slow.starts_with("slow") => Some(Report::Running),
        _ => Some(Report::Succeeded),
    }
}

async fn cluster() -> TestCluster {
    let mut cluster = TestCluster::start().await;
    cluster.define::<SweepSpec>().await;
    cluster.controllers();
    cluster.machine("node", by_value).await;
    cluster.run(Sweeps);
    cluster
}

async fn create(cluster: &TestCluster, name: &str, spec: Value) {
    let sweep: Sweep = object(json!({"metadata": {"name": name}, "spec": spec}));
    cluster.client.namespaced::<Sweep>(NS).create(&sweep).await.expect("a sound sweep");
}

fn is_complete(sweep: &Sweep) -> bool {
    sweep.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, COMPLETE))
}

async fn pods_of(cluster: &TestCluster, sweep: &str) -> Vec<Pod> {
    let options = ListOptions { label_selector: format!("{SWEEP}={sweep}"), ..ListOptions::default() };
    cluster.client.namespaced::<Pod>(NS).list(options).await.expect("pods can be listed").items
}

#[tokio::test(start_paused = true)]
async fn a_sweep_runs_every_value_once_and_says_how_it_went() {
    let cluster = cluster().await;
    create(&cluster, "rate", json!({"image": "train", "values": ["0.1", "0.2", "bad", "0.3"]})).await;
    let done = cluster.until("it is complete", NS, "rate", is_complete).await;
    let status = done.status.expect("it says so");
    assert_eq!((status.active, status.succeeded, status.failed), (0, 3, 1));
    assert_eq!(status.conditions[0].reason, "SomeFailed");
    assert_eq!(status.conditions[0].observed_generation, Some(1));
    assert_eq!(pods_of(&cluster, "rate").await.len(), 4);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_follows_what_is_asked_of_it_and_its_pods_go_with_it() {
    let cluster = cluster().await;
    let sweeps = cluster.client.namespaced::<Sweep>(NS);
    create(&cluster, "deep", json!({"image": "train", "values": ["slow-1", "slow-2", "slow-3"]})).await;
    let active = |count| move |sweep: &Sweep| sweep.status.as_ref().is_some_and(|it| it.active == count);
    cluster.until("one runs at a time", NS, "deep", active(1)).await;
    let wider = json!({"spec": {"parallelism": 3}});
    sweeps.patch("deep", None, PatchKind::Merge, &wider).await.expect("a sound patch");
    cluster.until("all run", NS, "deep", active(3)).await;
    let other = json!({"spec": {"values": ["slow-2", "quick"]}});
    sweeps.patch("deep", None, PatchKind::Merge, &other).await.expect("a sound patch");
    cluster
        .until("only what is still wanted runs", NS, "deep", |sweep: &Sweep| {
            sweep.status.as_ref().is_some_and(|status| (status.active, status.succeeded) == (1, 1))
        })
        .await;
    sweeps.delete("deep", DeleteOptions::default()).await.expect("it is there");
    for pod in pods_of(&cluster, "deep").await {
        cluster.until_gone::<Pod>(NS, &pod.metadata.name.expect("a name")).await;
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_complete_sweep_is_kept_as_long_as_it_says_and_no_longer() {
    let cluster = cluster().await;
    let spec = json!({"image": "train", "values": ["0.1"], "ttlSecondsAfterFinished": 86_400});
    create(&cluster, "brief", spec).await;
    cluster.until("it is complete", NS, "brief", is_complete).await;
    tokio::time::advance(Duration::from_secs(86_000)).await;
    assert!(cluster.client.namespaced::<Sweep>(NS).get("brief").await.is_ok(), "it went before its time");
    tokio::time::advance(Duration::from_secs(400)).await;
    cluster.until_gone::<Sweep>(NS, "brief").await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_by_the_server() {
    let cluster = cluster().await;
    for spec in [
        json!({"image": "train", "values": ["1", "1"]}),
        json!({"image": "train", "values": ["1"], "parallelism": 0}),
        json!({"values": []}),
    ] {
        let sweep = json!({"apiVersion": "tuning.example.com/v1", "kind": "Sweep", "metadata": {"name": "no"}, "spec": spec});
        let sweeps = cluster.client.namespaced::<Sweep>(NS).resource().clone();
        let create = claw_client::Verb::Create {
            body: sweep.to_string().into(),
            options: cluster.client.write_options(),
        };
        let error = cluster.client.call(sweeps, create).await.expect_err("the schema forbids it");
        assert!(error.message.contains("spec"), "{error}");
    }
    cluster.stop().await;
}
