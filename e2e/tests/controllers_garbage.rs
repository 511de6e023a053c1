//! Ownership, namespaces and left-overs against the real server.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use claw_client::request::{DeleteOptions, ListOptions, PatchKind, Propagation};
use claw_controllers::Options;
use claw_e2e::{
    wait::{SOON, check, until_async},
    warp::Warp,
};
use claw_runtime::{Env, env::ManualClock};
use claw_testing::{TestCluster, healthy, object};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Event, Namespace, Pod, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use serde_json::json;

const NS: &str = "default";

async fn cluster() -> TestCluster {
    let mut cluster = TestCluster::start().await;
    cluster.machine("n1", healthy).await;
    cluster.controllers();
    cluster
}

fn reference(meta: &ObjectMeta, kind: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: kind.into(),
        name: meta.name.clone().expect("the server names it"),
        uid: meta.uid.clone().expect("the server gives it a uid"),
        block_owner_deletion: Some(true),
        controller: None,
    }
}

async fn config(cluster: &TestCluster, name: &str, owners: &[OwnerReference]) -> ConfigMap {
    let config: ConfigMap =
        object(json!({"metadata": {"name": name, "namespace": NS, "ownerReferences": owners}}));
    cluster.client.namespaced::<ConfigMap>(NS).create(&config).await.expect("a valid config map")
}

async fn delete(cluster: &TestCluster, name: &str, propagation: Propagation) {
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    cluster.client.namespaced::<ConfigMap>(NS).delete(name, options).await.expect("deletes");
}

async fn exists(cluster: &TestCluster, name: &str) -> bool {
    cluster.client.namespaced::<ConfigMap>(NS).find(name).await.expect("reads").is_some()
}

fn owner_names(config: &ConfigMap) -> Vec<String> {
    config.metadata.owner_references.iter().flatten().map(|owner| owner.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_of_an_owner_that_never_was_are_collected() {
    let cluster = cluster().await;
    let ghost = OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: "ghost".into(),
        uid: "00000000-0000-0000-0000-000000000000".into(),
        ..OwnerReference::default()
    };
    config(&cluster, "haunted", &[ghost]).await;
    cluster.until_gone::<ConfigMap>(NS, "haunted").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_the_same_name_but_another_uid_is_another_object() {
    let cluster = cluster().await;
    let first = config(&cluster, "owner", &[]).await;
    delete(&cluster, "owner", Propagation::Background).await;
    config(&cluster, "owner", &[]).await;
    config(&cluster, "dependent", &[reference(&first.metadata, "ConfigMap")]).await;
    cluster.until_gone::<ConfigMap>(NS, "dependent").await;
    assert!(exists(&cluster, "owner").await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_owners_keep_a_dependent_until_both_are_gone() {
    let cluster = cluster().await;
    let (a, b) = (config(&cluster, "a", &[]).await, config(&cluster, "b", &[]).await);
    let owners = [reference(&a.metadata, "ConfigMap"), reference(&b.metadata, "ConfigMap")];
    config(&cluster, "shared", &owners).await;
    delete(&cluster, "a", Propagation::Background).await;
    cluster.until("the dead reference goes", NS, "shared", |c: &ConfigMap| owner_names(c) == ["b"]).await;
    delete(&cluster, "b", Propagation::Background).await;
    cluster.until_gone::<ConfigMap>(NS, "shared").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_deletion_goes_from_the_leaves_to_the_root() {
    let cluster = cluster().await;
    let root = config(&cluster, "root", &[]).await;
    let branch = config(&cluster, "branch", &[reference(&root.metadata, "ConfigMap")]).await;
    let leaf: ConfigMap = object(json!({"metadata": {
        "name": "leaf", "namespace": NS, "finalizers": ["example.com/hold"],
        "ownerReferences": [reference(&branch.metadata, "ConfigMap")],
    }}));
    cluster.client.namespaced::<ConfigMap>(NS).create(&leaf).await.expect("a valid config map");
    delete(&cluster, "root", Propagation::Foreground).await;
    cluster
        .until("the leaf is told to go", NS, "leaf", |c: &ConfigMap| c.metadata.deletion_timestamp.is_some())
        .await;
    assert!(exists(&cluster, "branch").await && exists(&cluster, "root").await, "they wait for the leaf");
    let free = json!({"metadata": {"finalizers": []}});
    let api = cluster.client.namespaced::<ConfigMap>(NS);
    api.patch("leaf", None, PatchKind::Merge, &free).await.expect("frees the leaf");
    cluster.until_gone::<ConfigMap>(NS, "root").await;
    assert!(!exists(&cluster, "branch").await && !exists(&cluster, "leaf").await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_dependents_stay_without_a_reference() {
    let cluster = cluster().await;
    let owner = config(&cluster, "owner", &[]).await;
    for name in ["x", "y"] {
        config(&cluster, name, &[reference(&owner.metadata, "ConfigMap")]).await;
    }
    // The collector has seen all of them once the deletion is through its own watch.
    delete(&cluster, "owner", Propagation::Orphan).await;
    cluster.until_gone::<ConfigMap>(NS, "owner").await;
    for name in ["x", "y"] {
        cluster.until("the reference goes", NS, name, |c: &ConfigMap| owner_names(c).is_empty()).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_of_owners_does_not_block_deletion() {
    let cluster = cluster().await;
    let a = config(&cluster, "a", &[]).await;
    let b = config(&cluster, "b", &[reference(&a.metadata, "ConfigMap")]).await;
    let c = config(&cluster, "c", &[reference(&b.metadata, "ConfigMap")]).await;
    let close = json!({"metadata": {"ownerReferences": [reference(&c.metadata, "ConfigMap")]}});
    let api = cluster.client.namespaced::<ConfigMap>(NS);
    api.patch("a", None, PatchKind::Merge, &close).await.expect("closes the circle");
    delete(&cluster, "a", Propagation::Foreground).await;
    for name in ["a", "b", "c"] {
        cluster.until_gone::<ConfigMap>(NS, name).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_an_unknown_kind_keeps_its_dependent() {
    let cluster = cluster().await;
    let unknown = OwnerReference {
        api_version: "example.com/v1".into(),
        kind: "Widget".into(),
        name: "w".into(),
        uid: "11111111-0000-0000-0000-000000000000".into(),
        ..OwnerReference::default()
    };
    let ghost = OwnerReference { api_version: "v1".into(), kind: "ConfigMap".into(), ..unknown.clone() };
    config(&cluster, "kept", &[unknown]).await;
    config(&cluster, "collected", &[ghost]).await;
    cluster.until_gone::<ConfigMap>(NS, "collected").await;
    assert!(exists(&cluster, "kept").await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_takes_everything_along_and_says_what_it_waits_for() {
    let cluster = cluster().await;
    let namespaces = cluster.client.all::<Namespace>();
    namespaces.create(&object(json!({"metadata": {"name": "team"}}))).await.expect("a valid namespace");
    let deployment = json!({
        "metadata": {"name": "web", "namespace": "team"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "app:1"}]}},
        },
    });
    let deployments = cluster.client.namespaced::<k8s_openapi::api::apps::v1::Deployment>("team");
    deployments.create(&object(deployment)).await.expect("a valid deployment");
    let held: ConfigMap = object(
        json!({"metadata": {"name": "held", "namespace": "team", "finalizers": ["example.com/hold"]}}),
    );
    let configs = cluster.client.namespaced::<ConfigMap>("team");
    configs.create(&held).await.expect("a valid config map");
    let secret: Secret = object(json!({"metadata": {"name": "key", "namespace": "team"}}));
    cluster.client.namespaced::<Secret>("team").create(&secret).await.expect("a valid secret");
    cluster
        .until("the deployment runs", "team", "web", |d: &k8s_openapi::api::apps::v1::Deployment| {
            d.status.as_ref().is_some_and(|s| s.available_replicas == Some(3))
        })
        .await;

    namespaces.delete("team", DeleteOptions::default()).await.expect("deletes");
    let refused = cluster
        .client
        .namespaced::<Secret>("team")
        .create(&object(json!({"metadata": {"name": "late", "namespace": "team"}})))
        .await;
    assert_eq!(refused.unwrap_err().code, 403, "nothing new comes in");
    let (what, held_by) = ("NamespaceContentRemaining", "NamespaceFinalizersRemaining");
    until_async("the status names the finalizer", SOON, || async {
        let found = namespaces.get("team").await.map_err(|error| error.to_string())?;
        let conditions = found.status.clone().unwrap_or_default().conditions.unwrap_or_default();
        let says = |kind: &str, text: &str| {
            conditions.iter().any(|c| {
                c.type_ == kind && c.status == "True" && c.message.as_deref().unwrap_or("").contains(text)
            })
        };
        check(
            says(what, "configmaps. has 1 resource instances") && says(held_by, "example.com/hold in 1"),
            format!("{conditions:?}"),
        )
    })
    .await;
    configs
        .patch("held", None, PatchKind::Merge, &json!({"metadata": {"finalizers": null}}))
        .await
        .expect("frees it");
    cluster.until_gone::<Namespace>("", "team").await;
    let left = cluster.client.namespaced::<Pod>("team").list(ListOptions::default()).await.expect("lists");
    assert!(left.items.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_removed_node_are_collected() {
    let mut cluster = TestCluster::start().await;
    let pod: Pod = object(json!({
        "metadata": {"name": "left", "namespace": NS},
        "spec": {"nodeName": "gone", "containers": [{"name": "c", "image": "app:1"}]},
    }));
    cluster.client.namespaced::<Pod>(NS).create(&pod).await.expect("a valid pod");
    // Forty seconds of quarantine and a sweep, twenty times as fast.
    cluster.controllers_with(Warp::env(Duration::ZERO, 20), Options::default());
    cluster.until_gone::<Pod>(NS, "left").await;
    cluster.stop().await;
}

/// An event that was last seen at a time.
async fn event(cluster: &TestCluster, name: &str, time: &str) {
    let event: Event = object(json!({
        "metadata": {"name": name, "namespace": NS},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": NS},
        "reason": "Test", "type": "Normal", "firstTimestamp": time, "lastTimestamp": time,
    }));
    cluster.client.namespaced::<Event>(NS).create(&event).await.expect("a valid event");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_swept_and_those_still_counted_stay() {
    let mut cluster = TestCluster::start().await;
    let events = cluster.client.namespaced::<Event>(NS);
    for (name, time) in [("old", "2020-01-01T00:00:00Z"), ("counted", "2999-01-01T00:00:00Z")] {
        event(&cluster, name, time).await;
    }
    // Two hours from now.
    cluster.controllers_with(Warp::env(Duration::from_secs(7200), 1), Options::default());
    cluster.until_gone::<Event>(NS, "old").await;
    assert!(events.find("counted").await.expect("reads").is_some());
    cluster.stop().await;
}

/// Lets sweeps come until one has taken an event, and less than an hour pass for it.
async fn swept(cluster: &TestCluster, clock: &ManualClock, name: &str) {
    let events = cluster.client.namespaced::<Event>(NS);
    let looks = AtomicU32::new(0);
    until_async(&format!("{name} is swept"), SOON, || async {
        // A sweep comes five minutes after the one before, which may not be over yet.
        let looked = looks.fetch_add(1, Ordering::Relaxed);
        if looked.is_multiple_of(20) && looked < 100 {
            clock.advance(Duration::from_secs(301));
        }
        let found = events.find(name).await.map_err(|error| error.to_string())?;
        check(found.is_none(), format!("{found:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_takes_no_event_and_keeps_none() {
    let mut cluster = TestCluster::start().await;
    let events = cluster.client.namespaced::<Event>(NS);
    // Events are created by the server's clock, which is the machine's.
    let began = Timestamp::now();
    let day = Duration::from_secs(86_400);
    let (env, clock) = Env::manual(began + Duration::from_secs(7_200), 7);
    event(&cluster, "news", &(began + Duration::from_secs(7_200)).to_string()).await;
    event(&cluster, "first", &began.to_string()).await;
    cluster.controllers_with(env, Options::default());
    swept(&cluster, &clock, "first").await;
    clock.set(began + day);
    event(&cluster, "second", &began.to_string()).await;
    swept(&cluster, &clock, "second").await;
    assert!(events.find("news").await.expect("reads").is_some(), "a day on the wall is no day");
    clock.set(began);
    clock.advance(Duration::from_secs(3_600));
    swept(&cluster, &clock, "news").await;
    cluster.stop().await;
}
