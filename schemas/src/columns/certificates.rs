//! Columns of group `certificates.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{NONE, age_column, column, created, human_duration, items, name, text};
use crate::registry::Column;

/// NAME AGE SIGNERNAME REQUESTOR REQUESTEDDURATION CONDITION
pub fn signing_request() -> Vec<Column> {
    vec![
        name(),
        age_column(),
        column("SignerName", "string", "Who is to sign."),
        column("Requestor", "string", "Who asks."),
        column("RequestedDuration", "string", "How long the certificate shall live."),
        column("Condition", "string", "How far the request has come."),
    ]
}

/// Cells for [`signing_request`].
pub fn signing_request_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let duration = spec["expirationSeconds"].as_i64().map_or_else(|| NONE.to_owned(), human_duration);
    vec![
        object["metadata"]["name"].clone(),
        created(object, now),
        text(&spec["signerName"]).into(),
        text(&spec["username"]).into(),
        duration.into(),
        progress(&object["status"]).into(),
    ]
}

/// `Pending`, `Approved,Issued`
fn progress(status: &Value) -> String {
    let has = |condition: &str| items(&status["conditions"]).any(|other| other["type"] == condition);
    let decision = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = if text(&status["certificate"]).is_empty() { "" } else { ",Issued" };
    format!("{decision}{failed}{issued}")
}
