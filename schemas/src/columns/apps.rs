//! Columns of group `apps`.

use jiff::Timestamp;
use serde_json::Value;

use super::{age_column, column, count, created, name, number, template_cells, template_columns};
use crate::registry::Column;

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
