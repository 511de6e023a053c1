//! What the expressions of a policy say of objects that the kinds it is about do not have: warnings for `status`.
//!
//! Source: "Type checking" in the Kubernetes documentation "Validating Admission Policy". As there, rules that name everything
//! are about no kind in particular, and no more kinds are looked at than anybody would read warnings about.

use std::{collections::BTreeSet, sync::Arc};

use claw_schemas::{Descriptor, Registry};
use serde_json::{Value, json};

use super::frame::{list, text};
use crate::custom::cel::Sketch;

/// Kinds of one rule that are looked at. Upstream's figure.
const KINDS_MAX: usize = 10;

/// `status.typeChecking` of a policy that is about to be stored.
pub(crate) fn checked(policy: &Value, registry: &Registry) -> Value {
    let warnings = warnings(&policy["spec"], registry);
    if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) }
}

fn warnings(spec: &Value, registry: &Registry) -> Vec<Value> {
    let kinds = kinds(spec, registry);
    let params = registry.kind(text(&spec["paramKind"]["apiVersion"]), text(&spec["paramKind"]["kind"]));
    let params = params.map(|kind| kind.compiled().root());
    let variables = list(&spec["variables"]).map(|one| (text(&one["name"]), text(&one["expression"])));
    let sketch = Sketch::new(variables);
    let mut warnings = Vec::new();
    for (at, validation) in list(&spec["validations"]).enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = text(&validation[field]);
            let fault = |kind: &Arc<Descriptor>| {
                let why = sketch.fault(expression, kind.compiled().root(), params)?;
                Some(format!("{}/{}, Kind={}: {why}\n", kind.group, kind.version, kind.kind))
            };
            let faults: Vec<String> = kinds.iter().filter_map(fault).collect();
            if !faults.is_empty() {
                let place = format!("spec.validations[{at}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": faults.join("\n")}));
            }
        }
    }
    warnings
}

/// The kinds that rules name, in order.
fn kinds(spec: &Value, registry: &Registry) -> Vec<Arc<Descriptor>> {
    let named: BTreeSet<_> =
        list(&spec["matchConstraints"]["resourceRules"]).flat_map(|rule| named(rule, registry)).collect();
    let find = |(group, version, kind): &(String, String, String)| {
        let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        registry.kind(&api_version, kind).cloned()
    };
    named.iter().filter_map(find).collect()
}

/// Group, version and kind of what a rule names.
fn named(rule: &Value, registry: &Registry) -> Vec<(String, String, String)> {
    let sorted = |field: &str| -> BTreeSet<&str> { list(&rule[field]).filter_map(Value::as_str).collect() };
    let (groups, versions) = (sorted("apiGroups"), sorted("apiVersions"));
    if groups.iter().chain(&versions).any(|name| name.contains('*')) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for group in &groups {
        for version in &versions {
            for plural in sorted("resources").iter().filter(|plural| !plural.contains(['*', '/'])) {
                let kind = registry.resource(group, version, plural);
                found.extend(
                    kind.map(|kind| {
                        (kind.group.to_string(), kind.version.to_string(), kind.kind.to_string())
                    }),
                );
            }
        }
    }
    found.truncate(KINDS_MAX);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(spec: &Value) -> Vec<(String, String)> {
        let checked = checked(&json!({"spec": spec}), &Registry::builtin());
        let warnings = checked["expressionWarnings"].as_array().cloned().unwrap_or_default();
        warnings
            .iter()
            .map(|one| (text(&one["fieldRef"]).to_owned(), text(&one["warning"]).to_owned()))
            .collect()
    }

    fn about(groups: &[&str], plurals: &[&str], expression: &str) -> Value {
        json!({
            "matchConstraints": {"resourceRules": [{"apiGroups": groups, "apiVersions": ["v1"], "operations": ["*"], "resources": plurals}]},
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "containers", "expression": "object.spec.template.spec.containers"}],
            "validations": [{"expression": expression, "messageExpression": "params.data['a'] + params.metadata.name"}],
        })
    }

    #[test]
    fn fields_that_a_kind_does_not_have_are_told_by_kind() {
        for (expression, why) in [
            ("object.spec.replicas > 1 && has(object.metadata.labels)", ""),
            ("object.metadata.labels['a/b'] == 'x' && 'c' in object.metadata.annotations", ""),
            ("object.metadata.creationTimestamp < timestamp('2026-01-01T00:00:00Z')", ""),
            ("variables.containers.all(c, c.image.startsWith('a') && size(c.?env.orValue([])) < 3)", ""),
            ("variables.containers[0].ports.exists(p, p.containerPort == 80)", ""),
            ("oldObject == null || object.spec.paused", ""),
            ("object.spec.size == 1", "undefined field 'size'"),
            ("variables.containers.all(c, c.immage == '')", "undefined field 'immage'"),
            (
                "object.spec.replicas == 'one'",
                "found no matching overload for '_==_' applied to '(int, string)'",
            ),
            ("object.spec.template.metadata.labels == params.dota", "undefined field 'dota'"),
            ("object.spec.replicas.all(r, r)", "cannot be range of a comprehension"),
        ] {
            let warned = warned(&about(&["apps"], &["deployments"], expression));
            if why.is_empty() {
                assert_eq!(warned, [], "{expression}");
                continue;
            }
            assert_eq!(warned.len(), 1, "{expression}");
            let (field, warning) = &warned[0];
            assert_eq!(field, "spec.validations[0].expression");
            assert!(warning.starts_with("apps/v1, Kind=Deployment: ") && warning.contains(why), "{warning}");
        }
    }

    #[test]
    fn each_kind_of_a_rule_is_looked_at_and_none_of_one_that_means_everything() {
        let both = warned(&about(
            &["apps"],
            &["replicasets", "deployments", "deployments/scale"],
            "object.spec.paused",
        ));
        assert_eq!(both[0].1, "apps/v1, Kind=ReplicaSet: undefined field 'paused'\n");
        let twice = warned(&about(&["apps", ""], &["deployments", "daemonsets", "pods"], "object.spec.no"));
        let lines: Vec<&str> = twice[0].1.lines().filter(|line| !line.is_empty()).collect();
        let of = |kind: &str| format!("{kind}: undefined field 'no'");
        assert_eq!(
            lines,
            [of("/v1, Kind=Pod"), of("apps/v1, Kind=DaemonSet"), of("apps/v1, Kind=Deployment")]
        );
        for (groups, plurals) in
            [(&["*"][..], &["deployments"][..]), (&["apps"], &["*"]), (&["apps"], &["widgets"])]
        {
            assert_eq!(warned(&about(groups, plurals, "object.spec.no")), []);
        }
    }
}
