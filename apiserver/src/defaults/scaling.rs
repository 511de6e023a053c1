//! Defaults of what decides how many pods there are, and which come first.

use serde_json::json;

use super::{Object, Value, child, existing, is_unset, items, text, value};

/// Utilization that an autoscaler aims at when nobody says.
const CPU_PERCENT: i64 = 80;

pub(super) fn horizontal_pod_autoscaler(object: &mut Object) {
    let spec = child(object, "spec");
    value(spec, "minReplicas", 1);
    if is_unset(spec.get("metrics")) {
        let target = json!({"type": "Utilization", "averageUtilization": CPU_PERCENT});
        let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
        spec.insert("metrics".to_owned(), metrics);
    }
    if let Some(behavior) = existing(spec, "behavior") {
        let up = json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]);
        let down = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
        rules(child(behavior, "scaleUp"), up);
        value(child(behavior, "scaleUp"), "stabilizationWindowSeconds", 0);
        rules(child(behavior, "scaleDown"), down);
    }
    let status = child(object, "status");
    value(status, "desiredReplicas", 0);
}

fn rules(rules: &mut Object, policies: Value) {
    text(rules, "selectPolicy", "Max");
    if is_unset(rules.get("policies")) {
        rules.insert("policies".to_owned(), policies);
    }
}

pub(super) fn pod_disruption_budget(object: &mut Object) {
    let status = child(object, "status");
    for count in ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"] {
        value(status, count, 0);
    }
}

pub(super) fn priority_class(object: &mut Object) {
    value(object, "value", 0);
    text(object, "preemptionPolicy", "PreemptLowerPriority");
}

/// The most is what a container gets if it says nothing, and what it gets is what it requests.
pub(super) fn limit_range(object: &mut Object) {
    let Some(spec) = existing(object, "spec") else { return };
    for limit in
        items(spec, "limits").filter(|limit| limit.get("type").is_some_and(|kind| kind == "Container"))
    {
        copy(limit, "max", "default");
        copy(limit, "default", "defaultRequest");
        copy(limit, "min", "defaultRequest");
    }
}

fn copy(limit: &mut Object, from: &str, to: &str) {
    let amounts = match limit.get(from) {
        Some(Value::Object(amounts)) if !amounts.is_empty() => amounts.clone(),
        _ => return,
    };
    let target = child(limit, to);
    for (resource, amount) in amounts {
        target.entry(resource).or_insert(amount);
    }
}
