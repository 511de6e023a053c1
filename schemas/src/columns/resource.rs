//! Columns of group `resource.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, age_column, column, created, items, name, or, text};
use crate::registry::Column;

/// NAME NODE DRIVER POOL AGE
pub fn slice() -> Vec<Column> {
    vec![
        name(),
        column("Node", "string", "Where the devices are."),
        column("Driver", "string", "Who manages the devices."),
        column("Pool", "string", "The pool that the slice is a part of."),
        age_column(),
    ]
}

/// Cells for [`slice`].
pub fn slice_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        object["metadata"]["name"].clone(),
        or(&spec["nodeName"], NONE).into(),
        text(&spec["driver"]).into(),
        text(&spec["pool"]["name"]).into(),
        created(object, now),
    ]
}

/// NAME STATE AGE
pub fn claim() -> Vec<Column> {
    vec![name(), column("State", "string", "Whether devices are allocated and in use."), age_column()]
}

/// Cells for [`claim`].
pub fn claim_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let deleted = object["metadata"]["deletionTimestamp"].is_string();
    let allocated = object["status"]["allocation"].is_object();
    let reserved = allocated && items(&object["status"]["reservedFor"]).next().is_some();
    let states = [
        (deleted, "deleted"),
        (!deleted && !allocated, "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ];
    let state: Vec<&str> = states.into_iter().filter_map(|(holds, state)| holds.then_some(state)).collect();
    vec![object["metadata"]["name"].clone(), state.join(",").into(), created(object, now)]
}
