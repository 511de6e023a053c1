//! Columns of group `policy`.

use jiff::Timestamp;
use serde_json::Value;

use super::{age_column, column, count, created, name, plain};
use crate::registry::Column;

/// NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE
pub fn pod_disruption_budget() -> Vec<Column> {
    vec![
        name(),
        column("Min Available", "string", "Pods that must stay available."),
        column("Max Unavailable", "string", "Pods that may be unavailable."),
        column("Allowed Disruptions", "integer", "Pods that may be evicted now."),
        age_column(),
    ]
}

/// Cells for [`pod_disruption_budget`].
pub fn pod_disruption_budget_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |field: &str| match &object["spec"][field] {
        Value::Null => "N/A".to_owned(),
        amount => plain(amount),
    };
    vec![
        object["metadata"]["name"].clone(),
        amount("minAvailable").into(),
        amount("maxUnavailable").into(),
        count(&object["status"]["disruptionsAllowed"]),
        created(object, now),
    ]
}
