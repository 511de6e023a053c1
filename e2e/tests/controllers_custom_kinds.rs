//! Objects of kinds that users define own, are owned and go like all others.

use claw_client::{
    DynamicObject, ResourceRef, Verb,
    request::{DeleteOptions, Propagation, WriteOptions},
};
use claw_e2e::wait::{SOON, check, until_async};
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
    cluster
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
    let cluster = cluster_with_things().await;
    let owner = thing(&cluster, NS, "owner", &json!([])).await;
    config(&cluster, "dependent", &owner).await;
    let definitions = cluster.client.all::<CustomResourceDefinition>();
    definitions.delete(DEFINITION, DeleteOptions::default()).await.expect("deletes");
    cluster.until_gone::<CustomResourceDefinition>("", DEFINITION).await;
    cluster.until_gone::<ConfigMap>(NS, "dependent").await;
    cluster.stop().await;
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
