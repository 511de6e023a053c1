//! What must hold of GPUs at every moment, whoever gives them: one that a claim has is no other claim's, and no pod's that
//! asked for a number of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::history::place_of;

/// The annotation that names the GPUs of a pod.
const NAMED: &str = "clawbernetes.io/gpus";

/// Claims and pods as they are, one change after the other.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// By uid of a claim or a pod: where it is, and which it has, by names in small letters.
    held: BTreeMap<String, (String, BTreeSet<String>)>,
}

impl Devices {
    /// A claim as it is now, or is gone.
    ///
    /// # Errors
    /// When it has what somebody else has.
    pub fn claim(&mut self, claim: &Value, gone: bool) -> Result<(), String> {
        let results = claim["status"]["allocation"]["devices"]["results"].as_array();
        let names = results.into_iter().flatten().filter_map(|result| result["device"].as_str());
        self.holds(claim, names, gone)
    }

    /// A pod as it is now, or is gone. One that has ended has nothing.
    ///
    /// # Errors
    /// When it has what somebody else has.
    pub fn pod(&mut self, pod: &Value, gone: bool) -> Result<(), String> {
        let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let named = pod["metadata"]["annotations"][NAMED].as_str().unwrap_or_default();
        let names = named.split(',').filter(|name| !name.is_empty());
        self.holds(pod, names, gone || has_ended || pod["spec"]["nodeName"].is_null())
    }

    /// How many are held.
    pub fn count(&self) -> usize {
        self.held.values().map(|(_, names)| names.len()).sum()
    }

    fn holds<'a>(
        &mut self,
        object: &Value,
        names: impl Iterator<Item = &'a str>,
        nothing: bool,
    ) -> Result<(), String> {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        self.held.remove(&uid);
        if nothing {
            return Ok(());
        }
        let names: BTreeSet<String> = names.map(str::to_lowercase).collect();
        let place = place_of(object);
        for (other, theirs) in self.held.values() {
            if let Some(name) = names.intersection(theirs).next() {
                return Err(format!("{name} is given to {place}, and {other} has it"));
            }
        }
        self.held.insert(uid, (place, names));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(uid: &str, device: &str) -> Value {
        let allocation = json!({"devices": {"results": [{"device": device}]}});
        json!({"metadata": {"name": uid, "uid": uid}, "status": {"allocation": allocation}})
    }

    fn pod(uid: &str, node: Value, gpus: &str, phase: &str) -> Value {
        json!({
            "metadata": {"name": uid, "uid": uid, "annotations": {NAMED: gpus}},
            "spec": {"nodeName": node}, "status": {"phase": phase},
        })
    }

    #[test]
    fn a_gpu_that_is_given_twice_is_found() {
        let mut devices = Devices::default();
        assert!(devices.claim(&claim("a", "gpu-1"), false).is_ok());
        assert!(devices.clone().claim(&claim("b", "gpu-1"), false).is_err());
        assert!(devices.clone().pod(&pod("p", json!("n"), "GPU-2,GPU-1", ""), false).is_err());
        assert!(devices.pod(&pod("p", json!(null), "GPU-1", ""), false).is_ok(), "it is nowhere yet");
        assert!(devices.claim(&json!({"metadata": {"uid": "a"}}), false).is_ok());
        assert!(devices.pod(&pod("p", json!("n"), "GPU-2,GPU-1", ""), false).is_ok());
        assert_eq!(devices.count(), 2);
        assert!(devices.clone().claim(&claim("b", "gpu-2"), false).is_err());
        assert!(devices.pod(&pod("p", json!("n"), "GPU-2,GPU-1", "Failed"), false).is_ok());
        assert!(devices.claim(&claim("b", "gpu-2"), false).is_ok());
        assert!(devices.claim(&claim("b", "gpu-2"), true).is_ok());
        assert_eq!(devices.count(), 0);
    }
}
