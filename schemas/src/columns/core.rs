//! Columns of the core group's small kinds: namespaces, configuration, events.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{UNKNOWN, age, age_column, column, created, entries, name, number, text, wide};
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
