//! Which nodes may hold a pod, and for those that may not, why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

use super::{
    amounts::PODS,
    model::{NodeInfo, PodInfo},
};

/// Why one node may not hold a pod. Worded as kube-scheduler words it, because people search for these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    Cordoned,
    Taint(String),
    Selector,
    HostPort,
    Insufficient(Arc<str>),
    /// There would be more of what it asks for by number, but for a taint of devices.
    DeviceTaint(String),
    /// What its claims ask for is not to be had.
    Claims(String),
}

/// What stands between the pod and a node, beside what is told here.
pub type Beside<'a> = &'a dyn Fn(&NodeInfo) -> Option<Obstacle>;

impl Obstacle {
    fn describe(&self) -> String {
        match self {
            Self::Cordoned => "node(s) were unschedulable".to_owned(),
            Self::Taint(taint) => format!("node(s) had untolerated taint {{{taint}}}"),
            Self::Selector => "node(s) didn't match Pod's node affinity/selector".to_owned(),
            Self::HostPort => "node(s) didn't have free ports for the requested pod ports".to_owned(),
            Self::Insufficient(resource) if &**resource == PODS => "Too many pods".to_owned(),
            Self::Insufficient(resource) => format!("Insufficient {resource}"),
            Self::DeviceTaint(taint) => format!("node(s) had untolerated device taint {taint}"),
            Self::Claims(why) => why.clone(),
        }
    }
}

/// Whether nothing stands between a pod and a node.
pub fn fits(pod: &PodInfo, node: &NodeInfo) -> bool {
    node.lacks(pod).next().is_none() && barrier(pod, node).is_none()
}

/// What stands between a pod and a node; empty when it fits. Lists every lacking resource, else the first obstacle.
fn obstacles(pod: &PodInfo, node: &NodeInfo, beside: Beside<'_>) -> Vec<Obstacle> {
    if let Some(barrier) = barrier(pod, node) {
        return vec![barrier];
    }
    let lacks: Vec<_> = node.lacks(pod).map(|resource| Obstacle::Insufficient(resource.into())).collect();
    if lacks.is_empty() {
        return beside(node).into_iter().collect();
    }
    let taints: BTreeSet<&str> = node.lacks(pod).flat_map(|resource| node.taints_of(resource)).collect();
    let taints = taints.into_iter().map(|taint| Obstacle::DeviceTaint(taint.to_owned()));
    lacks.into_iter().chain(taints).collect()
}

/// The first obstacle that no amount of room would remove.
fn barrier(pod: &PodInfo, node: &NodeInfo) -> Option<Obstacle> {
    if node.unschedulable && !tolerates_cordon(pod) {
        return Some(Obstacle::Cordoned);
    }
    if let Some(taint) = untolerated(&pod.tolerations, &node.taints) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(Obstacle::Taint(format!("{}: {value}", taint.key)));
    }
    let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = pod.required_terms.is_empty() || pod.required_terms.iter().any(|term| matches(term, node));
    if !selected || !required {
        return Some(Obstacle::Selector);
    }
    let taken = pod.host_ports.iter().any(|port| node.host_ports.contains_key(port));
    taken.then_some(Obstacle::HostPort)
}

fn tolerates_cordon(pod: &PodInfo) -> bool {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    pod.tolerations.iter().any(|toleration| tolerates(toleration, &cordon))
}

/// The first taint that keeps new pods away and is not tolerated.
fn untolerated<'a>(tolerations: &[Toleration], taints: &'a [Taint]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute")
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether a toleration covers a taint (Kubernetes "Taints and Tolerations").
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let effect_fits =
        toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == taint.effect);
    let key_fits = if key.is_empty() { exists } else { key == taint.key };
    let value_fits = exists
        || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    effect_fits && key_fits && value_fits
}

/// Whether a node satisfies a node selector term. A term without any requirement matches nothing.
pub fn matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let (labels, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    if labels.clone().next().is_none() && fields.clone().next().is_none() {
        return false;
    }
    labels
        .into_iter()
        .all(|requirement| holds(requirement, node.labels.get(&requirement.key).map(String::as_str)))
        && fields.into_iter().all(|requirement| {
            holds(requirement, (requirement.key == "metadata.name").then_some(&*node.name))
        })
}

fn holds(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || found.is_some_and(|found| values.iter().any(|value| value == found));
    let compared = |above: bool| {
        let (found, bound) =
            (found.and_then(|v| v.parse::<i64>().ok()), values.first().and_then(|v| v.parse().ok()));
        found.zip(bound).is_some_and(|(found, bound)| if above { found > bound } else { found < bound })
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared(true),
        "Lt" => compared(false),
        _ => false,
    }
}

/// One sentence that says why no node will do: counts by obstacle, the nearest miss, and whether waiting helps.
pub fn explain<'a>(
    pod: &PodInfo,
    nodes: impl Iterator<Item = &'a NodeInfo> + Clone,
    beside: Beside<'_>,
) -> String {
    let total = nodes.clone().count();
    if total == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut counts: BTreeMap<Obstacle, usize> = BTreeMap::new();
    for obstacle in nodes.clone().flat_map(|node| obstacles(pod, node, beside)) {
        *counts.entry(obstacle).or_default() += 1;
    }
    let counted: Vec<String> =
        counts.iter().map(|(obstacle, count)| format!("{count} {}", obstacle.describe())).collect();
    let mut message = format!("0/{total} nodes are available: {}.", counted.join(", "));
    // A near miss invites to wait, which is of no use when no node could ever do.
    if let Some(hint) = impossible(pod, nodes.clone()).or_else(|| nearest_miss(pod, nodes, beside)) {
        let _ = write!(message, " {hint}");
    }
    message
}

/// The node that lacks least, if some node lacks only resources.
fn nearest_miss<'a>(
    pod: &PodInfo,
    nodes: impl Iterator<Item = &'a NodeInfo>,
    beside: Beside<'_>,
) -> Option<String> {
    let lacking = |node: &'a NodeInfo| {
        let all = obstacles(pod, node, beside);
        let short: Vec<(Arc<str>, i64)> = all
            .iter()
            .filter_map(|obstacle| match obstacle {
                Obstacle::Insufficient(resource) => Some(resource.clone()),
                _ => None,
            })
            .map(|resource| {
                let gap = pod.requests.get(&resource) - node.free(&resource);
                (resource, gap)
            })
            .collect();
        (short.len() == all.len() && !short.is_empty()).then_some((node, short))
    };
    let (node, short) = nodes.filter_map(lacking).min_by_key(|(node, short)| {
        // Shares of the request, in thousandths, so that cores and bytes compare.
        let share: i64 = short
            .iter()
            .map(|(resource, gap)| gap.saturating_mul(1000) / pod.requests.get(resource).max(1))
            .sum();
        (short.len(), share, node.name.clone())
    })?;
    let gaps: Vec<String> = short.iter().map(|(resource, gap)| amount(resource, *gap)).collect();
    Some(format!("Nearest miss: {} lacks {}.", node.name, gaps.join(" and ")))
}

/// A resource that even an empty cluster could not give.
fn impossible<'a>(pod: &PodInfo, nodes: impl Iterator<Item = &'a NodeInfo> + Clone) -> Option<String> {
    pod.requests.iter().find_map(|(resource, wanted)| {
        let largest = nodes.clone().map(|node| node.allocatable.get(resource)).max().unwrap_or(0);
        let told = if largest == 0 {
            format!("No node offers {resource}.")
        } else {
            let (wanted, largest) = (amount(resource, wanted), amount(resource, largest));
            format!("No node is large enough: {wanted} requested, the largest has {largest}.")
        };
        (wanted > largest).then_some(told)
    })
}

/// `2 nvidia.com/gpu`, `500m cpu`, `512Mi memory`.
fn amount(resource: &str, amount: i64) -> String {
    const MEBIBYTE: i64 = 1 << 20;
    match resource {
        "cpu" if amount % 1000 == 0 => format!("{} cpu", amount / 1000),
        "cpu" => format!("{amount}m cpu"),
        "memory" | "ephemeral-storage" if amount >= MEBIBYTE => {
            format!("{}Mi {resource}", amount.div_euclid(MEBIBYTE) + i64::from(amount % MEBIBYTE != 0))
        }
        _ => format!("{amount} {resource}"),
    }
}
