//! Scale, binding, eviction and logs.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use claw_apiserver::{
    auth::Identity,
    nodes::{NodeStream, NodeStreams},
    service::limits::WATCHES_A_USER_MAX,
};
use claw_client::request::PatchKind;
use claw_schemas::{
    ApiError,
    proto::{LogsRequest, StreamFrame, open_stream},
    status::Reason,
};
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::mpsc;

use crate::world::{bound_pod, deployment, deployments, pod, pods, revision, world};

#[tokio::test]
async fn scale_is_a_view_of_the_workload() {
    let world = world().await;
    let made = world.create(deployments(), &deployment("web", 2)).await.unwrap();
    let scale = world.get(deployments().named("web").sub("scale")).await.unwrap();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"], json!({"replicas": 0, "selector": "app=web"}));
    assert_eq!(scale["metadata"]["uid"], made["metadata"]["uid"]);
}

#[tokio::test]
async fn scaling_by_put_and_patch_changes_the_spec() {
    let world = world().await;
    world.create(deployments(), &deployment("web", 2)).await.unwrap();
    let scale = || deployments().named("web").sub("scale");
    let mut document = world.get(scale()).await.unwrap();
    document["spec"]["replicas"] = json!(5);
    assert_eq!(world.update(scale(), &document).await.unwrap()["spec"]["replicas"], 5);
    assert_eq!(
        world.update(scale(), &document).await.unwrap_err().reason,
        Reason::Conflict,
        "its revision is stale"
    );
    let patch = json!({"spec": {"replicas": 7}});
    for kind in [PatchKind::Merge, PatchKind::Strategic] {
        assert_eq!(world.patch(scale(), kind, &patch).await.unwrap()["spec"]["replicas"], 7);
    }
    let web = world.get(deployments().named("web")).await.unwrap();
    assert_eq!((&web["spec"]["replicas"], &web["metadata"]["generation"]), (&json!(7), &json!(3)));
    for bad in [json!(-1), json!("many"), json!(1_i64 << 40)] {
        let error = world.merge(scale(), &json!({"spec": {"replicas": bad}})).await.unwrap_err();
        assert_eq!((error.code, error.details.causes[0].field.as_str()), (422, "spec.replicas"), "{bad}");
    }
}

#[tokio::test]
async fn a_pod_is_bound_once_and_says_so() {
    let world = world().await;
    let bound = bound_pod(&world, "x").await;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "PodScheduled" && one["status"] == "True"));
    let again = json!({"metadata": {"name": "x"}, "target": {"kind": "Node", "name": "n2"}});
    let error = world.create(pods().named("x").sub("binding"), &again).await.unwrap_err();
    assert_eq!(error.reason, Reason::Conflict);
    assert!(error.message.contains("pod x is already assigned to node \"n1\""), "{error}");
    let unbind = json!({"spec": {"nodeName": "n2"}});
    assert_eq!(world.merge(pods().named("x"), &unbind).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn what_a_binding_is_annotated_with_goes_into_the_pod() {
    let world = world().await;
    let mut annotated = pod("x");
    annotated["metadata"]["annotations"] = json!({"own": "1", "both": "before"});
    world.create(pods(), &annotated).await.unwrap();
    let annotations = json!({"both": "now", "new": "2"});
    let binding = json!({"metadata": {"name": "x", "annotations": annotations}, "target": {"kind": "Node", "name": "n1"}});
    world.create(pods().named("x").sub("binding"), &binding).await.unwrap();
    let bound = world.get(pods().named("x")).await.unwrap();
    assert_eq!(bound["metadata"]["annotations"], json!({"own": "1", "both": "now", "new": "2"}));
}

#[tokio::test]
async fn a_binding_can_be_meant_for_one_incarnation_only() {
    let world = world().await;
    let made = world.create(pods(), &pod("x")).await.unwrap();
    let bind = |uid: &serde_json::Value, target: serde_json::Value| json!({"metadata": {"name": "x", "uid": uid}, "target": target});
    let node = json!({"kind": "Node", "name": "n1"});
    let binding = || pods().named("x").sub("binding");
    assert_eq!(world.create(binding(), &bind(&json!("other"), node.clone())).await.unwrap_err().code, 409);
    assert_eq!(
        world.create(binding(), &bind(&json!(""), json!({"kind": "Node"}))).await.unwrap_err().code,
        422
    );
    assert_eq!(
        world
            .create(binding(), &bind(&json!(""), json!({"kind": "Pod", "name": "n"})))
            .await
            .unwrap_err()
            .code,
        422
    );
    world.create(binding(), &bind(&made["metadata"]["uid"], node)).await.unwrap();
    let bound = world.get(pods().named("x")).await.unwrap();
    assert_eq!(bound["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(bound["metadata"]["generation"], made["metadata"]["generation"]);
}

#[tokio::test]
async fn an_eviction_deletes_with_the_options_it_carries() {
    let world = world().await;
    bound_pod(&world, "x").await;
    let evict = |options: serde_json::Value| json!({"metadata": {"name": "x"}, "deleteOptions": options});
    let eviction = || pods().named("x").sub("eviction");
    assert_eq!(
        world.create(eviction(), &evict(json!({"preconditions": {"uid": "other"}}))).await.unwrap_err().code,
        409
    );
    assert_eq!(
        world.create(eviction(), &evict(json!({"gracePeriodSeconds": "soon"}))).await.unwrap_err().code,
        422
    );
    world.create(eviction(), &evict(json!({"gracePeriodSeconds": 7}))).await.unwrap();
    let evicted = world.get(pods().named("x")).await.unwrap();
    assert_eq!(evicted["metadata"]["deletionGracePeriodSeconds"], 7);
}

#[tokio::test]
async fn subresources_take_only_their_verbs() {
    let world = world().await;
    bound_pod(&world, "x").await;
    let body = json!({"metadata": {"name": "x"}});
    for error in [
        world.get(pods().named("x").sub("binding")).await.unwrap_err(),
        world.update(pods().named("x").sub("eviction"), &body).await.unwrap_err(),
        world.delete(pods().named("x").sub("status"), Default::default()).await.unwrap_err(),
        world.create(pods().named("x").sub("status"), &body).await.unwrap_err(),
        world.create(pods().named("x"), &body).await.unwrap_err(),
        world.delete(pods(), Default::default()).await.unwrap_err(),
    ] {
        assert_eq!(error.code, 405, "{error}");
    }
    assert_eq!(world.get(pods().named("x").sub("nonsense")).await.unwrap_err().code, 404);
}

/// A node that answers with what it was asked.
#[derive(Default)]
struct Echo(Mutex<Vec<(String, LogsRequest)>>);

#[async_trait]
impl NodeStreams for Echo {
    async fn open(&self, node: &str, request: open_stream::Request) -> Result<NodeStream, ApiError> {
        let open_stream::Request::Logs(request) = request else { panic!("logs are asked for") };
        self.0.lock().unwrap().push((node.to_owned(), request));
        let ((said, frames), (to_node, _)) = (mpsc::channel(1), mpsc::channel(1));
        said.try_send(Ok(StreamFrame { data: "line\n".into(), ..StreamFrame::default() })).unwrap();
        Ok(NodeStream { frames, to_node })
    }
}

#[tokio::test]
async fn logs_come_from_the_node_of_the_pod_once_its_container_has_started() {
    let world = world().await;
    let node = Arc::new(Echo::default());
    world.service.set_node_streams(node.clone());
    let log = |query: &[(&str, &str)]| {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        world.service.stream(&world.who, pods().named("x").sub("log"), query)
    };
    assert_eq!(log(&[]).await.err().unwrap().code, 404);
    world.create(pods(), &pod("x")).await.unwrap();
    assert_eq!(log(&[]).await.err().unwrap().code, 400, "it is on no node");
    let binding = json!({"target": {"name": "n1"}});
    world.create(pods().named("x").sub("binding"), &binding).await.unwrap();
    let waiting = log(&[]).await.err().unwrap();
    assert_eq!(waiting.message, "container \"main\" in pod \"x\" is waiting to start: ContainerCreating");
    let running = json!({"status": {"containerStatuses": [{
        "name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }]}});
    let running = world.merge(pods().named("x").sub("status"), &running).await.unwrap();
    assert!(!revision(&running).is_empty());
    let bytes: Vec<_> = log(&[("tailLines", "3"), ("follow", "true")]).await.unwrap().collect().await;
    assert_eq!(bytes, [Ok("line\n".into())]);
    let asked = node.0.lock().unwrap().pop().unwrap();
    assert_eq!((asked.0.as_str(), asked.1.container.as_str(), asked.1.tail_lines), ("n1", "main", Some(3)));
    assert_eq!(asked.1.uid, running["metadata"]["uid"].as_str().unwrap());
    assert_eq!(log(&[("container", "other")]).await.err().unwrap().code, 400);
}

/// A node that takes every request and says nothing.
#[derive(Default)]
struct Silent(Mutex<Vec<open_stream::Request>>);

#[async_trait]
impl NodeStreams for Silent {
    async fn open(&self, _node: &str, request: open_stream::Request) -> Result<NodeStream, ApiError> {
        self.0.lock().unwrap().push(request);
        let ((_, frames), (to_node, _)) = (mpsc::channel(1), mpsc::channel(1));
        Ok(NodeStream { frames, to_node })
    }
}

#[tokio::test]
async fn a_log_that_is_open_counts_as_a_watch_of_who_reads_it() {
    let world = world().await;
    world.service.set_node_streams(Arc::new(Silent::default()));
    bound_pod(&world, "x").await;
    let running = json!({"status": {"containerStatuses": [{
        "name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }]}});
    world.merge(pods().named("x").sub("status"), &running).await.unwrap();
    let reader = Identity::of("reader", &[]);
    let log = || world.service.stream(&reader, pods().named("x").sub("log"), Vec::new());
    let mut open = Vec::new();
    while open.len() < WATCHES_A_USER_MAX {
        open.push(log().await.unwrap());
    }
    let error = log().await.err().unwrap();
    assert_eq!(error.code, 429, "{error}");
    open.pop();
    drop(log().await.unwrap());
}

#[tokio::test]
async fn what_cannot_be_reached_is_refused_in_a_status() {
    let world = world().await;
    let node = Arc::new(Silent::default());
    world.service.set_node_streams(node.clone());
    let reach = async |sub: &str, query: &[(&str, &str)]| {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        world.service.reach(&world.who, "create", pods().named("x").sub(sub), query).await.map(drop)
    };
    let refused = async |sub: &str, query: &[(&str, &str)]| {
        let error = reach(sub, query).await.unwrap_err();
        (error.code, error.message)
    };
    let says = [("command", "true"), ("stdout", "true")];
    assert_eq!(refused("exec", &says).await.0, 404);
    world.create(pods(), &pod("x")).await.unwrap();
    assert_eq!(refused("exec", &says).await, (400, "pod x does not have a host assigned".to_owned()));
    let binding = json!({"target": {"name": "n1"}});
    world.create(pods().named("x").sub("binding"), &binding).await.unwrap();
    let other = [("container", "other"), ("command", "true"), ("stdout", "true")];
    assert_eq!(refused("exec", &other).await, (400, "container other is not valid for pod x".to_owned()));
    for (sub, query, why) in [
        ("exec", &[("stdout", "true")][..], "at least one command"),
        ("exec", &[("command", "true")], "at least 1 of stdin, stdout, stderr"),
        ("attach", &[("stdin", "perhaps")], "use true or false"),
        ("portforward", &[], "pod is not running"),
    ] {
        let (code, message) = refused(sub, query).await;
        assert!(code == 400 && message.contains(why), "{sub} {query:?}: {code} {message}");
    }
    reach("exec", &says).await.unwrap();
    let asked = node.0.lock().unwrap().pop();
    let Some(open_stream::Request::Talk(asked)) = asked else { panic!("a talk is asked for: {asked:?}") };
    assert_eq!((asked.container.as_str(), asked.command.as_slice()), ("main", &["true".to_owned()][..]));
    let running = json!({"status": {"phase": "Running"}});
    world.merge(pods().named("x").sub("status"), &running).await.unwrap();
    reach("portforward", &[("ports", "80,443")]).await.unwrap();
    assert_eq!(refused("portforward", &[("ports", "0")]).await.0, 400);
}
