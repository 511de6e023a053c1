//! ClusterRoles that are made of others: their rules are written into them, for people to read.
//!
//! The API server works the same union out for itself and does not wait for this.
//!
//! Must never know: who is given a role.

use std::sync::Arc;

use claw_client::ObjectKey;
use claw_runtime::{Action, Controller, Plan, Watches, World};
use claw_schemas::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;

/// The controller.
pub struct ClusterRoles;

impl Controller for ClusterRoles {
    type Object = ClusterRole;

    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }

    fn watches(&self, watches: &mut Watches<ClusterRole>) {
        watches.mapped::<ClusterRole>(|_, all| {
            let aggregating = |role: &Arc<ClusterRole>| {
                role.aggregation_rule.is_some().then(|| ObjectKey::of(&role.metadata))
            };
            all.list().iter().filter_map(aggregating).collect()
        });
    }

    fn plan(&self, role: &Arc<ClusterRole>, world: &World, _now: Timestamp) -> Plan {
        let Some(rule) = &role.aggregation_rule else { return Plan::nothing() };
        let selectors: Vec<LabelSelector> = rule
            .cluster_role_selectors
            .iter()
            .flatten()
            .filter_map(|selector| LabelSelector::from_meta(selector).ok())
            .collect();
        let all = world.kind::<ClusterRole>();
        let mut rules: Vec<PolicyRule> = Vec::new();
        for part in all.iter().filter(|part| part.metadata.name != role.metadata.name) {
            let labels = part.metadata.labels.clone().unwrap_or_default();
            if selectors.iter().any(|selector| selector.matches(&labels)) {
                for rule in part.rules.iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Plan::nothing();
        }
        Plan::nothing().then(Action::merge(&**role, json!({"rules": rules})))
    }
}

#[cfg(test)]
mod tests {
    use claw_runtime::Caches;
    use serde_json::{Value, json};

    use super::*;

    fn role(name: &str, rest: Value) -> ClusterRole {
        let mut object = rest;
        object["metadata"]["name"] = name.into();
        serde_json::from_value(object).unwrap()
    }

    fn part(name: &str, part_of: &str, resource: &str) -> ClusterRole {
        let rules = json!([{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]);
        role(name, json!({"metadata": {"labels": {"part-of": part_of}}, "rules": rules}))
    }

    fn whole() -> ClusterRole {
        let selector = json!({"matchLabels": {"part-of": "whole"}});
        role(
            "whole",
            json!({
                "metadata": {"labels": {"part-of": "whole"}},
                "aggregationRule": {"clusterRoleSelectors": [selector]},
            }),
        )
    }

    fn planned(roles: &[ClusterRole]) -> Vec<String> {
        let caches = Caches::offline();
        caches.set::<ClusterRole>(roles.to_vec());
        let plan = ClusterRoles.plan(&Arc::new(roles[0].clone()), &caches.world(), Timestamp::UNIX_EPOCH);
        plan.actions.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_role_is_given_the_rules_of_its_parts_once() {
        let parts = [part("a", "whole", "pods"), part("b", "whole", "pods"), part("c", "other", "secrets")];
        let roles = [[whole()].as_slice(), parts.as_slice()].concat();
        let rules = r#"[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]"#;
        assert_eq!(planned(&roles), [format!("patch clusterroles whole {{\"rules\":{rules}}}")]);
        let mut complete = roles;
        complete[0].rules = parts[0].rules.clone();
        assert!(planned(&complete).is_empty());
    }

    #[test]
    fn a_role_of_its_own_is_left_alone() {
        assert!(planned(&[part("a", "whole", "pods"), whole()]).is_empty());
    }
}
