//! Columns of group `admissionregistration.k8s.io`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{UNSET, age_column, column, created, items, name, or, selector, text};
use crate::registry::Column;

/// NAME WEBHOOKS AGE
pub fn webhooks() -> Vec<Column> {
    vec![name(), column("Webhooks", "integer", "How many webhooks are configured."), age_column()]
}

/// Cells for [`webhooks`].
pub fn webhooks_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = items(&object["webhooks"]).count();
    vec![object["metadata"]["name"].clone(), json!(count), created(object, now)]
}

/// NAME VALIDATIONS PARAMKIND AGE
pub fn policy() -> Vec<Column> {
    of_policy(column("Validations", "integer", "How many rules there are."))
}

/// Cells for [`policy`].
pub fn policy_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    cells_of_policy(object, "validations", now)
}

/// NAME MUTATIONS PARAMKIND AGE
pub fn mutating_policy() -> Vec<Column> {
    of_policy(column("Mutations", "integer", "How many changes there are."))
}

/// Cells for [`mutating_policy`].
pub fn mutating_policy_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    cells_of_policy(object, "mutations", now)
}

fn of_policy(count: Column) -> Vec<Column> {
    let kind = column("ParamKind", "string", "Kind of the objects that parameterize the policy.");
    vec![name(), count, kind, age_column()]
}

fn cells_of_policy(object: &Value, counted: &str, now: Timestamp) -> Vec<Value> {
    let kind = &object["spec"]["paramKind"];
    let kind = match kind.is_object() {
        true => format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"])),
        false => UNSET.to_owned(),
    };
    let count = items(&object["spec"][counted]).count();
    vec![object["metadata"]["name"].clone(), json!(count), kind.into(), created(object, now)]
}

/// NAME POLICYNAME PARAMREF AGE
pub fn policy_binding() -> Vec<Column> {
    vec![
        name(),
        column("PolicyName", "string", "The policy that is put into force."),
        column("ParamRef", "string", "The object that parameterizes it."),
        age_column(),
    ]
}

/// Cells for [`policy_binding`].
pub fn policy_binding_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = &object["spec"]["paramRef"];
    let reference = match text(&parameters["name"]) {
        "" if parameters["selector"].is_object() => selector(&parameters["selector"]),
        "" => UNSET.to_owned(),
        name => format!("{}/{name}", or(&parameters["namespace"], "*")),
    };
    let policy = text(&object["spec"]["policyName"]);
    vec![object["metadata"]["name"].clone(), policy.into(), reference.into(), created(object, now)]
}
