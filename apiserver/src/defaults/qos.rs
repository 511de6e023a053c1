//! The quality-of-service class of a pod.
//!
//! Source: "Pod Quality of Service Classes" in the Kubernetes documentation. Only cpu and memory count.

use claw_schemas::quantity::Quantity;
use serde_json::Value;

use super::Object;

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed` when every container limits cpu and memory to what it requests, `BestEffort` when none says
/// anything, else `Burstable`.
pub(super) fn class(pod: &Object) -> &'static str {
    let containers = ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| pod.get(list)?.as_array())
        .flatten()
        .collect::<Vec<_>>();
    let silent = |container: &&Value| {
        COUNTED
            .iter()
            .all(|name| amount(container, "requests", name).or(amount(container, "limits", name)).is_none())
    };
    let guaranteed = |container: &&Value| {
        COUNTED.iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some()
                && amount(container, "requests", name).is_none_or(|request| Some(request) == limit)
        })
    };
    if containers.iter().all(silent) {
        "BestEffort"
    } else if containers.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// A positive amount; zero counts as none.
fn amount(container: &Value, list: &str, name: &str) -> Option<Quantity> {
    container["resources"][list][name].as_str()?.parse().ok().filter(|amount| *amount > Quantity::default())
}
