//! What a driver answers about its GPUs, and what follows from it. Also the form in which answers are recorded.
//!
//! Sizes are bytes, clocks MHz, power mW, temperatures °C. What a driver would not answer is `None`, and `refused` says
//! what it said instead.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

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
    /// Errors in its memory.
    pub ecc: Option<Ecc>,
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
    /// Why it is not offered to pods.
    pub withheld: Option<String>,
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

/// Multi-instance mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mig {
    /// Now.
    pub enabled: bool,
    /// After the next reset.
    pub pending: bool,
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

impl Inventory {
    /// A GPU by its uuid.
    pub fn get(&self, uuid: &str) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.uuid == uuid)
    }

    /// Those that pods may have.
    pub fn offered(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(|gpu| gpu.withheld.is_none())
    }

    /// The inventory that follows `before`: GPUs that were there and do not answer any more stay, withheld.
    pub fn after(mut self, before: &Self) -> Self {
        let lost: Vec<Gpu> =
            before.gpus.iter().filter(|gpu| self.get(&gpu.uuid).is_none()).cloned().collect();
        self.gpus.extend(
            lost.into_iter().map(|gpu| Gpu { withheld: Some("it no longer answers".to_owned()), ..gpu }),
        );
        if !before.gpus.is_empty() {
            // A driver that went away took its answers along, not what was true of the machine.
            self.driver_version = self.driver_version.or_else(|| before.driver_version.clone());
            self.cuda_version = self.cuda_version.or_else(|| before.cuda_version.clone());
            self.library = self.library.or_else(|| before.library.clone());
            self.replayed |= before.replayed;
        }
        self
    }
}

impl Gpu {
    /// What in the driver's answers speaks against giving it to a pod.
    pub fn fault(&self) -> Option<String> {
        if self.mig.is_some_and(|mig| mig.enabled) {
            return Some("it is cut into MIG instances, which are not offered yet".to_owned());
        }
        match self.ecc.and_then(|ecc| ecc.uncorrected) {
            Some(0) | None => None,
            Some(1) => Some("1 uncorrected memory error since the driver was loaded".to_owned()),
            Some(errors) => Some(format!("{errors} uncorrected memory errors since the driver was loaded")),
        }
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
    fn instances_and_uncorrected_errors_speak_against_a_gpu() {
        let ecc =
            |uncorrected| Some(Ecc { enabled: true, corrected: Some(9), uncorrected, ..Ecc::default() });
        assert_eq!(Gpu { ecc: ecc(Some(0)), ..Gpu::default() }.fault(), None);
        assert_eq!(Gpu { ecc: ecc(None), ..Gpu::default() }.fault(), None);
        let fault = Gpu { ecc: ecc(Some(2)), ..Gpu::default() }.fault().unwrap();
        assert!(fault.contains("2 uncorrected"), "{fault}");
        let cut = Some(Mig { enabled: true, pending: true });
        assert!(Gpu { mig: cut, ..Gpu::default() }.fault().unwrap().contains("MIG"));
    }
}
