//! Table columns and cells: what `kubectl get` prints for each kind.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::Column;

/// The columns of a kind that has no better ones.
pub fn name_and_age() -> Vec<Column> {
    vec![
        Column {
            name: "Name".into(),
            kind: "string",
            format: "name",
            description: "Name of the object, unique in its namespace.".into(),
            priority: 0,
        },
        Column {
            name: "Age".into(),
            kind: "string",
            format: "",
            description: "Time since the object was created.".into(),
            priority: 0,
        },
    ]
}

/// Cells for [`name_and_age`].
pub fn name_and_age_cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), json!("<unknown>")]
}
