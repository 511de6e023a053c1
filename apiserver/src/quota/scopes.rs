//! Which pods a quota is about, where it is not about all.

use serde_json::{Value, json};

use crate::defaults::qos_class;

/// Whether a quota is about a pod.
pub(super) fn cover(quota: &Value, pod: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = spec["scopes"].as_array().into_iter().flatten();
    let plain = plain.map(|scope| json!({"scopeName": scope, "operator": "Exists"}));
    let chosen = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().cloned();
    plain.chain(chosen).all(|expression| matches(&expression, &pod["spec"]))
}

/// Whether a quota is about some pods only, and so about nothing else.
pub(super) fn are_set(quota: &Value) -> bool {
    let some = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    some(&quota["spec"]["scopes"]) || some(&quota["spec"]["scopeSelector"]["matchExpressions"])
}

fn matches(expression: &Value, spec: &Value) -> bool {
    let terminating = || spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    let best_effort = || spec.as_object().is_none_or(|spec| qos_class(spec) == "BestEffort");
    match expression["scopeName"].as_str().unwrap_or_default() {
        "Terminating" => terminating(),
        "NotTerminating" => !terminating(),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => has_priority(expression, spec["priorityClassName"].as_str().unwrap_or_default()),
        "CrossNamespacePodAffinity" => reaches_out(&spec["affinity"]),
        _ => false,
    }
}

fn has_priority(expression: &Value, class: &str) -> bool {
    let named =
        || expression["values"].as_array().is_some_and(|values| values.iter().any(|one| one == class));
    match expression["operator"].as_str().unwrap_or_default() {
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        "In" => !class.is_empty() && named(),
        "NotIn" => class.is_empty() || !named(),
        _ => false,
    }
}

/// Whether a pod wants to be near, or far from, pods of other namespaces.
fn reaches_out(affinity: &Value) -> bool {
    let mut terms = ["podAffinity", "podAntiAffinity"].into_iter().flat_map(|kind| {
        let terms = &affinity[kind];
        let required = &terms["requiredDuringSchedulingIgnoredDuringExecution"];
        let preferred = &terms["preferredDuringSchedulingIgnoredDuringExecution"];
        let preferred = preferred.as_array().into_iter().flatten().map(|term| &term["podAffinityTerm"]);
        required.as_array().into_iter().flatten().chain(preferred)
    });
    terms.any(|term| {
        term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
            || !term["namespaceSelector"].is_null()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Value {
        let mut spec = spec;
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        json!({"spec": spec})
    }

    #[test]
    fn scopes_choose_pods_by_what_they_are() {
        let plain = || pod(json!({}));
        let asking = || pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}));
        let ending = || pod(json!({"activeDeadlineSeconds": 60}));
        let near = |term: Value| {
            pod(
                json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}),
            )
        };
        for (scope, pod, covered) in [
            ("Terminating", ending(), true),
            ("Terminating", plain(), false),
            ("NotTerminating", plain(), true),
            ("NotTerminating", ending(), false),
            ("BestEffort", plain(), true),
            ("BestEffort", asking(), false),
            ("NotBestEffort", asking(), true),
            ("PriorityClass", pod(json!({"priorityClassName": "high"})), true),
            ("PriorityClass", plain(), false),
            ("CrossNamespacePodAffinity", near(json!({"namespaces": ["a"]})), true),
            ("CrossNamespacePodAffinity", near(json!({"namespaceSelector": {}})), true),
            ("CrossNamespacePodAffinity", near(json!({})), false),
        ] {
            assert_eq!(cover(&json!({"spec": {"scopes": [scope]}}), &pod), covered, "{scope} {pod}");
        }
        assert!(cover(&json!({"spec": {}}), &plain()) && !are_set(&json!({"spec": {"scopes": []}})));
        assert!(
            !cover(&json!({"spec": {"scopes": ["BestEffort", "Terminating"]}}), &plain()),
            "all must hold"
        );
    }

    #[test]
    fn priorities_are_chosen_by_their_class() {
        for (operator, class, covered) in [
            ("In", "high", true),
            ("In", "low", false),
            ("In", "", false),
            ("NotIn", "high", false),
            ("NotIn", "low", true),
            ("NotIn", "", true),
            ("Exists", "low", true),
            ("Exists", "", false),
            ("DoesNotExist", "", true),
        ] {
            let one = json!({"scopeName": "PriorityClass", "operator": operator, "values": ["high"]});
            let quota = json!({"spec": {"scopeSelector": {"matchExpressions": [one]}}});
            assert_eq!(
                cover(&quota, &pod(json!({"priorityClassName": class}))),
                covered,
                "{operator} {class}"
            );
        }
    }
}
