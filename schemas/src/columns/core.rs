//! Columns of the core group's small kinds: namespaces, configuration, events, accounts, limits.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    UNKNOWN, age, age_column, column, created, created_at_column, entries, items, label_map, name, number,
    template_cells, template_columns, text, wide,
};
use crate::registry::Column;

/// NAME STATUS AGE
pub fn namespace() -> Vec<Column> {
    vec![name(), column("Status", "string", "Active, or Terminating while it is deleted."), age_column()]
}

/// Cells for [`namespace`].
pub fn namespace_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), text(&object["status"]["phase"]).into(), created(object, now)]
}

/// NAME DATA AGE
pub fn config_map() -> Vec<Column> {
    vec![name(), column("Data", "string", "Number of entries."), age_column()]
}

/// Cells for [`config_map`].
pub fn config_map_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = entries(&object["data"]) + entries(&object["binaryData"]);
    vec![object["metadata"]["name"].clone(), json!(count), created(object, now)]
}

/// What [`config_map_cells`] looks at.
pub const CONFIG_MAP_READ: &[&str] =
    &["metadata.name", "metadata.creationTimestamp", "data.*", "binaryData.*"];

/// NAME TYPE DATA AGE
pub fn secret() -> Vec<Column> {
    vec![
        name(),
        column("Type", "string", "What the secret is for."),
        column("Data", "string", "Number of entries."),
        age_column(),
    ]
}

/// Cells for [`secret`].
pub fn secret_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        object["metadata"]["name"].clone(),
        text(&object["type"]).into(),
        json!(entries(&object["data"])),
        created(object, now),
    ]
}

/// What [`secret_cells`] looks at.
pub const SECRET_READ: &[&str] = &["metadata.name", "metadata.creationTimestamp", "type", "data.*"];

/// LAST SEEN TYPE REASON OBJECT MESSAGE
pub fn event() -> Vec<Column> {
    vec![
        column("Last Seen", "string", "Time since this happened last."),
        column("Type", "string", "Normal or Warning."),
        column("Reason", "string", "Why it happened, as one word."),
        column("Object", "string", "What it happened to."),
        wide("Subobject", "Part of the object it happened to."),
        wide("Source", "Who reports it."),
        column("Message", "string", "What happened."),
        wide("First Seen", "Time since this happened first."),
        wide("Count", "How often it happened."),
        Column { priority: 1, ..name() },
    ]
}

/// Cells for [`event`].
pub fn event_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let about = &object["involvedObject"];
    let (kind, of) = (text(&about["kind"]).to_ascii_lowercase(), text(&about["name"]));
    let series = &object["series"];
    let count = match number(if series.is_object() { &series["count"] } else { &object["count"] }) {
        0 => 1,
        count => count,
    };
    vec![
        last_seen(object, now).into(),
        text(&object["type"]).into(),
        text(&object["reason"]).into(),
        if of.is_empty() { kind.into() } else { format!("{kind}/{of}").into() },
        text(&about["fieldPath"]).into(),
        source(object).into(),
        text(&object["message"]).trim().into(),
        first_seen(object, now).into(),
        count.to_string().into(),
        object["metadata"]["name"].clone(),
    ]
}

/// Events have one of three ways to say when: of a series, of the core group, or of group `events.k8s.io`.
fn last_seen(event: &Value, now: Timestamp) -> String {
    let observed = &event["series"]["lastObservedTime"];
    let last = if observed.is_string() { observed } else { &event["lastTimestamp"] };
    if last.is_string() { age(last, now) } else { first_seen(event, now) }
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    match age(&event["firstTimestamp"], now) {
        unknown if unknown == UNKNOWN => age(&event["eventTime"], now),
        known => known,
    }
}

fn source(event: &Value) -> String {
    let old = &event["source"];
    let (component, host) = match text(&old["component"]) {
        "" => (text(&event["reportingComponent"]), text(&event["reportingInstance"])),
        component => (component, text(&old["host"])),
    };
    [component, host].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// NAME SECRETS AGE
pub fn service_account() -> Vec<Column> {
    vec![name(), column("Secrets", "string", "Number of Secrets that pods may use."), age_column()]
}

/// Cells for [`service_account`].
pub fn service_account_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), json!(items(&object["secrets"]).count()), created(object, now)]
}

/// NAME REQUEST LIMIT AGE
pub fn resource_quota() -> Vec<Column> {
    vec![
        name(),
        column("Request", "string", "What is used of what may be requested and made."),
        column("Limit", "string", "What is used of what limits may add up to."),
        age_column(),
    ]
}

/// Cells for [`resource_quota`].
pub fn resource_quota_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let status = &object["status"];
    for (resource, hard) in status["hard"].as_object().into_iter().flatten() {
        let used = status["used"][resource].as_str().unwrap_or("0");
        let list = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        list.push(format!("{resource}: {used}/{}", text(hard)));
    }
    vec![
        object["metadata"]["name"].clone(),
        requests.join(", ").into(),
        limits.join(", ").into(),
        created(object, now),
    ]
}

/// NAME CREATED AT
pub fn limit_range() -> Vec<Column> {
    vec![name(), created_at_column()]
}

/// Cells for [`limit_range`].
pub fn limit_range_cells(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
}

/// NAME CONTAINERS IMAGES POD LABELS
pub fn pod_template() -> Vec<Column> {
    let [containers, images, _] = template_columns();
    let labels = column("Pod Labels", "string", "Labels of the pods made from the template.");
    vec![name(), Column { priority: 0, ..containers }, Column { priority: 0, ..images }, labels]
}

/// Cells for [`pod_template`].
pub fn pod_template_cells(object: &Value, _: Timestamp) -> Vec<Value> {
    let [containers, images, _] = template_cells(object);
    let labels = label_map(&object["template"]["metadata"]["labels"]);
    vec![object["metadata"]["name"].clone(), containers, images, labels.into()]
}
