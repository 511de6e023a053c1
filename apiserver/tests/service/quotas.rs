//! Quotas: what they let in, what they say, and that nobody gets past them by being quick.

use std::time::Duration;

use claw_client::{
    ResourceRef, Verb,
    request::{DeleteOptions, PatchKind, View, WriteOptions},
};
use claw_schemas::{ApiError, status::Reason};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::world::{World, bound_pod, pods, world};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(180);

fn core(plural: &str) -> ResourceRef {
    ResourceRef::collection("", "v1", plural).in_namespace("default")
}

async fn quota(world: &World, name: &str, spec: Value) {
    world.create(core("resourcequotas"), &json!({"metadata": {"name": name}, "spec": spec})).await.unwrap();
}

async fn used(world: &World, name: &str) -> Value {
    world.get(core("resourcequotas").named(name)).await.unwrap()["status"]["used"].clone()
}

/// Waits until the account of a quota says this.
async fn comes_to(world: &World, name: &str, expected: Value) {
    let look = async {
        while used(world, name).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, look).await.is_err() {
        panic!("{} instead of {expected}", used(world, name).await);
    }
}

fn pod(name: &str, requests: Value) -> Value {
    let container =
        json!({"name": "main", "image": "i", "resources": {"requests": requests, "limits": requests}});
    json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn refused(error: ApiError, said: &str) {
    assert_eq!((error.code, error.reason), (403, Reason::Forbidden), "{error}");
    assert!(error.message.ends_with(said), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_come_at_once_exactly_the_quota_lands() {
    let world = world().await;
    quota(&world, "q", json!({"hard": {"pods": "7", "requests.cpu": "2"}})).await;
    let wanted: Vec<_> = (0..60).map(|n| pod(&format!("p{n}"), json!({"cpu": "250m"}))).collect();
    let outcomes = join_all(wanted.iter().map(|pod| world.create(pods(), pod))).await;
    let refusals: Vec<ApiError> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(refusals.len(), 53);
    for refusal in refusals {
        refused(refusal, "exceeded quota: q, requested: pods=1, used: pods=7, limited: pods=7");
    }
    let stored = world.list(pods(), Default::default()).await.unwrap();
    assert_eq!(stored["items"].as_array().unwrap().len(), 7);
    assert_eq!(used(&world, "q").await, json!({"pods": "7", "requests.cpu": "1750m"}));
    // And of many that go at once, each gives back its own.
    let going = stored["items"].as_array().unwrap().iter().map(|pod| {
        world.delete(pods().named(pod["metadata"]["name"].as_str().unwrap()), DeleteOptions::default())
    });
    join_all(going).await.into_iter().for_each(|outcome| drop(outcome.unwrap()));
    assert_eq!(used(&world, "q").await, json!({"pods": "0", "requests.cpu": "0"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_over_one_store_cannot_overrun_a_quota_together() {
    let store = claw_apiserver::store::memory();
    let (one, other) = (World::on(store.clone()).await, World::on(store).await);
    quota(&one, "q", json!({"hard": {"configmaps": "5"}})).await;
    let names: Vec<String> = (0..16).map(|number| format!("m{number}")).collect();
    let creates = names.iter().enumerate().map(async |(number, name)| {
        let world = if number % 2 == 0 { &one } else { &other };
        world.create(core("configmaps"), &map(name)).await
    });
    let refusals: Vec<ApiError> = join_all(creates).await.into_iter().filter_map(Result::err).collect();
    assert_eq!(refusals.len(), 11, "{refusals:?}");
    for refusal in refusals {
        refused(
            refusal,
            "exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: configmaps=5",
        );
    }
    assert_eq!(used(&other, "q").await, json!({"configmaps": "5"}));
}

#[tokio::test]
async fn a_pod_has_to_say_what_a_quota_limits_and_what_it_says_is_counted() {
    let world = world().await;
    let hard = json!({"requests.cpu": "1", "limits.memory": "1Gi", "requests.nvidia.com/gpu": "2"});
    quota(&world, "compute", json!({"hard": hard})).await;
    let error = world.create(pods(), &pod("silent", json!({"cpu": "100m"}))).await.unwrap_err();
    refused(
        error,
        "pods \"silent\" is forbidden: failed quota: compute: must specify limits.memory for: main",
    );
    let asks = json!({"cpu": "250m", "memory": "256Mi", "nvidia.com/gpu": "2"});
    world.create(pods(), &pod("a", asks.clone())).await.unwrap();
    assert_eq!(
        used(&world, "compute").await,
        json!({"requests.cpu": "250m", "limits.memory": "256Mi", "requests.nvidia.com/gpu": "2"})
    );
    let error = world.create(pods(), &pod("b", asks)).await.unwrap_err();
    refused(
        error,
        "pods \"b\" is forbidden: exceeded quota: compute, requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2",
    );
}

#[tokio::test]
async fn a_pod_that_is_over_gives_back_all_but_its_place_among_objects() {
    let world = world().await;
    bound_pod(&world, "x").await;
    quota(&world, "q", json!({"hard": {"pods": "1", "count/pods": "5"}})).await;
    comes_to(&world, "q", json!({"pods": "1", "count/pods": "1"})).await;
    refused(
        world.create(pods(), &pod("y", json!({}))).await.unwrap_err(),
        "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
    );
    let over = json!({"status": {"phase": "Succeeded"}});
    world.merge(pods().named("x").sub("status"), &over).await.unwrap();
    assert_eq!(used(&world, "q").await, json!({"pods": "0", "count/pods": "1"}));
    world.create(pods(), &pod("y", json!({}))).await.unwrap();
    world.delete(pods().named("x"), DeleteOptions::default()).await.unwrap();
    assert_eq!(used(&world, "q").await, json!({"pods": "1", "count/pods": "1"}));
}

#[tokio::test]
async fn a_quota_counts_what_was_there_before_it_and_holds_from_its_first_moment() {
    let world = world().await;
    for name in ["a", "b"] {
        world.create(core("configmaps"), &map(name)).await.unwrap();
    }
    quota(&world, "q", json!({"hard": {"configmaps": "2", "count/secrets": "1", "services": "3"}})).await;
    // Nobody waits for the status here.
    let error = world.create(core("configmaps"), &map("c")).await.unwrap_err();
    refused(error, "exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2");
    comes_to(&world, "q", json!({"configmaps": "2", "count/secrets": "0", "services": "0"})).await;
    // More is allowed as soon as the quota says so.
    let more = json!({"spec": {"hard": {"configmaps": "3"}}});
    world.merge(core("resourcequotas").named("q"), &more).await.unwrap();
    world.create(core("configmaps"), &map("c")).await.unwrap();
    comes_to(&world, "q", json!({"configmaps": "3", "count/secrets": "0", "services": "0"})).await;
    let status = world.get(core("resourcequotas").named("q")).await.unwrap()["status"]["hard"].clone();
    assert_eq!(status, json!({"configmaps": "3", "count/secrets": "1", "services": "3"}));
}

#[tokio::test]
async fn an_account_that_was_falsified_is_put_right() {
    let world = world().await;
    world.create(core("configmaps"), &map("a")).await.unwrap();
    quota(&world, "q", json!({"hard": {"configmaps": "9"}})).await;
    comes_to(&world, "q", json!({"configmaps": "1"})).await;
    let odd = json!({"status": {"used": {"configmaps": null}}});
    world.merge(core("resourcequotas").named("q").sub("status"), &odd).await.unwrap();
    comes_to(&world, "q", json!({"configmaps": "1"})).await;
}

#[tokio::test]
async fn every_kind_can_be_limited_by_its_count() {
    let world = world().await;
    quota(
        &world,
        "counts",
        json!({"hard": {"count/deployments.apps": "1", "count/widgets.example.com": "1", "services.nodeports": "1", "persistentvolumeclaims": "1", "requests.storage": "5Gi", "resourcequotas": "2"}}),
    )
    .await;
    let deployments = || ResourceRef::collection("apps", "v1", "deployments").in_namespace("default");
    world.create(deployments(), &crate::world::deployment("a", 1)).await.unwrap();
    refused(
        world.create(deployments(), &crate::world::deployment("b", 1)).await.unwrap_err(),
        "deployments.apps \"b\" is forbidden: exceeded quota: counts, requested: count/deployments.apps=1, used: count/deployments.apps=1, limited: count/deployments.apps=1",
    );
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let made = world.create(core("services"), &service("a")).await.unwrap();
    refused(
        world.create(core("services"), &service("b")).await.unwrap_err(),
        "requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1",
    );
    // A change that asks for more is held to the quota, too; one that asks for less gives back.
    let more = json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
    refused(
        world.merge(core("services").named("a"), &more).await.unwrap_err(),
        "requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1",
    );
    assert!(made["spec"]["clusterIP"].is_string());
    world.merge(core("services").named("a"), &json!({"spec": {"type": "ClusterIP"}})).await.unwrap();
    world.create(core("services"), &service("b")).await.unwrap();
    let claim = |storage: &str| json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}});
    refused(
        world.create(core("persistentvolumeclaims"), &claim("6Gi")).await.unwrap_err(),
        "requested: requests.storage=6Gi, used: requests.storage=0, limited: requests.storage=5Gi",
    );
    world.create(core("persistentvolumeclaims"), &claim("5Gi")).await.unwrap();
    quota(&world, "another", json!({"hard": {"pods": "1"}})).await;
    let third = json!({"metadata": {"name": "third"}, "spec": {"hard": {"pods": "1"}}});
    refused(
        world.create(core("resourcequotas"), &third).await.unwrap_err(),
        "requested: resourcequotas=1, used: resourcequotas=2, limited: resourcequotas=2",
    );
}

#[tokio::test]
async fn objects_of_a_defined_kind_are_counted_in_whatever_version_they_come() {
    let world = world().await;
    quota(&world, "q", json!({"hard": {"count/gadgets.example.com": "1"}})).await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema});
    let definition = json!({
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [version("v1", true), version("v1beta1", false)]},
    });
    let definitions = ResourceRef::collection("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    world.create(definitions, &definition).await.unwrap();
    let gadgets =
        |version: &str| ResourceRef::collection("example.com", version, "gadgets").in_namespace("default");
    let made = async {
        loop {
            match world.create(gadgets("v1beta1"), &map("a")).await {
                Err(error) if error.code == 404 => tokio::time::sleep(Duration::from_millis(10)).await,
                outcome => return outcome.unwrap(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, made).await.expect("the kind is served");
    refused(
        world.create(gadgets("v1"), &map("b")).await.unwrap_err(),
        "gadgets.example.com \"b\" is forbidden: exceeded quota: q, requested: count/gadgets.example.com=1, used: count/gadgets.example.com=1, limited: count/gadgets.example.com=1",
    );
}

#[tokio::test]
async fn a_quota_of_some_pods_leaves_the_others_alone() {
    let world = world().await;
    quota(&world, "batch", json!({"hard": {"pods": "0"}, "scopes": ["Terminating"]})).await;
    let high =
        json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
    quota(&world, "high", json!({"hard": {"pods": "0"}, "scopeSelector": high})).await;
    world.create(pods(), &pod("plain", json!({}))).await.unwrap();
    let mut ending = pod("ending", json!({}));
    ending["spec"]["activeDeadlineSeconds"] = json!(60);
    refused(
        world.create(pods(), &ending).await.unwrap_err(),
        "exceeded quota: batch, requested: pods=1, used: pods=0, limited: pods=0",
    );
    let classes = ResourceRef::collection("scheduling.k8s.io", "v1", "priorityclasses");
    world.create(classes, &json!({"metadata": {"name": "high"}, "value": 7})).await.unwrap();
    let mut important = pod("important", json!({}));
    important["spec"]["priorityClassName"] = json!("high");
    refused(
        world.create(pods(), &important).await.unwrap_err(),
        "exceeded quota: high, requested: pods=1, used: pods=0, limited: pods=0",
    );
}

#[tokio::test]
async fn what_is_not_stored_is_held_to_the_quota_and_not_counted() {
    let world = world().await;
    quota(&world, "q", json!({"hard": {"configmaps": "1"}})).await;
    let dry = |name: &str| {
        let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
        let verb = Verb::Create { body: map(name).to_string().into(), options };
        world.ask_whole(core("configmaps"), verb, View::Object)
    };
    dry("a").await.unwrap();
    world.create(core("configmaps"), &map("a")).await.unwrap();
    refused(dry("b").await.unwrap_err(), "used: configmaps=1, limited: configmaps=1");
    let taken = world.create(core("configmaps"), &map("a")).await.unwrap_err();
    assert_eq!(taken.code, 403, "the quota is asked first: {taken}");
    // What is there can be changed, by whatever way.
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    world.apply(core("configmaps").named("a"), "m", &config, true).await.unwrap();
    world
        .patch(core("configmaps").named("a"), PatchKind::Strategic, &json!({"data": {"k": "w"}}))
        .await
        .unwrap();
    assert_eq!(used(&world, "q").await, json!({"configmaps": "1"}));
}
