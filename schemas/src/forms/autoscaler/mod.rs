//! `autoscaling/v1` HorizontalPodAutoscaler: one figure for the CPU, and everything else in annotations.
//!
//! Source of the annotations and of their JSON: `k8s.io/api/autoscaling/v1`. The metrics in them have the flat form of
//! [`metric`]; `behavior` and the conditions look as they do in `v2`.

mod metric;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::put;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const KEPT: [&str; 4] = [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS];

const CPU_TARGET: &str = "targetCPUUtilizationPercentage";
const CPU_CURRENT: &str = "currentCPUUtilizationPercentage";

/// An autoscaler of `v1` as `v2` has it.
pub fn stored(mut v1: Value) -> Value {
    let kept = take_kept(&mut v1);
    let read = |name: &str| kept.get(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let metrics = |name: &str, form: metric::Form| -> Option<Vec<Value>> {
        let list = read(name)?;
        Some(list.as_array()?.iter().map(|flat| metric::nested(flat, form)).collect())
    };
    v1["apiVersion"] = "autoscaling/v2".into();
    let share = take(&mut v1, "spec", CPU_TARGET);
    let mut targets = metrics(METRICS, metric::TARGET).unwrap_or_default();
    targets.extend(share.map(|share| of_cpu("target", &json!({"type": "Utilization"}), share)));
    put_list(&mut v1, "spec", "metrics", Some(targets));
    if let Some(behavior) = read(BEHAVIOR).filter(Value::is_object) {
        v1["spec"]["behavior"] = behavior;
    }
    let share = take(&mut v1, "status", CPU_CURRENT);
    let measured = metrics(CURRENT_METRICS, metric::CURRENT).filter(|list| !list.is_empty());
    let measured = measured.or_else(|| share.map(|share| vec![of_cpu("current", &json!({}), share)]));
    put_list(&mut v1, "status", "currentMetrics", measured);
    put_list(&mut v1, "status", "conditions", read(CONDITIONS).and_then(|list| list.as_array().cloned()));
    v1
}

/// An autoscaler of `v2` as `v1` has it.
pub fn served(mut v2: Value) -> Value {
    take_kept(&mut v2);
    v2["apiVersion"] = "autoscaling/v1".into();
    let targets = take_list(&mut v2, "spec", "metrics");
    let share = targets.iter().find(|one| is_cpu(one)).and_then(|one| share_of(one, "target"));
    let others = targets.iter().filter(|one| !is_cpu(one) || share_of(one, "target").is_none());
    let others: Vec<Value> = others.map(|one| metric::flat(one, metric::TARGET)).collect();
    let behavior = take(&mut v2, "spec", "behavior");
    let measured = take_list(&mut v2, "status", "currentMetrics");
    // One measure may be kept twice: the figure alone would lose the amount behind it.
    let current = measured.iter().find(|one| is_cpu(one)).and_then(|one| share_of(one, "current"));
    let measured: Vec<Value> = measured.iter().map(|one| metric::flat(one, metric::CURRENT)).collect();
    let conditions = take_list(&mut v2, "status", "conditions");
    keep(&mut v2, METRICS, some(others));
    keep(&mut v2, BEHAVIOR, behavior);
    keep(&mut v2, CURRENT_METRICS, some(measured));
    keep(&mut v2, CONDITIONS, some(conditions));
    if let Some(share) = share {
        v2["spec"][CPU_TARGET] = share;
    }
    if let Some(current) = current {
        v2["status"][CPU_CURRENT] = current;
    }
    v2
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn share_of(metric: &Value, part: &str) -> Option<Value> {
    Some(metric["resource"][part]["averageUtilization"].clone()).filter(|share| !share.is_null())
}

/// The measure of the CPU that `v1` has a field for.
fn of_cpu(part: &str, figures: &Value, share: Value) -> Value {
    let mut figures = figures.clone();
    figures["averageUtilization"] = share;
    json!({"type": "Resource", "resource": {"name": "cpu", part: figures}})
}

fn some(list: Vec<Value>) -> Option<Value> {
    (!list.is_empty()).then_some(Value::Array(list))
}

fn take(object: &mut Value, part: &str, field: &str) -> Option<Value> {
    object.get_mut(part)?.as_object_mut()?.remove(field).filter(|value| !value.is_null())
}

fn take_list(object: &mut Value, part: &str, field: &str) -> Vec<Value> {
    match take(object, part, field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// Sets a list that has items.
fn put_list(object: &mut Value, part: &str, field: &str, list: Option<Vec<Value>>) {
    if let Some(list) = list.and_then(some) {
        object[part][field] = list;
    }
}

/// Takes the annotations out that hold what `v1` has no fields for.
fn take_kept(object: &mut Value) -> BTreeMap<String, String> {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return BTreeMap::new();
    };
    let taken = KEPT.into_iter().filter_map(|name| {
        let text = annotations.remove(name)?;
        Some((name.to_owned(), text.as_str()?.to_owned()))
    });
    let taken: BTreeMap<_, _> = taken.collect();
    if annotations.is_empty() && !taken.is_empty() {
        put(&mut object["metadata"], "annotations", None);
    }
    taken
}

fn keep(object: &mut Value, name: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    let metadata = &mut object["metadata"];
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = Value::Object(Map::new());
    }
    metadata["annotations"][name] = value.to_string().into();
}

#[cfg(test)]
mod tests;
