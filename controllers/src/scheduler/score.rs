//! Which of the nodes that may hold a pod should.
//!
//! Pods that take whole devices are packed, so that nodes with many free devices stay whole for large jobs.
//! All others are spread over free cores and memory, and away from replicas of the same owner.

use super::{
    filter::{matches, tolerates},
    model::{NodeInfo, PodInfo},
};

/// Full marks of one criterion; criteria are weighed by powers that keep their order of importance.
const FULL: i64 = 100;

/// Larger is better. Integers only, so that equal clusters decide equally.
pub fn score(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let replicas = pod.owner.as_ref().and_then(|owner| node.owners.get(owner)).copied().unwrap_or(0);
    let spread = FULL / (1 + i64::from(replicas));
    let plain = pod.devices.is_empty();
    let fill = if plain {
        FULL - load_after(pod, node, ["cpu", "memory"].into_iter())
    } else {
        load_after(pod, node, pod.devices.iter().map(AsRef::as_ref))
    };
    // A replica beside its twin costs more than any difference in load, but whole devices matter more still.
    let (spread_weight, fill_weight) = if plain { (4, 2) } else { (1, 8) };
    // A pod without devices stays off the nodes that have them, where others will do.
    let wasteful = plain && node.has_devices;
    spread * spread_weight + fill * fill_weight + preference(pod, node) - i64::from(wasteful) * 3 * FULL
}

/// Percent of the node's resources taken once the pod is on it, averaged.
fn load_after<'a>(pod: &PodInfo, node: &NodeInfo, resources: impl ExactSizeIterator<Item = &'a str>) -> i64 {
    let count = i64::try_from(resources.len()).unwrap_or(1).max(1);
    let percent = |resource| {
        let total = node.allocatable.get(resource).max(1);
        let taken = node.used.get(resource) + pod.requests.get(resource);
        (taken.saturating_mul(FULL) / total).clamp(0, FULL)
    };
    resources.map(percent).sum::<i64>() / count
}

/// Preferred node affinity adds its weights (1 to 100 each); soft taints cost full marks each.
fn preference(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let wanted: i64 = pod
        .preferred_terms
        .iter()
        .filter(|term| matches(&term.preference, node))
        .map(|term| i64::from(term.weight))
        .sum();
    let unwelcome = node
        .taints
        .iter()
        .filter(|taint| taint.effect == "PreferNoSchedule")
        .filter(|taint| !pod.tolerations.iter().any(|toleration| tolerates(toleration, taint)))
        .count();
    wanted * 2 - i64::try_from(unwelcome).unwrap_or(0) * FULL
}
