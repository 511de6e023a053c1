//! What this machine is and has, for the Node object.

use std::{collections::BTreeMap, fs, path::Path};

use claw_schemas::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{NodeCondition, NodeSystemInfo, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use super::cgroups;
use crate::{
    gpu::{Inventory, facts},
    pressure::{Good, Thresholds},
    rootless,
};

/// Pods on one node, as the kubelet's default: bounded by the pod network's 253 addresses.
pub const PODS_MAX: i128 = 110;

/// Of a node whose agent is not root.
const ROOTLESS_LABEL: &str = "clawbernetes.io/rootless";

/// Whether there limits are enforced.
const LIMITS_CONDITION: &str = "LimitsEnforced";

/// Capacity and identity of a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// All there is, by resource name.
    pub capacity: BTreeMap<String, Quantity>,
    /// What pods may use.
    pub allocatable: BTreeMap<String, Quantity>,
    /// Kernel, operating system and so on.
    pub info: NodeSystemInfo,
    /// What there is to select it by.
    pub labels: BTreeMap<String, String>,
    /// How its parts are.
    pub conditions: Vec<NodeCondition>,
}

impl Machine {
    /// Looks at the machine this process runs on; `root_dir` tells which disk pods write to.
    pub fn detect(root_dir: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = memory_bytes().unwrap_or(0);
        let mut capacity = BTreeMap::from([
            ("cpu".to_owned(), Quantity::from_units(cpus as i128)),
            ("memory".to_owned(), Quantity::from_units(memory)),
            ("pods".to_owned(), Quantity::from_units(PODS_MAX)),
        ]);
        if let Some(bytes) = disk_bytes(root_dir) {
            capacity.insert("ephemeral-storage".to_owned(), Quantity::from_units(bytes));
        }
        let allocatable = capacity.clone();
        Self { capacity, allocatable, info: system_info(), labels: BTreeMap::new(), conditions: Vec::new() }
    }

    /// A pretended machine.
    pub fn pretend(cpus: i128, memory_bytes: i128) -> Self {
        let capacity = BTreeMap::from([
            ("cpu".to_owned(), Quantity::from_units(cpus)),
            ("memory".to_owned(), Quantity::from_units(memory_bytes)),
            ("pods".to_owned(), Quantity::from_units(PODS_MAX)),
        ]);
        let info = NodeSystemInfo { container_runtime_version: runtime_version("hollow"), ..system_info() };
        Self {
            allocatable: capacity.clone(),
            capacity,
            info,
            labels: BTreeMap::new(),
            conditions: Vec::new(),
        }
    }

    /// Without what pods are not promised: what is reserved for the system and the agent, and what must stay free.
    #[must_use]
    pub fn keeping(mut self, reserved: &BTreeMap<String, Quantity>, thresholds: &Thresholds) -> Self {
        for (name, amount) in &mut self.allocatable {
            let kept = reserved.get(name).copied().unwrap_or_default();
            let good = Good::ALL.into_iter().find(|good| good.resource() == name);
            let capacity = u64::try_from(amount.units()).unwrap_or(0);
            let free = good.map_or(0, |good| thresholds.of(good, capacity));
            let left = amount.milli() - kept.milli() - i128::from(free) * 1000;
            *amount = Quantity::from_milli(left.max(0));
        }
        self
    }

    /// With what is not as elsewhere on the machine of an ordinary user.
    #[must_use]
    pub fn of_user(mut self) -> Self {
        if rootless::is_inside() {
            self.labels.insert(ROOTLESS_LABEL.to_owned(), "true".to_owned());
            let missing =
                ["cpu", "memory", "pids"].into_iter().filter(|kind| !cgroups::limits(kind)).collect();
            self.conditions.push(limits_condition(missing));
        }
        self
    }

    /// With what it has of GPUs now.
    #[must_use]
    pub fn with_gpus(mut self, inventory: &Inventory) -> Self {
        for (resource, (all, offered)) in facts::counts(inventory) {
            self.capacity.insert(resource.clone(), Quantity::from_units(all as i128));
            self.allocatable.insert(resource, Quantity::from_units(offered as i128));
        }
        self.labels.extend(facts::labels(inventory));
        self.conditions.extend(facts::condition(inventory));
        self
    }
}

/// Whether limits of containers are kept, which on all other machines goes without saying.
fn limits_condition(missing: Vec<&str>) -> NodeCondition {
    let (status, reason, message) = if missing.is_empty() {
        ("True", "ControlGroupsDelegated", "limits of containers are enforced".to_owned())
    } else {
        (
            "False",
            "ControlGroupsNotDelegated",
            format!(
                "nothing limits {} of containers, whatever pods say: the agent's user was given no control groups for that",
                missing.join(", ")
            ),
        )
    };
    NodeCondition {
        type_: LIMITS_CONDITION.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..NodeCondition::default()
    }
}

fn memory_bytes() -> Option<i128> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kibibytes.trim().trim_end_matches(" kB").parse::<i128>().ok().map(|kibibytes| kibibytes * 1024)
}

fn disk_bytes(path: &Path) -> Option<i128> {
    let found = nix::sys::statvfs::statvfs(path).ok()?;
    Some(i128::from(found.blocks()) * i128::from(found.fragment_size()))
}

fn runtime_version(runtime: &str) -> String {
    format!("{runtime}://{}", env!("CARGO_PKG_VERSION"))
}

fn system_info() -> NodeSystemInfo {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let os_release = read("/etc/os-release");
    let pretty_name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        },
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime_version("clawbernetes"),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kubelet_version: format!("v{}", env!("CARGO_PKG_VERSION")),
        machine_id: read("/etc/machine-id"),
        operating_system: std::env::consts::OS.to_owned(),
        os_image: pretty_name.unwrap_or("Linux").trim_matches('"').to_owned(),
        system_uuid: read("/etc/machine-id"),
        ..NodeSystemInfo::default()
    }
}

/// A resource list of the API.
pub fn api_quantities(quantities: &BTreeMap<String, Quantity>) -> BTreeMap<String, ApiQuantity> {
    quantities.iter().map(|(name, quantity)| (name.clone(), ApiQuantity(text(*quantity)))).collect()
}

fn text(quantity: Quantity) -> String {
    if quantity.milli() % 1000 == 0 { quantity.units().to_string() } else { format!("{}m", quantity.milli()) }
}

/// An amount out of a container's requests or limits; a malformed one counts as none.
pub fn amount(list: Option<&BTreeMap<String, ApiQuantity>>, resource: &str) -> Option<Quantity> {
    list?.get(resource)?.0.parse().ok()
}

/// The request for a resource: what is requested, else the limit.
pub fn request(resources: Option<&ResourceRequirements>, resource: &str) -> Option<Quantity> {
    let resources = resources?;
    amount(resources.requests.as_ref(), resource).or_else(|| amount(resources.limits.as_ref(), resource))
}

/// The limit for a resource.
pub fn limit(resources: Option<&ResourceRequirements>, resource: &str) -> Option<Quantity> {
    amount(resources?.limits.as_ref(), resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_names_what_is_not_limited() {
        assert_eq!(limits_condition(Vec::new()).status, "True");
        let condition = limits_condition(vec!["cpu", "pids"]);
        assert_eq!(condition.status, "False");
        assert!(condition.message.unwrap().contains("cpu, pids of containers"));
    }

    #[test]
    fn pods_are_promised_what_is_neither_reserved_nor_kept_free() {
        let reserved = BTreeMap::from([
            ("cpu".to_owned(), "500m".parse().unwrap()),
            ("memory".to_owned(), "1Gi".parse().unwrap()),
        ]);
        let machine = Machine::pretend(2, 4 << 30).keeping(&reserved, &Thresholds::default());
        let promised = api_quantities(&machine.allocatable);
        assert_eq!(promised["cpu"].0, "1500m");
        assert_eq!(promised["memory"].0, ((3_u64 << 30) - (100 << 20)).to_string());
        assert_eq!(promised["pods"].0, PODS_MAX.to_string());
        assert_eq!(machine.capacity["cpu"].units(), 2);
    }
}
