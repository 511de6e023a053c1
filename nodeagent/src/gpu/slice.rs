//! The ResourceSlice of a node: each GPU that is offered, with what tells it from others, and each that has a fault, with
//! the taint that keeps it from whom it does not say that it tolerates it. Pure.

use std::collections::BTreeMap;

use claw_schemas::gpu::{AMD_TYPE, DRIVER, VULKAN_TYPE, slice_name};
use jiff::Timestamp;
use k8s_openapi::{
    api::resource::v1::{
        Device, DeviceAttribute, DeviceCapacity, DeviceTaint, ResourcePool, ResourceSlice, ResourceSliceSpec,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    },
};

use super::{
    Gpu, Inventory,
    amd::{self, Amd},
    health::Fault,
    inventory::Teller,
    vulkan::Vulkan,
};

/// Longest text of an attribute, in bytes.
const TEXT_MAX: usize = 64;

/// The slice that says what is there now. `before` is what the server has: a pool whose devices change gets the next
/// generation. `None` when the server's says all of it already.
pub fn next(
    node: &str,
    owner: OwnerReference,
    inventory: &Inventory,
    before: Option<&ResourceSlice>,
    now: Timestamp,
) -> Option<ResourceSlice> {
    let known = before.map(|slice| &slice.spec);
    let had: BTreeMap<&str, &Device> = known
        .iter()
        .flat_map(|spec| spec.devices.iter().flatten())
        .map(|device| (device.name.as_str(), device))
        .collect();
    // Who shares a claim shares its device already: turns are for those that ask by number.
    let is_listed = |gpu: &&Gpu| gpu.shared.is_none() && (gpu.withheld.is_none() || gpu.is_tainted());
    let listed = inventory.gpus.iter().filter(is_listed);
    let devices: Vec<Device> = listed
        .map(|gpu| {
            let device = device(gpu, inventory);
            let before = had.get(device.name.as_str()).and_then(|device| device.taints.as_ref());
            let taints = gpu.fault.as_ref().map(|fault| vec![since(taint(fault), before, now)]);
            Device { taints, ..device }
        })
        .collect();
    let owners = Some(vec![owner]);
    let is_same = known.is_some_and(|spec| spec.devices.as_deref().unwrap_or_default() == devices)
        && before.is_some_and(|slice| slice.metadata.owner_references == owners);
    if is_same {
        return None;
    }
    let metadata = match before {
        Some(slice) => ObjectMeta { owner_references: owners, ..slice.metadata.clone() },
        None => {
            ObjectMeta { name: Some(slice_name(node)), owner_references: owners, ..ObjectMeta::default() }
        }
    };
    let spec = ResourceSliceSpec {
        devices: Some(devices),
        driver: DRIVER.to_owned(),
        node_name: Some(node.to_owned()),
        pool: ResourcePool {
            generation: known.map_or(1, |spec| spec.pool.generation + 1),
            name: node.to_owned(),
            resource_slice_count: 1,
        },
        ..ResourceSliceSpec::default()
    };
    Some(ResourceSlice { metadata, spec })
}

/// Those that use it go on, so it keeps away only who comes.
pub fn taint(fault: &Fault) -> DeviceTaint {
    DeviceTaint {
        effect: "NoSchedule".to_owned(),
        key: format!("{DRIVER}/{}", fault.kind),
        value: fault.value.clone(),
        time_added: None,
    }
}

/// A fault that goes on has begun when it began.
fn since(taint: DeviceTaint, before: Option<&Vec<DeviceTaint>>, now: Timestamp) -> DeviceTaint {
    let is_same = |other: &&DeviceTaint| other.key == taint.key && other.value == taint.value;
    let began = before.into_iter().flatten().find(is_same).and_then(|taint| taint.time_added.clone());
    DeviceTaint { time_added: Some(began.unwrap_or(Time(now))), ..taint }
}

fn device(gpu: &Gpu, inventory: &Inventory) -> Device {
    let mut attributes = Attributes::default();
    attributes.text("type", Some(type_of(gpu)));
    if let Some(part) = &gpu.part {
        attributes.text("parentUUID", Some(&part.parent));
        attributes.text("profile", Some(&part.profile));
        attributes.number("gpuInstance", Some(part.gpu_instance));
        attributes.number("computeInstance", Some(part.compute_instance));
        attributes.number("placementStart", part.placement.map(|(start, _)| start));
        attributes.number("placementSize", part.placement.map(|(_, size)| size));
    }
    attributes.text("uuid", Some(&gpu.uuid));
    attributes.text("productName", Some(&gpu.model));
    attributes.text("brand", gpu.brand.as_deref());
    attributes.text("architecture", gpu.architecture.as_deref());
    attributes.version("cudaComputeCapability", gpu.compute_capability.as_deref());
    let driver_version = match &gpu.vulkan {
        Some(of_vulkan) => &of_vulkan.driver_version,
        None if gpu.amd.is_some() => &inventory.amdgpu_version,
        None => &inventory.driver_version,
    };
    attributes.version("driverVersion", driver_version.as_deref());
    let has_cuda = gpu.teller() == Teller::Nvidia;
    attributes.version("cudaDriverVersion", inventory.cuda_version.as_deref().filter(|_| has_cuda));
    attributes.text("resource.kubernetes.io/pciBusID", Some(&gpu.pci.bus_id));
    attributes.text("resource.kubernetes.io/pcieRoot", gpu.pci.root.as_deref());
    attributes.number("index", Some(gpu.index));
    match (&gpu.amd, &gpu.vulkan) {
        (Some(of_amd), _) => attributes.of_amd(gpu, of_amd),
        (None, Some(of_vulkan)) => attributes.of_vulkan(gpu, of_vulkan),
        (None, None) => attributes.number("minor", gpu.minor),
    }
    attributes.number("pcieGeneration", gpu.pci.generation_max);
    attributes.number("pcieWidth", gpu.pci.width_max);
    attributes.number("numaNode", gpu.numa_node);
    let links = u32::try_from(gpu.nvlinks.iter().filter(|link| link.active).count()).ok();
    attributes.number("nvlinks", links.filter(|_| !gpu.nvlinks.is_empty()));
    attributes.number("powerLimitMilliwatts", gpu.power.limit_milliwatts);
    attributes.flag("ecc", gpu.ecc.map(|ecc| ecc.enabled));
    attributes.flag("replayed", inventory.replayed.then_some(true));
    let memory =
        DeviceCapacity { value: Quantity(gpu.memory_bytes.to_string()), ..DeviceCapacity::default() };
    Device {
        name: gpu.uuid.to_lowercase(),
        attributes: Some(attributes.0),
        capacity: Some(BTreeMap::from([("memory".to_owned(), memory)])),
        ..Device::default()
    }
}

/// What classes tell devices apart by.
fn type_of(gpu: &Gpu) -> &'static str {
    match (gpu.teller(), &gpu.part) {
        (Teller::Amd, _) => AMD_TYPE,
        (Teller::Vulkan, _) => VULKAN_TYPE,
        (Teller::Nvidia, Some(_)) => "mig",
        (Teller::Nvidia, None) => "gpu",
    }
}

#[derive(Default)]
struct Attributes(BTreeMap<String, DeviceAttribute>);

impl Attributes {
    fn put(&mut self, name: &str, value: DeviceAttribute) {
        self.0.insert(name.to_owned(), value);
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty() && value.len() <= TEXT_MAX) {
            self.put(name, DeviceAttribute { string: Some(value.to_owned()), ..DeviceAttribute::default() });
        }
    }

    /// As semantic versioning has it: three numbers without zeros in front.
    fn version(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        let mut numbers: Vec<u64> = value.split('.').map_while(|part| part.parse().ok()).take(3).collect();
        numbers.resize(3, 0);
        let version = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".");
        self.put(name, DeviceAttribute { version: Some(version), ..DeviceAttribute::default() });
    }

    fn number(&mut self, name: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.put(name, DeviceAttribute { int: Some(value.into()), ..DeviceAttribute::default() });
        }
    }

    /// In the words of AMD's own driver, where that has some.
    fn of_amd(&mut self, gpu: &Gpu, of_amd: &Amd) {
        self.number("cardIndex", Some(of_amd.card));
        self.number("renderIndex", gpu.minor);
        self.text("deviceID", of_amd.device_id.as_deref());
        self.number("computeUnits", of_amd.compute_units);
        self.text("xgmiHive", of_amd.hive.as_deref());
        self.number("xgmiLinks", amd::links(gpu).filter(|_| of_amd.hive.is_some()));
    }

    fn of_vulkan(&mut self, gpu: &Gpu, of_vulkan: &Vulkan) {
        self.text("adapterType", Some(of_vulkan.kind.name()));
        self.text("vendorID", Some(&of_vulkan.vendor_id));
        self.text("deviceID", Some(&of_vulkan.device_id));
        self.text("driverName", of_vulkan.driver_name.as_deref());
        self.number("renderIndex", gpu.minor);
    }

    fn flag(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.put(name, DeviceAttribute { bool: Some(value), ..DeviceAttribute::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Inventory {
        let gpu = |uuid: &str| Gpu {
            uuid: uuid.to_owned(),
            model: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_bytes: 80 << 30,
            ..Gpu::default()
        };
        Inventory {
            driver_version: Some("580.159.04".to_owned()),
            gpus: vec![gpu("GPU-A"), gpu("GPU-B")],
            ..Inventory::default()
        }
    }

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.to_owned(), ..OwnerReference::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_slice_lists_the_gpus_that_are_offered_with_what_tells_them_apart() {
        let mut machine = machine();
        machine.gpus[0].withheld = Some("there is no /dev/nvidia0".to_owned());
        let slice = next("gpu-02", owner("u"), &machine, None, at(1)).unwrap();
        assert_eq!(slice.metadata.name.as_deref(), Some("gpu-02-gpu.clawbernetes.io"));
        assert_eq!(slice.spec.node_name.as_deref(), Some("gpu-02"));
        let devices = slice.spec.devices.unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].name, "gpu-b");
        let attributes = devices[0].attributes.as_ref().unwrap();
        assert_eq!(attributes["driverVersion"].version.as_deref(), Some("580.159.4"));
        assert_eq!(attributes["productName"].string.as_deref(), Some("NVIDIA H100 80GB HBM3"));
        assert!(!attributes.contains_key("replayed") && !attributes.contains_key("numaNode"));
        assert_eq!(devices[0].capacity.as_ref().unwrap()["memory"].value.0, (80_u64 << 30).to_string());
    }

    #[test]
    fn a_slice_is_written_when_it_changes_and_then_counts_on() {
        let mut machine = machine();
        let first = next("n", owner("u"), &machine, None, at(1)).unwrap();
        machine.gpus[0].temperature_celsius = Some(80);
        assert_eq!(
            next("n", owner("u"), &machine, Some(&first), at(2)),
            None,
            "figures that come and go are no news"
        );
        machine.gpus[0].withheld = Some("broken".to_owned());
        let second = next("n", owner("u"), &machine, Some(&first), at(2)).unwrap();
        assert_eq!((first.spec.pool.generation, second.spec.pool.generation), (1, 2));
        assert!(
            next("n", owner("other"), &machine, Some(&second), at(2)).is_some(),
            "the Node was made anew"
        );
    }

    #[test]
    fn a_fault_is_a_taint_that_is_as_old_as_it_is_and_goes_with_it() {
        let mut machine = machine();
        machine.gpus[0].xids.insert(79);
        let fault = crate::gpu::health::fault(&machine.gpus[0]).unwrap();
        machine.gpus[0].withhold(fault);
        let first = next("n", owner("u"), &machine, None, at(1)).unwrap();
        let taints = |slice: &ResourceSlice| slice.spec.devices.as_ref().unwrap()[0].taints.clone();
        let taint = taints(&first).unwrap().remove(0);
        assert_eq!((taint.key.as_str(), taint.effect.as_str()), ("gpu.clawbernetes.io/xid", "NoSchedule"));
        assert_eq!((taint.value.as_deref(), taint.time_added), (Some("79"), Some(Time(at(1)))));
        assert_eq!(next("n", owner("u"), &machine, Some(&first), at(2)), None, "it is no younger for that");
        machine.gpus[0].withhold(Fault::gone());
        let second = next("n", owner("u"), &machine, Some(&first), at(3)).unwrap();
        let taint = taints(&second).unwrap().remove(0);
        assert_eq!(taint.key, "gpu.clawbernetes.io/lost");
        assert_eq!(taint.time_added, Some(Time(at(3))));
        (machine.gpus[0].withheld, machine.gpus[0].fault) = (None, None);
        assert_eq!(taints(&next("n", owner("u"), &machine, Some(&second), at(4)).unwrap()), None);
    }
}
