//! Against a recorded `/sys`, which each test breaks in its own way.

use std::{fs, path::PathBuf, process::Command};

use super::*;
use crate::gpu::{
    Inventory, Source, Unavailable, beside::Beside, cdi, facts, health, inventory::Gpu, source::Answer,
};

const FIRST: &str = "GPU-1901ead3a2ecd4a6";

/// The first card's own folder.
const CARD: &str = "devices/pci0000:60/0000:60:03.1/0000:63:00.0";

/// A copy of the recorded `/sys`, which a test may break.
struct Recorded(tempfile::TempDir);

impl Recorded {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mi210/sys");
        let copied = Command::new("cp").args(["-a", recording]).arg(folder.path()).status().unwrap();
        assert!(copied.success());
        Self(folder)
    }

    fn sys(&self) -> PathBuf {
        self.0.path().join("sys")
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.sys().join(file), text).unwrap();
    }

    fn read(&self) -> Inventory {
        inventory(&self.sys())
    }
}

fn first(machine: &Inventory) -> &Gpu {
    machine.gpus.iter().find(|gpu| gpu.pci.bus_id == "0000:63:00.0").expect("it is there")
}

#[test]
fn the_kernels_files_say_what_gpus_there_are_and_a_boards_graphics_is_none() {
    let recorded = Recorded::new();
    let machine = recorded.read();
    let places: Vec<(u32, &str)> =
        machine.gpus.iter().map(|gpu| (gpu.index, gpu.pci.bus_id.as_str())).collect();
    assert_eq!(places, [(0, "0000:43:00.0"), (1, "0000:63:00.0"), (2, "0000:e3:00.0")]);
    assert_eq!(machine.amdgpu_version.as_deref(), Some("6.12.12"));
    let gpu = first(&machine);
    assert_eq!((gpu.uuid.as_str(), gpu.minor), (FIRST, Some(128)));
    assert_eq!(gpu.model, "AMD INSTINCT MI210 (MCM) OAM AC MBA");
    assert_eq!((gpu.memory_bytes, gpu.memory_used_bytes), (68_702_699_520, Some(11_018_240)));
    assert_eq!((gpu.architecture.as_deref(), gpu.numa_node), (Some("gfx90a"), Some(0)));
    assert_eq!((gpu.pci.root.as_deref(), gpu.pci.generation_max), (Some("pci0000:60"), Some(4)));
    assert_eq!((gpu.temperature_celsius, gpu.power.usage_milliwatts), (Some(38), Some(42_000)));
    assert_eq!((gpu.power.limit_milliwatts, gpu.clocks.sm_mhz), (Some(300_000), Some(800)));
    let errors = gpu.ecc.unwrap();
    assert_eq!((errors.corrected, errors.uncorrected), (Some(3), Some(0)));
    let amd = gpu.amd.as_ref().unwrap();
    assert_eq!((amd.card, amd.device_id.as_deref()), (1, Some("740f")));
    assert_eq!((amd.compute_units, amd.busy_percent), (Some(104), Some(0)));
    assert_eq!(amd.hive.as_deref(), Some("aefdf8293fefa6b7"));
}

#[test]
fn links_lead_to_those_that_they_lead_to() {
    let machine = Recorded::new().read();
    let peers: Vec<Vec<&str>> =
        machine.gpus.iter().map(|gpu| gpu.peers.iter().map(|peer| peer.uuid.as_str()).collect()).collect();
    assert_eq!(peers, [vec![FIRST], vec![machine.gpus[0].uuid.as_str()], vec![]]);
    assert_eq!(machine.gpus.iter().map(links).collect::<Vec<_>>(), [Some(1), Some(1), Some(0)]);
}

#[test]
fn one_without_a_name_for_life_has_that_of_its_place_or_of_the_compute_driver() {
    let recorded = Recorded::new();
    recorded.write(&format!("{CARD}/unique_id"), "0\n");
    assert_eq!(first(&recorded.read()).uuid, FIRST, "the compute driver says it, too");
    let node = "class/kfd/kfd/topology/nodes/2/properties";
    let text = fs::read_to_string(recorded.sys().join(node)).unwrap();
    recorded.write(node, &text.replace("\nunique_id ", "\nother_id "));
    assert_eq!(first(&recorded.read()).uuid, "PCI-0000-63-00-0");
}

#[test]
fn a_gpu_that_vanishes_errs_or_does_not_say_its_memory_is_not_for_everybody() {
    let recorded = Recorded::new();
    let before = recorded.read();
    assert_eq!(health::fault(first(&before)), None, "errors that were corrected are none");
    let kind = |machine: &Inventory| health::fault(first(machine)).map(|fault| fault.kind);
    recorded.write(&format!("{CARD}/ras/gfx_err_count"), "ue: 1\nce: 0\n");
    let ill = recorded.read();
    assert_eq!(kind(&ill), Some("ecc"));
    recorded.write(&format!("{CARD}/ras/gfx_err_count"), "Query currently inaccessible\n");
    assert_eq!(kind(&recorded.read().after(&ill)), Some("ecc"), "a reset that goes on heals nothing yet");
    recorded.write(&format!("{CARD}/ras/gfx_err_count"), "ue: 0\nce: 0\n");
    recorded.write(&format!("{CARD}/mem_info_vram_total"), "");
    let unread = recorded.read();
    assert_eq!(kind(&unread), Some("memory"));
    assert!(first(&unread).refused.contains_key("memory"));
    assert_eq!(first(&unread.after(&before)).memory_bytes, 68_702_699_520, "it is what it was");

    fs::remove_file(recorded.sys().join("class/drm/card1/device")).unwrap();
    let gone = recorded.read().after(&before);
    assert_eq!(first(&gone).withheld.as_deref(), Some("it no longer answers"));
    assert_eq!(gone.offered().count(), 2);
}

#[test]
fn labels_are_those_of_amds_labeller_and_none_of_nvidias() {
    let recorded = Recorded::new();
    let labels = facts::labels(&recorded.read());
    let expected = [
        ("amd.com/gpu.cu-count", "104"),
        ("amd.com/gpu.device-id", "740f"),
        ("amd.com/gpu.driver-version", "6.12.12"),
        ("amd.com/gpu.product-name", "AMD_INSTINCT_MI210_MCM_OAM_AC_MBA"),
        ("amd.com/gpu.simd-count", "416"),
        ("amd.com/gpu.vram", "64G"),
    ];
    let labels: Vec<(&str, &str)> =
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(labels, expected);
    assert_eq!(facts::counts(&recorded.read()), [("amd.com/gpu".to_owned(), (3, 3))].into());
    recorded.write(&format!("{CARD}/product_name"), "AMD Instinct MI250\n");
    assert!(!facts::labels(&recorded.read()).contains_key("amd.com/gpu.product-name"), "they differ");
}

#[test]
fn a_container_is_given_the_files_of_its_gpu_and_what_the_vendor_says_of_it() {
    let dev = tempfile::tempdir().unwrap();
    let machine = Recorded::new().read();
    let gpu = first(&machine);
    fs::create_dir(dev.path().join("dri")).unwrap();
    for name in ["kfd", "dri/card1", "dri/card2", "dri/renderD128"] {
        let why = host::edits(&[gpu], dev.path()).unwrap_err();
        assert!(why.starts_with("there is no "), "{why}");
        fs::write(dev.path().join(name), "").unwrap();
    }
    let edits = host::edits(&[gpu], dev.path()).unwrap();
    let nodes: Vec<&str> = edits.device_nodes.iter().filter_map(|node| node.path.to_str()).collect();
    assert_eq!(nodes, ["/dev/kfd", "/dev/dri/card1", "/dev/dri/renderD128"]);
    assert!(edits.device_nodes.iter().all(|node| node.permissions.as_deref() == Some("rw")));
    assert!(edits.env.is_empty() && edits.mounts.is_empty());

    let device = |path: &str| {
        format!("devices: [{{name: \"1\", containerEdits: {{deviceNodes: [{{path: {path}}}]}}}}]")
    };
    let file = |kind: &str, path: &str| format!("cdiVersion: 0.6.0\nkind: {kind}\n{}\n", device(path));
    fs::write(dev.path().join("amd.yaml"), file("amd.com/gpu", "/dev/dri/renderD128")).unwrap();
    fs::write(dev.path().join("nvidia.yaml"), file("nvidia.com/gpu", "/dev/nvidia1")).unwrap();
    let vendor = cdi::read(&[dev.path().to_owned()]);
    let path = |gpu: &Gpu| vendor.edits(&[gpu]).unwrap().device_nodes[0].path.clone();
    assert_eq!(path(gpu), Path::new("/dev/dri/renderD128"));
    assert_eq!(path(&Gpu { index: 1, ..Gpu::default() }), Path::new("/dev/nvidia1"));
}

/// NVIDIA's side of a machine.
struct Others(fn() -> Answer);

impl Source for Others {
    fn tell(&self, listener: &mut dyn FnMut(Answer) -> bool) {
        while listener((self.0)()) {}
    }
}

fn absent() -> Answer {
    Err(Unavailable::Absent("no library".to_owned()))
}

fn one() -> Answer {
    let gpu = Gpu { uuid: "GPU-nvidia".to_owned(), ..Gpu::default() };
    Ok(Inventory { gpus: vec![gpu], cuda_version: Some("13.0".to_owned()), ..Inventory::default() })
}

#[test]
fn gpus_of_both_makers_are_one_machines() {
    let recorded = Recorded::new();
    let machine = Beside { source: Others(one), sys: recorded.sys(), vulkan: None }.ask().unwrap();
    assert_eq!(machine.gpus.len(), 4);
    let counts = facts::counts(&machine);
    assert_eq!((counts["nvidia.com/gpu"], counts["amd.com/gpu"]), ((1, 1), (3, 3)));
    let labels = facts::labels(&machine);
    assert_eq!((&*labels["nvidia.com/gpu.count"], &*labels["amd.com/gpu.vram"]), ("1", "64G"));
}

#[test]
fn a_machine_that_loses_its_last_gpu_says_so_and_one_that_never_had_any_is_quiet() {
    let recorded = Recorded::new();
    let mut answers = Vec::new();
    Beside { source: Others(absent), sys: recorded.sys(), vulkan: None }.tell(&mut |answer| {
        answers.push(answer.map(|machine| machine.gpus.len()));
        fs::remove_dir_all(recorded.sys().join("class/drm")).is_ok()
    });
    assert!(matches!(answers[..], [Ok(3), Ok(0)]), "{answers:?}");
    let without = Beside { source: Others(absent), sys: recorded.sys(), vulkan: None }.ask();
    assert!(matches!(without, Err(Unavailable::Absent(_))));
}
