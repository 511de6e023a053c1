//! Time slicing by declared policy: a GPU is counted several times, and its containers take turns on it. Pure.
//!
//! The file has the form of that of NVIDIA's device plugin for Kubernetes (`version: v1`, `sharing.timeSlicing`), so that one
//! written for that says the same here.

use claw_schemas::gpu::is_nvidia;
use serde::Deserialize;

use super::{Gpu, Inventory};

/// More containers than take turns on any GPU with joy.
const REPLICAS_MAX: u32 = 1_024;

/// Which GPUs are shared, and by how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    rules: Vec<Rule>,
}

/// How one GPU is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// By how many containers at once.
    pub replicas: u32,
    /// What it is counted as.
    pub resource: String,
    /// It keeps the name of whole ones.
    pub keeps_name: bool,
    /// No container may have more than one turn, which would not be more of the GPU.
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
    #[serde(default)]
    time_slicing: Option<TimeSlicing>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TimeSlicing {
    #[serde(default)]
    rename_by_default: bool,
    #[serde(default)]
    fail_requests_greater_than_one: bool,
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
        let Some(slicing) = file.sharing.time_slicing else { return Ok(Self::default()) };
        let rules = slicing.resources.iter().map(|entry| rule(entry, &slicing)).collect::<Result<_, _>>()?;
        Ok(Self { rules })
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

fn rule(entry: &Entry, slicing: &TimeSlicing) -> Result<Rule, String> {
    let name = &entry.name;
    if !is_nvidia(name) {
        return Err(format!(
            "{name} is no resource of NVIDIA's GPUs: use nvidia.com/gpu, or nvidia.com/mig-PROFILE"
        ));
    }
    if entry.replicas == 0 || entry.replicas > REPLICAS_MAX {
        return Err(format!("{name}: replicas are 1 to {REPLICAS_MAX}"));
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
        None if slicing.rename_by_default => format!("{name}.shared"),
        None => name.clone(),
    };
    let shared = Shared {
        replicas: entry.replicas,
        keeps_name: resource == *name,
        resource,
        one_each: slicing.fail_requests_greater_than_one,
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
        assert!(Sharing::parse("version: v1\nsharing: {mps: {}}\n").unwrap_err().contains("mps"));
        assert!(Sharing::parse("version: v2\n").unwrap_err().contains("v2"));
    }
}
