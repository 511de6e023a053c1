//! Sharing by declared policy: a GPU is counted several times, and its containers take turns on it, or run on it side by side (see `mps`).
//! Pure.
//!
//! The file has the form of that of NVIDIA's device plugin for Kubernetes (`version: v1`, `sharing.timeSlicing`, `sharing.mps`), so that
//! one written for that says the same here.

use claw_schemas::gpu::{RESOURCE, is_nvidia};
use serde::Deserialize;

use super::{Gpu, Inventory};

/// More containers than take turns on any GPU with joy.
const REPLICAS_MAX: u32 = 1_024;

/// Processes that MPS lets use a GPU at once, at best.
const MPS_REPLICAS_MAX: u32 = 48;

/// Which GPUs are shared, and by how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    rules: Vec<Rule>,
}

/// How containers use a GPU together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// One after the other, a slice of time each.
    TimeSlicing,
    /// Side by side, with a part each.
    Mps,
}

impl Strategy {
    /// Its name in labels, which is NVIDIA's.
    pub fn name(self) -> &'static str {
        match self {
            Self::TimeSlicing => "time-slicing",
            Self::Mps => "mps",
        }
    }

    /// Where in the file it is.
    fn field(self) -> &'static str {
        match self {
            Self::TimeSlicing => "sharing.timeSlicing",
            Self::Mps => "sharing.mps",
        }
    }
}

/// How one GPU is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// How.
    pub strategy: Strategy,
    /// By how many containers at once.
    pub replicas: u32,
    /// What it is counted as.
    pub resource: String,
    /// It keeps the name of whole ones.
    pub keeps_name: bool,
    /// No container may have more than one turn or part, which would not be more of the GPU.
    pub one_each: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Of what.
    resource: String,
    /// Of these alone, by uuid or number.
    devices: Option<Vec<String>>,
    shared: Shared,
}

#[derive(Deserialize)]
struct File {
    version: String,
    #[serde(default)]
    sharing: Section,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Section {
    time_slicing: Option<Replicated>,
    mps: Option<Replicated>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Replicated {
    #[serde(default)]
    rename_by_default: bool,
    /// Where nothing is said, turns may be had in numbers, and parts may not.
    fail_requests_greater_than_one: Option<bool>,
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    rename: Option<String>,
    devices: Option<Devices>,
    replicas: u32,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Devices {
    /// `all`
    Word(String),
    Listed(Vec<Device>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Device {
    Number(u32),
    Name(String),
}

impl Sharing {
    /// From the text of a file.
    ///
    /// # Errors
    /// What in it cannot be done, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        if file.version != "v1" {
            return Err(format!("version {:?} is not v1", file.version));
        }
        let sections =
            [(Strategy::TimeSlicing, file.sharing.time_slicing), (Strategy::Mps, file.sharing.mps)];
        let mut used = sections.into_iter().filter_map(|(strategy, section)| Some((strategy, section?)));
        let Some((strategy, section)) = used.next() else { return Ok(Self::default()) };
        if used.next().is_some() {
            return Err("sharing.timeSlicing and sharing.mps: use one of them".to_owned());
        }
        let rule = |entry: &Entry| {
            let rule = rule(entry, &section, strategy);
            rule.map_err(|why| format!("{}.resources: {why}", strategy.field()))
        };
        Ok(Self { rules: section.resources.iter().map(rule).collect::<Result<_, _>>()? })
    }

    /// Marks the GPUs that are shared.
    pub fn apply(&self, inventory: &mut Inventory) {
        for gpu in &mut inventory.gpus {
            gpu.shared = None;
            let rule = self.rules.iter().find(|rule| rule.is_about(gpu));
            gpu.shared = rule.map(|rule| rule.shared.clone());
        }
    }
}

fn rule(entry: &Entry, section: &Replicated, strategy: Strategy) -> Result<Rule, String> {
    let name = &entry.name;
    if !is_nvidia(name) {
        return Err(format!(
            "{name} is no resource of NVIDIA's GPUs: use nvidia.com/gpu, or nvidia.com/mig-PROFILE"
        ));
    }
    if strategy == Strategy::Mps && name != RESOURCE {
        return Err(format!("{name}: instances cannot be shared by MPS: use {RESOURCE}, or timeSlicing"));
    }
    let replicas_max = if strategy == Strategy::Mps { MPS_REPLICAS_MAX } else { REPLICAS_MAX };
    if entry.replicas == 0 || entry.replicas > replicas_max {
        return Err(format!("{name}: replicas are 1 to {replicas_max}"));
    }
    let devices = match &entry.devices {
        None => None,
        Some(Devices::Word(word)) if word == "all" => None,
        Some(Devices::Word(word)) => {
            return Err(format!("{name}: devices are \"all\" or a list, not {word:?}"));
        }
        Some(Devices::Listed(list)) => Some(list.iter().map(Device::name).collect()),
    };
    let resource = match &entry.rename {
        Some(other) if is_nvidia(other) => other.clone(),
        Some(other) => return Err(format!("{name}: {other} is no name of GPUs: use nvidia.com/gpu.shared")),
        None if section.rename_by_default => format!("{name}.shared"),
        None => name.clone(),
    };
    let shared = Shared {
        strategy,
        replicas: entry.replicas,
        keeps_name: resource == *name,
        resource,
        one_each: section.fail_requests_greater_than_one.unwrap_or(strategy == Strategy::Mps),
    };
    Ok(Rule { resource: name.clone(), devices, shared })
}

impl Device {
    fn name(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => name.clone(),
        }
    }
}

impl Rule {
    fn is_about(&self, gpu: &Gpu) -> bool {
        let number = match &gpu.part {
            Some(part) => format!("{}:{}", gpu.index, part.index),
            None => gpu.index.to_string(),
        };
        let is_meant = |devices: &Vec<String>| devices.iter().any(|one| *one == gpu.uuid || *one == number);
        gpu.resource() == self.resource && self.devices.as_ref().is_none_or(is_meant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Inventory {
        let gpu = |index: u32| Gpu { index, uuid: format!("GPU-{index}"), ..Gpu::default() };
        Inventory { gpus: vec![gpu(0), gpu(1)], ..Inventory::default() }
    }

    fn shared(text: &str) -> Vec<(String, usize)> {
        let mut machine = machine();
        Sharing::parse(text).unwrap().apply(&mut machine);
        machine.gpus.iter().map(|gpu| (gpu.resource(), gpu.ids().len())).collect()
    }

    #[test]
    fn a_file_of_the_device_plugin_says_the_same_here() {
        let plain = "version: v1\nflags: {migStrategy: mixed}\nsharing:\n  timeSlicing:\n    resources:\n    - {name: nvidia.com/gpu, replicas: 4}\n";
        let whole = "nvidia.com/gpu".to_owned();
        assert_eq!(shared(plain), [(whole.clone(), 4), (whole.clone(), 4)]);
        let renamed = plain.replace("    resources:", "    renameByDefault: true\n    resources:");
        assert_eq!(shared(&renamed)[0], ("nvidia.com/gpu.shared".to_owned(), 4));
        let some = plain.replace("replicas: 4", "replicas: 4, devices: [1]");
        assert_eq!(shared(&some), [(whole.clone(), 1), (whole.clone(), 4)]);
        let named =
            plain.replace("replicas: 4", "replicas: 2, devices: [GPU-0], rename: nvidia.com/gpu.turns");
        assert_eq!(shared(&named), [("nvidia.com/gpu.turns".to_owned(), 2), (whole.clone(), 1)]);
        assert_eq!(shared("version: v1\n"), [(whole.clone(), 1), (whole, 1)]);
    }

    #[test]
    fn the_turns_of_a_gpu_have_names_that_lead_to_it() {
        let mut machine = machine();
        let text =
            "version: v1\nsharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}\n";
        Sharing::parse(text).unwrap().apply(&mut machine);
        assert_eq!(machine.gpus[1].ids(), ["GPU-1::0", "GPU-1::1"]);
        assert_eq!(machine.get("GPU-1::1").unwrap().uuid, "GPU-1");
    }

    #[test]
    fn parts_are_had_one_each_unless_the_file_says_otherwise() {
        let text = "version: v1\nsharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}\n";
        let shared_by = |text: &str| {
            let mut machine = machine();
            Sharing::parse(text).unwrap().apply(&mut machine);
            machine.gpus[0].shared.clone().unwrap()
        };
        let shared = shared_by(text);
        assert_eq!((shared.strategy, shared.replicas, shared.one_each), (Strategy::Mps, 4, true));
        let several = text.replace("{resources", "{failRequestsGreaterThanOne: false, resources");
        assert!(!shared_by(&several).one_each);
        assert!(!shared_by(&text.replace("mps", "timeSlicing")).one_each);
        for (entry, why) in [
            (
                "{name: nvidia.com/mig-1g.10gb, replicas: 2}",
                "sharing.mps.resources: nvidia.com/mig-1g.10gb: instances",
            ),
            ("{name: nvidia.com/gpu, replicas: 49}", "replicas are 1 to 48"),
        ] {
            let text = format!("version: v1\nsharing: {{mps: {{resources: [{entry}]}}}}\n");
            let said = Sharing::parse(&text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let both = "version: v1\nsharing: {mps: {resources: []}, timeSlicing: {resources: []}}\n";
        assert!(Sharing::parse(both).unwrap_err().contains("use one of them"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let with = |entry: &str| {
            let text = format!("version: v1\nsharing: {{timeSlicing: {{resources: [{entry}]}}}}\n");
            Sharing::parse(&text).unwrap_err()
        };
        for (entry, why) in [
            ("{name: example.com/fpga, replicas: 2}", "example.com/fpga is no resource of NVIDIA's GPUs"),
            ("{name: amd.com/gpu, replicas: 2}", "amd.com/gpu is no resource of NVIDIA's GPUs"),
            ("{name: nvidia.com/gpu, replicas: 0}", "replicas are 1 to"),
            ("{name: nvidia.com/gpu, replicas: 2, devices: some}", "not \"some\""),
            ("{name: nvidia.com/gpu, replicas: 2, rename: shared}", "shared is no name of GPUs"),
        ] {
            let said = with(entry);
            assert!(said.contains(why), "{said}");
        }
        assert!(Sharing::parse("version: v2\n").unwrap_err().contains("v2"));
    }
}
