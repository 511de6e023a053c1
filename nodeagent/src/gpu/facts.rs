//! What the Node says of its GPUs: how many there are, labels to select by, and whether all are well. Pure.
//!
//! Writes the condition GPUReady, on nodes that have GPUs.

use std::collections::BTreeMap;

use claw_schemas::gpu::{CONDITION, REPLAYED_LABEL};
use k8s_openapi::api::core::v1::NodeCondition;

use super::{Gpu, Inventory, amd, health, inventory::Teller, sharing::Strategy, vulkan};

/// Longest value of a label.
const LABEL_MAX: usize = 63;

/// How many devices the node has and how many of them pods may have, by resource.
pub fn counts(inventory: &Inventory) -> BTreeMap<String, (usize, usize)> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for gpu in inventory.devices() {
        let (all, offered) = counts.entry(gpu.resource()).or_default();
        let turns = gpu.ids().len();
        *all += turns;
        *offered += if gpu.withheld.is_none() { turns } else { 0 };
    }
    counts
}

/// Labels of all GPUs, each maker's by its own names.
pub fn labels(inventory: &Inventory) -> BTreeMap<String, String> {
    let mut labels = nvidia_labels(inventory);
    labels.extend(amd::labels::labels(inventory));
    labels.extend(vulkan::labels::labels(inventory));
    if inventory.replayed && !inventory.gpus.is_empty() {
        labels.insert(REPLAYED_LABEL.to_owned(), "true".to_owned());
    }
    labels
}

/// By the names that NVIDIA's feature discovery gives them. What differs between the GPUs of a machine is left out: a label
/// has one value.
fn nvidia_labels(inventory: &Inventory) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let is_whole = |gpu: &&Gpu| gpu.part.is_none() && gpu.teller() == Teller::Nvidia;
    let all = || inventory.gpus.iter().filter(is_whole);
    let wholes = all().count();
    if wholes == 0 {
        return labels;
    }
    let mut label = |name: &str, value: Option<String>| {
        if let Some(value) = value.map(|value| label_value(&value)).filter(|value| !value.is_empty()) {
            labels.insert(format!("nvidia.com/{name}"), value);
        }
    };
    label("gpu.present", Some("true".to_owned()));
    label("gpu.count", Some(wholes.to_string()));
    let replicas = |gpu: &Gpu| gpu.shared.as_ref().map_or(1, |shared| shared.replicas);
    label("gpu.replicas", common(all(), |gpu| Some(replicas(gpu).to_string())));
    let strategy = |gpu: &Gpu| gpu.shared.as_ref().map_or("none", |shared| shared.strategy.name());
    label("gpu.sharing-strategy", common(all(), |gpu| Some(strategy(gpu).to_owned())));
    label("gpu.product", common(all(), |gpu| Some(product(gpu))));
    label("gpu.memory", common(all(), |gpu| Some((gpu.memory_bytes >> 20).to_string())));
    label("gpu.family", common(all(), |gpu| gpu.architecture.as_ref().map(|name| name.to_lowercase())));
    let capability = common(all(), |gpu| gpu.compute_capability.clone());
    for (part, name) in ["major", "minor"].into_iter().enumerate() {
        label(&format!("gpu.compute.{name}"), piece(capability.as_ref(), part));
        label(&format!("cuda.runtime.{name}"), piece(inventory.cuda_version.as_ref(), part));
        label(&format!("cuda.runtime-version.{name}"), piece(inventory.cuda_version.as_ref(), part));
    }
    label("cuda.runtime-version.full", inventory.cuda_version.clone());
    let driver = inventory.driver_version.as_ref();
    for (part, (old, new)) in
        [("major", "major"), ("minor", "minor"), ("rev", "revision")].into_iter().enumerate()
    {
        label(&format!("cuda.driver.{old}"), piece(driver, part));
        label(&format!("cuda.driver-version.{new}"), piece(driver, part));
    }
    label("cuda.driver-version.full", driver.cloned());
    label("mig.capable", common(all(), |gpu| Some(gpu.mig.is_some().to_string())));
    // Of a machine whose GPUs are shared so, as NVIDIA's labeller has it.
    let by_mps = |gpu: &Gpu| {
        gpu.shared.as_ref().is_some_and(|shared| shared.strategy == Strategy::Mps) && !gpu.is_cut()
    };
    label("mps.capable", common(all(), |gpu| Some(by_mps(gpu).to_string())));
    for (name, value) in instance_labels(inventory) {
        label(&name, Some(value));
    }
    labels
}

/// A shared one that keeps the name of whole ones can be told from them.
fn product(gpu: &Gpu) -> String {
    let is_hidden = gpu.shared.as_ref().is_some_and(|shared| shared.keeps_name && shared.replicas > 1);
    if is_hidden { format!("{}-SHARED", gpu.model) } else { gpu.model.clone() }
}

/// Of each profile: how many instances, and how large they are.
fn instance_labels(inventory: &Inventory) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (resource, (all, _)) in counts(inventory) {
        let instances = || inventory.devices().filter(|gpu| gpu.part.is_some() && gpu.resource() == resource);
        let Some((first, name)) = instances().next().zip(resource.strip_prefix("nvidia.com/")) else {
            continue;
        };
        labels.insert("mig.strategy".to_owned(), "mixed".to_owned());
        labels.insert(format!("{name}.count"), all.to_string());
        labels.insert(format!("{name}.memory"), (first.memory_bytes >> 20).to_string());
        labels.insert(format!("{name}.replicas"), "1".to_owned());
        if instances().all(|one| one.model == first.model) {
            labels.insert(format!("{name}.product"), first.model.clone());
        }
    }
    labels
}

/// What some GPUs have all in common.
pub(super) fn common<'a>(
    gpus: impl Iterator<Item = &'a Gpu>,
    of: impl Fn(&Gpu) -> Option<String>,
) -> Option<String> {
    let mut all = gpus.map(of);
    let first = all.next()??;
    all.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

/// A part of a version.
fn piece(version: Option<&String>, part: usize) -> Option<String> {
    version?.split('.').nth(part).map(str::to_owned)
}

/// Only what a label may hold; blanks become dashes, as users write them in selectors.
pub(super) fn label_value(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let value: String = text.trim().chars().map(plain).take(LABEL_MAX).collect();
    value.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// `None` on a machine without GPUs.
pub fn condition(inventory: &Inventory) -> Option<NodeCondition> {
    let (all, offered) = (inventory.devices().count(), inventory.offered().count());
    let (status, reason, message) = match &inventory.silent {
        Some(why) => ("False", "DriverSilent", format!("{offered} of {all} GPUs are offered: {why}")),
        None if all == 0 => return None,
        None => state(inventory, all, offered),
    };
    Some(NodeCondition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..NodeCondition::default()
    })
}

/// Status, reason and message while somebody knows how the GPUs are.
fn state(inventory: &Inventory, all: usize, offered: usize) -> (&'static str, &'static str, String) {
    let withheld = inventory.devices().filter_map(|gpu| Some((gpu, gpu.withheld.as_ref()?)));
    let reasons: Vec<String> = withheld.map(|(gpu, why)| format!("{} ({why})", gpu.uuid)).collect();
    let from = if inventory.replayed { ", replayed from a recording" } else { "" };
    let mut message = format!("{offered} of {all} GPUs are offered{from}");
    if !reasons.is_empty() {
        message.push_str(&format!("; withheld: {}", reasons.join(", ")));
    }
    for gpu in inventory.offered() {
        let remarks = health::remarks(gpu);
        if !remarks.is_empty() {
            message.push_str(&format!("; {}: {}", gpu.uuid, remarks.join(", ")));
        }
    }
    if reasons.is_empty() { ("True", "AllOffered", message) } else { ("False", "SomeWithheld", message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::inventory::{Mig, Part};

    fn machine(models: &[&str]) -> Inventory {
        let gpu = |model: &&str| Gpu {
            uuid: format!("GPU-{model}"),
            model: (*model).to_owned(),
            memory_bytes: 81_559 << 20,
            architecture: Some("Hopper".to_owned()),
            compute_capability: Some("9.0".to_owned()),
            ..Gpu::default()
        };
        Inventory {
            driver_version: Some("580.159.04".to_owned()),
            cuda_version: Some("13.0".to_owned()),
            gpus: models.iter().map(gpu).collect(),
            ..Inventory::default()
        }
    }

    #[test]
    fn labels_are_those_that_selectors_look_for() {
        let labels = labels(&machine(&["NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"]));
        for (name, value) in [
            ("gpu.present", "true"),
            ("gpu.count", "2"),
            ("gpu.product", "NVIDIA-H100-80GB-HBM3"),
            ("gpu.memory", "81559"),
            ("gpu.family", "hopper"),
            ("gpu.compute.major", "9"),
            ("gpu.compute.minor", "0"),
            ("cuda.driver.major", "580"),
            ("cuda.driver.rev", "04"),
            ("cuda.driver-version.full", "580.159.04"),
            ("cuda.runtime.major", "13"),
        ] {
            assert_eq!(labels.get(&format!("nvidia.com/{name}")).map(String::as_str), Some(value), "{name}");
        }
        assert!(!labels.contains_key(REPLAYED_LABEL));
    }

    #[test]
    fn what_differs_has_no_label_and_no_gpus_have_none() {
        let mut mixed = machine(&["A", "B"]);
        mixed.replayed = true;
        let mixed = labels(&mixed);
        assert_eq!(mixed.get("nvidia.com/gpu.product"), None);
        assert_eq!(mixed["nvidia.com/gpu.count"], "2");
        assert_eq!(mixed[REPLAYED_LABEL], "true");
        assert_eq!(labels(&Inventory::default()), BTreeMap::new());
        assert_eq!(condition(&Inventory::default()), None);
    }

    #[test]
    fn the_condition_names_each_gpu_that_is_withheld_and_why() {
        let mut machine = machine(&["A", "B"]);
        assert_eq!(condition(&machine).unwrap().status, "True");
        machine.gpus[1].withheld = Some("it no longer answers".to_owned());
        let condition = condition(&machine).unwrap();
        assert_eq!(condition.status, "False");
        let message = condition.message.unwrap();
        assert_eq!(message, "1 of 2 GPUs are offered; withheld: GPU-B (it no longer answers)");
        assert_eq!(counts(&machine), [("nvidia.com/gpu".to_owned(), (2, 1))].into());
    }

    #[test]
    fn the_condition_tells_of_gpus_that_go_on_with_a_remark_and_of_a_driver_that_says_nothing() {
        let mut machine = machine(&["A", "B"]);
        machine.gpus[0].xids.insert(94);
        let remarked = condition(&machine).unwrap();
        assert_eq!(remarked.status, "True");
        let message = remarked.message.unwrap();
        assert_eq!(message, "2 of 2 GPUs are offered; GPU-A: Xid 94: memory errors that it dealt with");
        let silent = condition(&machine.fall_silent("the driver does not answer")).unwrap();
        assert_eq!((silent.status.as_str(), silent.reason.as_deref()), ("False", Some("DriverSilent")));
        let never = condition(&Inventory::default().fall_silent("the driver does not answer")).unwrap();
        assert_eq!(never.message.unwrap(), "0 of 0 GPUs are offered: the driver does not answer");
    }

    #[test]
    fn a_gpu_that_is_cut_is_there_as_its_instances() {
        let mut machine = machine(&["A", "B"]);
        machine.gpus[0].mig = Some(Mig { enabled: true, pending: true });
        machine.gpus[0].withheld = Some("it is cut into MIG instances".to_owned());
        for at in 0..2 {
            let part = Part { parent: "GPU-A".to_owned(), profile: "1g.10gb".to_owned(), ..Part::default() };
            machine.gpus.push(Gpu {
                uuid: format!("MIG-{at}"),
                model: "A MIG 1g.10gb".to_owned(),
                memory_bytes: 9_728 << 20,
                part: Some(part),
                ..Gpu::default()
            });
        }
        machine.gpus[3].withheld = Some("broken".to_owned());
        let (whole, part) = ("nvidia.com/gpu".to_owned(), "nvidia.com/mig-1g.10gb".to_owned());
        assert_eq!(counts(&machine), [(whole, (1, 1)), (part, (2, 1))].into());
        let labels = labels(&machine);
        for (name, value) in [
            ("gpu.count", "2"),
            ("gpu.memory", "81559"),
            ("mig.strategy", "mixed"),
            ("mig-1g.10gb.count", "2"),
            ("mig-1g.10gb.memory", "9728"),
            ("mig-1g.10gb.product", "A-MIG-1g.10gb"),
        ] {
            assert_eq!(labels.get(&format!("nvidia.com/{name}")).map(String::as_str), Some(value), "{name}");
        }
        let message = condition(&machine).unwrap().message.unwrap();
        assert_eq!(message, "2 of 3 GPUs are offered; withheld: MIG-1 (broken)", "a cut one is no fault");
    }

    #[test]
    fn a_gpu_that_is_shared_is_counted_by_its_turns() {
        let mut machine = machine(&["A", "A"]);
        let text =
            "version: v1\nsharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}\n";
        crate::gpu::Sharing::parse(text).unwrap().apply(&mut machine);
        machine.gpus[1].withheld = Some("broken".to_owned());
        assert_eq!(counts(&machine), [("nvidia.com/gpu".to_owned(), (8, 4))].into());
        let labels = labels(&machine);
        assert_eq!(labels["nvidia.com/gpu.replicas"], "4");
        assert_eq!(labels["nvidia.com/gpu.product"], "A-SHARED");
        assert_eq!(labels["nvidia.com/gpu.sharing-strategy"], "time-slicing");
        assert_eq!(labels["nvidia.com/mps.capable"], "false");
        crate::gpu::Sharing::parse(&text.replace("timeSlicing", "mps")).unwrap().apply(&mut machine);
        let by_mps = super::labels(&machine);
        assert_eq!(by_mps["nvidia.com/gpu.sharing-strategy"], "mps");
        assert_eq!(by_mps["nvidia.com/mps.capable"], "true");
        assert_eq!(labels["nvidia.com/gpu.count"], "2");
        assert!(condition(&machine).unwrap().message.unwrap().starts_with("1 of 2 GPUs"));
    }

    #[test]
    fn values_of_labels_are_cut_to_what_a_label_may_hold() {
        assert_eq!(label_value(" Tesla (T4) "), "Tesla--T4");
        assert_eq!(label_value(&"x".repeat(99)).len(), LABEL_MAX);
        assert_eq!(label_value("  "), "");
    }
}
