//! Node lifecycle: nodes that do not answer, or cannot run pods, are tainted; pods on them stop counting as
//! ready, and those that do not tolerate the taint are evicted.
//!
//! The server's node hub writes the `Ready` condition from heartbeats; this controller draws the consequences.
//!
//! Writes `spec.taints` of nodes (only the taints listed in [`rules`]) and the pod condition `Ready` (status False,
//! reason `NodeNotReady`). Must never know: how nodes report, where pods go next.

mod rules;

use std::sync::Arc;

use claw_client::ObjectKey;
use claw_runtime::{Action, Controller, Outcome, Plan, Watches, World};
use claw_schemas::schema::time_text;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use rules::{Expelling, Stay};

/// Keeps taints and evictions level with the readiness of nodes.
pub struct NodeLifecycle;

impl Controller for NodeLifecycle {
    type Object = Node;

    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn watches(&self, watches: &mut Watches<Node>) {
        // Pods concern this controller only on nodes in trouble, so that a thousand healthy nodes cost nothing.
        watches.mapped::<Pod>(|pod, nodes| {
            let name = node_of(pod).unwrap_or_default();
            let in_trouble = nodes.get("", name).is_some_and(|node| !is_healthy(&node));
            in_trouble.then(|| ObjectKey::new("", name)).into_iter().collect()
        });
    }

    fn plan(&self, node: &Arc<Node>, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::nothing();
        if let Some(taints) = rules::taints(node, now) {
            // The taints come first and alone: evictions count from when they are seen.
            return plan.then(Action::merge_unchanged(&**node, json!({"spec": {"taints": taints}})));
        }
        if is_healthy(node) {
            return plan;
        }
        // Asked about as soon as they are seen, whoever is there to be driven out: what passes from here on is measured.
        let expelling = rules::expelling(node, |since| world.age(since, now));
        let pods = world.kind::<Pod>();
        let here: Vec<&Arc<Pod>> =
            pods.iter().filter(|pod| node_of(pod) == node.metadata.name.as_deref()).collect();
        if rules::readiness(node) != "True" {
            for pod in here.iter().filter(|pod| rules::claims_ready(pod)) {
                plan = plan.then(not_ready(pod, now));
            }
        }
        let nobody_is_ready = !world.kind::<Node>().iter().any(|node| rules::readiness(node) == "True");
        if nobody_is_ready {
            // When every node seems lost, the fault is more likely on our side of the network, and there is
            // nowhere to go.
            plan.outcome = Outcome::Wait { reason: "no node is ready, so no pod is evicted".to_owned() };
            return plan;
        }
        evictions(plan, &expelling, &here)
    }
}

fn evictions(mut plan: Plan, expelling: &[Expelling<'_>], pods: &[&Arc<Pod>]) -> Plan {
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        match rules::stay(expelling, pod) {
            Stay::Forever => {}
            Stay::For(left) => plan.look_again_after(left),
            Stay::Over => {
                let place = pod.metadata.namespace.as_deref().unwrap_or_default();
                plan = plan.then(Action::delete(&***pod).on_success(
                    "TaintManagerEviction",
                    format!(
                        "Evicted pod {place}/{{name}}, which does not tolerate the node's taints any longer"
                    ),
                ));
            }
        }
    }
    plan
}

/// The agent cannot report, so the server's side says what is known: nobody can rely on this pod.
fn not_ready(pod: &Pod, now: Timestamp) -> Action {
    let patch = json!({
        "status": {"conditions": [{
            "type": "Ready",
            "status": "False",
            "reason": "NodeNotReady",
            "message": "the node's agent does not answer",
            "lastTransitionTime": time_text(now),
        }]},
    });
    Action::strategic(pod, patch).in_status()
}

fn is_healthy(node: &Node) -> bool {
    let executing = |taint: &k8s_openapi::api::core::v1::Taint| taint.effect == "NoExecute";
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    rules::readiness(node) == "True" && !taints.into_iter().any(executing)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

#[cfg(test)]
mod tests {
    use claw_runtime::Caches;
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "resourceVersion": "1"},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn pod(name: &str, node: &str, tolerations: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"nodeName": node, "containers": [], "tolerations": tolerations},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap()
    }

    /// The plan's actions as lines, after its taints have been applied.
    fn planned(lost: &Node, others: &[Node], pods: Vec<Pod>, now: i64) -> Vec<String> {
        let now = Timestamp::from_second(now).unwrap();
        let mut lost = lost.clone();
        if let Some(taints) = rules::taints(&lost, Timestamp::UNIX_EPOCH) {
            lost.spec.get_or_insert_default().taints = Some(taints);
        }
        let caches = Caches::offline();
        caches.set::<Node>(others.iter().cloned().chain([lost.clone()]).collect());
        caches.set::<Pod>(pods);
        let plan = NodeLifecycle.plan(&Arc::new(lost), &caches.world(), now);
        plan.actions.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_lost_node_is_tainted_before_anything_else() {
        let caches = Caches::offline();
        let plan =
            NodeLifecycle.plan(&Arc::new(node("n", "Unknown")), &caches.world(), Timestamp::UNIX_EPOCH);
        let lines: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("patch nodes") && lines[0].contains(rules::UNREACHABLE), "{lines:?}");
    }

    #[test]
    fn pods_on_a_lost_node_stop_being_ready_and_leave_when_their_toleration_runs_out() {
        let tolerating = json!([{"key": rules::UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]);
        let pods = || vec![pod("p", "lost", tolerating.clone()), pod("elsewhere", "well", json!([]))];
        let others = [node("well", "True")];
        let early = planned(&node("lost", "Unknown"), &others, pods(), 10);
        assert!(early.len() == 1 && early[0].contains("NodeNotReady"), "{early:?}");
        let late = planned(&node("lost", "Unknown"), &others, pods(), 31);
        assert!(late.len() == 2 && late[1].starts_with("delete pods default/p"), "{late:?}");
    }

    #[test]
    fn nothing_is_evicted_while_no_node_at_all_is_ready() {
        let lines = planned(
            &node("lost", "Unknown"),
            &[node("also", "Unknown")],
            vec![pod("p", "lost", json!([]))],
            99,
        );
        assert!(lines.iter().all(|line| !line.starts_with("delete")), "{lines:?}");
    }

    #[test]
    fn a_healthy_node_costs_nothing() {
        assert!(planned(&node("n", "True"), &[], vec![pod("p", "n", json!([]))], 0).is_empty());
    }
}
