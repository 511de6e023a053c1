//! Table columns and cells: what `kubectl get` prints for each kind.
//!
//! Cells are made from the stored JSON; where objects are large, only what their columns look at is read of it. Columns
//! and their logic are those of `kubectl`, so that eyes and scripts find what they expect.
//!
//! Must never know: how a Table is assembled and sent.

mod duration;

pub mod admission;
pub mod apiextensions;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod clawbernetes;
pub mod coordination;
pub mod core;
pub mod metrics;
pub mod networking;
pub mod node;
pub mod pod;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod service;
pub mod storage;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::duration::{age, human_duration};
use crate::{registry::Column, selector::LabelSelector};

/// Shown for what is not set.
const NONE: &str = "<none>";
/// Shown for what should be known and is not.
const UNKNOWN: &str = "<unknown>";
/// Shown for a choice that nobody made.
const UNSET: &str = "<unset>";

/// The columns of a kind that has no better ones.
pub fn name_and_age() -> Vec<Column> {
    vec![name(), age_column()]
}

/// Cells for [`name_and_age`].
pub fn name_and_age_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), created(object, now)]
}

fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name: name.into(), kind, format: "", description: description.into(), priority: 0 }
}

/// Shown with `-o wide` only.
fn wide(name: &'static str, description: &'static str) -> Column {
    Column { priority: 1, ..column(name, "string", description) }
}

fn name() -> Column {
    Column { format: "name", ..column("Name", "string", "Name of the object, unique in its namespace.") }
}

fn age_column() -> Column {
    column("Age", "string", "Time since the object was created.")
}

/// The columns that describe a pod template.
fn template_columns() -> [Column; 3] {
    [
        wide("Containers", "Names of the containers in the template."),
        wide("Images", "Images of the containers in the template."),
        wide("Selector", "Labels by which pods are counted as the object's own."),
    ]
}

fn template_cells(spec: &Value) -> [Value; 3] {
    let containers = &spec["template"]["spec"]["containers"];
    let joined = |field: &str| items(containers).map(|item| text(&item[field])).collect::<Vec<_>>().join(",");
    [joined("name").into(), joined("image").into(), selector(&spec["selector"]).into()]
}

/// A label selector, or the plain map that ReplicationControllers have in its place.
fn selector(value: &Value) -> String {
    if value.as_object().is_some_and(|map| map.values().any(Value::is_string)) {
        return label_map(value);
    }
    let printed = serde_json::from_value(value.clone())
        .ok()
        .and_then(|selector| LabelSelector::from_meta(&selector).ok())
        .map(|selector| selector.to_string());
    match printed {
        Some(text) if text.is_empty() => NONE.to_owned(),
        Some(text) => text,
        None => "<error>".to_owned(),
    }
}

/// The cell of [`age_column`].
fn created(object: &Value, now: Timestamp) -> Value {
    age(&object["metadata"]["creationTimestamp"], now).into()
}

fn items(list: &Value) -> impl DoubleEndedIterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// The text of a value, or a placeholder where there is none.
fn or<'a>(value: &'a Value, placeholder: &'a str) -> &'a str {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or(placeholder)
}

/// `a=b,c=d`, as plain label maps are shown.
fn label_map(map: &Value) -> String {
    let pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// The first few texts, and how many more there are.
fn few(texts: &[String], max: usize) -> String {
    match texts.len().checked_sub(max) {
        Some(more @ 1..) => format!("{} + {more} more...", texts[..max].join(",")),
        _ => texts.join(","),
    }
}

/// A number or a text as it is written.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `True`, `False` or `<unset>`.
fn choice(value: &Value) -> &'static str {
    match value.as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    }
}

/// The column of kinds that show when they were made instead of their age.
fn created_at_column() -> Column {
    column("Created At", "date", "When the object was created.")
}

fn entries(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

fn count(value: &Value) -> Value {
    json!(number(value))
}

#[cfg(test)]
mod tests;
