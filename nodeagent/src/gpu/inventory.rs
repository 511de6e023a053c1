//! What a driver answers about its GPUs, and what follows from it. Also the form in which answers are recorded.
//!
//! Sizes are bytes, clocks MHz, power mW, temperatures °C. What a driver would not answer is `None`, and `refused` says
//! what it said instead.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use claw_schemas::gpu::{AMD_RESOURCE, RESOURCE, VULKAN_RESOURCE, instances};
use serde::{Deserialize, Serialize};

use super::{
    amd::Amd,
    health::{self, Fault, Remapping, Slowed, Throttle},
    sharing::Shared,
    vulkan::Vulkan,
};

/// All GPUs of a machine, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// Read from a recording, not asked of a driver: containers get names of GPUs, and no GPUs.
    pub replayed: bool,
    /// `580.159.04`
    pub driver_version: Option<String>,
    /// The newest CUDA that the driver runs: `13.0`
    pub cuda_version: Option<String>,
    /// Of the library that answered.
    pub nvml_version: Option<String>,
    /// The library that answered, where the loader found it.
    #[serde(skip)]
    pub library: Option<PathBuf>,
    /// Of AMD's driver, where it is not the kernel's own: `6.12.12`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amdgpu_version: Option<String>,
    /// Of a recording that has device files: the folder that stands for `/dev`.
    #[serde(skip)]
    pub dev: Option<PathBuf>,
    /// Why nobody knows at this moment how the GPUs are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
    /// In the driver's order.
    pub gpus: Vec<Gpu>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// The driver's number; it may change with a reboot.
    pub index: u32,
    /// The number in `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// Its name for life.
    pub uuid: String,
    /// `NVIDIA H100 80GB HBM3`
    pub model: String,
    /// `Nvidia`, `Tesla`, ...
    pub brand: Option<String>,
    /// `Hopper`
    pub architecture: Option<String>,
    /// `9.0`
    pub compute_capability: Option<String>,
    /// All of its memory.
    pub memory_bytes: u64,
    /// Of that, what is used now.
    pub memory_used_bytes: Option<u64>,
    /// Where it is plugged in.
    pub pci: Pci,
    /// The memory node of the host that it is close to.
    pub numa_node: Option<u32>,
    /// The processors that it is close to: `0-15,32-47`
    pub cpu_affinity: Option<String>,
    /// Whether it is cut into instances.
    pub mig: Option<Mig>,
    /// This is such an instance, and of which GPU. What is said here of memory is its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// It is AMD's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amd: Option<Amd>,
    /// It is one that only Vulkan knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vulkan: Option<Vulkan>,
    /// Errors in its memory.
    pub ecc: Option<Ecc>,
    /// Rows of its memory that were replaced.
    pub remapping: Option<Remapping>,
    /// Numbers of the errors that the driver told of, since the driver was loaded or the agent began.
    pub xids: BTreeSet<u64>,
    /// The driver knows of it, and reaches it no more.
    pub lost: bool,
    /// The driver says that it must be reset before it can be used.
    pub reset_required: bool,
    /// What holds its clocks back.
    pub throttle: BTreeSet<Throttle>,
    /// The same over looks.
    #[serde(skip)]
    pub slowed: Slowed,
    /// Present and highest clocks.
    pub clocks: Clocks,
    /// What it draws, and may draw.
    pub power: Power,
    /// Of the chip.
    pub temperature_celsius: Option<u32>,
    /// Its NVLinks.
    pub nvlinks: Vec<NvLink>,
    /// The other GPUs, and how far away they are.
    pub peers: Vec<Peer>,
    /// Who computes on it now.
    pub processes: Vec<Process>,
    /// What the driver would not answer, and why.
    pub refused: BTreeMap<String, String>,
    /// Containers take turns on it, by a policy of this machine.
    #[serde(skip)]
    pub shared: Option<Shared>,
    /// Why it is not offered to pods.
    pub withheld: Option<String>,
    /// The same as a fault, where it is one of the GPU: who tolerates that may have it all the same.
    #[serde(skip)]
    pub fault: Option<Fault>,
}

/// Who tells of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// NVIDIA's library.
    Nvidia,
    /// The kernel, of AMD's.
    Amd,
    /// Vulkan, of those of anybody else.
    Vulkan,
}

/// A place on the PCI bus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pci {
    /// `0000:1b:00.0`, as in sysfs.
    pub bus_id: String,
    /// Generation now (lower while it idles) and at best.
    pub generation: Option<u32>,
    /// See `generation`.
    pub generation_max: Option<u32>,
    /// Lanes now and at best.
    pub width: Option<u32>,
    /// See `width`.
    pub width_max: Option<u32>,
    /// `pci0000:16`: GPUs and network cards under one root are close.
    pub root: Option<String>,
}

impl Pci {
    /// The root that the kernel reaches a device through whose own folder this is.
    pub fn root_in(folder: &Path) -> Option<String> {
        let names = folder.components().filter_map(|part| part.as_os_str().to_str());
        names.into_iter().find(|name| name.starts_with("pci") && name.contains(':')).map(str::to_owned)
    }
}

/// Multi-instance mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mig {
    /// Now.
    pub enabled: bool,
    /// After the next reset.
    pub pending: bool,
}

/// An instance of a GPU, with memory and processors of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// The uuid of the GPU.
    pub parent: String,
    /// Its number among the instances of the GPU.
    pub index: u32,
    /// How large it is: `1g.10gb`
    pub profile: String,
    /// Numbers of the instance that has the memory, and of the one in it that has the processors.
    pub gpu_instance: u32,
    /// See `gpu_instance`.
    pub compute_instance: u32,
    /// The first of the slices of memory that it has, and how many.
    pub placement: Option<(u32, u32)>,
}

/// Error correction, with counts since the driver was loaded and over the GPU's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ecc {
    /// Whether errors are corrected and counted.
    pub enabled: bool,
    /// Corrected since the driver was loaded.
    pub corrected: Option<u64>,
    /// Not corrected since the driver was loaded.
    pub uncorrected: Option<u64>,
    /// Corrected, ever.
    pub corrected_ever: Option<u64>,
    /// Not corrected, ever.
    pub uncorrected_ever: Option<u64>,
}

/// Clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clocks {
    /// Of the multiprocessors.
    pub sm_mhz: Option<u32>,
    /// At best.
    pub sm_max_mhz: Option<u32>,
    /// Of the memory.
    pub memory_mhz: Option<u32>,
    /// At best.
    pub memory_max_mhz: Option<u32>,
}

/// Power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Power {
    /// Drawn now.
    pub usage_milliwatts: Option<u32>,
    /// Enforced.
    pub limit_milliwatts: Option<u32>,
}

/// One NVLink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvLink {
    /// Its number.
    pub link: u32,
    /// Whether it is up.
    pub active: bool,
    /// Of the protocol.
    pub version: Option<u32>,
    /// Bus id of the GPU or switch at the other end.
    pub remote_bus_id: Option<String>,
}

/// Another GPU of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Which.
    pub uuid: String,
    /// Their nearest common ancestor: `Single` (one PCI switch), `HostBridge`, `Node`, `System`, ...
    pub ancestor: String,
}

/// A process that computes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// As the host numbers it.
    pub pid: u32,
    /// Memory of the GPU that it holds, where the driver tells.
    pub memory_bytes: Option<u64>,
}

/// Between the uuid of a GPU and the number of a turn on it, as NVIDIA's device plugin writes it.
const TURN: &str = "::";

/// The GPU of a turn; a whole one is itself.
pub fn whole(id: &str) -> &str {
    id.split_once(TURN).map_or(id, |(uuid, _)| uuid)
}

impl Inventory {
    /// A GPU by its uuid, or by the name of a turn on it.
    pub fn get(&self, uuid: &str) -> Option<&Gpu> {
        let uuid = whole(uuid);
        self.gpus.iter().find(|gpu| gpu.uuid == uuid)
    }

    /// What there is to be had, well or not: a GPU that is cut is there as its instances only.
    pub fn devices(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(|gpu| !gpu.is_cut())
    }

    /// Instances are as well as the GPU that they are of.
    pub fn share_health(&mut self) {
        let wholes: BTreeMap<String, Gpu> =
            self.gpus.iter().filter(|gpu| gpu.is_cut()).map(|gpu| (gpu.uuid.clone(), gpu.clone())).collect();
        for gpu in &mut self.gpus {
            let Some(whole) = gpu.part.as_ref().and_then(|part| wholes.get(&part.parent)) else { continue };
            (gpu.lost, gpu.reset_required) = (whole.lost, whole.reset_required);
            (gpu.ecc, gpu.remapping) = (whole.ecc, whole.remapping);
            (gpu.xids, gpu.throttle) = (whole.xids.clone(), whole.throttle.clone());
        }
    }

    /// Those that pods may have.
    pub fn offered(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(|gpu| gpu.withheld.is_none())
    }

    /// The inventory that follows `before`: GPUs that were there and do not answer any more stay, withheld.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        for gpu in &mut self.gpus {
            if let Some(before) = before.get(&gpu.uuid) {
                gpu.follow(before);
            }
        }
        let is_lost = |gpu: &&Gpu| self.get(&gpu.uuid).is_none() && !self.is_cut_anew(gpu);
        let lost: Vec<Gpu> = before.gpus.iter().filter(is_lost).cloned().collect();
        self.gpus.extend(lost.into_iter().map(|mut gpu| {
            gpu.withhold(Fault::gone());
            gpu
        }));
        if !before.gpus.is_empty() {
            // A driver that went away took its answers along, not what was true of the machine.
            self.driver_version = self.driver_version.or_else(|| before.driver_version.clone());
            self.cuda_version = self.cuda_version.or_else(|| before.cuda_version.clone());
            self.amdgpu_version = self.amdgpu_version.or_else(|| before.amdgpu_version.clone());
            self.dev = self.dev.or_else(|| before.dev.clone());
            self.library = self.library.or_else(|| before.library.clone());
            self.replayed |= before.replayed;
        }
        self
    }

    /// There are no GPUs, as far as anybody knows, and nobody has reason to think that some will show up soon.
    pub fn is_without(&self) -> bool {
        self.gpus.is_empty() && self.silent.is_none()
    }

    /// An instance that is not there any more, of a GPU that is: somebody cut it otherwise.
    fn is_cut_anew(&self, gpu: &Gpu) -> bool {
        let whole = gpu.part.as_ref().and_then(|part| self.get(&part.parent));
        whole.is_some_and(|whole| !whole.lost)
    }

    /// Nobody knows how the GPUs are: none is offered.
    #[must_use]
    pub fn fall_silent(mut self, why: &str) -> Self {
        self.gpus.iter_mut().for_each(|gpu| gpu.withhold(Fault::silent(why)));
        self.silent = Some(why.to_owned());
        self
    }
}

impl Gpu {
    /// Keeps it from pods that do not tolerate its fault.
    pub fn withhold(&mut self, fault: Fault) {
        self.withheld = Some(fault.why.clone());
        self.fault = Some(fault);
    }

    /// What only shows over several looks.
    fn follow(&mut self, before: &Self) {
        if self.lost {
            // Whatever it did not answer now is what it was.
            let refused = std::mem::take(&mut self.refused);
            *self = Self { lost: true, refused, xids: std::mem::take(&mut self.xids), ..before.clone() };
            self.withhold(Fault::lost());
        }
        if self.memory_bytes == 0 {
            self.memory_bytes = before.memory_bytes;
        }
        // While AMD's driver resets a GPU it does not say what it counted.
        if self.amd.is_some() && self.ecc.is_some_and(|ecc| ecc.uncorrected.is_none()) {
            self.ecc = before.ecc;
        }
        self.slowed = before.slowed.next(&self.throttle);
        if self.withheld.is_none()
            && let Some(fault) = health::fault(self)
        {
            self.withhold(fault);
        }
    }

    /// The resource that it is counted as.
    pub fn resource(&self) -> String {
        match (&self.shared, &self.part) {
            (Some(shared), _) => shared.resource.clone(),
            (None, Some(part)) => instances(&part.profile),
            (None, None) => self.whole_resource().to_owned(),
        }
    }

    /// What a whole one is counted as, by who tells of it.
    fn whole_resource(&self) -> &'static str {
        match self.teller() {
            Teller::Nvidia => RESOURCE,
            Teller::Amd => AMD_RESOURCE,
            Teller::Vulkan => VULKAN_RESOURCE,
        }
    }

    /// Who tells of it.
    pub fn teller(&self) -> Teller {
        match (&self.amd, &self.vulkan) {
            (Some(_), _) => Teller::Amd,
            (None, Some(_)) => Teller::Vulkan,
            (None, None) => Teller::Nvidia,
        }
    }

    /// What it is given out as: itself, or so many turns.
    pub fn ids(&self) -> Vec<String> {
        match &self.shared {
            Some(shared) => (0..shared.replicas).map(|turn| format!("{}{TURN}{turn}", self.uuid)).collect(),
            None => vec![self.uuid.clone()],
        }
    }

    /// Whether only its instances are to be had.
    pub fn is_cut(&self) -> bool {
        self.mig.is_some_and(|mig| mig.enabled)
    }

    /// Whether it is only for who tolerates its fault.
    pub fn is_tainted(&self) -> bool {
        self.fault.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(uuid: &str) -> Gpu {
        Gpu { uuid: uuid.to_owned(), ..Gpu::default() }
    }

    #[test]
    fn a_gpu_that_no_longer_answers_is_known_and_not_offered() {
        let before = Inventory {
            driver_version: Some("580.1".to_owned()),
            gpus: vec![gpu("GPU-a"), gpu("GPU-b")],
            ..Inventory::default()
        };
        let now = Inventory { gpus: vec![gpu("GPU-b")], ..Inventory::default() }.after(&before);
        let offered: Vec<&str> = now.offered().map(|gpu| gpu.uuid.as_str()).collect();
        assert_eq!(offered, ["GPU-b"]);
        assert_eq!(now.get("GPU-a").unwrap().withheld.as_deref(), Some("it no longer answers"));
        let gone = Inventory::default().after(&now);
        assert_eq!((gone.gpus.len(), gone.offered().count()), (2, 0));
        assert_eq!(gone.driver_version.as_deref(), Some("580.1"));
        let back = Inventory { gpus: vec![gpu("GPU-a"), gpu("GPU-b")], ..Inventory::default() }.after(&gone);
        assert_eq!(back.offered().count(), 2);
    }

    #[test]
    fn one_that_fell_off_the_bus_is_what_it_was_and_not_offered() {
        let before = Inventory {
            gpus: vec![Gpu { memory_bytes: 80, model: "H".to_owned(), ..gpu("GPU-a") }],
            ..Inventory::default()
        };
        let refused = BTreeMap::from([("memory".to_owned(), "lost".to_owned())]);
        let lost = Gpu { lost: true, refused, ..gpu("GPU-a") };
        let now = Inventory { gpus: vec![lost], ..Inventory::default() }.after(&before);
        assert_eq!((now.gpus[0].memory_bytes, now.gpus[0].model.as_str()), (80, "H"));
        assert_eq!(now.gpus[0].withheld.as_deref(), Some("it has fallen off the bus"));
        assert_eq!(now.gpus[0].refused["memory"], "lost");
        let back = Inventory { gpus: vec![gpu("GPU-a")], ..Inventory::default() }.after(&now);
        assert_eq!((back.offered().count(), back.gpus[0].is_tainted()), (1, false));
    }

    #[test]
    fn a_driver_that_falls_silent_takes_all_with_it_until_it_answers() {
        let before = Inventory { gpus: vec![gpu("GPU-a"), gpu("GPU-b")], ..Inventory::default() };
        let silent = Inventory::default().after(&before).fall_silent("no answer");
        assert_eq!((silent.gpus.len(), silent.offered().count()), (2, 0));
        assert_eq!(silent.gpus[0].withheld.as_deref(), Some("no answer"));
        let again = before.clone().after(&silent);
        assert_eq!((again.offered().count(), again.silent), (2, None));
    }

    #[test]
    fn instances_are_as_well_as_their_gpu_and_go_when_it_is_cut_otherwise() {
        let part = |uuid: &str| Gpu {
            part: Some(Part {
                parent: "GPU-a".to_owned(),
                profile: "1g.10gb+me".to_owned(),
                ..Part::default()
            }),
            ..gpu(uuid)
        };
        let cut = Gpu { mig: Some(Mig { enabled: true, pending: true }), ..gpu("GPU-a") };
        let all = |gpus: Vec<Gpu>| Inventory { gpus, ..Inventory::default() };
        let mut before = all(vec![cut.clone(), part("MIG-1"), part("MIG-2")]);
        before.gpus[0].xids.insert(79);
        before.share_health();
        assert!(before.gpus[1].xids.contains(&79));
        let uuids = |all: &Inventory| all.devices().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>();
        assert_eq!(uuids(&before), ["MIG-1", "MIG-2"]);
        assert_eq!(before.gpus[1].resource(), "nvidia.com/mig-1g.10gb.me");
        let now = all(vec![cut, part("MIG-2")]).after(&before);
        assert_eq!(uuids(&now), ["MIG-2"], "somebody cut it otherwise");
        let gone = Inventory::default().after(&now);
        assert_eq!((uuids(&gone), gone.offered().count()), (vec!["MIG-2".to_owned()], 0));
    }
}
