//! What must hold of pods and nodes at every moment, whoever schedules: a pod is bound once and stays where it is, and
//! what is bound to a node never asks for more of a resource than the node has.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::history::place_of;

/// Pods and nodes as they are, one change after the other.
#[derive(Clone, Debug, Default)]
pub struct Books {
    resource: &'static str,
    /// How much of the resource a node has, by name.
    has: BTreeMap<String, u64>,
    /// Where a pod is and how much it takes, by uid. Those that have ended take nothing.
    takes: BTreeMap<String, (String, u64)>,
}

impl Books {
    /// Of one countable resource, such as GPUs.
    pub fn of(resource: &'static str) -> Self {
        Self { resource, ..Self::default() }
    }

    /// A node as it is now; one that is gone keeps what it had, for pods that are still told to be there.
    pub fn node(&mut self, node: &Value) {
        let amount = amount(&node["status"]["allocatable"][self.resource]);
        self.has.insert(node["metadata"]["name"].as_str().unwrap_or_default().to_owned(), amount);
    }

    /// A pod as it is now, or is gone.
    ///
    /// # Errors
    /// When it has moved, or its node has less than its pods take.
    pub fn pod(&mut self, pod: &Value, gone: bool) -> Result<(), String> {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        let before = self.takes.get(&uid).map(|(node, _)| node.clone()).unwrap_or_default();
        if !before.is_empty() && before != node {
            return Err(format!("{} was bound to {before}, and is now bound to {node:?}", place_of(pod)));
        }
        if gone {
            self.takes.remove(&uid);
            return Ok(());
        }
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let takes = if ended { 0 } else { self.asks_for(pod) };
        self.takes.insert(uid, (node.clone(), takes));
        self.fits(&node, pod)
    }

    fn fits(&self, node: &str, pod: &Value) -> Result<(), String> {
        let Some(has) = self.has.get(node) else { return Ok(()) };
        let taken: u64 = self.takes.values().filter(|(at, _)| at == node).map(|(_, takes)| takes).sum();
        if taken <= *has {
            return Ok(());
        }
        let (pod, resource) = (place_of(pod), self.resource);
        Err(format!("{node} has {has} of {resource}, and with {pod} its pods take {taken}"))
    }

    fn asks_for(&self, pod: &Value) -> u64 {
        let containers = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
        containers.iter().map(|container| amount(&container["resources"]["requests"][self.resource])).sum()
    }
}

fn amount(quantity: &Value) -> u64 {
    quantity.as_str().and_then(|text| text.parse().ok()).or_else(|| quantity.as_u64()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GPU: &str = "example.com/gpu";

    fn pod(uid: &str, node: &str, gpus: &str, phase: &str) -> Value {
        json!({
            "metadata": {"name": uid, "uid": uid},
            "spec": {"nodeName": node, "containers": [{"resources": {"requests": {GPU: gpus}}}]},
            "status": {"phase": phase},
        })
    }

    fn books() -> Books {
        let mut books = Books::of(GPU);
        books.node(&json!({"metadata": {"name": "n"}, "status": {"allocatable": {GPU: "2"}}}));
        books
    }

    #[test]
    fn a_node_that_is_full_takes_no_more_until_a_pod_ends_or_goes() {
        let mut books = books();
        assert!(books.pod(&pod("a", "n", "1", ""), false).is_ok());
        assert!(books.pod(&pod("b", "n", "1", ""), false).is_ok());
        assert!(books.clone().pod(&pod("c", "n", "1", ""), false).is_err());
        assert!(books.pod(&pod("a", "n", "1", "Succeeded"), false).is_ok());
        assert!(books.pod(&pod("c", "n", "1", ""), false).is_ok());
        assert!(books.pod(&pod("b", "n", "1", ""), true).is_ok());
        assert!(books.pod(&pod("d", "n", "1", ""), false).is_ok());
    }

    #[test]
    fn a_pod_that_moves_is_found() {
        let mut books = books();
        assert!(books.pod(&pod("a", "", "1", ""), false).is_ok());
        assert!(books.pod(&pod("a", "n", "1", ""), false).is_ok());
        assert!(books.pod(&pod("a", "m", "1", ""), false).is_err());
    }
}
