//! Columns of group `rbac.authorization.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{age_column, column, created, created_at_column, items, name, text, wide};
use crate::registry::Column;

/// NAME CREATED AT
pub fn role() -> Vec<Column> {
    vec![name(), created_at_column()]
}

/// Cells for [`role`].
pub fn role_cells(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
}

/// NAME ROLE AGE
pub fn binding() -> Vec<Column> {
    vec![
        name(),
        column("Role", "string", "What the subjects may do."),
        age_column(),
        wide("Users", "Users who may."),
        wide("Groups", "Groups whose members may."),
        wide("ServiceAccounts", "Service accounts that may."),
    ]
}

/// Cells for [`binding`].
pub fn binding_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = &object["roleRef"];
    vec![
        object["metadata"]["name"].clone(),
        format!("{}/{}", text(&role["kind"]), text(&role["name"])).into(),
        created(object, now),
        subjects(object, "User").into(),
        subjects(object, "Group").into(),
        subjects(object, "ServiceAccount").into(),
    ]
}

fn subjects(binding: &Value, kind: &str) -> String {
    let names: Vec<String> = items(&binding["subjects"])
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", text(&subject["namespace"]), text(&subject["name"])),
            _ => text(&subject["name"]).to_owned(),
        })
        .collect();
    names.join(", ")
}
