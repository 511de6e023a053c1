//! Which container of which pod holds which GPU. Pure; what it says is written down by whoever asks it, before anything
//! is started.
//!
//! Invariant: at any moment a GPU is held by containers of one pod, and of these by one at a time. Init containers that
//! run to their end use what their pod's other containers use after them, as the scheduler counts.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use claw_schemas::gpu::RESOURCE;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::Inventory;
use crate::{
    pod::is_sidecar,
    runtime::machine::{limit, request},
};

/// Uuids by container.
pub type Assignment = BTreeMap<String, Vec<String>>;

/// What one container wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Which container.
    pub container: String,
    /// How many GPUs.
    pub count: usize,
    /// It is over before the next container starts.
    pub passes: bool,
}

/// Who holds what.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By pod uid.
    held: BTreeMap<String, Assignment>,
}

/// Why a pod cannot have what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// How many it wants.
    pub wanted: usize,
    /// How many nobody holds.
    pub free: usize,
    /// How many more will be free once pods that are going have gone.
    pub leaving: usize,
}

/// What the containers of a pod want, in the order in which they start. Empty for nearly all pods.
pub fn needs(spec: &PodSpec) -> Vec<Need> {
    let need = |container: &Container, passes: bool| {
        let count = count(container);
        (count > 0).then(|| Need { container: container.name.clone(), count, passes })
    };
    let init = spec.init_containers.iter().flatten().filter_map(|one| need(one, !is_sidecar(one)));
    init.chain(spec.containers.iter().filter_map(|one| need(one, false))).collect()
}

/// How many GPUs a container asks for. The API lets limits and requests of devices differ in nothing.
pub fn count(container: &Container) -> usize {
    let resources = container.resources.as_ref();
    let asked = limit(resources, RESOURCE).or_else(|| request(resources, RESOURCE));
    asked.map_or(0, |asked| usize::try_from(asked.units()).unwrap_or(usize::MAX))
}

impl Ledger {
    /// What the containers of a pod hold.
    pub fn of(&self, pod_uid: &str) -> Option<&Assignment> {
        self.held.get(pod_uid)
    }

    /// Takes over what was written down earlier.
    pub fn adopt(&mut self, pod_uid: &str, assignment: Assignment) {
        self.held.insert(pod_uid.to_owned(), assignment);
    }

    /// The pod holds nothing any more.
    pub fn free(&mut self, pod_uid: &str) {
        self.held.remove(pod_uid);
    }

    /// Gives a pod all that it wants, or nothing. `going` are pods that will soon hold nothing.
    ///
    /// # Errors
    /// When fewer are free than it wants.
    pub fn assign(
        &mut self,
        pod_uid: &str,
        needs: &[Need],
        inventory: &Inventory,
        going: &HashSet<String>,
    ) -> Result<Assignment, Shortage> {
        let taken: BTreeSet<&str> = self.uuids(|uid| uid != pod_uid).collect();
        let free: Vec<&str> =
            inventory.offered().map(|gpu| gpu.uuid.as_str()).filter(|uuid| !taken.contains(uuid)).collect();
        let (assignment, wanted) = share_out(needs, &free);
        if wanted > free.len() {
            let offered: BTreeSet<&str> = inventory.offered().map(|gpu| gpu.uuid.as_str()).collect();
            let leaving = self
                .uuids(|uid| uid != pod_uid && going.contains(uid))
                .filter(|uuid| offered.contains(uuid))
                .count();
            return Err(Shortage { wanted, free: free.len(), leaving });
        }
        self.held.insert(pod_uid.to_owned(), assignment.clone());
        Ok(assignment)
    }

    /// What pods of some uids hold, each GPU once.
    fn uuids<'a>(&'a self, of: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = &'a str> {
        let held = self.held.iter().filter(move |(uid, _)| of(uid));
        let uuids: BTreeSet<&str> =
            held.flat_map(|(_, assignment)| assignment.values().flatten()).map(String::as_str).collect();
        uuids.into_iter()
    }
}

/// Goes through the containers as they start: each takes the first GPUs that none holds who runs beside it. Gives also
/// how many it takes in all, which may be more than there are.
fn share_out(needs: &[Need], free: &[&str]) -> (Assignment, usize) {
    let (mut assignment, mut held, mut most) = (Assignment::new(), 0_usize, 0_usize);
    for need in needs {
        let end = held.saturating_add(need.count);
        let uuids = free.iter().skip(held).take(need.count).map(|uuid| (*uuid).to_owned());
        assignment.insert(need.container.clone(), uuids.collect());
        most = most.max(end);
        if !need.passes {
            held = end;
        }
    }
    (assignment, most)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gpu::Gpu;

    fn machine(uuids: &[&str]) -> Inventory {
        let gpu = |uuid: &&str| Gpu { uuid: (*uuid).to_owned(), ..Gpu::default() };
        Inventory { gpus: uuids.iter().map(gpu).collect(), ..Inventory::default() }
    }

    fn needs_of(spec: serde_json::Value) -> Vec<Need> {
        needs(&serde_json::from_value(spec).unwrap())
    }

    fn wants(name: &str, count: &str) -> serde_json::Value {
        json!({"name": name, "resources": {"limits": {RESOURCE: count}}})
    }

    fn nobody() -> HashSet<String> {
        HashSet::new()
    }

    #[test]
    fn no_gpu_is_given_twice_and_all_come_back() {
        let (mut ledger, machine) = (Ledger::default(), machine(&["a", "b", "c"]));
        let two = needs_of(json!({"containers": [wants("x", "1"), {"name": "plain"}, wants("y", "1")]}));
        let first = ledger.assign("p", &two, &machine, &nobody()).unwrap();
        assert_eq!(first, Assignment::from([("x".into(), vec!["a".into()]), ("y".into(), vec!["b".into()])]));
        let shortage = ledger.assign("q", &two, &machine, &nobody()).unwrap_err();
        assert_eq!(shortage, Shortage { wanted: 2, free: 1, leaving: 0 });
        assert_eq!(ledger.of("q"), None, "all or nothing");
        let shortage = ledger.assign("q", &two, &machine, &HashSet::from(["p".to_owned()])).unwrap_err();
        assert_eq!(shortage.leaving, 2);
        ledger.free("p");
        assert_eq!(ledger.assign("q", &two, &machine, &nobody()).unwrap()["x"], ["a"]);
    }

    #[test]
    fn who_asks_again_keeps_to_what_is_there() {
        let (mut ledger, machine) = (Ledger::default(), machine(&["a", "b"]));
        let one = needs_of(json!({"containers": [wants("x", "1")]}));
        ledger.adopt("old", Assignment::from([("x".to_owned(), vec!["a".to_owned()])]));
        assert_eq!(ledger.assign("new", &one, &machine, &nobody()).unwrap()["x"], ["b"]);
    }

    #[test]
    fn what_is_withheld_is_given_to_nobody() {
        let mut machine = machine(&["a", "b"]);
        machine.gpus[0].withheld = Some("broken".to_owned());
        let two = needs_of(json!({"containers": [wants("x", "2")]}));
        let mut ledger = Ledger::default();
        let shortage = ledger.assign("p", &two, &machine, &nobody()).unwrap_err();
        assert_eq!(shortage, Shortage { wanted: 2, free: 1, leaving: 0 });
        // A pod that goes frees nothing that could be given on.
        ledger.adopt("old", Assignment::from([("x".to_owned(), vec!["a".to_owned()])]));
        let going = HashSet::from(["old".to_owned()]);
        assert_eq!(ledger.assign("p", &two, &machine, &going).unwrap_err().leaving, 0);
    }

    #[test]
    fn init_containers_use_what_comes_after_them_and_sidecars_keep_theirs() {
        let mut sidecar = wants("side", "1");
        sidecar["restartPolicy"] = "Always".into();
        let needs = needs_of(json!({
            "initContainers": [wants("first", "2"), sidecar, wants("second", "1")],
            "containers": [wants("main", "1")],
        }));
        let all = Ledger::default().assign("p", &needs, &machine(&["a", "b"]), &nobody()).unwrap();
        assert_eq!(all["first"], ["a", "b"]);
        assert_eq!(
            (&all["side"][..], &all["second"][..], &all["main"][..]),
            (&["a".to_owned()][..], &["b".to_owned()][..], &["b".to_owned()][..])
        );
        let shortage = Ledger::default().assign("p", &needs, &machine(&["a"]), &nobody()).unwrap_err();
        assert_eq!(shortage.wanted, 2, "as the scheduler counts");
    }

    #[test]
    fn a_pod_that_asks_for_none_needs_none() {
        assert_eq!(needs_of(json!({"containers": [{"name": "x"}, wants("y", "0")]})), []);
    }
}
