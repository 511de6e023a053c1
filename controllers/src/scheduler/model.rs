//! What the scheduler knows of pods and nodes: requests, capacity and constraints, as integers.
//!
//! Built from API objects once, when they change; deciding then touches no JSON and allocates little.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use claw_schemas::{gpu::is_resource, needs};
use k8s_openapi::api::core::v1::{
    Container, Node, NodeSelectorTerm, Pod, PodSpec, PreferredSchedulingTerm, Taint, Toleration,
};

use super::{
    amounts::{Amounts, PODS},
    devices::{PodClaim, Withheld},
};
use crate::holdings;

/// Namespace and name of a pod.
pub type PodKey = (Arc<str>, Arc<str>);

/// A pod, as far as placing it goes.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub key: PodKey,
    pub uid: String,
    pub priority: i32,
    /// Seconds since the epoch; older pods of equal priority go first.
    pub created: i64,
    /// What it takes on a node, the pod itself included (`pods: 1`).
    pub requests: Amounts,
    /// The devices among what it takes.
    pub devices: Vec<Arc<str>>,
    /// How many GPUs it asks for by number, of each kind.
    pub gpus: BTreeMap<Arc<str>, i64>,
    /// Which it has of them, once it is placed and somebody said so.
    pub gpu_names: Option<Vec<String>>,
    /// The claims that it uses.
    pub claims: Vec<PodClaim>,
    pub node_selector: BTreeMap<String, String>,
    /// Any one must match; empty means no requirement.
    pub required_terms: Vec<NodeSelectorTerm>,
    pub preferred_terms: Vec<PreferredSchedulingTerm>,
    pub tolerations: Vec<Toleration>,
    pub host_ports: BTreeSet<(String, i32)>,
    /// Uid of the controller that owns it; replicas of one owner are spread.
    pub owner: Option<Arc<str>>,
    /// Where it is bound.
    pub node: Option<Arc<str>>,
    /// Why it must not be placed yet, for any reason that no node can change.
    pub held: Option<String>,
    /// The message of its `PodScheduled=False` condition, so that an unchanged verdict is not written again.
    pub verdict: Option<String>,
}

/// A node, with what is taken on it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    /// Whether pods that need no devices had better stay away.
    pub has_devices: bool,
    pub used: Amounts,
    /// How many pods hold each: more than one where somebody else bound them.
    pub host_ports: BTreeMap<(String, i32), u32>,
    /// How many pods of each owner it holds.
    pub owners: BTreeMap<Arc<str>, u32>,
    /// Which GPUs each pod has that asked for a number of them; `None` where nobody said so yet.
    holders: HashMap<PodKey, Option<Vec<String>>>,
    /// How many of its GPUs claims have, by kind, which is part of what is used.
    claimed: BTreeMap<Arc<str>, i64>,
    /// Its GPUs that are not to be given by number, whoever has them.
    withheld: Vec<Withheld>,
    /// How many of these no pod has, by kind, which is part of what is used.
    idle: BTreeMap<Arc<str>, i64>,
}

/// The key of a pod.
pub fn key_of(pod: &Pod) -> PodKey {
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    (namespace.as_deref().unwrap_or_default().into(), name.as_deref().unwrap_or_default().into())
}

impl PodInfo {
    /// `None` for a pod that takes nothing from anybody: finished, or not ours to place and not yet placed.
    pub fn new(pod: &Pod, scheduler_name: &str) -> Option<Self> {
        let (meta, spec) = (&pod.metadata, pod.spec.as_ref()?);
        let node = node_of(pod);
        let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == scheduler_name);
        if is_finished(pod) || (node.is_none() && !ours) {
            return None;
        }
        let affinity = spec.affinity.as_ref();
        let node_affinity = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
        let verdict = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let requests = pod_requests(pod);
        let devices = requests.devices().cloned().collect();
        let of_gpus = requests.devices().filter(|name| is_resource(name));
        let gpus: BTreeMap<Arc<str>, i64> =
            of_gpus.map(|name| (Arc::clone(name), requests.get(name))).collect();
        let gpu_count = gpus.values().sum();
        Some(Self {
            key: key_of(pod),
            uid: meta.uid.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            created: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            requests,
            devices,
            gpus,
            gpu_names: node.filter(|_| gpu_count > 0).and_then(|_| holdings::of(pod, gpu_count)),
            claims: PodClaim::of(pod),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_terms: node_affinity
                .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
                .map(|selector| selector.node_selector_terms.clone())
                .unwrap_or_default(),
            preferred_terms: node_affinity
                .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone())
                .unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            host_ports: host_ports(spec),
            owner: meta
                .owner_references
                .iter()
                .flatten()
                .find(|owner| owner.controller == Some(true))
                .map(|owner| owner.uid.as_str().into()),
            node: node.map(Into::into),
            held: held(pod),
            verdict: verdict
                .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
                .find_map(|condition| condition.message.clone()),
        })
    }
}

/// Where a pod is bound.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a change of a pod means nothing to the scheduler: it is on its node and takes there what it took. Most
/// changes are of this kind, and the cheapest to deal with.
pub fn is_immaterial(old: &Pod, new: &Pod) -> bool {
    let (before, now) = (&old.metadata, &new.metadata);
    node_of(new).is_some()
        && before.uid == now.uid
        && before.owner_references == now.owner_references
        && holdings::same(old, new)
        && is_finished(old) == is_finished(new)
        && old.spec == new.spec
}

/// A reason to wait that lies in the pod itself. Constraints that we do not evaluate yet hold the pod with
/// a reason: placing it as if they were not there would break what its author was promised.
fn held(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("the pod is being deleted".to_owned());
    }
    let gates: Vec<&str> = spec.scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect();
    if !gates.is_empty() {
        return Some(format!("waiting for scheduling gates: {}", gates.join(", ")));
    }
    let affinity = spec.affinity.as_ref();
    let pod_affinity = affinity.and_then(|a| a.pod_affinity.as_ref()).is_some_and(|a| {
        a.required_during_scheduling_ignored_during_execution.as_ref().is_some_and(|terms| !terms.is_empty())
    });
    let anti_affinity = affinity.and_then(|a| a.pod_anti_affinity.as_ref()).is_some_and(|a| {
        a.required_during_scheduling_ignored_during_execution.as_ref().is_some_and(|terms| !terms.is_empty())
    });
    let spread = spec
        .topology_spread_constraints
        .iter()
        .flatten()
        .any(|constraint| constraint.when_unsatisfiable == "DoNotSchedule");
    let unsupported = [
        (pod_affinity, "spec.affinity.podAffinity (required)"),
        (anti_affinity, "spec.affinity.podAntiAffinity (required)"),
        (spread, "spec.topologySpreadConstraints with whenUnsatisfiable: DoNotSchedule"),
    ];
    let named: Vec<&str> = unsupported.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
    (!named.is_empty()).then(|| {
        format!(
            "this scheduler does not evaluate {} yet and will not ignore it: remove it or use its preferred form",
            named.join(" nor ")
        )
    })
}

impl NodeInfo {
    /// With nothing placed on it yet.
    pub fn new(node: &Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let allocatable = allocatable.map(Amounts::of).unwrap_or_default();
        let has_devices = allocatable.devices().next().is_some();
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable == Some(true),
            allocatable,
            has_devices,
            used: Amounts::default(),
            host_ports: BTreeMap::new(),
            owners: BTreeMap::new(),
            holders: HashMap::new(),
            claimed: BTreeMap::new(),
            withheld: Vec::new(),
            idle: BTreeMap::new(),
        }
    }

    /// Carries over what pods have taken, when the node itself changed.
    pub fn keep_taken(&mut self, known: &Self) {
        self.used.clone_from(&known.used);
        self.host_ports.clone_from(&known.host_ports);
        self.owners.clone_from(&known.owners);
        self.holders.clone_from(&known.holders);
        self.claimed.clone_from(&known.claimed);
        self.withheld.clone_from(&known.withheld);
        self.idle.clone_from(&known.idle);
    }

    /// Counts what claims have of its GPUs, by kind, as used.
    pub fn set_claimed(&mut self, gpus: BTreeMap<Arc<str>, i64>) {
        count_instead(&mut self.used, &mut self.claimed, gpus);
    }

    /// Counts GPUs that are not to be given by number as used, unless a pod has them and they count already.
    pub fn set_withheld(&mut self, gpus: Vec<Withheld>) {
        self.withheld = gpus;
        self.count_withheld();
    }

    fn count_withheld(&mut self) {
        if self.withheld.is_empty() && self.idle.is_empty() {
            return;
        }
        let held: BTreeSet<&str> = self.held_gpus().collect();
        let mut idle = BTreeMap::new();
        for one in self.withheld.iter().filter(|one| !one.is_claimed && !held.contains(&*one.uuid)) {
            *idle.entry(Arc::clone(&one.resource)).or_default() += 1;
        }
        count_instead(&mut self.used, &mut self.idle, idle);
    }

    /// Whether some of its GPUs of a kind are not to be given by number.
    pub fn withholds(&self, resource: &str) -> bool {
        self.withheld.iter().any(|one| !one.is_claimed && &*one.resource == resource)
    }

    /// What keeps GPUs of a kind from being given by number.
    pub fn taints_of(&self, resource: &str) -> impl Iterator<Item = &str> {
        let of_kind = self.withheld.iter().filter(move |one| &*one.resource == resource);
        of_kind.map(|one| one.taint.as_str())
    }

    /// Whether it is known of every pod that asked for a number of GPUs which it has.
    pub fn tells_all_gpus(&self) -> bool {
        self.holders.values().all(Option::is_some)
    }

    /// The GPUs that such pods have, as far as it is known.
    pub fn held_gpus(&self) -> impl Iterator<Item = &str> {
        self.holders.values().flatten().flatten().map(String::as_str)
    }

    /// Takes what a pod needs.
    pub fn take(&mut self, pod: &PodInfo) {
        self.used.add(&pod.requests);
        for port in &pod.host_ports {
            *self.host_ports.entry(port.clone()).or_default() += 1;
        }
        if let Some(owner) = &pod.owner {
            *self.owners.entry(owner.clone()).or_default() += 1;
        }
        if !pod.gpus.is_empty() {
            self.holders.insert(pod.key.clone(), pod.gpu_names.clone());
            self.count_withheld();
        }
    }

    /// Gives back what [`Self::take`] took.
    pub fn give_back(&mut self, pod: &PodInfo) {
        self.used.subtract(&pod.requests);
        for port in &pod.host_ports {
            if let Some(count) = self.host_ports.get_mut(port) {
                *count = count.saturating_sub(1);
            }
        }
        self.host_ports.retain(|_, count| *count > 0);
        if let Some(count) = pod.owner.as_ref().and_then(|owner| self.owners.get_mut(owner)) {
            *count = count.saturating_sub(1);
        }
        if self.holders.remove(&pod.key).is_some() {
            self.count_withheld();
        }
    }

    /// What is left of a resource; negative when overcommitted.
    pub fn free(&self, resource: &str) -> i64 {
        self.allocatable.get(resource) - self.used.get(resource)
    }

    /// The resources of which a pod takes more than is left.
    pub fn lacks<'a>(&'a self, pod: &'a PodInfo) -> impl Iterator<Item = &'a str> {
        pod.requests.lacking(&self.allocatable, &self.used)
    }
}

/// Counts other amounts as used than before.
fn count_instead(
    used: &mut Amounts,
    counted: &mut BTreeMap<Arc<str>, i64>,
    instead: BTreeMap<Arc<str>, i64>,
) {
    for (name, count) in &*counted {
        used.set(name, used.get(name) - count);
    }
    for (name, count) in &instead {
        used.set(name, used.get(name) + count);
    }
    *counted = instead;
}

/// Requests of a whole pod, by upstream's rule. What it says as a whole goes before what its containers say.
fn pod_requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::default() };
    let goes_on = |one: &Container| one.restart_policy.as_deref() == Some("Always");
    let init = spec.init_containers.iter().flatten().map(|one| (container_requests(one), goes_on(one)));
    let mut total: Amounts = needs::at_once(init, spec.containers.iter().map(container_requests));
    if let Some(whole) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        total.replace(&Amounts::of(whole));
    }
    if let Some(overhead) = &spec.overhead {
        total.add(&Amounts::of(overhead));
    }
    total.set(PODS, 1);
    total
}

fn container_requests(container: &Container) -> Amounts {
    let Some(resources) = &container.resources else { return Amounts::default() };
    // A limit without a request is a request; the API server defaults it so, static pods may not.
    let mut requests = resources.limits.as_ref().map(Amounts::of).unwrap_or_default();
    if let Some(stated) = &resources.requests {
        requests.replace(&Amounts::of(stated));
    }
    requests
}

/// Those of init containers too: sidecars stay, and the node leads the ports of all of them.
fn host_ports(spec: &PodSpec) -> BTreeSet<(String, i32)> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            port.host_port.filter(|number| *number != 0).map(|number| (protocol, number))
        })
        .collect()
}
