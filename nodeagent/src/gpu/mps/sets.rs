//! Which GPUs have a daemon together, and what each of its clients may use. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gpu::{
    Gpu, Inventory,
    cdi::{ContainerEdits, Mount},
    inventory::Teller,
    sharing::{Shared, Strategy},
};

use super::Place;

/// Processes that MPS lets use one GPU at once, of Turing and later, and of those before (NVIDIA's device plugin, `mps/device.go`).
const CLIENTS_MAX: u32 = 48;
const CLIENTS_MAX_BEFORE_TURING: u32 = 16;
/// Its compute capability.
const TURING: (u32, u32) = (7, 5);

/// The GPUs of one resource that are shared by as many: a container has its clients talk with one daemon, whichever of these it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// What they are counted as: `nvidia.com/gpu.shared`
    pub resource: String,
    /// By how many containers each is shared.
    pub replicas: u32,
    /// The GPUs, as the driver numbers them, and how many MiB each has for one client.
    pub gpus: Vec<(String, u64)>,
    /// There are no others on the machine.
    pub is_all: bool,
}

impl Set {
    /// What it is called, as a folder.
    pub fn name(&self) -> String {
        format!("{}-{}", self.resource.replace('/', "_"), self.replicas)
    }

    /// How much of a GPU's processors one client may use at once, in whole percent.
    pub fn thread_percentage(&self) -> u32 {
        100 / self.replicas.max(1)
    }

    /// What the daemon is told once it runs, a line each. GPUs are numbered as it sees them.
    pub fn limits(&self) -> Vec<String> {
        let memory = self.gpus.iter().enumerate().filter(|(_, (_, mebibytes))| *mebibytes > 0);
        let memory = memory.map(|(number, (_, mebibytes))| {
            format!("set_default_device_pinned_mem_limit {number} {mebibytes}M")
        });
        let threads = format!("set_default_active_thread_percentage {}", self.thread_percentage());
        memory.chain([threads]).collect()
    }

    /// What keeps the daemon to these GPUs, and to their order.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let uuids: Vec<&str> = self.gpus.iter().map(|(uuid, _)| uuid.as_str()).collect();
        let order = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned());
        let only = (!self.is_all).then(|| ("CUDA_VISIBLE_DEVICES", uuids.join(",")));
        [order].into_iter().chain(only).collect()
    }
}

/// All sets of a machine, by their names. GPUs that are withheld belong to them: a set does not change with what becomes of one.
pub fn sets(inventory: &Inventory) -> BTreeMap<String, Set> {
    let is_whole = |gpu: &&Gpu| gpu.part.is_none() && gpu.teller() == Teller::Nvidia;
    let all = inventory.gpus.iter().filter(is_whole).count();
    let mut by_kind: BTreeMap<(&str, u32), Vec<&Gpu>> = BTreeMap::new();
    for gpu in &inventory.gpus {
        if let Some(shared) = by_mps(gpu) {
            by_kind.entry((shared.resource.as_str(), shared.replicas)).or_default().push(gpu);
        }
    }
    let set = |((resource, replicas), mut gpus): ((&str, u32), Vec<&Gpu>)| {
        gpus.sort_by_key(|gpu| gpu.index);
        let share = |gpu: &&Gpu| (gpu.uuid.clone(), (gpu.memory_bytes >> 20) / u64::from(replicas.max(1)));
        let set = Set {
            resource: resource.to_owned(),
            replicas,
            gpus: gpus.iter().map(share).collect(),
            is_all: gpus.len() == all,
        };
        (set.name(), set)
    };
    by_kind.into_iter().map(set).collect()
}

/// Why a GPU cannot be shared by so many as it shall be.
pub fn too_many(gpu: &Gpu) -> Option<String> {
    let replicas = by_mps(gpu)?.replicas;
    let version = gpu.compute_capability.as_deref().unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let max = if version >= TURING { CLIENTS_MAX } else { CLIENTS_MAX_BEFORE_TURING };
    (replicas > max).then(|| format!("MPS shares it among {max} at most, and replicas are {replicas}"))
}

fn by_mps(gpu: &Gpu) -> Option<&Shared> {
    gpu.shared.as_ref().filter(|shared| shared.strategy == Strategy::Mps)
}

/// What a container needs to be a client, by the sets of its GPUs.
///
/// # Errors
/// When it would have to talk with two daemons.
pub fn edits(gpus: &[&Gpu], place: &Place) -> Result<ContainerEdits, String> {
    let mut shared: Vec<&Shared> = gpus.iter().filter_map(|gpu| by_mps(gpu)).collect();
    shared.dedup_by(|one, other| (&one.resource, one.replicas) == (&other.resource, other.replicas));
    let Shared { resource, replicas, .. } = match shared[..] {
        [] => return Ok(ContainerEdits::default()),
        [one] => one,
        _ => return Err("its GPUs are shared by several MPS daemons, and it can talk with one".to_owned()),
    };
    let set = Set { resource: resource.clone(), replicas: *replicas, gpus: Vec::new(), is_all: false };
    // As NVIDIA's device plugin has it.
    let inside = format!("/mps/{}/pipe", set.resource);
    let mount = |host_path, container_path: &str| Mount {
        host_path,
        container_path: container_path.into(),
        options: ["nosuid", "nodev", "noexec", "rbind", "rprivate"].map(str::to_owned).to_vec(),
        kind: None,
    };
    Ok(ContainerEdits {
        mounts: vec![mount(place.pipe(&set.name()), &inside), mount(place.memory(), "/dev/shm")],
        env: vec![
            format!("CUDA_MPS_PIPE_DIRECTORY={inside}"),
            format!("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE={}", set.thread_percentage()),
        ],
        ..ContainerEdits::default()
    })
}
