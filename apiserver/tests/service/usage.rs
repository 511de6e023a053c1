//! `metrics.k8s.io`: what is made of the figures that nodes send, and what of those that do not come.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use claw_apiserver::nodes::{NodeStream, NodeStreams};
use claw_client::{
    ResourceRef, Verb,
    request::{DeleteOptions, IncludeObject, ListOptions, View, WatchOptions},
};
use claw_schemas::{
    ApiError,
    proto::{ContainerUsage, Figures, Usage, open_stream},
};
use serde_json::{Value, json};

use crate::world::{World, pods, revision, world};

/// Nodes that use a CPU and a half each, but for "away"; what they were asked.
#[derive(Default)]
struct Nodes {
    containers: Vec<ContainerUsage>,
    asked: Mutex<Vec<String>>,
}

fn figures(cpu_nanocores: u64, memory_bytes: u64) -> Figures {
    Figures { at_ms: 1_767_225_600_999, window_ms: 15_270, cpu_nanocores, memory_bytes }
}

#[async_trait]
impl NodeStreams for Nodes {
    async fn open(&self, _: &str, _: open_stream::Request) -> Result<NodeStream, ApiError> {
        Err(ApiError::bad_request("nothing but figures"))
    }

    async fn usage(&self, node: &str) -> Option<Arc<Usage>> {
        self.asked.lock().unwrap().push(node.to_owned());
        let machine = Some(figures(1_500_000_000, 4 << 30));
        (node != "away").then(|| Arc::new(Usage { machine, containers: self.containers.clone() }))
    }
}

fn measured(plural: &str) -> ResourceRef {
    ResourceRef::collection("metrics.k8s.io", "v1beta1", plural)
}

/// A running pod on a node; its uid.
async fn running(world: &World, name: &str, node: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "i"}, {"name": "side", "image": "i"}]},
    });
    let made = world.create(pods(), &pod).await.unwrap();
    let status = json!({"status": {"phase": "Running"}});
    world.merge(pods().named(name).sub("status"), &status).await.unwrap();
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn node(world: &World, name: &str) {
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"zone": name}}});
    world.create(ResourceRef::collection("", "v1", "nodes"), &node).await.unwrap();
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pods_are_shown_with_the_figures_of_their_containers_as_far_as_there_are_any() {
    let world = world().await;
    let web = running(&world, "web", "n1").await;
    let _without = running(&world, "without-figures", "n1").await;
    let away = running(&world, "on-a-lost-node", "away").await;
    let used_by = |pod: &str, container: &str, cpu, memory| ContainerUsage {
        pod_uid: pod.to_owned(),
        container: container.to_owned(),
        figures: Some(figures(cpu, memory)),
    };
    let used = |container, cpu, memory| used_by(&web, container, cpu, memory);
    // What it says about a pod of another node is not believed.
    let containers =
        vec![used("side", 1, 1), used("main", 250_000_000, 50 << 20), used_by(&away, "main", 9, 9)];
    let nodes = Arc::new(Nodes { containers, ..Nodes::default() });
    world.service.set_node_streams(nodes.clone());

    let list = world.list(measured("pods"), ListOptions::default()).await.unwrap();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("PodMetricsList"), &json!("metrics.k8s.io/v1beta1"))
    );
    assert_eq!((revision(&list).is_empty(), names(&list)), (false, vec!["web"]));
    let mut one = world.get(measured("pods").in_namespace("default").named("web")).await.unwrap();
    assert!(one["metadata"]["creationTimestamp"].take().is_string());
    assert_eq!(
        one,
        json!({
            "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
            "metadata": {
                "name": "web", "namespace": "default", "labels": {"app": "web"}, "creationTimestamp": null,
            },
            "timestamp": "2026-01-01T00:00:00Z", "window": "15.27s",
            "containers": [
                {"name": "main", "usage": {"cpu": "250m", "memory": "50Mi"}},
                {"name": "side", "usage": {"cpu": "1n", "memory": "1"}},
            ],
        })
    );

    for (name, message) in [
        ("without-figures", "podmetrics.metrics.k8s.io \"default/without-figures\" not found"),
        ("on-a-lost-node", "podmetrics.metrics.k8s.io \"default/on-a-lost-node\" not found"),
        ("nobody", "pods \"nobody\" not found"),
    ] {
        let error = world.get(measured("pods").in_namespace("default").named(name)).await.unwrap_err();
        assert_eq!((error.code, &*error.message), (404, message));
    }
}

#[tokio::test]
async fn only_nodes_with_selected_pods_are_asked() {
    let world = world().await;
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n2")] {
        running(&world, name, node).await;
    }
    let over = json!({"status": {"phase": "Succeeded"}});
    world.merge(pods().named("a").sub("status"), &over).await.unwrap();
    let nodes = Arc::new(Nodes::default());
    world.service.set_node_streams(nodes.clone());
    let asked = async |options: ListOptions| {
        world.list(measured("pods").in_namespace("default"), options).await.unwrap();
        std::mem::take(&mut *nodes.asked.lock().unwrap())
    };
    assert_eq!(asked(ListOptions::default()).await, ["n2"]);
    let labels =
        |selector: &str| ListOptions { label_selector: selector.to_owned(), ..ListOptions::default() };
    assert_eq!(asked(labels("app in (b)")).await, ["n2"]);
    assert!(asked(labels("app=a")).await.is_empty(), "its pod is over");
    let fields = ListOptions { field_selector: "metadata.name=c".to_owned(), ..ListOptions::default() };
    assert_eq!(asked(fields).await, ["n2"]);
    let error = world.list(measured("pods"), labels("a b c")).await.unwrap_err();
    assert_eq!(error.code, 400);
}

#[tokio::test]
async fn nodes_are_shown_but_for_those_that_are_away() {
    let world = world().await;
    for name in ["n1", "away", "n2"] {
        node(&world, name).await;
    }
    world.service.set_node_streams(Arc::new(Nodes::default()));
    let list = world.list(measured("nodes"), ListOptions::default()).await.unwrap();
    assert_eq!(names(&list), ["n1", "n2"]);
    assert_eq!(list["items"][0]["usage"], json!({"cpu": "1500m", "memory": "4Gi"}));
    let selected = ListOptions { label_selector: "zone=n2".to_owned(), ..ListOptions::default() };
    assert_eq!(names(&world.list(measured("nodes"), selected).await.unwrap()), ["n2"]);
    let error = world.get(measured("nodes").named("away")).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (404, "nodemetrics.metrics.k8s.io \"away\" not found"));

    let table = View::Table(IncludeObject::Metadata);
    let rows = world.ask_whole(measured("nodes"), Verb::List(ListOptions::default()), table).await.unwrap();
    let rows: Value = serde_json::from_slice(&rows.body).unwrap();
    assert_eq!(rows["columnDefinitions"][1]["name"], "Cpu");
    assert_eq!(rows["rows"][0]["cells"], json!(["n1", "1500m", "4Gi", "15.27s"]));
    assert_eq!(rows["rows"][0]["object"]["metadata"]["labels"], json!({"zone": "n1"}));
}

#[tokio::test]
async fn what_is_measured_can_only_be_read() {
    let world = world().await;
    world.service.set_node_streams(Arc::new(Nodes::default()));
    let one = || measured("nodes").named("n1");
    let options = DeleteOptions::default;
    let watch = world.service.watch(&world.who, measured("nodes"), WatchOptions::default(), View::Object);
    for (error, code) in [
        (world.create(measured("nodes"), &json!({})).await.unwrap_err(), 405),
        (world.update(one(), &json!({})).await.unwrap_err(), 405),
        (world.delete(one(), options()).await.unwrap_err(), 405),
        (world.get(measured("nodes")).await.unwrap_err(), 405),
        (watch.await.err().unwrap(), 405),
        (world.get(one().sub("status")).await.unwrap_err(), 404),
        (world.get(measured("gpus").named("x")).await.unwrap_err(), 404),
        (world.get(measured("pods").named("x")).await.unwrap_err(), 404),
        (world.get(measured("nodes").in_namespace("a").named("x")).await.unwrap_err(), 404),
    ] {
        assert_eq!(error.code, code, "{error}");
    }
}
