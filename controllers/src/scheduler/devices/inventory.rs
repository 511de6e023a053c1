//! Which devices there are on which node, as ResourceSlices tell, and what others than their drivers say against them.
//!
//! Of a pool the newest generation counts, once it is whole. Devices that belong to no one node, and those that share
//! counters with others, are nobody's here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use claw_schemas::gpu::{
    AMD_RESOURCE, AMD_TYPE, DRIVER, RESOURCE, VULKAN_RESOURCE, VULKAN_TYPE, instances, keeps_away,
};
use k8s_openapi::api::resource::{
    v1::{Device as ApiDevice, DeviceAttribute, DeviceCapacity, DeviceTaint, ResourceSlice},
    v1beta2::DeviceTaintRuleSpec,
};
use parking_lot::Mutex;

use super::{
    near::Place,
    taints::{Sources, is_about, shown},
};

/// Verdicts kept with a device: selectors of the claims that come to its node.
const VERDICTS_MAX: usize = 64;

/// Names a device for everybody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    pub driver: Arc<str>,
    pub pool: Arc<str>,
    pub name: Arc<str>,
}

/// GPUs of our agents are counted, whole ones and instances, each as its own.
fn resource(driver: &str, device: &ApiDevice) -> Option<Arc<str>> {
    let text = |name: &str| device.attributes.as_ref()?.get(name)?.string.as_deref();
    text("uuid").filter(|_| driver == DRIVER)?;
    match (text("type"), text("profile")) {
        (Some("mig"), profile) => Some(instances(profile?).into()),
        (Some(AMD_TYPE), _) => Some(AMD_RESOURCE.into()),
        (Some(VULKAN_TYPE), _) => Some(VULKAN_RESOURCE.into()),
        _ => Some(RESOURCE.into()),
    }
}

/// A device that can be had.
#[derive(Debug)]
pub struct Device {
    pub id: DeviceId,
    pub attributes: BTreeMap<String, DeviceAttribute>,
    pub capacity: BTreeMap<String, DeviceCapacity>,
    /// What its slice says, then what others do.
    pub taints: Vec<DeviceTaint>,
    /// How many of the taints are of its slice.
    own_taints: usize,
    /// What it is counted as where it is asked for by number.
    resource: Option<Arc<str>>,
    /// What selectors said of it.
    verdicts: Mutex<HashMap<Arc<str>, Result<bool, String>>>,
}

impl Device {
    fn new(driver: &Arc<str>, pool: &Arc<str>, device: &ApiDevice) -> Self {
        Self {
            id: DeviceId {
                driver: Arc::clone(driver),
                pool: Arc::clone(pool),
                name: device.name.as_str().into(),
            },
            attributes: device.attributes.clone().unwrap_or_default(),
            capacity: device.capacity.clone().unwrap_or_default(),
            taints: device.taints.clone().unwrap_or_default(),
            own_taints: device.taints.as_ref().map_or(0, Vec::len),
            resource: resource(driver, device),
            verdicts: Mutex::default(),
        }
    }

    /// The same with more taints.
    fn with(&self, more: Vec<DeviceTaint>) -> Self {
        Self {
            id: self.id.clone(),
            attributes: self.attributes.clone(),
            capacity: self.capacity.clone(),
            taints: self.taints.iter().cloned().chain(more).collect(),
            own_taints: self.own_taints,
            resource: self.resource.clone(),
            verdicts: Mutex::new(self.verdicts.lock().clone()),
        }
    }

    /// An attribute by its name, or by domain and name.
    pub fn attribute(&self, name: &str) -> Option<&DeviceAttribute> {
        let in_own_domain = || {
            let (domain, name) = name.split_once('/')?;
            self.attributes.get(name).filter(|_| domain == &*self.id.driver)
        };
        self.attributes.get(name).or_else(in_own_domain)
    }

    /// The name that the node knows a GPU by, if it is one of those that are counted, too.
    pub fn uuid(&self) -> Option<&str> {
        let uuid = self.attribute("uuid").filter(|_| &*self.id.driver == DRIVER)?;
        uuid.string.as_deref()
    }

    /// The resource that it is one of, if there is one, whatever is said against it.
    pub fn kind(&self) -> Option<&Arc<str>> {
        self.resource.as_ref()
    }

    /// The resource that its node counts it as, as long as it offers it by number. What others say against a device than its driver
    /// no node knows.
    pub fn counted(&self) -> Option<&Arc<str>> {
        self.resource.as_ref().filter(|_| !self.taints.iter().take(self.own_taints).any(keeps_away))
    }

    /// The resource that it is one of, as long as it may be given to who asks by number, since they tolerate nothing.
    pub fn resource(&self) -> Option<&Arc<str>> {
        self.resource.as_ref().filter(|_| !self.taints.iter().any(keeps_away))
    }

    /// What keeps it from who asks by number, though its node offers it.
    pub fn withheld(&self, is_claimed: bool) -> Option<Withheld> {
        let (resource, uuid) = (self.counted()?, self.uuid()?);
        let taint = self.taints.iter().find(|taint| keeps_away(taint))?;
        Some(Withheld { uuid: uuid.into(), resource: Arc::clone(resource), taint: shown(taint), is_claimed })
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        let text = |name: &str| self.attribute(name).and_then(|one| one.string.clone());
        let number = |name: &str| self.attribute(name).and_then(|one| one.int);
        let has_nvlinks = number("nvlinks").is_some_and(|links| links > 0);
        Place {
            pcie_root: text("resource.kubernetes.io/pcieRoot"),
            numa_node: number("numaNode"),
            fabric: text("xgmiHive").or_else(|| has_nvlinks.then(|| "nvlink".to_owned())),
        }
    }

    /// What a selector says of it; asked once.
    pub fn verdict(&self, text: &Arc<str>, ask: impl Fn() -> Result<bool, String>) -> Result<bool, String> {
        if let Some(known) = self.verdicts.lock().get(text) {
            return known.clone();
        }
        let verdict = ask();
        let mut verdicts = self.verdicts.lock();
        if verdicts.len() >= VERDICTS_MAX {
            verdicts.clear();
        }
        verdicts.insert(Arc::clone(text), verdict.clone());
        verdict
    }
}

/// A GPU that its node offers by number and that nobody is to be given who asks so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    pub uuid: Arc<str>,
    pub resource: Arc<str>,
    /// Why: `{key: value}`.
    pub taint: String,
    /// Somebody has it by a claim, so it counts as used already.
    pub is_claimed: bool,
}

struct Slice {
    node: Arc<str>,
    driver: Arc<str>,
    pool: Arc<str>,
    generation: i64,
    of: i64,
    devices: Vec<Arc<Device>>,
}

/// All devices of the cluster.
#[derive(Default)]
pub struct Inventory {
    slices: BTreeMap<String, Slice>,
    sources: Sources,
    /// By node, in the order of their slices, with the taints of all sources.
    nodes: HashMap<Arc<str>, Vec<Arc<Device>>>,
}

impl Inventory {
    /// The devices of a node.
    pub fn of(&self, node: &str) -> &[Arc<Device>] {
        self.nodes.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// A slice appeared or changed. Gives the nodes whose devices may have changed.
    pub fn apply(&mut self, slice: &ResourceSlice) -> Vec<Arc<str>> {
        let name = slice.metadata.name.clone().unwrap_or_default();
        let mut changed = self.remove(&name);
        if let Some(slice) = read(slice) {
            changed.push(Arc::clone(&slice.node));
            self.slices.insert(name, slice);
        }
        changed.dedup();
        changed.iter().for_each(|node| self.gather(node));
        changed
    }

    /// A slice is gone.
    pub fn remove(&mut self, name: &str) -> Vec<Arc<str>> {
        let Some(slice) = self.slices.remove(name) else { return Vec::new() };
        self.gather(&slice.node);
        vec![slice.node]
    }

    /// Those who taint devices beside their drivers change their mind about some. Gives the nodes of these.
    pub fn retaint(
        &mut self,
        concerns: impl Fn(&DeviceId) -> bool,
        change: impl FnOnce(&mut Sources),
    ) -> Vec<Arc<str>> {
        change(&mut self.sources);
        let is_concerned = |slice: &&Slice| slice.devices.iter().any(|device| concerns(&device.id));
        let nodes = self.slices.values().filter(is_concerned).map(|slice| Arc::clone(&slice.node));
        let nodes: BTreeSet<Arc<str>> = nodes.collect();
        nodes.iter().for_each(|node| self.gather(node));
        nodes.into_iter().collect()
    }

    /// A DeviceTaintRule is this now, or gone. Gives the nodes whose devices may have changed.
    pub fn set_rule(&mut self, name: &str, rule: Option<DeviceTaintRuleSpec>) -> Vec<Arc<str>> {
        let before = self.sources.rule(name).cloned();
        if before == rule {
            return Vec::new();
        }
        let now = rule.clone();
        let concerns = |device: &DeviceId| before.iter().chain(&now).any(|rule| is_about(rule, device));
        self.retaint(concerns, |sources| sources.set_rule(name, rule))
    }

    /// Policies hold back these of a node's devices. Gives the node if they are others than before.
    pub fn set_held(&mut self, node: &Arc<str>, held: BTreeSet<DeviceId>) -> Vec<Arc<str>> {
        let before = self.sources.held(node).cloned().unwrap_or_default();
        let changed: BTreeSet<DeviceId> = before.symmetric_difference(&held).cloned().collect();
        if changed.is_empty() {
            return Vec::new();
        }
        self.retaint(|device| changed.contains(device), |sources| sources.set_held(node, held))
    }

    /// Whether there is a rule that may keep somebody away from devices of a node, whichever these are.
    pub fn may_be_tainted(&self, node: &str) -> bool {
        self.sources.may_taint(DRIVER, node)
    }

    /// The nodes that have devices.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.keys()
    }

    fn gather(&mut self, node: &Arc<str>) {
        let on_node = || self.slices.values().filter(|slice| slice.node == *node);
        let is_current = |slice: &&Slice| {
            let pool = || on_node().filter(|other| other.driver == slice.driver && other.pool == slice.pool);
            let newest = pool().map(|other| other.generation).max();
            let parts = pool().filter(|other| other.generation == slice.generation).count();
            newest == Some(slice.generation) && i64::try_from(parts) == Ok(slice.of)
        };
        let with_taints = |device: &Arc<Device>| match self.sources.of(&device.id) {
            more if more.is_empty() => Arc::clone(device),
            more => Arc::new(device.with(more)),
        };
        let devices: Vec<_> =
            on_node().filter(is_current).flat_map(|slice| slice.devices.iter().map(with_taints)).collect();
        if devices.is_empty() {
            self.nodes.remove(node);
        } else {
            self.nodes.insert(Arc::clone(node), devices);
        }
    }
}

fn read(slice: &ResourceSlice) -> Option<Slice> {
    let spec = &slice.spec;
    let node = spec.node_name.as_deref().filter(|node| !node.is_empty())?;
    // Our agents name their pool after their node; another's is not theirs to speak for.
    if spec.driver == DRIVER && spec.pool.name != node {
        return None;
    }
    let (driver, pool): (Arc<str>, Arc<str>) = (spec.driver.as_str().into(), spec.pool.name.as_str().into());
    let whole = spec.devices.iter().flatten().filter(|device| {
        device.consumes_counters.as_ref().is_none_or(Vec::is_empty)
            && device.allow_multiple_allocations != Some(true)
    });
    Some(Slice {
        node: node.into(),
        devices: whole.map(|device| Arc::new(Device::new(&driver, &pool, device))).collect(),
        driver,
        pool,
        generation: spec.pool.generation,
        of: spec.pool.resource_slice_count,
    })
}

#[cfg(test)]
pub mod build {
    //! Builders for tests.

    use serde_json::{Value, json};

    use super::*;

    /// A slice of GPUs as our agents write it. Each GPU: its uuid, and attributes beside the usual.
    pub fn slice(node: &str, gpus: &[(&str, Value)]) -> ResourceSlice {
        let devices: Vec<Value> = gpus.iter().map(|(uuid, more)| device(uuid, more)).collect();
        serde_json::from_value(json!({
            "metadata": {"name": format!("{node}-{DRIVER}")},
            "spec": {
                "driver": DRIVER, "nodeName": node, "devices": devices,
                "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            },
        }))
        .unwrap()
    }

    fn device(uuid: &str, more: &Value) -> Value {
        let mut attributes = json!({
            "uuid": {"string": uuid},
            "productName": {"string": "NVIDIA H100 80GB HBM3"},
            "driverVersion": {"version": "580.159.4"},
            "resource.kubernetes.io/pcieRoot": {"string": "pci0000:00"},
        });
        crate::pods::build::json_patch_merge(&mut attributes, more);
        json!({
            "name": uuid.to_lowercase(), "attributes": attributes,
            "capacity": {"memory": {"value": "85520809984"}},
        })
    }

    pub fn gpu(node: &str, uuid: &str, more: Value) -> Arc<Device> {
        let mut inventory = Inventory::default();
        inventory.apply(&slice(node, &[(uuid, more)]));
        Arc::clone(&inventory.of(node)[0])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part(name: &str, generation: i64, of: i64, device: &str) -> ResourceSlice {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "driver": "d.example.com", "nodeName": "n", "devices": [{"name": device}],
                "pool": {"name": "p", "generation": generation, "resourceSliceCount": of},
            },
        }))
        .unwrap()
    }

    fn names(inventory: &Inventory) -> Vec<String> {
        inventory.of("n").iter().map(|device| device.id.name.to_string()).collect()
    }

    #[test]
    fn of_a_pool_the_newest_generation_counts_once_it_is_whole() {
        let mut inventory = Inventory::default();
        inventory.apply(&part("a", 1, 1, "x"));
        assert_eq!(names(&inventory), ["x"]);
        inventory.apply(&part("b", 2, 2, "y"));
        assert!(names(&inventory).is_empty(), "the new one is not whole, the old one is over");
        inventory.apply(&part("a", 2, 2, "z"));
        assert_eq!(names(&inventory), ["z", "y"]);
        assert_eq!(inventory.remove("b"), ["n".into()]);
        assert!(names(&inventory).is_empty());
    }

    #[test]
    fn gpus_of_each_maker_are_counted_and_linked_as_their_own() {
        let nvidia = build::gpu("n", "GPU-A", json!({"type": {"string": "gpu"}, "nvlinks": {"int": 18}}));
        let amd = json!({"type": {"string": "amdgpu"}, "xgmiHive": {"string": "af"}});
        let amd = build::gpu("n", "GPU-B", amd);
        let other = build::gpu("n", "VK-C", json!({"type": {"string": "vulkan"}}));
        assert_eq!(other.resource().map(|resource| &**resource), Some("clawbernetes.io/gpu"));
        let both = [nvidia, amd].map(|gpu| (gpu.resource().map(ToString::to_string), gpu.place().fabric));
        let said = |resource: &str, fabric: &str| (Some(resource.to_owned()), Some(fabric.to_owned()));
        assert_eq!(both, [said("nvidia.com/gpu", "nvlink"), said("amd.com/gpu", "af")]);
    }

    #[test]
    fn nobody_speaks_for_the_gpus_of_another_node() {
        let mut slice = build::slice("n", &[("GPU-A", json!({}))]);
        slice.spec.pool.name = "other".to_owned();
        let mut inventory = Inventory::default();
        inventory.apply(&slice);
        assert!(inventory.of("n").is_empty());
    }
}
