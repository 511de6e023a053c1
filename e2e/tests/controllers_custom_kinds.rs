//! Objects of kinds that users define own, are owned and go like all others.

use std::{sync::Arc, time::Duration};

use claw_client::{
    Client, DynamicObject, ResourceRef, Transport, Verb,
    request::{DeleteOptions, Propagation, WriteOptions},
};
use claw_controllers::Options;
use claw_e2e::{
    gated::Gated,
    wait::{SOON, check, until_async},
    warp::Warp,
};
use claw_runtime::{Env, Readiness};
use claw_schemas::status::Reason;
use claw_testing::{TestCluster, object};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde_json::{Value, json};

const NS: &str = "default";
const DEFINITION: &str = "things.example.com";

fn things(namespace: &str) -> ResourceRef {
    ResourceRef::collection("example.com", "v1", "things").in_namespace(namespace)
}

async fn cluster_with_things() -> TestCluster {
    let mut cluster = TestCluster::start().await;
    cluster.controllers();
    define_things(&cluster).await;
    cluster
}

/// The same, with controllers behind a wire that the test holds up.
async fn gated_cluster() -> (TestCluster, Arc<Gated>) {
    let cluster = TestCluster::start().await;
    define_things(&cluster).await;
    let wire = Gated::new(Arc::clone(cluster.client_for("controllers").transport()));
    (cluster, wire)
}

fn over(wire: &Arc<Gated>) -> Client {
    Client::new(Arc::clone(wire) as Arc<dyn Transport>, "controllers")
}

async fn define_things(cluster: &TestCluster) {
    let definition: CustomResourceDefinition = object(json!({
        "metadata": {"name": DEFINITION},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }));
    cluster.client.all::<CustomResourceDefinition>().create(&definition).await.expect("a sound definition");
    cluster
        .until("the kind is served", "", DEFINITION, |definition: &CustomResourceDefinition| {
            let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True")
        })
        .await;
}

async fn call(cluster: &TestCluster, resource: ResourceRef, verb: Verb) -> DynamicObject {
    let response = cluster.client.call(resource, verb).await.expect("the server does it");
    serde_json::from_slice(&response.body).expect("an object comes back")
}

async fn thing(cluster: &TestCluster, namespace: &str, name: &str, owners: &Value) -> Value {
    let body = json!({"metadata": {"name": name, "ownerReferences": owners}}).to_string().into();
    let made =
        call(cluster, things(namespace), Verb::Create { body, options: WriteOptions::default() }).await;
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": name, "uid": made.metadata.uid, "blockOwnerDeletion": true})
}

async fn config(cluster: &TestCluster, name: &str, owner: &Value) -> Value {
    let config: ConfigMap =
        object(json!({"metadata": {"name": name, "namespace": NS, "ownerReferences": [owner]}}));
    let made = cluster.client.namespaced::<ConfigMap>(NS).create(&config).await.expect("a valid config map");
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": made.metadata.uid, "blockOwnerDeletion": true})
}

/// A config map without owners, as a reference to it.
async fn config_of(cluster: &TestCluster, name: &str) -> Value {
    let config: ConfigMap = object(json!({"metadata": {"name": name, "namespace": NS}}));
    let made = cluster.client.namespaced::<ConfigMap>(NS).create(&config).await.expect("a valid config map");
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": made.metadata.uid, "blockOwnerDeletion": true})
}

async fn delete(cluster: &TestCluster, resource: ResourceRef, propagation: Propagation) {
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    cluster.client.call(resource, Verb::Delete(options)).await.expect("deletes");
}

async fn until_gone(cluster: &TestCluster, resource: ResourceRef) {
    until_async("the thing goes", SOON, || async {
        match cluster.client.call(resource.clone(), Verb::Get).await {
            Err(error) if error.reason == Reason::NotFound => Ok(()),
            other => check(false, format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_custom_object_owns_goes_with_it_or_before_it() {
    let cluster = cluster_with_things().await;
    let owner = thing(&cluster, NS, "owner", &json!([])).await;
    config(&cluster, "dependent", &owner).await;
    delete(&cluster, things(NS).named("owner"), Propagation::Background).await;
    cluster.until_gone::<ConfigMap>(NS, "dependent").await;

    let root = thing(&cluster, NS, "root", &json!([])).await;
    let branch = config(&cluster, "branch", &root).await;
    thing(&cluster, NS, "leaf", &json!([branch])).await;
    delete(&cluster, things(NS).named("root"), Propagation::Foreground).await;
    until_gone(&cluster, things(NS).named("root")).await;
    until_gone(&cluster, things(NS).named("leaf")).await;
    cluster.until_gone::<ConfigMap>(NS, "branch").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_objects_of_a_kind_own_goes_with_the_kind() {
    let (mut cluster, wire) = gated_cluster().await;
    cluster.controllers_over(over(&wire), Env::real(), Options::default());
    let owner = thing(&cluster, NS, "owner", &json!([])).await;
    config(&cluster, "dependent", &owner).await;
    is_known_to_be_there(&wire).await;
    let definitions = cluster.client.all::<CustomResourceDefinition>();
    definitions.delete(DEFINITION, DeleteOptions::default()).await.expect("deletes");
    cluster.until_gone::<CustomResourceDefinition>("", DEFINITION).await;
    cluster.until_gone::<ConfigMap>(NS, "dependent").await;
    cluster.stop().await;
}

/// A kind that goes before the collector has heard of it is one that it does not know: what that owned is kept.
async fn is_known_to_be_there(wire: &Gated) {
    until_async("the owner is known to be there", SOON, || async {
        check(wire.asked("get things") > 0, "nobody asked yet")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_only_when_its_custom_objects_are_gone() {
    let cluster = cluster_with_things().await;
    let namespaces = cluster.client.all::<Namespace>();
    namespaces.create(&object(json!({"metadata": {"name": "team"}}))).await.expect("a valid namespace");
    thing(&cluster, "team", "x", &json!([])).await;
    namespaces.delete("team", DeleteOptions::default()).await.expect("deletes");
    cluster.until_gone::<Namespace>("", "team").await;
    until_gone(&cluster, things("team").named("x")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_objects_of_a_kind_own_goes_with_the_kind_even_if_nobody_was_told_that_they_went() {
    let (mut cluster, wire) = gated_cluster().await;
    cluster.controllers_over(over(&wire), Env::real(), Options::default());
    let owner = thing(&cluster, NS, "owner", &json!([])).await;
    config(&cluster, "dependent", &owner).await;
    is_known_to_be_there(&wire).await;
    wire.close("watch things");
    let definitions = cluster.client.all::<CustomResourceDefinition>();
    definitions.delete(DEFINITION, DeleteOptions::default()).await.expect("deletes");
    cluster.until_gone::<CustomResourceDefinition>("", DEFINITION).await;
    cluster.until_gone::<ConfigMap>(NS, "dependent").await;
    wire.open("watch things");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_cannot_be_listed_does_not_keep_the_garbage_of_others_but_orphans_wait_for_it() {
    let (mut cluster, wire) = gated_cluster().await;
    wire.refuse("list things");
    let readiness = Readiness::default();
    let options = Options { readiness: readiness.clone(), ..Options::default() };
    // Half a minute passes in half a second.
    cluster.controllers_over(over(&wire), Warp::env(Duration::ZERO, 60), options);
    until_async("who waits for what is told", SOON, || async {
        let waiting = readiness.waiting();
        let told = waiting.iter().any(|one| {
            let refused = one.error.as_ref().is_some_and(|error| error.message.contains("list things"));
            one.controller == "garbage" && one.kind == "things.example.com" && refused
        });
        check(told, format!("{waiting:?}"))
    })
    .await;
    let ghost = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "ghost", "uid": "nobody"});
    config(&cluster, "left-over", &ghost).await;
    cluster.until_gone::<ConfigMap>(NS, "left-over").await;

    let parent = config_of(&cluster, "parent").await;
    thing(&cluster, NS, "child", &json!([parent])).await;
    let maps = cluster.client.namespaced::<ConfigMap>(NS);
    let orphan = DeleteOptions { propagation: Some(Propagation::Orphan), ..DeleteOptions::default() };
    maps.delete("parent", orphan).await.expect("deletes");
    // Something that is collected later was looked at later: the collector has had its turn.
    config(&cluster, "later", &ghost).await;
    cluster.until_gone::<ConfigMap>(NS, "later").await;
    assert!(
        maps.find("parent").await.expect("reads").is_some(),
        "the parent went before its child was known"
    );
    wire.open("list things");
    cluster.until_gone::<ConfigMap>(NS, "parent").await;
    let child = call(&cluster, things(NS).named("child"), Verb::Get).await;
    assert!(child.metadata.owner_references.unwrap_or_default().is_empty(), "the child is set free");
    until_async("everything has begun", SOON, || async {
        let waiting = readiness.waiting();
        check(waiting.is_empty(), format!("{waiting:?}"))
    })
    .await;
    cluster.stop().await;
}
