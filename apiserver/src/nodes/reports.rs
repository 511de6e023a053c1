//! What agents report about pods, written to objects. A node may report only about pods bound to it.
//!
//! An answer of `Some(sequence)` means that the report is stored, or was overtaken by events (the pod is gone,
//! another one has its name), and need not come again.

use std::sync::LazyLock;

use claw_client::{ResourceRef, request::DeleteOptions};
use claw_schemas::{
    ApiError,
    pick::Pick,
    proto::{EventReport, PodStatus, PodTerminated},
    schema::time_text,
    status::Reason,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{hub::Hub, merge, objects};
use crate::auth::random_hex;

/// Random bytes behind the name of an event: 64 bits do not meet within an hour of events about one object.
const EVENT_SUFFIX_BYTES: usize = 8;
/// Letters of an object's name that fit before the suffix: names have at most 253.
const EVENT_NAME_LETTERS: usize = 253 - 1 - 2 * EVENT_SUFFIX_BYTES;

/// What says of a pod which one it is, whose, and whether it is to go.
static IDENTITY: LazyLock<Pick> =
    LazyLock::new(|| Pick::paths(["metadata.uid", "metadata.deletionTimestamp", "spec.nodeName"]));

/// Writes a pod's status.
pub async fn pod_status(hub: &Hub, node: &str, report: PodStatus) -> Result<Option<u64>, ApiError> {
    let parsed = || serde_json::from_slice::<Value>(&report.status).ok();
    let Some(reported) = parsed() else {
        tracing::warn!(node, pod = report.name, "a pod status does not parse");
        return Ok(None);
    };
    // Who loses a race, which is rare, reads it again.
    let mut reported = Some(reported);
    let merged = |pod: &Value| {
        if !is_own(pod, node, &report.uid) {
            return None;
        }
        let merged = merge::pod_status(&pod["status"], reported.take().or_else(parsed)?, &now());
        if merged.is_none() {
            tracing::debug!(node, pod = report.name, "a report about a finished pod is ignored");
        }
        merged
    };
    match hub.objects.change_status(objects::pod(&report.namespace, &report.name), merged).await {
        Ok(()) => Ok(Some(report.sequence)),
        Err(error) if error.reason == Reason::NotFound => Ok(Some(report.sequence)),
        Err(error) => refused(node, &report.name, error),
    }
}

/// Removes a pod whose containers are all gone.
pub async fn pod_terminated(hub: &Hub, node: &str, report: PodTerminated) -> Result<Option<u64>, ApiError> {
    let done = Ok(Some(report.sequence));
    let resource = objects::pod(&report.namespace, &report.name);
    let pod = hub.objects.find(resource.clone(), &IDENTITY).await?;
    let Some(pod) = pod.filter(|pod| is_own(pod, node, &report.uid)) else { return done };
    if pod["metadata"]["deletionTimestamp"].is_null() {
        tracing::warn!(node, pod = report.name, "reported as terminated, but nobody deleted it; it stays");
        return done;
    }
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        precondition_uid: Some(report.uid),
        ..DeleteOptions::default()
    };
    match hub.objects.delete(resource, options).await {
        Ok(()) => done,
        Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => done,
        Err(error) => refused(node, &report.name, error),
    }
}

/// Stores an event. Events are news, not state: one that cannot be stored is dropped.
pub async fn event(hub: &Hub, node: &str, report: EventReport) {
    let stored = match new_event(node, &report.event) {
        Ok((namespace, event)) => {
            let collection = ResourceRef::collection("", "v1", "events").in_namespace(&namespace);
            hub.objects.create(collection, event).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = stored {
        tracing::debug!(node, %error, "an event was dropped");
    }
}

/// Whether this is still the pod a report is about, and bound to that node.
fn is_own(pod: &Value, node: &str, uid: &str) -> bool {
    pod["metadata"]["uid"] == uid && pod["spec"]["nodeName"] == node
}

/// An error that the next try may not meet ends the session: the agent comes back and reports again. Any other
/// would come back each time, so that it is only told.
fn refused(node: &str, pod: &str, error: ApiError) -> Result<Option<u64>, ApiError> {
    if error.is_retryable() {
        return Err(error);
    }
    tracing::warn!(node, pod, %error, "a report is refused");
    Ok(None)
}

/// The namespace and the whole event of a report.
fn new_event(node: &str, report: &[u8]) -> Result<(String, Value), ApiError> {
    let mut event: Value = serde_json::from_slice(report)
        .map_err(|error| ApiError::bad_request(format!("an event does not parse: {error}")))?;
    let involved = &event["involvedObject"];
    let name =
        involved["name"].as_str().ok_or_else(|| ApiError::bad_request("involvedObject.name is required"))?;
    let name: String = name.chars().take(EVENT_NAME_LETTERS).collect();
    // Events about cluster-scoped objects live in the default namespace, as everywhere.
    let namespace =
        involved["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or("default").to_owned();
    let suffix = random_hex(EVENT_SUFFIX_BYTES).map_err(|error| ApiError::internal(error.to_string()))?;
    event["apiVersion"] = "v1".into();
    event["kind"] = "Event".into();
    event["metadata"] = json!({ "name": format!("{name}.{suffix}"), "namespace": namespace });
    let now = now();
    let defaults = [
        ("source", json!({ "component": "clawbernetes-node", "host": node })),
        ("reportingComponent", "clawbernetes-node".into()),
        ("reportingInstance", node.into()),
        ("firstTimestamp", now.clone().into()),
        ("lastTimestamp", now.into()),
        ("count", 1.into()),
        ("type", "Normal".into()),
    ];
    for (field, value) in defaults {
        if event[field].is_null() {
            event[field] = value;
        }
    }
    Ok((namespace, event))
}

/// Now, as `metav1.Time` prints it: whole seconds.
pub fn now() -> String {
    time_text(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_after_what_it_is_about() {
        let report = json!({
            "involvedObject": { "kind": "Pod", "namespace": "default", "name": "web" },
            "reason": "Started", "message": "m", "type": "Warning", "metadata": { "name": "x", "namespace": "kube-system" },
        });
        let (namespace, event) = new_event("a", report.to_string().as_bytes()).unwrap();
        assert_eq!(namespace, "default");
        assert!(event["metadata"]["name"].as_str().unwrap().starts_with("web."));
        assert_eq!(event["metadata"]["namespace"], "default");
        assert_eq!(event["source"]["host"], "a");
        assert_eq!(event["type"], "Warning");
        assert_eq!(event["count"], 1);
    }

    #[test]
    fn an_event_about_nothing_is_refused() {
        assert!(new_event("a", b"{}").is_err());
        assert!(new_event("a", b"garbage").is_err());
        assert!(new_event("a", b"[]").is_err());
    }

    #[test]
    fn long_names_are_cut_to_fit() {
        let report = json!({ "involvedObject": { "name": "x".repeat(253) } });
        let (namespace, event) = new_event("a", report.to_string().as_bytes()).unwrap();
        assert_eq!(namespace, "default");
        assert_eq!(event["metadata"]["name"].as_str().unwrap().len(), 253);
    }
}
