//! AMD's GPUs, as the kernel tells of them in files under `/sys`: nothing of AMD's is needed to see them.
//!
//! | module | owns |
//! |---|---|
//! | `card` | one GPU: memory, place, figures, errors |
//! | `topology` | what computes and what is linked, as the compute driver (KFD) tells |
//! | `host` | what a container needs |
//! | `labels` | what the Node says of them (pure) |
//!
//! A card that computes nothing (no node in KFD's topology) is no GPU here: the graphics of a server's board stay quiet.
//!
//! Sources: the kernel's "AMDGPU driver", sections "GPU sysfs" and "RAS"; `drivers/gpu/drm/amd/amdkfd/kfd_topology.c`.

mod card;
pub(super) mod host;
pub(super) mod labels;
mod topology;

use std::path::Path;

use serde::{Deserialize, Serialize};

use self::topology::Topology;
use super::{Gpu, Inventory, inventory::Peer, sysfs::text};

/// What an xGMI link is called among the ways from one GPU to another.
const XGMI: &str = "Xgmi";

/// What is known of a GPU that is AMD's, beside what is known of any. Its number in `/dev/dri/renderDN` is `minor`, its
/// instruction set `architecture`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amd {
    /// The number in `/dev/dri/cardN`.
    pub card: u32,
    /// Of its kind, on the PCI bus: `740f`
    pub device_id: Option<String>,
    /// How many it has.
    pub compute_units: Option<u32>,
    /// The same.
    pub simds: Option<u32>,
    /// All GPUs of one have xGMI links to each other.
    pub hive: Option<String>,
    /// How it is cut: `SPX` is not at all.
    pub partition: Option<String>,
    /// How much of the last moments it computed.
    pub busy_percent: Option<u32>,
}

impl Amd {
    /// Whether it is several GPUs to who computes.
    pub fn is_cut(&self) -> bool {
        self.partition.as_ref().is_some_and(|mode| mode != "SPX")
    }
}

/// To how many others it has xGMI links.
pub(super) fn links(gpu: &Gpu) -> Option<u32> {
    let links = gpu.peers.iter().filter(|peer| peer.ancestor == XGMI).count();
    u32::try_from(links).ok().filter(|_| gpu.amd.is_some())
}

/// Those of a machine, or of a recording, whose `/sys` is here.
pub(super) fn inventory(sys: &Path) -> Inventory {
    let cards = card::all(sys);
    if cards.is_empty() {
        return Inventory::default();
    }
    let topology = Topology::read(sys);
    let mut gpus: Vec<Gpu> =
        cards.iter().filter_map(|(number, folder)| card::read(*number, folder, &topology)).collect();
    // As AMD's tools number them.
    gpus.sort_by(|one, other| one.pci.bus_id.cmp(&other.pci.bus_id));
    for (index, gpu) in (0..).zip(&mut gpus) {
        gpu.index = index;
    }
    let peers: Vec<Vec<Peer>> = gpus.iter().map(|gpu| peers(gpu, &gpus, &topology)).collect();
    gpus.iter_mut().zip(peers).for_each(|(gpu, peers)| gpu.peers = peers);
    // Only of a driver that came by itself: the kernel's own has the kernel's version.
    let amdgpu_version = text(&sys.join("module/amdgpu/version")).filter(|_| !gpus.is_empty());
    Inventory { gpus, amdgpu_version, ..Inventory::default() }
}

fn peers(gpu: &Gpu, all: &[Gpu], topology: &Topology) -> Vec<Peer> {
    let linked = |other: &&Gpu| topology.is_linked(gpu.minor, other.minor);
    let peer = |other: &Gpu| Peer { uuid: other.uuid.clone(), ancestor: XGMI.to_owned() };
    all.iter().filter(linked).map(peer).collect()
}

#[cfg(test)]
mod tests;
