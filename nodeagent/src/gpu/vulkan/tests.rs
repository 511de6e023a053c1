//! Against folders that stand for `/sys`, and scripts that stand for the program that asks drivers.

use std::{fs, os::unix::fs::symlink, path::Path};

use claw_schemas::gpu::{SOFTWARE_LABEL, VULKAN_RESOURCE};
use serde_json::json;

use super::*;
use crate::gpu::{
    Source, Unavailable, beside::Beside, facts, inventory::Pci, slice, source::Answer, watch::once,
};

/// A machine with render nodes, and drivers that say what stands in a file.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.say(&json!([]));
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A card with its render node.
    fn plug(&self, minor: u32, place: &str) {
        let device = self.path("devices/pci0000:00").join(place);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("numa_node"), "1\n").unwrap();
        fs::write(device.join("max_link_speed"), "16.0 GT/s PCIe\n").unwrap();
        let node = self.path(&format!("class/drm/renderD{minor}"));
        fs::create_dir_all(&node).unwrap();
        symlink(&device, node.join("device")).unwrap();
    }

    fn unplug(&self, minor: u32) {
        fs::remove_dir_all(self.path(&format!("class/drm/renderD{minor}"))).unwrap();
    }

    /// What drivers say from now on.
    fn say(&self, known: &serde_json::Value) {
        fs::write(self.path("says"), known.to_string()).unwrap();
    }

    /// How it is asked; each time leaves a letter behind.
    fn ask(&self, software: bool) -> AskVulkan {
        let script = "printf x >> \"$0/asked\"; cat \"$0/says\"";
        let command = ["/bin/sh".into(), "-c".into(), script.into(), self.0.path().into()];
        AskVulkan { command: command.to_vec(), software }
    }

    fn times_asked(&self) -> usize {
        fs::read(self.path("asked")).map_or(0, |letters| letters.len())
    }

    fn others(&self, software: bool) -> Others {
        Others::new(self.ask(software), self.0.path().to_owned())
    }
}

fn known(uuid: &str, kind: &str, more: serde_json::Value) -> serde_json::Value {
    let mut adapter = json!({
        "uuid": uuid, "kind": kind, "model": format!("Model {uuid}"), "vendorId": 0x8086, "deviceId": 0x56c0,
        "driverName": "Some driver", "driverInfo": "Mesa 22.3.6 (LLVM 15.0.6)", "memoryBytes": 16 << 20,
    });
    adapter.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": "vulkan:0", "isCpu": kind == "cpu", "adapter": adapter})
}

fn software() -> serde_json::Value {
    known("VK-S", "cpu", json!({"vendorId": 0x10005}))
}

fn found(others: &mut Others, machine: Inventory) -> Inventory {
    let mut machine = machine;
    others.add_to(&mut machine);
    machine
}

fn uuids(machine: &Inventory) -> Vec<&str> {
    machine.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect()
}

const PLACE: &str = "0000:03:00.0";

#[test]
fn a_card_is_found_by_its_file_or_its_place_with_what_the_kernel_says_of_it() {
    let machine = Machine::new();
    machine.plug(128, PLACE);
    machine.plug(129, "0000:04:00.0");
    machine.say(&json!([
        known("VK-A", "discrete", json!({"renderMinor": 128, "pciBusId": "0000:99:00.0"})),
        known("VK-B", "integrated", json!({"pciBusId": "0000:04:00.0"})),
        known("VK-Again", "discrete", json!({"renderMinor": 128})),
        known("VK-Nowhere", "discrete", json!({})),
    ]));
    let all = found(&mut machine.others(false), Inventory::default());
    assert_eq!(uuids(&all), ["VK-A", "VK-B"], "a card that two drivers know is one");
    let gpu = &all.gpus[0];
    let pci = &gpu.pci;
    assert_eq!((gpu.minor, pci.bus_id.as_str(), gpu.numa_node), (Some(128), PLACE, Some(1)));
    assert_eq!((pci.generation_max, pci.root.as_deref()), (Some(4), Some("pci0000:00")));
    assert_eq!((gpu.model.as_str(), gpu.memory_bytes, gpu.index), ("Model VK-A", 16 << 20, 0));
    let told = gpu.vulkan.as_ref().unwrap();
    assert_eq!((told.vendor_id.as_str(), told.device_id.as_str()), ("8086", "56c0"));
    assert_eq!(told.driver_version.as_deref(), Some("22.3.6"));
    assert_eq!(all.gpus[1].index, 1);
}

#[test]
fn what_others_list_or_listed_once_is_theirs() {
    let machine = Machine::new();
    machine.plug(128, PLACE);
    machine.say(&json!([known("VK-A", "discrete", json!({"pciBusId": PLACE}))]));
    let pci = Pci { bus_id: PLACE.to_owned(), ..Pci::default() };
    let theirs = Gpu { uuid: "GPU-1".to_owned(), pci, ..Gpu::default() };
    let mut others = machine.others(false);
    let both = found(&mut others, Inventory { gpus: vec![theirs], ..Inventory::default() });
    assert_eq!(uuids(&both), ["GPU-1"]);
    assert_eq!(machine.times_asked(), 0, "there was nothing to ask for");
    assert!(found(&mut others, Inventory::default()).gpus.is_empty(), "what is lost is no other's");
    assert_eq!(uuids(&found(&mut machine.others(false), Inventory::default())), ["VK-A"]);
}

#[test]
fn software_is_no_gpu_unless_it_shall_be_one() {
    let machine = Machine::new();
    machine.say(&json!([software()]));
    assert!(found(&mut machine.others(false), Inventory::default()).gpus.is_empty());
    assert_eq!(machine.times_asked(), 0);
    let all = found(&mut machine.others(true), Inventory::default());
    assert_eq!(uuids(&all), ["VK-S"]);
    let labels = facts::labels(&all);
    assert_eq!(labels.get(SOFTWARE_LABEL).map(String::as_str), Some("true"));
    let edits = host::edits(&all.gpus.iter().collect::<Vec<_>>(), Path::new("/nowhere")).unwrap();
    assert_eq!(edits.env, ["CLAWBERNETES_VULKAN_DEVICES=VK-S"]);
    assert!(edits.device_nodes.is_empty(), "it has no files");
}

#[test]
fn drivers_are_asked_when_something_changed_and_what_they_said_holds_while_they_cannot_be() {
    let machine = Machine::new();
    machine.plug(128, PLACE);
    machine.plug(129, "0000:04:00.0");
    machine.say(&json!([
        known("VK-A", "discrete", json!({"renderMinor": 128})),
        known("VK-B", "discrete", json!({"renderMinor": 129})),
    ]));
    let mut others = machine.others(false);
    for _ in 0..3 {
        assert_eq!(uuids(&found(&mut others, Inventory::default())), ["VK-A", "VK-B"]);
    }
    assert_eq!(machine.times_asked(), 1);
    machine.unplug(128);
    fs::write(machine.path("says"), "a driver crashed").unwrap();
    for _ in 0..3 {
        assert_eq!(uuids(&found(&mut others, Inventory::default())), ["VK-B"], "the kernel says who is gone");
    }
    assert_eq!(machine.times_asked(), 2, "who failed is left alone for a while");
    machine.plug(130, PLACE);
    machine.say(&json!([known("VK-C", "discrete", json!({"renderMinor": 130}))]));
    assert_eq!(uuids(&found(&mut others, Inventory::default())), ["VK-C"]);
}

#[test]
fn a_container_is_given_the_render_node_of_its_gpu_and_no_other_file() {
    let dev = tempfile::tempdir().unwrap();
    let told = Vulkan { kind: AdapterKind::Discrete, ..Vulkan::default() };
    let gpu = Gpu { uuid: "VK-A".to_owned(), minor: Some(128), vulkan: Some(told), ..Gpu::default() };
    let why = host::edits(&[&gpu], dev.path()).unwrap_err();
    assert!(why.starts_with("there is no ") && why.ends_with("dri/renderD128"), "{why}");
    fs::create_dir(dev.path().join("dri")).unwrap();
    for name in ["card0", "renderD128", "renderD129"] {
        fs::write(dev.path().join("dri").join(name), "").unwrap();
    }
    let edits = host::edits(&[&gpu], dev.path()).unwrap();
    let nodes: Vec<&str> = edits.device_nodes.iter().filter_map(|node| node.path.to_str()).collect();
    assert_eq!(nodes, ["/dev/dri/renderD128"]);
    assert_eq!(edits.device_nodes[0].permissions.as_deref(), Some("rw"));
    assert_eq!(edits.env, ["CLAWBERNETES_VULKAN_DEVICES=VK-A"]);
    assert!(host::edits(&[&Gpu { minor: None, ..gpu }], dev.path()).is_err());
}

#[test]
fn a_node_says_of_such_gpus_what_tells_them_from_others() {
    let machine = Machine::new();
    machine.plug(128, PLACE);
    machine.say(&json!([known("VK-A", "discrete", json!({"renderMinor": 128}))]));
    let all = found(&mut machine.others(false), Inventory::default());
    assert_eq!(facts::counts(&all), [(VULKAN_RESOURCE.to_owned(), (1, 1))].into());
    let labels = facts::labels(&all);
    let labels: Vec<(&str, &str)> =
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("clawbernetes.io/gpu.count", "1"),
        ("clawbernetes.io/gpu.device-id", "56c0"),
        ("clawbernetes.io/gpu.driver-name", "Some-driver"),
        ("clawbernetes.io/gpu.driver-version", "22.3.6"),
        ("clawbernetes.io/gpu.memory", "16"),
        ("clawbernetes.io/gpu.present", "true"),
        ("clawbernetes.io/gpu.product", "Model-VK-A"),
        ("clawbernetes.io/gpu.type", "discrete"),
        ("clawbernetes.io/gpu.vendor-id", "8086"),
    ];
    assert_eq!(labels, expected);
    let slice = slice::next("n", Default::default(), &all, None, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let device = serde_json::to_value(&slice.spec.devices.unwrap()[0]).unwrap();
    assert_eq!(device["name"], "vk-a");
    for (name, value) in [
        ("type", json!({"string": "vulkan"})),
        ("uuid", json!({"string": "VK-A"})),
        ("productName", json!({"string": "Model VK-A"})),
        ("adapterType", json!({"string": "discrete"})),
        ("vendorID", json!({"string": "8086"})),
        ("deviceID", json!({"string": "56c0"})),
        ("driverName", json!({"string": "Some driver"})),
        ("driverVersion", json!({"version": "22.3.6"})),
        ("renderIndex", json!({"int": 128})),
        ("resource.kubernetes.io/pciBusID", json!({"string": PLACE})),
        ("resource.kubernetes.io/pcieRoot", json!({"string": "pci0000:00"})),
    ] {
        assert_eq!(device["attributes"][name], value, "{name}");
    }
    assert_eq!(device["attributes"]["cudaDriverVersion"], json!(null));
}

/// A machine without NVIDIA's library.
struct Nobody;

impl Source for Nobody {
    fn tell(&self, listener: &mut dyn FnMut(Answer) -> bool) {
        while listener(Err(Unavailable::Absent("no library".to_owned()))) {}
    }
}

#[test]
fn a_machine_with_such_gpus_alone_offers_them_and_its_recording_says_the_same() {
    let machine = Machine::new();
    machine.say(&json!([software()]));
    let beside = |software| Beside {
        source: Nobody,
        sys: machine.0.path().to_owned(),
        vulkan: Some(machine.ask(software)),
    };
    assert!(matches!(once(&beside(false)), Err(Unavailable::Absent(_))));
    let offered = once(&beside(true)).unwrap();
    assert_eq!(offered.offered().count(), 1);
    let recording = machine.path("recording.json");
    fs::write(&recording, serde_json::to_string(&offered).unwrap()).unwrap();
    let replayed = once(&crate::gpu::Recording(recording)).unwrap();
    assert_eq!(replayed, Inventory { replayed: true, ..offered });
}

#[test]
fn places_are_those_of_the_bus_that_are_closest_to_the_device() {
    let machine = Machine::new();
    machine.plug(128, "0000:03:00.0/virtio0");
    machine.plug(129, "soc-gpu");
    let nodes = render::nodes(machine.0.path());
    let places: Vec<_> = nodes.iter().map(|node| (node.minor, node.place.as_deref())).collect();
    assert_eq!(places, [(128, Some(PLACE)), (129, None)]);
    assert_eq!(version("radv 23.1").as_deref(), Some("23.1"));
    assert_eq!(version("no number at all 5"), None);
}
