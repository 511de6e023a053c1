//! One GPU of AMD: what the files of its PCI device say.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Amd,
    topology::{Node, Topology},
};
use crate::gpu::{
    Gpu,
    inventory::{Clocks, Ecc, Power},
    sysfs::{number, pci, text},
};

/// On the PCI bus.
const VENDOR: &str = "0x1002";

/// Numbers and folders of AMD's cards.
pub(super) fn all(sys: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(sys.join("class/drm")).into_iter().flatten().flatten();
    let card = |name: &str| name.strip_prefix("card")?.parse::<u32>().ok();
    let cards = entries.filter_map(|entry| {
        // Where a screen is plugged in, `card0-DP-1`, is no card.
        let number = card(entry.file_name().to_str()?)?;
        let folder = fs::canonicalize(entry.path().join("device")).ok()?;
        (text(&folder.join("vendor")).as_deref() == Some(VENDOR)).then_some((number, folder))
    });
    cards.collect()
}

/// `None` for one that computes nothing.
pub(super) fn read(card: u32, folder: &Path, topology: &Topology) -> Option<Gpu> {
    let minor = render_minor(folder)?;
    let node = topology.of(minor)?;
    let bus_id = folder.file_name()?.to_str()?.to_owned();
    let device_id = text(&folder.join("device")).map(|id| id.trim_start_matches("0x").to_owned());
    let memory = fs::read_to_string(folder.join("mem_info_vram_total")).map_err(|error| error.to_string());
    let memory = memory.and_then(|text| text.trim().parse().map_err(|_| format!("it says {text:?}")));
    let refused = memory.as_ref().err().map(|why| ("memory".to_owned(), why.clone()));
    let sensors = sensors(folder);
    Some(Gpu {
        minor: Some(minor),
        uuid: uuid(folder, node, &bus_id),
        model: model(folder, node, device_id.as_deref()),
        brand: Some("AMD".to_owned()),
        architecture: node.target.clone(),
        memory_bytes: memory.unwrap_or_default(),
        memory_used_bytes: number(&folder.join("mem_info_vram_used")),
        pci: pci(folder, bus_id),
        // -1 where the machine has one node only.
        numa_node: number(&folder.join("numa_node")),
        cpu_affinity: text(&folder.join("local_cpulist")),
        ecc: errors(folder),
        clocks: clocks(&sensors),
        power: power(&sensors),
        temperature_celsius: temperature(&sensors),
        refused: refused.into_iter().collect(),
        amd: Some(Amd {
            card,
            device_id,
            compute_units: node.compute_units,
            simds: node.simds,
            hive: node.hive.map(|hive| format!("{hive:x}")),
            partition: text(&folder.join("current_compute_partition")),
            busy_percent: number(&folder.join("gpu_busy_percent")),
        }),
        ..Gpu::default()
    })
}

/// The number in `/dev/dri/renderDN`.
fn render_minor(folder: &Path) -> Option<u32> {
    let entries = fs::read_dir(folder.join("drm")).ok()?.flatten();
    let mut minors =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("renderD")?.parse().ok());
    minors.next()
}

/// In the form of AMD's runtime (`GPU-` and sixteen digits). One that has no name for life has that of its place.
fn uuid(folder: &Path, node: &Node, bus_id: &str) -> String {
    let told = text(&folder.join("unique_id")).and_then(|id| u64::from_str_radix(&id, 16).ok());
    match told.filter(|id| *id > 0).or(node.unique_id) {
        Some(id) => format!("GPU-{id:016x}"),
        None => format!("PCI-{}", bus_id.replace([':', '.'], "-")),
    }
}

fn model(folder: &Path, node: &Node, device_id: Option<&str>) -> String {
    let kind =
        || format!("AMD {} {}", node.target.as_deref().unwrap_or("GPU"), device_id.unwrap_or_default());
    text(&folder.join("product_name")).unwrap_or_else(|| kind().trim().to_owned())
}

/// What its blocks counted since the driver was loaded: a file for each, with corrected (`ce`) and other errors (`ue`). While it
/// is reset, a file says in words that nobody knows; then nothing is known here.
fn errors(folder: &Path) -> Option<Ecc> {
    let entries = fs::read_dir(folder.join("ras")).ok()?.flatten();
    let is_count = |name: &str| name.ends_with("_err_count");
    let files = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_count));
    let told: Vec<BTreeMap<String, u64>> =
        files.filter_map(|file| text(&file.path())).map(|text| counts(&text)).collect();
    let is_known = told.iter().all(|counts| !counts.is_empty());
    let sum = |kind: &str| is_known.then(|| told.iter().filter_map(|counts| counts.get(kind)).sum());
    let (corrected, uncorrected) = (sum("ce"), sum("ue"));
    (!told.is_empty()).then_some(Ecc { enabled: true, corrected, uncorrected, ..Ecc::default() })
}

fn counts(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.filter_map(|(kind, count)| Some((kind.trim().to_owned(), count.trim().parse().ok()?))).collect()
}

/// The folder of its sensors; one that is nowhere where it has none.
fn sensors(folder: &Path) -> PathBuf {
    let first = fs::read_dir(folder.join("hwmon")).ok().and_then(|mut all| all.next()?.ok());
    first.map(|entry| entry.path()).unwrap_or_default()
}

/// At the edge of the chip; newer ones tell only of the hottest place.
fn temperature(sensors: &Path) -> Option<u32> {
    let read = |name: &str| number::<u32>(&sensors.join(name)).map(|thousandths| thousandths / 1_000);
    read("temp1_input").or_else(|| read("temp2_input"))
}

fn power(sensors: &Path) -> Power {
    let read = |name: &str| {
        let microwatts: u64 = number(&sensors.join(name))?;
        u32::try_from(microwatts / 1_000).ok()
    };
    Power {
        usage_milliwatts: read("power1_average").or_else(|| read("power1_input")),
        limit_milliwatts: read("power1_cap"),
    }
}

fn clocks(sensors: &Path) -> Clocks {
    let read = |name: &str| {
        let hertz: u64 = number(&sensors.join(name))?;
        u32::try_from(hertz / 1_000_000).ok()
    };
    Clocks { sm_mhz: read("freq1_input"), memory_mhz: read("freq2_input"), ..Clocks::default() }
}
