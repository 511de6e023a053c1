//! Which container of which pod holds which GPU. Pure; what it says is written down by whoever asks it, before anything
//! is started.
//!
//! A pod asks for GPUs by number, by claim, or both. Which GPUs a claim has, its allocation says; which of a number, the
//! scheduler says with the binding, and where it does not they are chosen here.
//!
//! Invariant: at any moment a GPU is held by containers of one pod, and of these by one at a time; or by the pods that share
//! one claim. Init containers that run to their end use what their pod's other containers use after them, as the scheduler
//! counts.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use claw_schemas::gpu::is_resource;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde::{Deserialize, Serialize};

use super::{Gpu, Inventory, inventory::whole};
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
    /// Of what: whole GPUs, instances of a profile.
    pub resource: String,
    /// How many.
    pub count: usize,
    /// It is over before the next container starts.
    pub passes: bool,
}

/// What a pod holds of one claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldClaim {
    /// What the pod calls it.
    pub name: String,
    /// Uid of the claim.
    pub uid: String,
    /// `NAMESPACE/NAME`
    #[serde(default)]
    pub place: String,
    /// Its devices on this machine.
    pub devices: Vec<ClaimedDevice>,
}

/// One device of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedDevice {
    /// What the claim asked for it by: `gpus`, `gpus/large`.
    pub request: String,
    /// `DRIVER/POOL/DEVICE`
    pub id: String,
    /// Which GPU it is.
    pub uuid: String,
    /// The GPU had a fault when it was given, and the claim tolerates that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub puts_up: bool,
}

/// What a pod wants.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// By number, in the order in which containers start.
    pub needs: Vec<Need>,
    /// Which the scheduler named for these; may be empty.
    pub named: Vec<String>,
    /// By claim.
    pub claims: Vec<HeldClaim>,
}

/// What a pod holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Of what it asked for by number.
    pub counted: Assignment,
    /// By claim.
    pub claims: Vec<HeldClaim>,
}

/// Who holds what.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By pod uid.
    held: BTreeMap<String, Held>,
}

/// Why a pod cannot have what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Fewer are free than it wants by number.
    Few(Shortage),
    /// One that it was given by name is somebody else's for now.
    Busy(String),
    /// One that its claim was given is not offered.
    NotOffered(String),
    /// A container wants so many turns on shared GPUs, of which each may have one.
    Greedy(String, usize),
}

/// Too few GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Of what.
    pub resource: String,
    /// How many it wants.
    pub wanted: usize,
    /// How many nobody holds.
    pub free: usize,
    /// How many more will be free once pods that are going have gone.
    pub leaving: usize,
}

/// What the containers of a pod want, in the order in which they start. Empty for nearly all pods.
pub fn needs(spec: &PodSpec) -> Vec<Need> {
    let of = |container: &Container, passes: bool| -> Vec<Need> {
        let need = |(resource, count)| Need { container: container.name.clone(), resource, count, passes };
        counts(container).into_iter().map(need).collect()
    };
    let init = spec.init_containers.iter().flatten().flat_map(|one| of(one, !is_sidecar(one)));
    init.chain(spec.containers.iter().flat_map(|one| of(one, false))).collect()
}

/// How many GPUs of which kind a container asks for. The API lets limits and requests of devices differ in nothing.
pub fn counts(container: &Container) -> BTreeMap<String, usize> {
    let resources = container.resources.as_ref();
    let lists = resources.iter().flat_map(|resources| [&resources.limits, &resources.requests]);
    let names = lists.flatten().flat_map(BTreeMap::keys).filter(|name| is_resource(name));
    let asked = |name: &String| limit(resources, name).or_else(|| request(resources, name));
    let count = |name: &String| asked(name).map(|asked| usize::try_from(asked.units()).unwrap_or(usize::MAX));
    let all = names.filter_map(|name| Some((name.clone(), count(name)?)));
    all.filter(|(_, count)| *count > 0).collect()
}

/// The devices that a container may use of its pod's claims.
pub fn claimed<'a>(
    claims: &'a [HeldClaim],
    container: &'a Container,
) -> impl Iterator<Item = (&'a HeldClaim, &'a ClaimedDevice)> {
    let asked = container.resources.iter().flat_map(|resources| resources.claims.iter().flatten());
    let of = move |claim: &'a HeldClaim, request: Option<&'a str>| {
        let request = request.filter(|request| !request.is_empty());
        let is_meant = move |device: &&ClaimedDevice| {
            let rest = request.map(|request| device.request.strip_prefix(request));
            rest.is_none_or(|rest| rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        claim.devices.iter().filter(is_meant).map(move |device| (claim, device))
    };
    asked.flat_map(move |one| {
        let named = claims.iter().filter(move |claim| claim.name == one.name);
        named.flat_map(move |claim| of(claim, one.request.as_deref()))
    })
}

impl Held {
    /// Every GPU in it, and of which claim.
    fn uuids(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let counted = self.counted.values().flatten().map(|uuid| (uuid.as_str(), None));
        let claimed = self.claims.iter().flat_map(|claim| {
            claim.devices.iter().map(move |device| (device.uuid.as_str(), Some(claim.uid.as_str())))
        });
        counted.chain(claimed)
    }
}

impl Ledger {
    /// What the containers of a pod hold.
    pub fn of(&self, pod_uid: &str) -> Option<&Held> {
        self.held.get(pod_uid)
    }

    /// All claims that pods here hold, each once.
    pub fn claims(&self) -> Vec<HeldClaim> {
        let all = self.held.values().flat_map(|held| &held.claims);
        let by_uid: BTreeMap<&str, &HeldClaim> = all.map(|claim| (claim.uid.as_str(), claim)).collect();
        by_uid.into_values().cloned().collect()
    }

    /// Takes over what was written down earlier.
    pub fn adopt(&mut self, pod_uid: &str, held: Held) {
        self.held.insert(pod_uid.to_owned(), held);
    }

    /// The pod holds nothing any more.
    pub fn free(&mut self, pod_uid: &str) {
        self.held.remove(pod_uid);
    }

    /// Gives a pod all that it wants, or nothing. `going` are pods that will soon hold nothing.
    ///
    /// # Errors
    /// When it cannot have all.
    pub fn assign(
        &mut self,
        pod_uid: &str,
        wish: &Wish,
        inventory: &Inventory,
        going: &HashSet<String>,
    ) -> Result<Held, Obstacle> {
        let offered: BTreeSet<&str> = inventory.offered().map(|gpu| gpu.uuid.as_str()).collect();
        let mut own = BTreeSet::new();
        for claim in &wish.claims {
            for ClaimedDevice { uuid, puts_up, .. } in &claim.devices {
                if !offered.contains(uuid.as_str()) && !puts_up {
                    return Err(Obstacle::NotOffered(uuid.clone()));
                }
                if self.is_taken(uuid, pod_uid, Some(&claim.uid)) {
                    return Err(Obstacle::Busy(uuid.clone()));
                }
                own.insert(uuid.as_str());
            }
        }
        let mut counted = Assignment::new();
        let resources: BTreeSet<&str> = wish.needs.iter().map(|need| need.resource.as_str()).collect();
        for resource in resources {
            for (container, uuids) in self.assign_of(resource, pod_uid, wish, inventory, going, &own)? {
                counted.entry(container).or_default().extend(uuids);
            }
        }
        let held = Held { counted, claims: wish.claims.clone() };
        self.held.insert(pod_uid.to_owned(), held.clone());
        Ok(held)
    }

    /// What a pod can have of one kind. `own` are those that it has by claims.
    fn assign_of(
        &self,
        resource: &str,
        pod_uid: &str,
        wish: &Wish,
        inventory: &Inventory,
        going: &HashSet<String>,
        own: &BTreeSet<&str>,
    ) -> Result<Assignment, Obstacle> {
        let needs: Vec<&Need> = wish.needs.iter().filter(|need| need.resource == resource).collect();
        let gpus: Vec<&Gpu> = inventory.offered().filter(|gpu| gpu.resource() == resource).collect();
        let is_one_each = gpus.iter().any(|gpu| gpu.shared.as_ref().is_some_and(|shared| shared.one_each));
        if let Some(greedy) = needs.iter().find(|need| is_one_each && need.count > 1) {
            return Err(Obstacle::Greedy(resource.to_owned(), greedy.count));
        }
        let offered: Vec<String> = gpus.iter().flat_map(|gpu| gpu.ids()).collect();
        let others: BTreeSet<&str> = self.uuids(|uid| uid != pod_uid).collect();
        let turns = |id: &str| others.iter().filter(|other| whole(other) == whole(id)).count();
        let is_free = |id: &&str| {
            // One that is given out whole is nobody's even in part; of one that is shared, nobody has all.
            let is_taken = if whole(id) == *id { turns(id) > 0 } else { others.contains(whole(id)) };
            !is_taken && !others.contains(id) && !own.contains(whole(id))
        };
        let mut free: Vec<&str> = offered.iter().map(String::as_str).filter(is_free).collect();
        // The GPU with the fewest guests first.
        free.sort_by_key(|id| turns(id));
        let (_, wanted) = share_out(&needs, &free);
        let leaving: BTreeSet<&str> = self.uuids(|uid| uid != pod_uid && going.contains(uid)).collect();
        if let Some(uuid) = wish.named.iter().find(|uuid| leaving.contains(uuid.as_str())) {
            return Err(Obstacle::Busy(uuid.clone()));
        }
        if wanted > free.len() {
            let leaving = offered.iter().filter(|id| leaving.contains(id.as_str())).count();
            let (resource, free) = (resource.to_owned(), free.len());
            return Err(Obstacle::Few(Shortage { resource, wanted, free, leaving }));
        }
        // Those that were named come first; where one of them is not free any more, another takes its place.
        free.sort_by_key(|uuid| !wish.named.iter().any(|named| named == uuid));
        Ok(share_out(&needs, &free).0)
    }

    /// Whether another pod holds a GPU, and not as one that shares the claim.
    fn is_taken(&self, uuid: &str, pod_uid: &str, claim_uid: Option<&str>) -> bool {
        let others = self.held.iter().filter(|(uid, _)| *uid != pod_uid);
        let mut held = others.flat_map(|(_, held)| held.uuids());
        held.any(|(other, claim)| whole(other) == uuid && (claim.is_none() || claim != claim_uid))
    }

    /// What pods of some uids hold, each GPU once.
    fn uuids<'a>(&'a self, of: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = &'a str> {
        let held = self.held.iter().filter(move |(uid, _)| of(uid));
        let uuids: BTreeSet<&str> = held.flat_map(|(_, held)| held.uuids().map(|(uuid, _)| uuid)).collect();
        uuids.into_iter()
    }
}

/// Goes through the containers as they start: each takes the first GPUs that none holds who runs beside it. Gives also
/// how many it takes in all, which may be more than there are.
fn share_out(needs: &[&Need], free: &[&str]) -> (Assignment, usize) {
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
    use claw_schemas::gpu::RESOURCE;
    use serde_json::json;

    use super::*;
    use crate::gpu::{Gpu, inventory::Part};

    fn machine(uuids: &[&str]) -> Inventory {
        let gpu = |uuid: &&str| Gpu { uuid: (*uuid).to_owned(), ..Gpu::default() };
        Inventory { gpus: uuids.iter().map(gpu).collect(), ..Inventory::default() }
    }

    fn needs_of(spec: serde_json::Value) -> Vec<Need> {
        needs(&serde_json::from_value(spec).unwrap())
    }

    fn wish_of(spec: serde_json::Value) -> Wish {
        Wish { needs: needs_of(spec), ..Wish::default() }
    }

    fn claim(uid: &str, uuids: &[&str]) -> HeldClaim {
        let device = |uuid: &&str| ClaimedDevice {
            request: "gpu".to_owned(),
            id: format!("d/n/{uuid}"),
            uuid: (*uuid).to_owned(),
            puts_up: false,
        };
        HeldClaim {
            name: "c".to_owned(),
            uid: uid.to_owned(),
            place: "d/c".to_owned(),
            devices: uuids.iter().map(device).collect(),
        }
    }

    fn few(wanted: usize, free: usize, leaving: usize) -> Obstacle {
        Obstacle::Few(Shortage { resource: RESOURCE.to_owned(), wanted, free, leaving })
    }

    fn counted(container: &str, uuid: &str) -> Held {
        Held {
            counted: Assignment::from([(container.to_owned(), vec![uuid.to_owned()])]),
            claims: Vec::new(),
        }
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
        let two = wish_of(json!({"containers": [wants("x", "1"), {"name": "plain"}, wants("y", "1")]}));
        let first = ledger.assign("p", &two, &machine, &nobody()).unwrap().counted;
        assert_eq!(first, Assignment::from([("x".into(), vec!["a".into()]), ("y".into(), vec!["b".into()])]));
        let shortage = ledger.assign("q", &two, &machine, &nobody()).unwrap_err();
        assert_eq!(shortage, few(2, 1, 0));
        assert_eq!(ledger.of("q"), None, "all or nothing");
        let shortage = ledger.assign("q", &two, &machine, &HashSet::from(["p".to_owned()])).unwrap_err();
        assert_eq!(shortage, few(2, 1, 2));
        ledger.free("p");
        assert_eq!(ledger.assign("q", &two, &machine, &nobody()).unwrap().counted["x"], ["a"]);
    }

    #[test]
    fn who_asks_again_keeps_to_what_is_there() {
        let (mut ledger, machine) = (Ledger::default(), machine(&["a", "b"]));
        let one = wish_of(json!({"containers": [wants("x", "1")]}));
        ledger.adopt("old", counted("x", "a"));
        assert_eq!(ledger.assign("new", &one, &machine, &nobody()).unwrap().counted["x"], ["b"]);
    }

    #[test]
    fn what_is_withheld_is_given_to_nobody() {
        let mut machine = machine(&["a", "b"]);
        machine.gpus[0].withheld = Some("broken".to_owned());
        let two = wish_of(json!({"containers": [wants("x", "2")]}));
        let mut ledger = Ledger::default();
        let shortage = ledger.assign("p", &two, &machine, &nobody()).unwrap_err();
        assert_eq!(shortage, few(2, 1, 0));
        // A pod that goes frees nothing that could be given on.
        ledger.adopt("old", counted("x", "a"));
        let going = HashSet::from(["old".to_owned()]);
        assert_eq!(ledger.assign("p", &two, &machine, &going).unwrap_err(), few(2, 1, 0));
    }

    #[test]
    fn init_containers_use_what_comes_after_them_and_sidecars_keep_theirs() {
        let mut sidecar = wants("side", "1");
        sidecar["restartPolicy"] = "Always".into();
        let needs = wish_of(json!({
            "initContainers": [wants("first", "2"), sidecar, wants("second", "1")],
            "containers": [wants("main", "1")],
        }));
        let all = Ledger::default().assign("p", &needs, &machine(&["a", "b"]), &nobody()).unwrap().counted;
        assert_eq!(all["first"], ["a", "b"]);
        assert_eq!(
            (&all["side"][..], &all["second"][..], &all["main"][..]),
            (&["a".to_owned()][..], &["b".to_owned()][..], &["b".to_owned()][..])
        );
        let shortage = Ledger::default().assign("p", &needs, &machine(&["a"]), &nobody()).unwrap_err();
        assert_eq!(shortage, few(2, 1, 0), "as the scheduler counts");
    }

    #[test]
    fn a_pod_that_asks_for_none_needs_none() {
        assert_eq!(needs_of(json!({"containers": [{"name": "x"}, wants("y", "0")]})), []);
    }

    #[test]
    fn the_gpus_that_were_named_are_taken_unless_they_are_somebody_elses() {
        let (mut ledger, machine) = (Ledger::default(), machine(&["a", "b", "c"]));
        let one = |named: &str| Wish {
            named: vec![named.to_owned()],
            ..wish_of(json!({"containers": [wants("x", "1")]}))
        };
        assert_eq!(ledger.assign("p", &one("b"), &machine, &nobody()).unwrap(), counted("x", "b"));
        assert_eq!(ledger.assign("q", &one("b"), &machine, &nobody()).unwrap(), counted("x", "a"));
        let going = HashSet::from(["p".to_owned()]);
        let waits = ledger.assign("r", &one("b"), &machine, &going).unwrap_err();
        assert_eq!(waits, Obstacle::Busy("b".to_owned()), "it will be free in a moment");
        assert_eq!(ledger.assign("r", &one("gone"), &machine, &nobody()).unwrap(), counted("x", "c"));
    }

    #[test]
    fn what_a_claim_has_is_for_those_who_share_the_claim() {
        let (mut ledger, machine) = (Ledger::default(), machine(&["a", "b"]));
        let by = |claim: HeldClaim| Wish { claims: vec![claim], ..Wish::default() };
        ledger.assign("p", &by(claim("u1", &["a"])), &machine, &nobody()).unwrap();
        ledger.assign("q", &by(claim("u1", &["a"])), &machine, &nobody()).unwrap();
        let busy = ledger.assign("r", &by(claim("u2", &["a"])), &machine, &nobody()).unwrap_err();
        assert_eq!(busy, Obstacle::Busy("a".to_owned()));
        let one = wish_of(json!({"containers": [wants("x", "1")]}));
        assert_eq!(ledger.assign("r", &one, &machine, &nobody()).unwrap(), counted("x", "b"));
        assert_eq!(ledger.assign("s", &one, &machine, &nobody()).unwrap_err(), few(1, 0, 0));
        let busy = ledger.assign("t", &by(claim("u3", &["b"])), &machine, &nobody()).unwrap_err();
        assert_eq!(busy, Obstacle::Busy("b".to_owned()));
        ledger.free("p");
        assert_eq!(ledger.assign("s", &one, &machine, &nobody()).unwrap_err(), few(1, 0, 0), "q is there");
        let gone = ledger.assign("t", &by(claim("u3", &["gone"])), &machine, &nobody()).unwrap_err();
        assert_eq!(gone, Obstacle::NotOffered("gone".to_owned()));
    }

    #[test]
    fn a_pod_that_asks_both_ways_gets_different_ones() {
        let both =
            Wish { claims: vec![claim("u1", &["a"])], ..wish_of(json!({"containers": [wants("x", "1")]})) };
        let mut ledger = Ledger::default();
        assert_eq!(ledger.assign("p", &both, &machine(&["a"]), &nobody()).unwrap_err(), few(1, 0, 0));
        let held = ledger.assign("p", &both, &machine(&["a", "b"]), &nobody()).unwrap();
        assert_eq!(held.counted["x"], ["b"]);
    }

    #[test]
    fn instances_are_counted_by_their_profile() {
        let mut machine = machine(&["a", "m1", "m2"]);
        for (gpu, profile) in machine.gpus[1..].iter_mut().zip(["1g.10gb", "3g.40gb"]) {
            gpu.part = Some(Part { profile: profile.to_owned(), ..Part::default() });
        }
        let large = "nvidia.com/mig-3g.40gb";
        let limits = json!({RESOURCE: "1", large: "1", "example.com/other": "5"});
        let both = wish_of(json!({"containers": [{"name": "x", "resources": {"limits": limits}}]}));
        let mut ledger = Ledger::default();
        let held = ledger.assign("p", &both, &machine, &nobody()).unwrap();
        assert_eq!(held.counted["x"], ["a", "m2"]);
        let more = wish_of(json!({"containers": [{"name": "x", "resources": {"limits": {large: "1"}}}]}));
        let Obstacle::Few(shortage) = ledger.assign("q", &more, &machine, &nobody()).unwrap_err() else {
            panic!("it is somebody's");
        };
        assert_eq!((shortage.resource.as_str(), shortage.free), (large, 0));
        assert_eq!(ledger.of("q"), None);
    }

    #[test]
    fn turns_on_shared_gpus_are_spread_and_never_given_beside_the_whole() {
        let mut shared = machine(&["a", "b"]);
        let text = "version: v1\nsharing: {timeSlicing: {failRequestsGreaterThanOne: true, resources: [{name: nvidia.com/gpu, replicas: 2}]}}\n";
        crate::gpu::Sharing::parse(text).unwrap().apply(&mut shared);
        let one = wish_of(json!({"containers": [wants("x", "1")]}));
        let mut ledger = Ledger::default();
        let given: Vec<String> = ["p", "q", "r", "s"]
            .iter()
            .map(|pod| ledger.assign(pod, &one, &shared, &nobody()).unwrap().counted["x"][0].clone())
            .collect();
        assert_eq!(given, ["a::0", "b::0", "a::1", "b::1"]);
        assert_eq!(ledger.assign("t", &one, &shared, &nobody()).unwrap_err(), few(1, 0, 0));
        let two = wish_of(json!({"containers": [wants("x", "2")]}));
        let greedy = ledger.assign("t", &two, &shared, &nobody()).unwrap_err();
        assert_eq!(greedy, Obstacle::Greedy(RESOURCE.to_owned(), 2));

        // The policy is gone: who has turns still has them.
        let whole = machine(&["a", "b"]);
        ledger.free("p");
        assert_eq!(ledger.assign("t", &one, &whole, &nobody()).unwrap_err(), few(1, 0, 0));
        ledger.free("r");
        assert_eq!(ledger.assign("t", &one, &whole, &nobody()).unwrap().counted["x"], ["a"]);
        // And it comes back.
        assert_eq!(ledger.assign("u", &one, &shared, &nobody()).unwrap_err(), few(1, 0, 0));
    }

    #[test]
    fn a_container_uses_the_requests_that_it_names() {
        let mut held = claim("u", &["a", "b"]);
        held.devices[1].request = "big/best".to_owned();
        let held = [held];
        let used = |claims: serde_json::Value| -> Vec<String> {
            let container = json!({"name": "x", "resources": {"claims": claims}});
            let container = serde_json::from_value(container).unwrap();
            claimed(&held, &container).map(|(_, device)| device.uuid.clone()).collect()
        };
        assert_eq!(used(json!([{"name": "c"}])), ["a", "b"]);
        assert_eq!(used(json!([{"name": "c", "request": "gpu"}])), ["a"]);
        assert_eq!(used(json!([{"name": "c", "request": "big"}])), ["b"]);
        assert!(used(json!([{"name": "c", "request": "g"}, {"name": "other"}])).is_empty());
    }
}
