//! What `kubectl get` prints for definitions of custom kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::{column, name};
use crate::registry::Column;

/// The columns of a CustomResourceDefinition.
pub fn definition() -> Vec<Column> {
    vec![name(), column("Created At", "date", "When the object was created.")]
}

/// Cells for [`definition`].
pub fn definition_cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
}
