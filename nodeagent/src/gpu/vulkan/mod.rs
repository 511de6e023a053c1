//! GPUs that neither NVIDIA's library nor the kernel's compute driver lists, and Vulkan knows: Intel's, and those of any maker who
//! wrote a driver for it.
//!
//! | module | owns |
//! |---|---|
//! | `ask` | asking drivers, in a process that they may crash |
//! | `render` | device files of GPUs, as the kernel tells (its render nodes) |
//! | `host` | what a container needs |
//! | `labels` | what the Node says of them (pure) |
//!
//! Drivers say what a GPU is, the kernel says whether it is there: drivers are asked when what the kernel says has changed, or
//! which drivers there are, and not else.

mod ask;
pub(super) mod host;
pub(super) mod labels;
mod render;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use claw_graph::known::{Adapter, AdapterKind};
use serde::{Deserialize, Serialize};

pub use self::ask::AskVulkan;
use self::render::Node;
use super::{Gpu, Inventory, apart::Apart, sysfs};

/// How long drivers are left alone that could not be asked.
const RETRY: Duration = Duration::from_secs(60);

/// Where drivers leave word of themselves for Vulkan's loader.
const DRIVERS: [&str; 3] = ["/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d"];

/// What is known of a GPU by Vulkan, beside what is known of any. Its number in `/dev/dri/renderDN` is `minor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vulkan {
    /// A card, a part of the processor, or software that only calls itself a GPU.
    pub kind: AdapterKind,
    /// On the PCI bus: `8086`
    pub vendor_id: String,
    /// By its maker: `56c0`
    pub device_id: String,
    /// `Intel open-source Mesa driver`
    pub driver_name: Option<String>,
    /// `22.3.6`
    pub driver_version: Option<String>,
}

impl Vulkan {
    /// Whether the machine's processors do its work.
    pub fn is_software(&self) -> bool {
        self.kind == AdapterKind::Cpu
    }
}

/// What the last asking depended on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Scene {
    nodes: Vec<Node>,
    drivers: BTreeMap<PathBuf, Option<SystemTime>>,
}

/// GPUs that nobody else lists, looked for again and again.
#[derive(Debug)]
pub(super) struct Others {
    ask: AskVulkan,
    sys: PathBuf,
    /// Places on the PCI bus of GPUs that others have listed: one that these have lost does not come back as another.
    listed: BTreeSet<String>,
    asked: Option<(Scene, Instant)>,
    /// Whether that was answered.
    is_answered: bool,
    /// As last told.
    adapters: Vec<Adapter>,
    apart: Apart,
}

impl Others {
    pub fn new(ask: AskVulkan, sys: PathBuf) -> Self {
        Self {
            ask,
            sys,
            listed: BTreeSet::new(),
            asked: None,
            is_answered: false,
            adapters: Vec::new(),
            apart: Apart::default(),
        }
    }

    /// Adds those that Vulkan knows to those that are there. Waits for drivers for some seconds at most.
    pub fn add_to(&mut self, machine: &mut Inventory) {
        self.listed.extend(places(machine).map(str::to_owned));
        let mut nodes = render::nodes(&self.sys);
        nodes.retain(|node| node.place.as_ref().is_none_or(|place| !self.listed.contains(place)));
        if nodes.is_empty() && !self.ask.software {
            return;
        }
        let scene = Scene { nodes, drivers: drivers(&DRIVERS) };
        if self.is_worth_asking(&scene) {
            self.ask();
        }
        machine.gpus.extend(gpus(&self.adapters, &scene.nodes, &self.listed, self.ask.software));
        self.asked = Some((scene, self.asked.take().map_or_else(Instant::now, |(_, since)| since)));
    }

    fn is_worth_asking(&self, scene: &Scene) -> bool {
        match &self.asked {
            Some((before, since)) => before != scene || (!self.is_answered && since.elapsed() >= RETRY),
            None => true,
        }
    }

    /// What was told before holds for what is still there.
    fn ask(&mut self) {
        self.asked = None;
        match ask::ask(&self.ask, &mut self.apart) {
            Ok(adapters) => (self.adapters, self.is_answered) = (adapters, true),
            Err(why) => {
                self.is_answered = false;
                tracing::warn!(why, "Vulkan cannot be asked for GPUs; it is asked again in a minute");
            }
        }
    }
}

fn places(machine: &Inventory) -> impl Iterator<Item = &str> {
    machine.gpus.iter().map(|gpu| gpu.pci.bus_id.as_str()).filter(|place| !place.is_empty())
}

/// Which drivers there are, and since when.
fn drivers(folders: &[&str]) -> BTreeMap<PathBuf, Option<SystemTime>> {
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let since = |entry: &std::fs::DirEntry| entry.metadata().and_then(|found| found.modified()).ok();
    entries.map(|entry| (entry.path(), since(&entry))).collect()
}

/// Each adapter that is there and that nobody else lists; one that two drivers know is one. Pure.
fn gpus(adapters: &[Adapter], nodes: &[Node], listed: &BTreeSet<String>, software: bool) -> Vec<Gpu> {
    let mut gpus: Vec<Gpu> = Vec::new();
    for adapter in adapters {
        let is_software = adapter.kind == AdapterKind::Cpu;
        let node = nodes.iter().find(|node| node.is_of(adapter)).filter(|_| !is_software);
        let is_wanted = if is_software { software } else { node.is_some() };
        let is_listed = adapter.pci_bus_id.as_ref().is_some_and(|place| listed.contains(place));
        let minor = node.map(|node| node.minor);
        let is_known = |gpu: &Gpu| gpu.uuid == adapter.uuid || (minor.is_some() && gpu.minor == minor);
        if is_wanted && !is_listed && !gpus.iter().any(is_known) {
            let index = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
            gpus.push(Gpu { index, ..gpu(adapter, node) });
        }
    }
    gpus
}

fn gpu(adapter: &Adapter, node: Option<&Node>) -> Gpu {
    let place = node.and_then(|node| node.place.clone());
    let pci = node.zip(place).map(|(node, place)| sysfs::pci(&node.folder, place));
    let file = |name: &str| node.map(|node| node.folder.join(name));
    let info = adapter.driver_info.as_deref().unwrap_or_default();
    Gpu {
        minor: node.map(|node| node.minor),
        uuid: adapter.uuid.clone(),
        model: adapter.model.clone(),
        memory_bytes: adapter.memory_bytes,
        pci: pci.unwrap_or_default(),
        // -1 where the machine has one node only.
        numa_node: file("numa_node").and_then(|file| sysfs::number(&file)),
        cpu_affinity: file("local_cpulist").and_then(|file| sysfs::text(&file)),
        vulkan: Some(Vulkan {
            kind: adapter.kind,
            vendor_id: format!("{:04x}", adapter.vendor_id),
            device_id: format!("{:04x}", adapter.device_id),
            driver_name: adapter.driver_name.clone(),
            driver_version: version(info),
        }),
        ..Gpu::default()
    }
}

/// The first number with points in it: `22.3.6` of `Mesa 22.3.6 (LLVM 15.0.6)`.
fn version(info: &str) -> Option<String> {
    let words = info.split(|c: char| !c.is_ascii_digit() && c != '.').map(|word| word.trim_matches('.'));
    words.into_iter().find(|word| word.contains('.')).map(str::to_owned)
}

#[cfg(test)]
mod tests;
