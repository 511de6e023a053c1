//! Columns of group `coordination.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{age_column, column, created, name, text};
use crate::registry::Column;

/// NAME HOLDER AGE
pub fn lease() -> Vec<Column> {
    vec![name(), column("Holder", "string", "Who holds the lease."), age_column()]
}

/// Cells for [`lease`].
pub fn lease_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let holder = text(&object["spec"]["holderIdentity"]);
    vec![object["metadata"]["name"].clone(), holder.into(), created(object, now)]
}
