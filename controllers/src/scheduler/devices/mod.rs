//! Devices: which there are, who has which, and which a pod is to get.
//!
//! | module | owns |
//! |---|---|
//! | `inventory` | the devices of each node, from ResourceSlices |
//! | `claims` | what claims ask for and were given |
//! | `selector`, `cost` | expressions about a device, and how much work they may make |
//! | `allocate` | the search: devices of one node for all claims of a pod |
//! | `held` | which devices policies hold back until a look has found them fit |
//! | `near` | which GPUs are close to each other |
//! | `taints` | the taints that devices have from elsewhere than their slice |
//! | `writes` | what is written to claims |
//!
//! A GPU is asked for in two ways: by number (`nvidia.com/gpu`), and by claim. Both are given here, so that nobody is given
//! what somebody has: claimed GPUs count as used, and pods that ask for a number are told which. Where a pod was given some
//! by its node and nobody knows yet which, nothing of that node is given to claims.
//!
//! All but `writes` is pure. An allocation is assumed at once, as bindings are, until the claim shows it.

mod allocate;
mod claims;
mod cost;
mod held;
mod inventory;
mod near;
mod selector;
mod taints;
#[cfg(test)]
mod tests;
pub mod writes;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use claw_schemas::{
    api::{DeviceCheck, DevicePolicy},
    gpu::DRIVER,
};
use k8s_openapi::api::{
    core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm},
    resource::{
        v1::{
            AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceClass,
            DeviceRequestAllocationResult, ResourceClaim, ResourceSlice,
        },
        v1beta2::DeviceTaintRule,
    },
};
use parking_lot::Mutex;

#[cfg(test)]
pub use self::inventory::build;
use self::{
    allocate::{Classes, Given, Wishes},
    claims::{Allocation, CONSUMERS_MAX, ClaimInfo},
    held::HoldBack,
    inventory::DeviceId,
    writes::{Grant, Release},
};
pub use self::{
    claims::{ClaimKey, PodClaim},
    inventory::{Device, Inventory, Withheld},
    selector::{Selector, Selectors},
};
use super::model::{NodeInfo, PodInfo};

/// An allocation that was decided and that the claim does not show yet.
struct Assumed {
    allocation: Allocation,
    /// The revision of the claim from which on it must show it; unknown while it is being written.
    revision: Option<u64>,
}

/// All that is known of devices.
#[derive(Default)]
pub struct Devices {
    inventory: Inventory,
    classes: Classes,
    claims: HashMap<ClaimKey, ClaimInfo>,
    assumed: HashMap<ClaimKey, Assumed>,
    /// How many claims have a device: one at most, unless somebody else allocates, too.
    taken: HashMap<DeviceId, usize>,
    selectors: Mutex<Selectors>,
    held: HoldBack,
}

/// What a pod asks for of devices, before any node is looked at.
#[derive(Debug, Default)]
pub struct Asked {
    /// Its claims that have devices.
    allocated: Vec<ClaimKey>,
    /// Its claims that have none.
    wanting: Vec<ClaimKey>,
    wishes: Wishes,
}

/// What a pod gets on a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gift {
    /// Uuids of the GPUs that it asks for by number; empty when the node is to choose.
    pub gpus: Vec<String>,
    /// What is to be written to its claims.
    pub grants: Vec<Grant>,
}

/// Names of the nodes whose devices are others', or somebody else's, after a change.
pub type Touched = BTreeSet<Arc<str>>;

impl Devices {
    /// A slice appeared or changed.
    pub fn apply_slice(&mut self, slice: &ResourceSlice) -> Touched {
        let touched = self.inventory.apply(slice).into_iter().collect();
        self.hold_back(touched)
    }

    /// A slice is gone.
    pub fn remove_slice(&mut self, name: &str) -> Touched {
        let touched = self.inventory.remove(name).into_iter().collect();
        self.hold_back(touched)
    }

    /// A rule about taints appeared or changed.
    pub fn apply_rule(&mut self, rule: &DeviceTaintRule) -> Touched {
        let name = rule.metadata.name.as_deref().unwrap_or_default();
        self.inventory.set_rule(name, Some(rule.spec.clone())).into_iter().collect()
    }

    /// A rule about taints is gone.
    pub fn remove_rule(&mut self, name: &str) -> Touched {
        self.inventory.set_rule(name, None).into_iter().collect()
    }

    /// A class appeared or changed.
    pub fn apply_class(&mut self, class: &DeviceClass) -> Touched {
        self.classes.insert(class.metadata.name.clone().unwrap_or_default(), class.spec.clone());
        self.classes_changed()
    }

    /// A class is gone.
    pub fn remove_class(&mut self, name: &str) -> Touched {
        self.classes.remove(name);
        self.classes_changed()
    }

    fn classes_changed(&mut self) -> Touched {
        let concerned = self.held.follow_classes(&self.classes, &mut self.selectors.lock());
        if concerned { self.hold_back_everywhere() } else { Touched::new() }
    }

    /// A policy about devices appeared or changed.
    pub fn apply_policy(&mut self, policy: &DevicePolicy) -> Touched {
        let concerned = self.held.apply_policy(policy, &self.classes, &mut self.selectors.lock());
        if concerned { self.hold_back_everywhere() } else { Touched::new() }
    }

    /// A policy about devices is gone.
    pub fn remove_policy(&mut self, name: &str) -> Touched {
        if self.held.remove_policy(name) { self.hold_back_everywhere() } else { Touched::new() }
    }

    /// A look at a device appeared or changed.
    pub fn apply_check(&mut self, check: &DeviceCheck) -> Touched {
        self.held.apply_look(check);
        self.hold_back(one(&check.spec.device.pool))
    }

    /// A look at a device is gone.
    pub fn remove_check(&mut self, check: &DeviceCheck) -> Touched {
        self.held.remove_look(check);
        self.hold_back(one(&check.spec.device.pool))
    }

    /// A node appeared or changed: its labels, or the start of its machine.
    pub fn apply_node(&mut self, node: &Node) -> Touched {
        if !self.held.apply_node(node) {
            return Touched::new();
        }
        self.hold_back(one(node.metadata.name.as_deref().unwrap_or_default()))
    }

    /// A node is gone.
    pub fn remove_node(&mut self, name: &str) {
        self.held.remove_node(name);
    }

    fn hold_back_everywhere(&mut self) -> Touched {
        self.hold_back(self.inventory.nodes().cloned().collect())
    }

    /// Decides anew which devices of nodes that were touched are held back. Gives these nodes.
    fn hold_back(&mut self, touched: Touched) -> Touched {
        for node in &touched {
            let held = self.held.of(node, self.inventory.of(node));
            self.inventory.set_held(node, held);
        }
        touched
    }

    /// A claim appeared or changed.
    pub fn apply_claim(&mut self, claim: &ResourceClaim) -> Touched {
        let (key, info) = (claims::key_of(claim), ClaimInfo::new(claim));
        self.change(&key, |all| {
            let is_same = all.claims.get(&key).is_none_or(|known| known.uid == info.uid);
            let awaited = all.assumed.get(&key).and_then(|assumed| assumed.revision);
            let is_reached = awaited.is_some_and(|revision| revision <= info.revision);
            if info.allocation.is_some() || is_reached || !is_same {
                all.assumed.remove(&key);
            }
            all.claims.insert(key.clone(), info);
        })
    }

    /// A claim is gone.
    pub fn remove_claim(&mut self, claim: &ResourceClaim) -> Touched {
        let key = claims::key_of(claim);
        self.change(&key, |all| {
            all.assumed.remove(&key);
            all.claims.remove(&key);
        })
    }

    /// The write of an allocation has ended: with what the claim says from a revision on, or with nothing that is known of.
    pub fn settle(&mut self, key: &ClaimKey, revision: Option<u64>) -> Touched {
        self.change(key, |all| {
            let seen = all.claims.get(key).map_or(0, |claim| claim.revision);
            match revision.filter(|revision| seen < *revision) {
                None => drop(all.assumed.remove(key)),
                Some(revision) => {
                    if let Some(assumed) = all.assumed.get_mut(key) {
                        assumed.revision = Some(revision);
                    }
                }
            }
        })
    }

    /// Takes what a pod is given, before it is written.
    pub fn assume(&mut self, gift: &Gift) -> Touched {
        let mut touched = Touched::new();
        for grant in &gift.grants {
            let Some(result) = &grant.allocation else { continue };
            let assumed = Assumed { allocation: Allocation::of(result), revision: None };
            touched
                .extend(self.change(&grant.key, |all| drop(all.assumed.insert(grant.key.clone(), assumed))));
        }
        touched
    }

    /// How many of a node's counted GPUs claims have, by kind.
    pub fn claimed(&self, node: &str) -> BTreeMap<Arc<str>, i64> {
        let taken = self.inventory.of(node).iter().filter(|device| self.taken.contains_key(&device.id));
        let mut claimed = BTreeMap::new();
        for resource in taken.filter_map(|device| device.counted()) {
            *claimed.entry(Arc::clone(resource)).or_default() += 1;
        }
        claimed
    }

    /// Those of a node's counted GPUs that are to be kept from who asks by number.
    pub fn withheld(&self, node: &str) -> Vec<Withheld> {
        let all = self.inventory.of(node).iter();
        all.filter_map(|device| device.withheld(self.taken.contains_key(&device.id))).collect()
    }

    /// What a pod asks for.
    ///
    /// # Errors
    /// Why it must wait whatever node there is, in words.
    pub fn asked(&self, pod: &PodInfo) -> Result<Asked, String> {
        let mut asked = Asked::default();
        for claim in &pod.claims {
            let Some((key, claim)) = self.usable(pod, claim)? else { continue };
            if claim.allocation.is_some() {
                asked.allocated.push(key);
                continue;
            }
            let (place, at) = (format!("{}/{}", key.0, key.1), asked.wanting.len());
            let mut selectors = self.selectors.lock();
            asked.wishes.add(at, &place, &claim.asks, &self.classes, &mut selectors)?;
            asked.wanting.push(key);
        }
        Ok(asked)
    }

    /// The claim that a pod means, if it needs one. The words are those of kube-scheduler.
    fn usable(&self, pod: &PodInfo, claim: &PodClaim) -> Result<Option<(ClaimKey, &ClaimInfo)>, String> {
        let (namespace, pod_name) = &pod.key;
        let (name, is_made) = match claim {
            PodClaim::Unneeded => return Ok(None),
            PodClaim::Made(None) => {
                return Err(format!("pod \"{namespace}/{pod_name}\": ResourceClaim not created yet"));
            }
            PodClaim::Made(Some(name)) => (name, true),
            PodClaim::Named(name) => (name, false),
        };
        let key = (Arc::clone(namespace), Arc::clone(name));
        let Some(claim) = self.claims.get(&key) else {
            return Err(format!("resourceclaim.resource.k8s.io \"{name}\" not found"));
        };
        if is_made && claim.owner.as_deref() != Some(&pod.uid) {
            return Err(format!(
                "ResourceClaim {namespace}/{name} was not created for pod {namespace}/{pod_name} (pod is not owner)"
            ));
        }
        if claim.is_reserved_for(&pod.uid) {
            return Ok(Some((key, claim)));
        }
        if claim.is_deleting {
            return Err(format!("resourceclaim \"{name}\" is being deleted"));
        }
        if self.assumed.contains_key(&key) {
            return Err(format!("resource claim {namespace}/{name} is in the process of being allocated"));
        }
        if claim.reserved_for.len() >= CONSUMERS_MAX {
            return Err("resourceclaim in use".to_owned());
        }
        Ok(Some((key, claim)))
    }

    /// What a pod would get on a node.
    ///
    /// # Errors
    /// Why it cannot go there, in words.
    pub fn gift(&self, pod: &PodInfo, asked: &Asked, node: &NodeInfo) -> Result<Gift, String> {
        if pod.claims.is_empty() && pod.gpus.is_empty() {
            return Ok(Gift::default());
        }
        let allocation = |key: &ClaimKey| self.claims.get(key).and_then(|claim| claim.allocation.as_ref());
        if !asked.allocated.iter().all(|key| allocation(key).is_some_and(|one| one.fits(node))) {
            return Err("resourceclaim not available on the node".to_owned());
        }
        let devices = self.inventory.of(&node.name);
        let mut free = self.free(devices, node);
        let given = if asked.wanting.is_empty() {
            Vec::new()
        } else {
            asked.wishes.allocate(devices, &free).map_err(|why| match node.tells_all_gpus() {
                false => format!("{why} (a node has not told yet which GPUs its pods have)"),
                true => why,
            })?
        };
        for one in &given {
            free[one.device] = false;
        }
        for (resource, count) in &pod.gpus {
            let is_one = |one: &&Given| devices[one.device].resource() == Some(resource);
            let claimed = i64::try_from(given.iter().filter(is_one).count()).unwrap_or(i64::MAX);
            if claimed > 0 && count.saturating_add(claimed) > node.free(resource) {
                return Err(format!("Insufficient {resource}"));
            }
        }
        let mut grants: Vec<Grant> = asked
            .wanting
            .iter()
            .enumerate()
            .map(|(at, key)| self.grant(key, at, &given, devices, node))
            .collect();
        let unreserved = asked
            .allocated
            .iter()
            .filter(|key| self.claims.get(*key).is_some_and(|claim| !claim.is_reserved_for(&pod.uid)));
        grants.extend(unreserved.map(|key| self.as_grant(key, None)));
        let gpus = all_named(&pod.gpus, devices, &free);
        let is_ours = |resource: &&Arc<str>| node.withholds(resource) || self.names_all(&node.name, resource);
        if let Some(resource) = pod.gpus.keys().find(is_ours)
            && gpus.is_empty()
        {
            let untold = if node.tells_all_gpus() { "it has" } else { "its pods have" };
            return Err(format!("Insufficient {resource} (a node has not told yet which GPUs {untold})"));
        }
        Ok(Gift { gpus, grants })
    }

    /// Whether a node is not to choose by itself which of its GPUs of a kind it gives: it knows nothing of rules and policies, and says how many
    /// it has before it says which.
    fn names_all(&self, node: &str, resource: &Arc<str>) -> bool {
        let devices = self.inventory.of(node);
        let are_devices = devices.is_empty() || devices.iter().any(|device| device.kind() == Some(resource));
        are_devices
            && !self.held.are_shared(node, resource)
            && (self.held.may_hold(node) || self.inventory.may_be_tainted(node))
    }

    /// Which devices of a node nobody has, as far as it is known.
    fn free(&self, devices: &[Arc<Device>], node: &NodeInfo) -> Vec<bool> {
        let held: BTreeSet<&str> = node.held_gpus().collect();
        let is_free = |device: &Arc<Device>| {
            let is_counted = device.uuid().is_some_and(|uuid| held.contains(uuid) || !node.tells_all_gpus());
            !self.taken.contains_key(&device.id) && !is_counted
        };
        devices.iter().map(is_free).collect()
    }

    fn grant(
        &self,
        key: &ClaimKey,
        at: usize,
        given: &[Given],
        devices: &[Arc<Device>],
        node: &NodeInfo,
    ) -> Grant {
        let own: Vec<&Given> = given.iter().filter(|given| given.claim == at).collect();
        let result = |given: &&Given| {
            let id = &devices[given.device].id;
            DeviceRequestAllocationResult {
                request: given.request.clone(),
                driver: id.driver.to_string(),
                pool: id.pool.to_string(),
                device: id.name.to_string(),
                tolerations: Some(given.tolerations.clone()).filter(|all| !all.is_empty()),
                ..DeviceRequestAllocationResult::default()
            }
        };
        let allocation = AllocationResult {
            devices: Some(DeviceAllocationResult {
                config: Some(self.configuration(key, &own)).filter(|config| !config.is_empty()),
                results: Some(own.iter().map(result).collect()),
            }),
            node_selector: Some(only(&node.name)),
            ..AllocationResult::default()
        };
        self.as_grant(key, Some(allocation))
    }

    fn as_grant(&self, key: &ClaimKey, allocation: Option<AllocationResult>) -> Grant {
        let claim = self.claims.get(key);
        Grant {
            key: key.clone(),
            uid: claim.map(|claim| claim.uid.clone()).unwrap_or_default(),
            version: claim.map(|claim| claim.version.clone()).unwrap_or_default(),
            is_protected: claim.is_some_and(|claim| claim.is_protected),
            allocation,
        }
    }

    /// What the drivers are to be told: by the classes, then by the claim.
    fn configuration(&self, key: &ClaimKey, given: &[&Given]) -> Vec<DeviceAllocationConfiguration> {
        let mut all = Vec::new();
        let mut told: BTreeSet<(&str, &str)> = BTreeSet::new();
        for one in given.iter().filter(|one| told.insert((&one.class, &one.request))) {
            let class = self.classes.get(&one.class);
            for config in class.iter().flat_map(|class| class.config.iter().flatten()) {
                all.push(DeviceAllocationConfiguration {
                    source: "FromClass".to_owned(),
                    requests: Some(vec![one.request.clone()]),
                    opaque: config.opaque.clone(),
                });
            }
        }
        let claim = self.claims.get(key);
        for config in claim.iter().flat_map(|claim| claim.asks.config.iter().flatten()) {
            all.push(DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
        all
    }

    /// Allocations that only this pod holds, which is bound nowhere. None while one of them is being written.
    pub fn releases(&self, pod: &PodInfo) -> Vec<Release> {
        let names = pod.claims.iter().filter_map(|claim| match claim {
            PodClaim::Named(name) | PodClaim::Made(Some(name)) => Some(name),
            PodClaim::Made(None) | PodClaim::Unneeded => None,
        });
        let keys: Vec<ClaimKey> = names.map(|name| (Arc::clone(&pod.key.0), Arc::clone(name))).collect();
        if keys.iter().any(|key| self.assumed.contains_key(key)) {
            return Vec::new();
        }
        let only_ours = |key: ClaimKey| {
            let claim = self.claims.get(&key)?;
            let is_ours = claim.allocation.is_some() && claim.reserved_for == [pod.uid.clone()];
            is_ours.then(|| Release { uid: claim.uid.clone(), version: claim.version.clone(), key })
        };
        keys.into_iter().filter_map(only_ours).collect()
    }

    /// What a claim has, shown or assumed.
    fn effective(&self, key: &ClaimKey) -> Option<Allocation> {
        let assumed = self.assumed.get(key).map(|assumed| &assumed.allocation);
        let shown = || self.claims.get(key).and_then(|claim| claim.allocation.as_ref());
        assumed.or_else(shown).cloned()
    }

    /// Changes one claim, and who has which device with it.
    fn change(&mut self, key: &ClaimKey, change: impl FnOnce(&mut Self)) -> Touched {
        let before = self.effective(key);
        change(self);
        let after = self.effective(key);
        if before == after {
            return Touched::new();
        }
        let devices = |allocation: Option<Allocation>| allocation.map(|one| one.devices).unwrap_or_default();
        let mut touched = Touched::new();
        for id in devices(before) {
            if let Some(count) = self.taken.get_mut(&id) {
                *count = count.saturating_sub(1);
            }
            touched.extend(node_of(&id));
        }
        for id in devices(after) {
            touched.extend(node_of(&id));
            *self.taken.entry(id).or_default() += 1;
        }
        self.taken.retain(|_, count| *count > 0);
        touched
    }
}

fn one(node: &str) -> Touched {
    let node: Arc<str> = node.into();
    Touched::from([node])
}

/// Where a device of ours is: its pool has the name of its node.
fn node_of(id: &DeviceId) -> Option<Arc<str>> {
    (&*id.driver == DRIVER).then(|| Arc::clone(&id.pool))
}

/// The GPUs of each kind that a pod is to have; none at all where the node is to choose some.
fn all_named(gpus: &BTreeMap<Arc<str>, i64>, devices: &[Arc<Device>], free: &[bool]) -> Vec<String> {
    let each = gpus.iter().map(|(resource, count)| named(resource, *count, devices, free));
    each.collect::<Option<Vec<_>>>().unwrap_or_default().concat()
}

/// Those of one kind that are closest to each other. `None` where too few are known to be free.
fn named(resource: &Arc<str>, count: i64, devices: &[Arc<Device>], free: &[bool]) -> Option<Vec<String>> {
    let count = usize::try_from(count).unwrap_or(0);
    let known =
        devices.iter().zip(free).filter(|(device, free)| **free && device.resource() == Some(resource));
    let gpus: Vec<(&Arc<Device>, &str)> =
        known.filter_map(|(device, _)| Some((device, device.uuid()?))).collect();
    if gpus.len() < count {
        return None;
    }
    let places: Vec<_> = gpus.iter().map(|(device, _)| device.place()).collect();
    Some(near::nearest(&places, count).into_iter().take(count).map(|at| gpus[at].1.to_owned()).collect())
}

fn only(node: &str) -> NodeSelector {
    let is_it = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![is_it]), ..NodeSelectorTerm::default() };
    NodeSelector { node_selector_terms: vec![term] }
}
