//! Columns of group `scheduling.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{age_column, column, count, created, name, text};
use crate::registry::Column;

/// NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY
pub fn priority_class() -> Vec<Column> {
    vec![
        name(),
        column("Value", "integer", "Priority of the pods of the class."),
        column("Global-Default", "boolean", "Whether pods that name no class are of this one."),
        age_column(),
        column("PreemptionPolicy", "string", "Whether pods of the class may push others out."),
    ]
}

/// Cells for [`priority_class`].
pub fn priority_class_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        object["metadata"]["name"].clone(),
        count(&object["value"]),
        (object["globalDefault"] == true).into(),
        created(object, now),
        text(&object["preemptionPolicy"]).into(),
    ]
}
