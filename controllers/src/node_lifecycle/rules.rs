//! The rules of node lifecycle, pure: which taints a node's state asks for, and when a pod must leave.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::scheduler::tolerates;

/// On nodes whose agent does not answer.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// On nodes whose agent says they cannot run pods.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// On cordoned nodes.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// On nodes that are short of something: key, and the condition that says so.
const SHORT: [(&str, &str); 3] = [
    ("node.kubernetes.io/memory-pressure", "MemoryPressure"),
    ("node.kubernetes.io/disk-pressure", "DiskPressure"),
    ("node.kubernetes.io/pid-pressure", "PIDPressure"),
];

/// The taints that this controller owns: (key, effect).
const OWNED: [(&str, &str); 8] = [
    (UNREACHABLE, "NoSchedule"),
    (UNREACHABLE, "NoExecute"),
    (NOT_READY, "NoSchedule"),
    (NOT_READY, "NoExecute"),
    (UNSCHEDULABLE, "NoSchedule"),
    (SHORT[0].0, "NoSchedule"),
    (SHORT[1].0, "NoSchedule"),
    (SHORT[2].0, "NoSchedule"),
];

/// The status of a node's `Ready` condition: `True`, `False` or `Unknown`.
pub fn readiness(node: &Node) -> &str {
    condition(node, "Ready").unwrap_or("Unknown")
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a str> {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == type_).map(|condition| condition.status.as_str())
}

/// The taints a node should carry, or `None` when it carries them already. Taints of others are kept; one that drives
/// pods out and does not say since when is told now, since tolerations in seconds count from there.
pub fn taints(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.as_ref();
    let current = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
    let wanted = |key: &str| match key {
        UNREACHABLE => readiness(node) == "Unknown",
        NOT_READY => readiness(node) == "False",
        UNSCHEDULABLE => cordoned,
        key => SHORT.iter().any(|(short, type_)| *short == key && condition(node, type_) == Some("True")),
    };
    let owned = |taint: &Taint| OWNED.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut next: Vec<Taint> =
        current.iter().filter(|taint| !owned(taint) || wanted(&taint.key)).cloned().collect();
    for (key, effect) in OWNED {
        if wanted(key) && !next.iter().any(|taint| taint.key == key && taint.effect == effect) {
            next.push(Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() });
        }
    }
    for taint in next.iter_mut().filter(|taint| taint.effect == "NoExecute") {
        taint.time_added.get_or_insert(Time(now));
    }
    (next != current).then_some(next)
}

/// A taint that drives pods out, and for how long it has been there.
pub type Expelling<'a> = (&'a Taint, Duration);

/// The `NoExecute` taints of a node.
pub fn expelling(node: &Node, age: impl Fn(Timestamp) -> Duration) -> Vec<Expelling<'_>> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let expelling = taints.filter(|taint| taint.effect == "NoExecute");
    expelling
        .map(|taint| (taint, taint.time_added.as_ref().map(|time| age(time.0)).unwrap_or_default()))
        .collect()
}

/// When a pod must leave its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Nothing drives it out.
    Forever,
    /// It tolerates what is wrong for so long.
    For(Duration),
    /// It must go now.
    Over,
}

/// What these taints of a node mean for a pod on it. Several tolerations of one taint count
/// by the shortest; several taints by the first that runs out.
pub fn stay(expelling: &[Expelling<'_>], pod: &Pod) -> Stay {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut shortest: Option<Duration> = None;
    for (taint, age) in expelling {
        let mut covering = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if covering.peek().is_none() {
            return Stay::Over;
        }
        let Some(seconds) = covering.filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let left = Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).saturating_sub(*age);
        shortest = Some(shortest.map_or(left, |other| other.min(left)));
    }
    match shortest {
        None => Stay::Forever,
        Some(Duration::ZERO) => Stay::Over,
        Some(left) => Stay::For(left),
    }
}

/// Whether a pod still claims to be ready.
pub fn claims_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(ready: &str, spec: Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn keys(taints: Option<Vec<Taint>>) -> Vec<String> {
        taints.into_iter().flatten().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn readiness_decides_the_taints_and_leaves_those_of_others() {
        let mine = json!({"taints": [{"key": "mine", "effect": "NoSchedule"}]});
        assert_eq!(taints(&node("True", mine.clone()), at(0)), None);
        assert_eq!(
            keys(taints(&node("Unknown", mine), at(0))),
            [
                "mine:NoSchedule",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ]
        );
        assert_eq!(keys(taints(&node("False", json!({})), at(0))).len(), 2);
        assert_eq!(
            keys(taints(&node("True", json!({"unschedulable": true})), at(0))),
            ["node.kubernetes.io/unschedulable:NoSchedule"]
        );
    }

    #[test]
    fn a_node_that_is_short_of_something_takes_no_new_pods_until_it_is_not() {
        let mut short = node("True", json!({}));
        let pressure = |status: &str| {
            serde_json::from_value(json!({"conditions": [
            {"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": status}]}))
        };
        short.status = pressure("True").unwrap();
        let tainted = taints(&short, at(0));
        assert_eq!(keys(tainted.clone()), ["node.kubernetes.io/disk-pressure:NoSchedule"]);
        short.spec.as_mut().unwrap().taints = tainted;
        assert_eq!(taints(&short, at(1)), None);
        short.status = pressure("False").unwrap();
        assert_eq!(taints(&short, at(2)), Some(Vec::new()));
    }

    #[test]
    fn a_recovered_node_loses_its_taints_and_a_sick_one_keeps_their_time() {
        let mut sick = node("Unknown", json!({}));
        sick.spec.as_mut().unwrap().taints = taints(&sick, at(5));
        assert_eq!(taints(&sick, at(50)), None, "the time of the taint is not renewed");
        sick.status = node("True", json!({})).status;
        assert_eq!(taints(&sick, at(60)), Some(vec![]));
    }

    #[test]
    fn a_taint_of_somebody_else_drives_pods_out_from_the_moment_it_is_seen() {
        let mut node = node("True", json!({"taints": [{"key": "mine", "effect": "NoExecute"}]}));
        node.spec.as_mut().unwrap().taints = taints(&node, at(5));
        assert_eq!(taints(&node, at(50)), None, "it is told once");
        let tolerating = pod(json!([{"key": "mine", "operator": "Exists", "tolerationSeconds": 30}]));
        assert_eq!(stay_at(20, &node, &tolerating), Stay::For(Duration::from_secs(15)));
        assert_eq!(stay_at(36, &node, &tolerating), Stay::Over);
    }

    fn stay_at(second: i64, node: &Node, pod: &Pod) -> Stay {
        let age = |since| Duration::try_from(at(second).duration_since(since)).unwrap();
        stay(&expelling(node, age), pod)
    }

    fn pod(tolerations: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {}, "spec": {"containers": [], "tolerations": tolerations}}),
        )
        .unwrap()
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates() {
        let mut gone = node("Unknown", json!({}));
        gone.spec.as_mut().unwrap().taints = taints(&gone, at(100));
        let for_seconds = |seconds: i64| json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        for (tolerations, now, expected) in [
            (json!([]), 100, Stay::Over),
            (for_seconds(300), 100, Stay::For(Duration::from_secs(300))),
            (for_seconds(300), 400, Stay::Over),
            (for_seconds(0), 100, Stay::Over),
            (json!([{"operator": "Exists"}]), 10_000, Stay::Forever),
        ] {
            assert_eq!(stay_at(now, &gone, &pod(tolerations.clone())), expected, "{tolerations}");
        }
        assert_eq!(stay(&[], &pod(json!([]))), Stay::Forever);
    }
}
