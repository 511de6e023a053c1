//! Whether a container that ended is started again. Source: kubelet's `ContainerShouldRestart`.
//!
//! The rules of a container come first, then its own policy, then that of its pod.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule};

/// `restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every exit.
    Always,
    /// After a code other than 0.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    /// By its name in the API; nothing said is `Always`.
    pub fn named(name: Option<&str>) -> Self {
        match name {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }
}

/// Whether a container is started again that ended with this code, in a pod with this policy.
pub(super) fn restarts(pod: RestartPolicy, container: &Container, code: i32) -> bool {
    let policy = match container.restart_policy.as_deref() {
        // Without a policy of its own there are no rules either.
        None => pod,
        Some(own) => {
            if container.restart_policy_rules.iter().flatten().any(|rule| restarts_by(rule, code)) {
                return true;
            }
            RestartPolicy::named(Some(own))
        }
    };
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != 0,
        RestartPolicy::Never => false,
    }
}

fn restarts_by(rule: &ContainerRestartRule, code: i32) -> bool {
    let Some(codes) = rule.exit_codes.as_ref().filter(|_| rule.action == "Restart") else { return false };
    let named = codes.values.iter().flatten().any(|value| *value == code);
    match codes.operator.as_str() {
        "In" => named,
        "NotIn" => !named,
        _ => false,
    }
}

/// An init container that is to run as long as the pod.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_come_before_the_containers_policy_and_that_before_the_pods() {
        let rule = |operator: &str, values: &[i32]| json!({"action": "Restart", "exitCodes": {"operator": operator, "values": values}});
        let (always, failure, never) =
            (RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never);
        for (pod, policy, rules, restarted) in [
            (always, json!(null), json!(null), [0, 1, 42].as_slice()),
            (failure, json!(null), json!(null), &[1, 42]),
            (never, json!(null), json!(null), &[]),
            (always, json!("Never"), json!(null), &[]),
            (never, json!("Always"), json!(null), &[0, 1, 42]),
            (never, json!("OnFailure"), json!(null), &[1, 42]),
            (always, json!("Never"), json!([rule("In", &[42])]), &[42]),
            (always, json!("Never"), json!([rule("NotIn", &[42])]), &[0, 1]),
            (always, json!("Never"), json!([rule("In", &[7]), rule("In", &[1])]), &[1]),
            (always, json!("OnFailure"), json!([rule("In", &[0])]), &[0, 1, 42]),
            // What nobody knows changes nothing.
            (
                never,
                json!("Never"),
                json!([{"action": "Explode", "exitCodes": {"operator": "In", "values": [1]}}]),
                &[],
            ),
        ] {
            let container = json!({"name": "c", "restartPolicy": policy, "restartPolicyRules": rules});
            let container: Container = serde_json::from_value(container).unwrap();
            let found: Vec<i32> =
                [0, 1, 42].into_iter().filter(|code| restarts(pod, &container, *code)).collect();
            assert_eq!(found, restarted, "{pod:?} {policy} {rules}");
        }
    }
}
