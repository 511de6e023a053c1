//! Metrics in their flat form, as annotations of `autoscaling/v1` keep them, and nested as `v2` has them.

use serde_json::{Value, json};

use crate::forms::put;

/// Whether a metric says what should be, or what is.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Form {
    /// The part of `v2` that holds the figures.
    part: &'static str,
    /// What names of the flat fields begin with.
    prefix: &'static str,
}

/// What should be: `spec.metrics`.
pub(super) const TARGET: Form = Form { part: "target", prefix: "target" };
/// What is: `status.currentMetrics`.
pub(super) const CURRENT: Form = Form { part: "current", prefix: "current" };

/// Sources, with the flat name of the selector of their metric. Resources have a name of their own and no metric.
const SOURCES: [(&str, Option<&str>); 5] = [
    ("object", Some("selector")),
    ("pods", Some("selector")),
    ("external", Some("metricSelector")),
    ("resource", None),
    ("containerResource", None),
];

/// (figure in `v2`, its flat name after the prefix)
fn figures(source: &str) -> &'static [(&'static str, &'static str)] {
    match source {
        "object" => &[("value", "Value")],
        "pods" => &[("averageValue", "AverageValue")],
        "external" => &[("value", "Value"), ("averageValue", "AverageValue")],
        _ => &[("averageUtilization", "AverageUtilization"), ("averageValue", "AverageValue")],
    }
}

/// A metric of `v2`, flat.
pub(super) fn flat(metric: &Value, form: Form) -> Value {
    let mut flat = json!({"type": metric["type"]});
    for (source, selector) in SOURCES {
        let nested = &metric[source];
        if nested.is_object() {
            flat[source] = flat_source(source, selector, nested, form);
        }
    }
    flat
}

fn flat_source(source: &str, selector: Option<&str>, nested: &Value, form: Form) -> Value {
    let mut flat = json!({});
    let some = |value: &Value| Some(value.clone()).filter(|value| !value.is_null());
    for (figure, name) in figures(source) {
        put(&mut flat, &format!("{}{name}", form.prefix), some(&nested[form.part][figure]));
    }
    match selector {
        Some(selector) => {
            put(&mut flat, "metricName", some(&nested["metric"]["name"]));
            put(&mut flat, selector, some(&nested["metric"]["selector"]));
        }
        None => {
            put(&mut flat, "name", some(&nested["name"]));
            put(&mut flat, "container", some(&nested["container"]));
        }
    }
    if source == "object" {
        put(&mut flat, "target", some(&nested["describedObject"]));
        put(&mut flat, "averageValue", some(&nested[form.part]["averageValue"]));
        // The flat form cannot leave it out.
        let value = &mut flat[format!("{}Value", form.prefix)];
        if value.is_null() {
            *value = "0".into();
        }
    }
    flat
}

/// A flat metric as `v2` has it.
pub(super) fn nested(flat: &Value, form: Form) -> Value {
    let mut metric = json!({"type": flat["type"]});
    for (source, selector) in SOURCES {
        if flat[source].is_object() {
            metric[source] = nested_source(source, selector, &flat[source], form);
        }
    }
    metric
}

fn nested_source(source: &str, selector: Option<&str>, flat: &Value, form: Form) -> Value {
    let mut nested = json!({});
    let some = |value: &Value| Some(value.clone()).filter(|value| !value.is_null());
    let mut amounts = json!({});
    for (figure, name) in figures(source) {
        put(&mut amounts, figure, some(&flat[format!("{}{name}", form.prefix)]));
    }
    match selector {
        Some(selector) => {
            nested["metric"] = json!({});
            put(&mut nested["metric"], "name", some(&flat["metricName"]));
            put(&mut nested["metric"], "selector", some(&flat[selector]));
        }
        None => {
            put(&mut nested, "name", some(&flat["name"]));
            put(&mut nested, "container", some(&flat["container"]));
        }
    }
    if source == "object" {
        put(&mut nested, "describedObject", some(&flat["target"]));
        put(&mut amounts, "averageValue", some(&flat["averageValue"]));
        if amounts["averageValue"].is_string() && amounts["value"] == "0" {
            put(&mut amounts, "value", None);
        }
    }
    if form == TARGET {
        amounts["type"] = kind_of(source, &amounts).into();
    }
    nested[form.part] = amounts;
    nested
}

/// What the figures of a target are. The flat form does not say it.
fn kind_of(source: &str, amounts: &Value) -> &'static str {
    let has = |figure: &str| !amounts[figure].is_null();
    match source {
        "object" if !has("averageValue") => "Value",
        "external" if has("value") => "Value",
        "resource" | "containerResource" if has("averageUtilization") => "Utilization",
        _ => "AverageValue",
    }
}
