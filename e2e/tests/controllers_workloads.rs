//! Deployments and ReplicaSets against the real server: rollouts, scaling, rollback, history, adoption, healing. And pods that
//! their node drives out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use claw_client::{
    Client, ObjectKey,
    request::{DeleteOptions, ListOptions, PatchKind, Propagation},
};
use claw_controllers::node_lifecycle::NodeLifecycle;
use claw_e2e::{
    states,
    unreliable::{Faults, Unreliable},
    wait::{SOON, check, until_async},
};
use claw_runtime::{Env, env::ManualClock};
use claw_testing::{Report, TestCluster, healthy, object};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{Event, Node, Pod},
    },
    jiff::Timestamp,
};
use serde_json::{Value, json};

const NS: &str = "default";

fn deployment(name: &str, replicas: i32, image: &str, more: Value) -> Deployment {
    let mut spec = json!({
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": image}], "terminationGracePeriodSeconds": 1},
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    object(json!({"metadata": {"name": name, "namespace": NS}, "spec": spec}))
}

fn is_rolled_out(d: &Deployment) -> bool {
    let (spec, status) = (d.spec.clone().unwrap_or_default(), d.status.clone().unwrap_or_default());
    status.observed_generation == d.metadata.generation
        && status.updated_replicas.unwrap_or(0) == spec.replicas.unwrap_or(1)
        && status.available_replicas.unwrap_or(0) == spec.replicas.unwrap_or(1)
        && status.replicas.unwrap_or(0) == spec.replicas.unwrap_or(1)
}

fn condition(d: &Deployment, kind: &str) -> (String, String, String) {
    let all = d.status.clone().unwrap_or_default().conditions.unwrap_or_default();
    let found = all.into_iter().find(|c| c.type_ == kind);
    found.map_or_else(Default::default, |c| {
        (c.status, c.reason.unwrap_or_default(), c.message.unwrap_or_default())
    })
}

fn revision(d: &Deployment) -> String {
    let annotations = d.metadata.annotations.clone().unwrap_or_default();
    annotations.get("deployment.kubernetes.io/revision").cloned().unwrap_or_default()
}

async fn cluster() -> TestCluster {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", healthy).await;
    cluster.machine("n2", healthy).await;
    cluster.controllers();
    cluster
}

async fn create(cluster: &TestCluster, d: &Deployment) {
    cluster.client.namespaced::<Deployment>(NS).create(d).await.expect("a valid Deployment");
}

async fn patch(cluster: &TestCluster, name: &str, patch: Value) {
    let deployments = cluster.client.namespaced::<Deployment>(NS);
    deployments.patch(name, None, PatchKind::Strategic, &patch).await.expect("a valid patch");
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

async fn rolled_out(cluster: &TestCluster, name: &str) -> Deployment {
    cluster.until(&format!("{name} rolls out"), NS, name, is_rolled_out).await
}

async fn sets(cluster: &TestCluster) -> Vec<ReplicaSet> {
    cluster.client.namespaced::<ReplicaSet>(NS).list(ListOptions::default()).await.expect("lists").items
}

async fn active_pods(cluster: &TestCluster) -> Vec<Pod> {
    let pods = cluster.client.namespaced::<Pod>(NS).list(ListOptions::default()).await.expect("lists").items;
    pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_pods_and_says_so() {
    let cluster = cluster().await;
    create(&cluster, &deployment("web", 3, "app:1", json!({}))).await;
    let web = rolled_out(&cluster, "web").await;
    let (status, reason, message) = condition(&web, "Available");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "MinimumReplicasAvailable"));
    assert_eq!(message, "Deployment has minimum availability.");
    let web = cluster
        .until("progress is complete", NS, "web", |d: &Deployment| {
            condition(d, "Progressing").1 == "NewReplicaSetAvailable"
        })
        .await;
    assert_eq!(revision(&web), "1");
    let sets = sets(&cluster).await;
    assert_eq!(sets.len(), 1);
    let hash = sets[0].metadata.labels.as_ref().unwrap()["pod-template-hash"].clone();
    assert_eq!(sets[0].metadata.name.as_deref().unwrap(), format!("web-{hash}"));
    assert_eq!(
        condition(&web, "Progressing").2,
        format!("ReplicaSet \"web-{hash}\" has successfully progressed.")
    );
    let pods = active_pods(&cluster).await;
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert_eq!(pod.metadata.labels.as_ref().unwrap()["pod-template-hash"], hash);
    }
    let events = cluster.client.namespaced::<Event>(NS);
    let text = format!("Scaled up replica set web-{hash} from 0 to 3");
    until_async("the events", SOON, || async {
        let all = events.list(ListOptions::default()).await.map_err(|error| error.to_string())?.items;
        let has = |reason: &str, message: &str| {
            all.iter().any(|e| {
                e.reason.as_deref() == Some(reason) && e.message.as_deref().unwrap_or("").starts_with(message)
            })
        };
        check(
            has("ScalingReplicaSet", &text) && has("SuccessfulCreate", "Created pod: web-"),
            format!("{all:?}"),
        )
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_never_leaves_its_limits() {
    let mut cluster = cluster().await;
    let strategy = json!({"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}});
    create(&cluster, &deployment("web", 6, "app:1", strategy)).await;
    rolled_out(&cluster, "web").await;
    // Every state of the pods is looked at, in the order in which it was stored.
    let pods = cluster.watch::<Pod>();
    pods.synced().await.expect("the watch runs");
    let (most, fewest) = (Arc::new(AtomicUsize::new(6)), Arc::new(AtomicUsize::new(6)));
    let (seen_most, seen_fewest) = (Arc::clone(&most), Arc::clone(&fewest));
    states::each(&pods, move |state| {
        let active: Vec<_> = state.values().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        let ready = active.iter().filter(|pod| {
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            conditions.clone().any(|c| c.type_ == "Ready" && c.status == "True")
        });
        seen_most.fetch_max(active.len(), Ordering::Relaxed);
        seen_fewest.fetch_min(ready.count(), Ordering::Relaxed);
    });
    patch(&cluster, "web", image("app:2")).await;
    let web = rolled_out(&cluster, "web").await;
    assert_eq!(revision(&web), "2");
    let (most, fewest) = (most.load(Ordering::Relaxed), fewest.load(Ordering::Relaxed));
    assert!(most <= 7, "{most} pods with a surge of 1 over 6");
    assert!(fewest >= 5, "{fewest} ready pods with 1 of 6 allowed to be away");
    let images: Vec<_> = active_pods(&cluster)
        .await
        .into_iter()
        .map(|p| p.spec.unwrap().containers[0].image.clone())
        .collect();
    assert_eq!(images, vec![Some("app:2".to_owned()); 6]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_of_a_broken_image_keeps_the_old_pods_and_says_when_it_is_overdue() {
    let cluster = cluster().await;
    let spec = json!({"progressDeadlineSeconds": 1, "minReadySeconds": 0});
    create(&cluster, &deployment("web", 4, "app:1", spec)).await;
    rolled_out(&cluster, "web").await;
    patch(&cluster, "web", image("broken:2")).await;
    let web = cluster
        .until("the deadline passes, and one of four has gone", NS, "web", |d: &Deployment| {
            let available = d.status.as_ref().and_then(|status| status.available_replicas);
            condition(d, "Progressing").1 == "ProgressDeadlineExceeded" && available == Some(3)
        })
        .await;
    assert_eq!(condition(&web, "Progressing").0, "False");
    assert!(condition(&web, "Progressing").2.ends_with("has timed out progressing."));
    assert_eq!(condition(&web, "Available").0, "True", "25 % of 4 may be away: 3 still serve");
    // kubectl rollout undo: the older template again.
    patch(&cluster, "web", image("app:1")).await;
    let web = rolled_out(&cluster, "web").await;
    assert_eq!(revision(&web), "3", "a rollback is a new revision");
    let sets = sets(&cluster).await;
    assert_eq!(sets.len(), 2, "the old set was taken up again");
    let back = sets.iter().find(|set| set.spec.as_ref().unwrap().replicas == Some(4)).unwrap();
    let annotations = back.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_goes_up_and_down_without_a_new_revision() {
    let cluster = cluster().await;
    create(&cluster, &deployment("web", 2, "app:1", json!({}))).await;
    rolled_out(&cluster, "web").await;
    for replicas in [5, 1, 0, 3] {
        patch(&cluster, "web", json!({"spec": {"replicas": replicas}})).await;
        let web = rolled_out(&cluster, "web").await;
        assert_eq!(revision(&web), "1");
        assert_eq!(active_pods(&cluster).await.len(), replicas);
    }
    assert_eq!(sets(&cluster).await.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_rollout_scales_but_does_not_roll() {
    let cluster = cluster().await;
    create(&cluster, &deployment("web", 2, "app:1", json!({}))).await;
    rolled_out(&cluster, "web").await;
    patch(&cluster, "web", json!({"spec": {"paused": true}})).await;
    cluster
        .until("the pause is acknowledged", NS, "web", |d: &Deployment| {
            condition(d, "Progressing").1 == "DeploymentPaused"
        })
        .await;
    let mut change = image("app:2");
    change["spec"]["replicas"] = json!(4);
    patch(&cluster, "web", change).await;
    cluster
        .until("four replicas", NS, "web", |d: &Deployment| {
            d.status.as_ref().is_some_and(|s| s.available_replicas == Some(4))
        })
        .await;
    let old = |pods: &[Pod]| {
        pods.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("app:1"))
    };
    assert!(old(&active_pods(&cluster).await));
    assert_eq!(sets(&cluster).await.len(), 1);
    patch(&cluster, "web", json!({"spec": {"paused": false}})).await;
    let web = rolled_out(&cluster, "web").await;
    assert_eq!(revision(&web), "2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_stops_every_old_pod_before_a_new_one_starts() {
    let mut cluster = cluster().await;
    create(&cluster, &deployment("web", 3, "app:1", json!({"strategy": {"type": "Recreate"}}))).await;
    rolled_out(&cluster, "web").await;
    let pods = cluster.watch::<Pod>();
    pods.synced().await.expect("the watch runs");
    let mixed = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&mixed);
    states::each(&pods, move |state| {
        let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone();
        let images: std::collections::BTreeSet<_> = state.values().map(|pod| image(pod)).collect();
        seen.fetch_max(images.len(), Ordering::Relaxed);
    });
    patch(&cluster, "web", image("app:2")).await;
    rolled_out(&cluster, "web").await;
    assert_eq!(mixed.load(Ordering::Relaxed), 1, "two generations at the same time");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_kept_as_long_as_asked() {
    let cluster = cluster().await;
    create(&cluster, &deployment("web", 1, "app:1", json!({"revisionHistoryLimit": 2}))).await;
    for version in 2..=6 {
        rolled_out(&cluster, "web").await;
        patch(&cluster, "web", image(&format!("app:{version}"))).await;
    }
    rolled_out(&cluster, "web").await;
    until_async("old sets go", SOON, || async {
        let mut kept: Vec<_> = sets(&cluster)
            .await
            .iter()
            .map(|set| {
                set.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap().containers[0]
                    .image
                    .clone()
            })
            .map(Option::unwrap_or_default)
            .collect();
        kept.sort();
        check(kept == ["app:4", "app:5", "app:6"], format!("{kept:?}"))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_pods_are_replaced_and_never_too_many_are_made() {
    let mut cluster = cluster().await;
    create(&cluster, &deployment("web", 5, "app:1", json!({}))).await;
    rolled_out(&cluster, "web").await;
    let pods = cluster.watch::<Pod>();
    pods.synced().await.expect("the watch runs");
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    states::each(&pods, move |state| {
        let active = state.values().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
        seen.fetch_max(active, Ordering::Relaxed);
    });
    let api = cluster.client.namespaced::<Pod>(NS);
    for _ in 0..10 {
        for pod in active_pods(&cluster).await.into_iter().take(3) {
            let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            // It may have been deleted in the round before.
            let _ = api.delete(pod.metadata.name.as_deref().unwrap(), now).await;
        }
    }
    rolled_out(&cluster, "web").await;
    until_async("five pods", SOON, || async {
        let count = active_pods(&cluster).await.len();
        check(count == 5, count)
    })
    .await;
    assert_eq!(most.load(Ordering::Relaxed), 5, "a stale cache made too many");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_restarted_in_the_middle_finishes_the_work() {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", healthy).await;
    let mut running = cluster.controllers();
    create(&cluster, &deployment("web", 40, "app:1", json!({}))).await;
    for version in 2..=5 {
        // Wherever it is now, it dies, and another takes over.
        running.cancel();
        running = cluster.controllers();
        patch(&cluster, "web", image(&format!("app:{version}"))).await;
    }
    rolled_out(&cluster, "web").await;
    until_async("exactly forty pods", SOON, || async {
        let count = active_pods(&cluster).await.len();
        check(count == 40, count)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matching_orphan_is_adopted_and_a_relabelled_pod_let_go() {
    let cluster = cluster().await;
    let orphan: Pod = object(json!({
        "metadata": {"name": "early", "namespace": NS, "labels": {"app": "solo"}},
        "spec": {"containers": [{"name": "c", "image": "app:1"}]},
    }));
    let pods = cluster.client.namespaced::<Pod>(NS);
    pods.create(&orphan).await.expect("a valid pod");
    let set: ReplicaSet = object(json!({
        "metadata": {"name": "solo", "namespace": NS},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "solo"}},
            "template": {"metadata": {"labels": {"app": "solo"}}, "spec": {"containers": [{"name": "c", "image": "app:1"}]}},
        },
    }));
    cluster.client.namespaced::<ReplicaSet>(NS).create(&set).await.expect("a valid set");
    let owner = |pod: &Pod| pod.metadata.owner_references.iter().flatten().map(|o| o.name.clone()).next();
    cluster.until("adoption", NS, "early", |pod: &Pod| owner(pod).as_deref() == Some("solo")).await;
    assert_eq!(active_pods(&cluster).await.len(), 1, "it counts, so none is created");
    pods.patch("early", None, PatchKind::Merge, &json!({"metadata": {"labels": {"app": "debug"}}}))
        .await
        .unwrap();
    cluster.until("release", NS, "early", |pod: &Pod| owner(pod).is_none()).await;
    until_async("a replacement", SOON, || async {
        let count = active_pods(&cluster).await.len();
        check(count == 2, count)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_deployment_takes_everything_below_it_along_in_either_order() {
    let cluster = cluster().await;
    for (name, propagation) in [("back", Propagation::Background), ("front", Propagation::Foreground)] {
        create(&cluster, &deployment(name, 3, "app:1", json!({}))).await;
        rolled_out(&cluster, name).await;
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        cluster.client.namespaced::<Deployment>(NS).delete(name, options).await.expect("deletes");
        cluster.until_gone::<Deployment>(NS, name).await;
        if propagation == Propagation::Foreground {
            assert_eq!(sets(&cluster).await.len(), 0, "dependents go first");
        }
        until_async("sets and pods go", SOON, || async {
            let (sets, pods) = (sets(&cluster).await.len(), active_pods(&cluster).await.len());
            check((sets, pods) == (0, 0), format!("{sets} sets, {pods} pods"))
        })
        .await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphaned_set_keeps_its_pods_and_is_adopted_by_the_next_deployment() {
    let cluster = cluster().await;
    create(&cluster, &deployment("web", 2, "app:1", json!({}))).await;
    rolled_out(&cluster, "web").await;
    let before: Vec<_> = active_pods(&cluster).await.iter().map(|pod| ObjectKey::of(&pod.metadata)).collect();
    let orphan = DeleteOptions { propagation: Some(Propagation::Orphan), ..DeleteOptions::default() };
    cluster.client.namespaced::<Deployment>(NS).delete("web", orphan).await.expect("deletes");
    cluster.until_gone::<Deployment>(NS, "web").await;
    assert_eq!(sets(&cluster).await.len(), 1);
    create(&cluster, &deployment("web", 2, "app:1", json!({}))).await;
    rolled_out(&cluster, "web").await;
    let after: Vec<_> = active_pods(&cluster).await.iter().map(|pod| ObjectKey::of(&pod.metadata)).collect();
    assert_eq!(before, after, "the same template needs no new pods");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_pods_are_replaced() {
    let mut cluster = TestCluster::start().await;
    // The first pods of every set end badly; those that replace them serve.
    cluster
        .machine("n1", |pod| {
            static STARTED: AtomicUsize = AtomicUsize::new(0);
            let first = pod.status.as_ref().is_none_or(|s| s.phase.as_deref() == Some("Pending"));
            let fails = first && STARTED.fetch_add(1, Ordering::Relaxed) < 3;
            let over = pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Failed"));
            (!over).then_some(if fails { Report::Failed } else { Report::Ready })
        })
        .await;
    cluster.controllers();
    create(&cluster, &deployment("web", 3, "app:1", json!({}))).await;
    rolled_out(&cluster, "web").await;
    cluster.stop().await;
}

/// Controllers behind a bad network; everybody else sees the server as it is.
async fn behind(faults: Faults, seed: u64) -> TestCluster {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", healthy).await;
    let good = cluster.client_for("controllers");
    let bad = Unreliable::new(Arc::clone(good.transport()), faults, seed);
    let client = Client::new(Arc::new(bad), "controllers");
    cluster.controllers_over(client, Env::real(), claw_controllers::Options::default());
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_watch_never_leads_to_too_many_pods() {
    let mut cluster = behind(Faults { lag_ms_max: 40, ..Faults::default() }, 11).await;
    let pods = cluster.watch::<Pod>();
    pods.synced().await.expect("the watch runs");
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    states::each(&pods, move |state| {
        let active = state.values().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
        seen.fetch_max(active, Ordering::Relaxed);
    });
    create(&cluster, &deployment("web", 12, "app:1", json!({}))).await;
    for replicas in [12, 3, 15, 1, 9] {
        patch(&cluster, "web", json!({"spec": {"replicas": replicas}})).await;
        rolled_out(&cluster, "web").await;
        assert_eq!(active_pods(&cluster).await.len(), replicas);
    }
    assert!(
        most.load(Ordering::Relaxed) <= 15,
        "{} pods where 15 were the most asked for",
        most.load(Ordering::Relaxed)
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_broken_watches_are_survived() {
    let faults = Faults { lost_percent: 5, lag_ms_max: 20, events_max: 30 };
    let cluster = behind(faults, 23).await;
    create(&cluster, &deployment("web", 8, "app:1", json!({"revisionHistoryLimit": 1}))).await;
    for version in 2..=4 {
        patch(&cluster, "web", image(&format!("app:{version}"))).await;
        rolled_out(&cluster, "web").await;
    }
    until_async("exactly eight pods and one old set", SOON, || async {
        let (pods, sets) = (active_pods(&cluster).await.len(), sets(&cluster).await.len());
        check((pods, sets) == (8, 2), format!("{pods} pods, {sets} sets"))
    })
    .await;
    let options = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    cluster.client.namespaced::<Deployment>(NS).delete("web", options).await.expect("deletes");
    cluster.until_gone::<Deployment>(NS, "web").await;
    assert_eq!((active_pods(&cluster).await.len(), sets(&cluster).await.len()), (0, 0));
    cluster.stop().await;
}

/// A pod on n1, which tolerates what drives others out from there for so long.
async fn tolerating(cluster: &TestCluster, name: &str, seconds: u32) {
    let pod: Pod = object(json!({
        "metadata": {"name": name, "namespace": NS},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "image": "app:1"}],
            "terminationGracePeriodSeconds": 1,
            "tolerations": [
                {"key": "mine", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds},
            ],
        },
    }));
    cluster.client.namespaced::<Pod>(NS).create(&pod).await.expect("a valid pod");
}

/// Waits until a pod is driven out. As it waits, a little time passes, since repeated writes wait for that.
async fn driven_out(cluster: &TestCluster, clock: &ManualClock, name: &str) {
    let pods = cluster.client.namespaced::<Pod>(NS);
    until_async(&format!("{name} is driven out"), SOON, || async {
        clock.advance(Duration::from_millis(10));
        let found = pods.find(name).await.map_err(|error| error.to_string())?;
        let is_leaving = found.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
        check(is_leaving, format!("{found:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_drives_no_pod_out_and_keeps_none() {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", healthy).await;
    let began = Timestamp::now();
    let (env, clock) = Env::manual(began, 7);
    cluster.run_on(env, NodeLifecycle);
    let taint = json!({"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}});
    let nodes = cluster.client.all::<Node>();
    nodes.patch("n1", None, PatchKind::Strategic, &taint).await.expect("a valid patch");
    tolerating(&cluster, "patient", 300).await;
    let day = Duration::from_secs(86_400);
    // Each goes in a run of its own: when the last has, what follows from the clock has long been done.
    for (name, wall) in [("first", began), ("second", began + day), ("third", began + day)] {
        clock.set(wall);
        tolerating(&cluster, name, 0).await;
        driven_out(&cluster, &clock, name).await;
    }
    let patient = cluster.client.namespaced::<Pod>(NS).get("patient").await.expect("it is there");
    assert_eq!(patient.metadata.deletion_timestamp, None, "a day on the wall is no day");
    clock.set(began - day);
    clock.advance(Duration::from_secs(300));
    driven_out(&cluster, &clock, "patient").await;
    cluster.stop().await;
}
