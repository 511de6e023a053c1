//! Columns of nodes.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, UNKNOWN, age_column, column, created, items, name, or, text, wide};
use crate::registry::Column;

/// `node-role.kubernetes.io/control-plane` makes the role `control-plane`.
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// The older way: the value is the role.
const ROLE_LABEL: &str = "kubernetes.io/role";

/// NAME STATUS ROLES AGE VERSION
pub fn node() -> Vec<Column> {
    vec![
        name(),
        column("Status", "string", "Whether the node is ready, and whether it takes pods."),
        column("Roles", "string", "The roles of the node."),
        age_column(),
        column("Version", "string", "Version of the node agent."),
        wide("Internal-IP", "Address inside the cluster."),
        wide("External-IP", "Address from outside."),
        wide("OS-Image", "Operating system."),
        wide("Kernel-Version", "Kernel."),
        wide("Container-Runtime", "What runs the containers."),
    ]
}

/// Cells for [`node`].
pub fn node_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (status, info) = (&object["status"], &object["status"]["nodeInfo"]);
    vec![
        object["metadata"]["name"].clone(),
        state(object).into(),
        roles(object).into(),
        created(object, now),
        text(&info["kubeletVersion"]).into(),
        address(status, "InternalIP").into(),
        address(status, "ExternalIP").into(),
        or(&info["osImage"], UNKNOWN).into(),
        or(&info["kernelVersion"], UNKNOWN).into(),
        or(&info["containerRuntimeVersion"], UNKNOWN).into(),
    ]
}

/// What [`node_cells`] looks at.
pub const NODE_READ: &[&str] = &[
    "metadata.name",
    "metadata.creationTimestamp",
    "metadata.labels",
    "spec.unschedulable",
    "status.conditions",
    "status.addresses",
    "status.nodeInfo",
];

fn state(node: &Value) -> String {
    let ready = items(&node["status"]["conditions"]).find(|condition| condition["type"] == "Ready");
    let mut state = match ready {
        None => "Unknown",
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    state
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == ROLE_LABEL),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn address<'a>(status: &'a Value, kind: &str) -> &'a str {
    items(&status["addresses"])
        .find(|address| address["type"] == kind)
        .and_then(|address| address["address"].as_str())
        .unwrap_or(NONE)
}
