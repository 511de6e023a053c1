//! Columns of group `apps`.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    NONE, age_column, column, count, created, items, label_map, name, number, template_cells,
    template_columns, text,
};
use crate::registry::Column;

/// What [`deployment_cells`] and [`replica_set_cells`] look at.
pub const WORKLOAD_READ: &[&str] = &[
    "metadata.name",
    "metadata.creationTimestamp",
    "spec.replicas",
    "spec.selector",
    "spec.template.spec.containers.name",
    "spec.template.spec.containers.image",
    "status",
];

/// NAME READY UP-TO-DATE AVAILABLE AGE
pub fn deployment() -> Vec<Column> {
    let mut columns = vec![
        name(),
        column("Ready", "string", "Pods that are ready, of those that are wanted."),
        column("Up-to-date", "integer", "Pods that have the current template."),
        column("Available", "integer", "Pods that have been ready for long enough."),
        age_column(),
    ];
    columns.extend(template_columns());
    columns
}

/// Cells for [`deployment`].
pub fn deployment_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let ready = format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"]));
    let mut cells = vec![
        object["metadata"]["name"].clone(),
        ready.into(),
        count(&status["updatedReplicas"]),
        count(&status["availableReplicas"]),
        created(object, now),
    ];
    cells.extend(template_cells(spec));
    cells
}

/// NAME DESIRED CURRENT READY AGE
pub fn replica_set() -> Vec<Column> {
    let mut columns = vec![
        name(),
        column("Desired", "integer", "Pods that are wanted."),
        column("Current", "integer", "Pods that exist."),
        column("Ready", "integer", "Pods that are ready."),
        age_column(),
    ];
    columns.extend(template_columns());
    columns
}

/// Cells for [`replica_set`].
pub fn replica_set_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut cells = vec![
        object["metadata"]["name"].clone(),
        count(&spec["replicas"]),
        count(&status["replicas"]),
        count(&status["readyReplicas"]),
        created(object, now),
    ];
    cells.extend(template_cells(spec));
    cells
}

/// NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE
pub fn daemon_set() -> Vec<Column> {
    let mut columns = vec![
        name(),
        column("Desired", "integer", "Nodes that should run a pod."),
        column("Current", "integer", "Nodes that should run a pod and do."),
        column("Ready", "integer", "Pods that are ready."),
        column("Up-to-date", "integer", "Pods that have the current template."),
        column("Available", "integer", "Pods that have been ready for long enough."),
        column("Node Selector", "string", "Labels of the nodes that run a pod."),
        age_column(),
    ];
    columns.extend(template_columns());
    columns
}

/// Cells for [`daemon_set`].
pub fn daemon_set_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut cells = vec![object["metadata"]["name"].clone()];
    cells.extend(
        [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ]
        .map(|field| count(&status[field])),
    );
    cells.push(label_map(&spec["template"]["spec"]["nodeSelector"]).into());
    cells.push(created(object, now));
    cells.extend(template_cells(spec));
    cells
}

/// NAME READY AGE
pub fn stateful_set() -> Vec<Column> {
    let [containers, images, _] = template_columns();
    let ready = column("Ready", "string", "Pods that are ready, of those that are wanted.");
    vec![name(), ready, age_column(), containers, images]
}

/// Cells for [`stateful_set`].
pub fn stateful_set_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let ready = format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"]));
    let [containers, images, _] = template_cells(spec);
    vec![object["metadata"]["name"].clone(), ready.into(), created(object, now), containers, images]
}

/// NAME CONTROLLER REVISION AGE
pub fn controller_revision() -> Vec<Column> {
    vec![
        name(),
        column("Controller", "string", "Whose state this is."),
        column("Revision", "integer", "Counts the states."),
        age_column(),
    ]
}

/// Cells for [`controller_revision`].
pub fn controller_revision_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let owner = items(&object["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true);
    let controller = owner.map_or_else(|| NONE.to_owned(), owner_name);
    let revision = count(&object["revision"]);
    vec![object["metadata"]["name"].clone(), controller.into(), revision, created(object, now)]
}

/// `statefulset.apps/web`
fn owner_name(owner: &Value) -> String {
    let (kind, name) = (text(&owner["kind"]).to_lowercase(), text(&owner["name"]));
    match text(&owner["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}
