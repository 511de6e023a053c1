//! What an agent says about its machine, written to the Node object. Labels, taints and `unschedulable` that people
//! set stay as they are.

use claw_client::ResourceRef;
use claw_schemas::{ApiError, gpu::FOUND_LABELS, pick::Pick, proto::NodeStatus, status::Reason};
use serde_json::{Map, Value, json};

use super::{
    hub::Hub,
    merge,
    objects::{self, ATTEMPTS_MAX},
    reports::now,
};
use crate::service::may_label;

/// Fields of `spec` that an agent states for a node that is new.
const INITIAL_SPEC: [&str; 4] = ["podCIDR", "podCIDRs", "providerID", "taints"];

/// Reason of `Ready` while the agent is connected and reports no trouble of its own.
const AGENT_READY: &str = "AgentReady";

/// Creates or updates the Node of an agent that says hello.
pub async fn register(hub: &Hub, name: &str, hello: &[u8]) -> Result<(), ApiError> {
    let hello: Value = if hello.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(hello)
            .map_err(|error| ApiError::bad_request(format!("the Node in Hello does not parse: {error}")))?
    };
    let status = hello.get("status").cloned().unwrap_or_else(|| json!({}));
    let ready = merge::ready_of(&status).cloned().unwrap_or_else(connected);
    hub.with(|state| state.roster.reported(name, Some(ready.clone())));
    for _ in 0..ATTEMPTS_MAX {
        let Some(node) = hub.objects.find(objects::node(name), &Pick::everything()).await? else {
            match hub.objects.create(ResourceRef::collection("", "v1", "nodes"), new_node(name, &hello)).await
            {
                Ok(()) => {}
                Err(error) if error.reason == Reason::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            continue;
        };
        if let Some(labelled) = with_labels(&node, &hello) {
            match hub.objects.update(objects::node(name), &labelled).await {
                Ok(()) => {}
                Err(error) if lost_race(&error) => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        match write_status(hub, name, || Some((status.clone(), Some(ready.clone())))).await {
            // It was deleted meanwhile, and is made again.
            Err(error) if error.reason == Reason::NotFound => {}
            written => return written,
        }
    }
    Err(ApiError::new(
        Reason::ServiceUnavailable,
        format!("node \"{name}\" could not be written: others wrote it {ATTEMPTS_MAX} times meanwhile"),
    ))
}

/// Writes a reported node status.
pub async fn node_status(hub: &Hub, name: &str, report: NodeStatus) -> Result<Option<u64>, ApiError> {
    let status: Value = match serde_json::from_slice(&report.status) {
        Ok(status) => status,
        Err(error) => {
            tracing::warn!(node = name, %error, "a node status does not parse");
            return Ok(None);
        }
    };
    hub.with(|state| state.roster.reported(name, merge::ready_of(&status).cloned()));
    unless_gone(write_status(hub, name, || Some((status.clone(), None))).await)?;
    Ok(Some(report.sequence))
}

/// Writes the `Ready` condition alone, as `wanted` decides it each time the object is read.
pub async fn set_ready(hub: &Hub, name: &str, wanted: impl Fn() -> Option<Value>) -> Result<(), ApiError> {
    unless_gone(write_status(hub, name, || wanted().map(|ready| (json!({}), Some(ready)))).await)
}

/// The `Ready` condition of a node whose agent reports none.
pub fn connected() -> Value {
    merge::ready("True", AGENT_READY, "the node agent is connected")
}

/// Merges a reported status, and a `Ready` condition that stands whatever the report says, into the stored one. `news` is
/// asked again after a lost race.
async fn write_status(
    hub: &Hub,
    name: &str,
    mut news: impl FnMut() -> Option<(Value, Option<Value>)>,
) -> Result<(), ApiError> {
    let merge = |node: &Value| {
        let (reported, ready) = news()?;
        Some(merge::node_status(&node["status"], reported, ready, &now()))
    };
    hub.objects.change_status(objects::node(name), merge).await
}

/// A Node that is gone has no status to write.
fn unless_gone(written: Result<(), ApiError>) -> Result<(), ApiError> {
    written.or_else(|error| if error.reason == Reason::NotFound { Ok(()) } else { Err(error) })
}

fn lost_race(error: &ApiError) -> bool {
    matches!(error.reason, Reason::Conflict | Reason::NotFound)
}

fn new_node(name: &str, hello: &Value) -> Value {
    let given = hello.get("spec").and_then(Value::as_object);
    let spec: Map<String, Value> = INITIAL_SPEC
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), given?.get(*field)?.clone())))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels(hello),
            "annotations": stated(hello, "annotations"),
        },
        "spec": spec,
    })
}

/// The node with the agent's labels and annotations, or `None` when it has them already. Labels that the agent found out
/// earlier and does not find any more go.
fn with_labels(node: &Value, hello: &Value) -> Option<Value> {
    let mut changed = node.clone();
    let found = node["metadata"]["annotations"][FOUND_LABELS].as_str().unwrap_or_default();
    let said = labels(hello);
    // Indexing would leave a null where there are no labels.
    if let Some(labels) = changed.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        // The list is an annotation, which an agent can write: it takes no label off that the agent may not touch.
        let is_lost = |name: &str| may_label(name) && found.split(',').any(|found| found == name);
        labels.retain(|name, _| said.contains_key(name) || !is_lost(name));
    }
    for (field, news) in [("labels", said), ("annotations", stated(hello, "annotations"))] {
        let metadata = changed.get_mut("metadata")?.as_object_mut()?;
        if !news.is_empty() {
            let there = metadata.entry(field).or_insert_with(|| json!({}));
            there.as_object_mut()?.extend(news);
        }
    }
    (changed != *node).then_some(changed)
}

/// The labels that an agent gives its node: none that it could not give it by a patch. It must not draw pods to itself.
fn labels(hello: &Value) -> Map<String, Value> {
    let mut labels = stated(hello, "labels");
    labels.retain(|name, _| may_label(name));
    labels
}

fn stated(hello: &Value, field: &str) -> Map<String, Value> {
    hello["metadata"][field].as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_people_stay_and_restricted_ones_are_not_taken_from_agents() {
        let node = json!({ "metadata": { "name": "a", "labels": { "team": "vision" } }, "spec": { "unschedulable": true } });
        let hello = json!({ "metadata": { "labels": {
            "kubernetes.io/arch": "amd64", "node-restriction.kubernetes.io/secure": "yes",
        } } });
        let merged = with_labels(&node, &hello).unwrap();
        assert_eq!(merged["metadata"]["labels"], json!({ "team": "vision", "kubernetes.io/arch": "amd64" }));
        assert_eq!(merged["spec"], node["spec"]);
        assert_eq!(with_labels(&merged, &hello), None);
    }

    #[test]
    fn an_agent_says_by_hello_no_more_of_its_labels_than_by_a_patch() {
        let hello = json!({ "metadata": { "labels": {
            "example.com/rack": "7", "node-role.kubernetes.io/control-plane": "", "k8s.io/x": "y",
            "team.node-restriction.kubernetes.io/tenant": "a",
        } } });
        assert_eq!(new_node("a", &hello)["metadata"]["labels"], json!({ "example.com/rack": "7" }));
        let merged = with_labels(&json!({ "metadata": { "name": "a" } }), &hello).unwrap();
        assert_eq!(merged["metadata"]["labels"], json!({ "example.com/rack": "7" }));
    }

    #[test]
    fn an_agent_takes_no_label_off_that_fences_it_in() {
        let fenced = "example.node-restriction.kubernetes.io/fenced";
        let node = json!({ "metadata": {
            "name": "a", "labels": { fenced: "yes", "node-role.kubernetes.io/gpu": "", "nvidia.com/gpu.count": "2" },
            "annotations": { FOUND_LABELS: format!("{fenced},node-role.kubernetes.io/gpu,nvidia.com/gpu.count") },
        } });
        let merged = with_labels(&node, &json!({})).unwrap();
        assert_eq!(merged["metadata"]["labels"], json!({ fenced: "yes", "node-role.kubernetes.io/gpu": "" }));
    }

    #[test]
    fn labels_that_an_agent_no_longer_finds_go_and_those_of_people_stay() {
        let node = json!({ "metadata": {
            "name": "a", "labels": { "team": "vision", "nvidia.com/gpu.count": "2", "nvidia.com/gpu.product": "A" },
            "annotations": { FOUND_LABELS: "nvidia.com/gpu.count,nvidia.com/gpu.product" },
        } });
        let hello = json!({ "metadata": {
            "labels": { "nvidia.com/gpu.count": "1" }, "annotations": { FOUND_LABELS: "nvidia.com/gpu.count" },
        } });
        let merged = with_labels(&node, &hello).unwrap();
        assert_eq!(merged["metadata"]["labels"], json!({ "team": "vision", "nvidia.com/gpu.count": "1" }));
        assert_eq!(merged["metadata"]["annotations"][FOUND_LABELS], "nvidia.com/gpu.count");
        assert_eq!(with_labels(&merged, &hello), None);
    }

    #[test]
    fn a_new_node_takes_only_what_an_agent_may_state() {
        let hello = json!({ "metadata": { "name": "other" }, "spec": { "podCIDR": "10.88.0.0/24", "unschedulable": true } });
        let node = new_node("a", &hello);
        assert_eq!(node["metadata"]["name"], "a");
        assert_eq!(node["spec"], json!({ "podCIDR": "10.88.0.0/24" }));
    }
}
