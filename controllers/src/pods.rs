//! What workload controllers ask about pods: does it count, is it ready, which one goes first.
//!
//! Must never know: which controller asks.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use claw_runtime::conditions;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};

/// Annotation that makes a pod cheaper (lower, negative) or dearer to delete than its siblings.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn status(pod: &Pod) -> Option<&PodStatus> {
    pod.status.as_ref()
}

/// `Pending`, `Running`, ...; empty when nobody said.
pub fn phase(pod: &Pod) -> &str {
    status(pod).and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether all its containers have ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it is on its way out.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts as a replica.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    conditions::find(status(pod)?.conditions.iter().flatten(), "Ready")
}

/// Whether it serves.
pub fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|ready| ready.status == conditions::TRUE)
}

/// When it last became ready.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    ready_condition(pod)?.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether it has served for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It has.
    Available,
    /// It will have, if nothing happens meanwhile.
    In(Duration),
    /// It is not ready.
    No,
}

/// Whether a pod has been ready for `min_ready_seconds`; `age` says how long ago something was.
pub fn availability(pod: &Pod, min_ready_seconds: i32, age: impl Fn(Timestamp) -> Duration) -> Availability {
    if !is_ready(pod) {
        return Availability::No;
    }
    let wait = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or_default());
    let Some(since) = ready_since(pod) else {
        return if wait.is_zero() { Availability::Available } else { Availability::No };
    };
    match wait.saturating_sub(age(since)) {
        Duration::ZERO => Availability::Available,
        left => Availability::In(left),
    }
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = status(pod).and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().map(|container| container.restart_count).max().unwrap_or(0)
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST));
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Orders pods so that the one whose loss hurts least comes first, as Kubernetes does: unassigned, pending, not
/// ready, cheap, crowded onto a node with siblings, recently ready, often restarted, young.
pub fn order_for_deletion(pods: &mut [Arc<Pod>], siblings: &[Arc<Pod>]) {
    let mut crowd: BTreeMap<&str, usize> = BTreeMap::new();
    for sibling in siblings {
        *crowd.entry(node(sibling)).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let phase = match phase(pod) {
            "Pending" => 0,
            "Unknown" | "" => 1,
            _ => 2,
        };
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (
            (!node(pod).is_empty(), phase, is_ready(pod), deletion_cost(pod)),
            Reverse(crowd.get(node(pod)).copied().unwrap_or(0)),
            (Reverse(ready_since(pod)), Reverse(restarts(pod)), Reverse(created)),
            pod.metadata.name.clone(),
        )
    });
}

#[cfg(test)]
pub(crate) mod build {
    //! Builders for tests.

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    pub fn pod(name: &str, more: serde_json::Value) -> Pod {
        let mut base = json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        });
        json_patch_merge(&mut base, &more);
        serde_json::from_value(base).unwrap()
    }

    /// RFC 7386, for test fixtures.
    pub fn json_patch_merge(target: &mut serde_json::Value, patch: &serde_json::Value) {
        match (target, patch) {
            (serde_json::Value::Object(target), serde_json::Value::Object(patch)) => {
                for (key, value) in patch {
                    json_patch_merge(target.entry(key.clone()).or_insert(serde_json::Value::Null), value);
                }
            }
            (target, patch) => *target = patch.clone(),
        }
    }

    pub fn ready(mut pod: Pod, since: i64) -> Pod {
        let status = pod.status.get_or_insert_default();
        status.phase = Some("Running".into());
        status.conditions = Some(vec![PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(Timestamp::from_second(since).unwrap())),
            ..Default::default()
        }]);
        pod
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{build::*, *};

    fn on(node: &str) -> serde_json::Value {
        json!({"spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running"}})
    }

    fn ordered(pods: Vec<Pod>) -> Vec<String> {
        let mut pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let siblings = pods.clone();
        order_for_deletion(&mut pods, &siblings);
        pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect()
    }

    #[test]
    fn the_pod_whose_loss_hurts_least_goes_first() {
        let pending = json!({"spec": {"nodeName": "n1", "containers": []}, "status": {"phase": "Pending"}});
        let order = ordered(vec![
            ready(pod("old-ready", on("n2")), 10),
            ready(pod("new-ready", on("n3")), 90),
            pod("unready", on("n4")),
            pod("pending", pending),
            pod("unassigned", json!({"status": {"phase": "Pending"}})),
        ]);
        assert_eq!(order, ["unassigned", "pending", "unready", "new-ready", "old-ready"]);
    }

    #[test]
    fn a_crowded_node_gives_first_and_a_cheap_pod_before_it() {
        let mut cheap = ready(pod("cheap", on("n2")), 10);
        cheap.metadata.annotations = Some([(DELETION_COST.to_owned(), "-5".to_owned())].into());
        let order = ordered(vec![
            ready(pod("alone", on("n3")), 10),
            ready(pod("crowded-a", on("n1")), 10),
            ready(pod("crowded-b", on("n1")), 20),
            cheap,
        ]);
        assert_eq!(order, ["cheap", "crowded-b", "crowded-a", "alone"]);
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_for_long_enough() {
        let after = |seconds| move |_| Duration::from_secs(seconds);
        let pod = ready(pod("a", on("n1")), 100);
        assert_eq!(availability(&pod, 0, after(0)), Availability::Available);
        assert_eq!(availability(&pod, 10, after(4)), Availability::In(Duration::from_secs(6)));
        assert_eq!(availability(&pod, 10, after(10)), Availability::Available);
        assert_eq!(availability(&super::build::pod("b", on("n1")), 0, after(9)), Availability::No);
    }
}
