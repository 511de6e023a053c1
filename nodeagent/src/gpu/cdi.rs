//! The Container Device Interface: what a vendor's tools wrote down about its devices, one file at a time, so that a
//! malformed one loses only itself.
//!
//! Source: the CNCF's Container Device Interface specification, version 1.0.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Gpu, inventory::Teller};

/// Where such files lie. What is generated at boot wins over what an administrator wrote for all times.
pub const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Vendor and class of the devices looked for.
const KINDS: [&str; 2] = [NVIDIA, AMD];
const NVIDIA: &str = "nvidia.com/gpu";
const AMD: &str = "amd.com/gpu";

/// One file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "cdiVersion")]
    _version: String,
    kind: String,
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: ContainerEdits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: ContainerEdits,
}

/// What a container's configuration lacks to use a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerEdits {
    /// `NAME=VALUE`
    pub env: Vec<String>,
    /// Files in `/dev`.
    pub device_nodes: Vec<DeviceNode>,
    /// Libraries and programs.
    pub mounts: Vec<Mount>,
    /// Programs of the vendor, run around the start.
    pub hooks: Vec<Hook>,
    /// Groups that may use the device.
    pub additional_gids: Vec<u32>,
    /// Folders that come first in a list of folders, by the variable that holds it. Not of the standard.
    #[serde(skip)]
    pub search: Vec<(String, String)>,
}

/// A file in `/dev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceNode {
    /// In the container.
    pub path: PathBuf,
    /// On the host, where it differs.
    pub host_path: Option<PathBuf>,
    /// `c`, `b`, `p`
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Numbers; the host's, where not given.
    pub major: Option<i64>,
    /// See `major`.
    pub minor: Option<i64>,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// `rwm`
    pub permissions: Option<String>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// A path of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// On the host.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: PathBuf,
    /// `ro`, `nosuid`, ...
    pub options: Vec<String>,
    /// `bind`, where not given.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// A program run around the start of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hook {
    /// `createContainer` and so on.
    pub hook_name: String,
    /// The program.
    pub path: PathBuf,
    /// With its name first.
    pub args: Vec<String>,
    /// `NAME=VALUE`
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<i64>,
}

impl ContainerEdits {
    /// Adds others behind.
    pub fn extend(&mut self, more: Self) {
        self.env.extend(more.env);
        self.device_nodes.extend(more.device_nodes);
        self.mounts.extend(more.mounts);
        self.hooks.extend(more.hooks);
        self.additional_gids.extend(more.additional_gids);
        self.search.extend(more.search);
    }
}

/// The devices that a vendor described.
#[derive(Debug, Default)]
pub struct Vendor {
    files: Vec<File>,
    /// By kind and name: which file, and which device in it.
    devices: BTreeMap<(String, String), (usize, usize)>,
    problems: Vec<String>,
}

impl Vendor {
    /// What a container needs for these GPUs; `None` unless all of them are described, by uuid or by number.
    pub fn edits(&self, gpus: &[&Gpu]) -> Option<ContainerEdits> {
        let number = |gpu: &Gpu| match &gpu.part {
            Some(part) => format!("{}:{}", gpu.index, part.index),
            None => gpu.index.to_string(),
        };
        let named = |gpu: &Gpu, name: String| {
            let kind = match gpu.teller() {
                Teller::Nvidia => NVIDIA,
                Teller::Amd => AMD,
                Teller::Vulkan => return None,
            };
            self.devices.get(&(kind.to_owned(), name))
        };
        let find = |gpu: &&Gpu| named(gpu, gpu.uuid.clone()).or_else(|| named(gpu, number(gpu)));
        let places: Vec<(usize, usize)> = gpus.iter().map(|gpu| find(gpu).copied()).collect::<Option<_>>()?;
        let mut all = ContainerEdits::default();
        for (file, device) in &places {
            all.extend(self.files[*file].devices[*device].container_edits.clone());
        }
        // Of each file once, however many of its devices there are.
        for file in places.iter().map(|(file, _)| *file).collect::<BTreeSet<_>>() {
            all.extend(self.files[file].container_edits.clone());
        }
        Some(all)
    }

    /// What was not believed, a sentence each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// A folder's files. Its devices win over those of folders before; two files of one folder that describe the same
    /// device are both not believed about it.
    fn add(&mut self, folder: &Path) {
        let mut named: BTreeMap<(String, String), Vec<(usize, usize)>> = BTreeMap::new();
        for path in paths(folder) {
            match file(&path) {
                Ok(Some(file)) => {
                    for (at, device) in file.devices.iter().enumerate() {
                        let name = (file.kind.clone(), device.name.clone());
                        named.entry(name).or_default().push((self.files.len(), at));
                    }
                    self.files.push(file);
                }
                Ok(None) => {}
                Err(error) => self.problems.push(format!("{}: {error}", path.display())),
            }
        }
        for (name, places) in named {
            if let [place] = places[..] {
                self.devices.insert(name, place);
            } else {
                let folder = folder.display();
                self.problems.push(format!(
                    "{folder}: device \"{}\" is described {} times",
                    name.1,
                    places.len()
                ));
                self.devices.remove(&name);
            }
        }
    }
}

/// Reads all files in these folders; later folders win.
pub fn read(folders: &[PathBuf]) -> Vendor {
    let mut vendor = Vendor::default();
    folders.iter().for_each(|folder| vendor.add(folder));
    vendor
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_one = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "json" || kind == "yaml");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_one).collect();
    paths.sort();
    paths
}

/// `None` for a file of another kind.
fn file(path: &Path) -> io::Result<Option<File>> {
    // JSON is YAML.
    let value: serde_yaml::Value = serde_yaml::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    let kind = value.get("kind").and_then(serde_yaml::Value::as_str);
    let is_ours = kind.is_some_and(|kind| KINDS.contains(&kind));
    is_ours.then(|| serde_yaml::from_value(value).map_err(io::Error::other)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As NVIDIA's tools write it, shortened.
    const VENDOR: &str = r#"
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
  - name: "0"
    containerEdits:
      deviceNodes: [{path: /dev/nvidia0}]
  - name: GPU-b
    containerEdits:
      deviceNodes: [{path: /dev/nvidia1, major: 195, minor: 1}]
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  hooks: [{hookName: createContainer, path: /usr/bin/nvidia-ctk, args: [nvidia-ctk, hook, update-ldcache]}]
  mounts: [{hostPath: /usr/lib/libcuda.so.1, containerPath: /usr/lib/libcuda.so.1, options: [ro, bind]}]
"#;

    fn gpu(index: u32, uuid: &str) -> Gpu {
        Gpu { index, uuid: uuid.to_owned(), ..Gpu::default() }
    }

    fn nodes(edits: &ContainerEdits) -> Vec<String> {
        edits.device_nodes.iter().map(|node| node.path.display().to_string()).collect()
    }

    #[test]
    fn gpus_are_found_by_uuid_and_by_number_and_what_they_share_comes_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("nvidia.yaml"), VENDOR).unwrap();
        let vendor = read(&[folder.path().to_owned(), "/nowhere".into()]);
        let edits = vendor.edits(&[&gpu(0, "GPU-a"), &gpu(7, "GPU-b")]).unwrap();
        assert_eq!(nodes(&edits), ["/dev/nvidia0", "/dev/nvidia1"]);
        assert_eq!((edits.env.len(), edits.mounts.len(), edits.hooks.len()), (1, 1, 1));
        assert_eq!(vendor.edits(&[&gpu(0, "GPU-a"), &gpu(5, "GPU-c")]), None, "all or nothing");
    }

    #[test]
    fn a_malformed_file_loses_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.json"), "{").unwrap();
        fs::write(folder.path().join("b.yaml"), "kind: nvidia.com/gpu\ncdiVersion: 0.6.0\ndevices: 7\n")
            .unwrap();
        fs::write(folder.path().join("c.yaml"), VENDOR.replace("nvidia.com/gpu", "other.com/nic")).unwrap();
        fs::write(folder.path().join("d.yaml.bak"), VENDOR).unwrap();
        let vendor = read(&[folder.path().to_owned()]);
        assert!(vendor.devices.is_empty());
        let problems = vendor.problems();
        assert_eq!(problems.len(), 2, "what is of another kind is no problem: {problems:?}");
        assert!(problems[0].contains("a.json") && problems[1].contains("b.yaml"), "{problems:?}");
        fs::write(folder.path().join("z.yaml"), VENDOR).unwrap();
        assert_eq!(read(&[folder.path().to_owned()]).devices.len(), 2);
    }

    #[test]
    fn a_later_folder_wins_and_two_files_of_one_folder_lose() {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(etc.path().join("nvidia.yaml"), VENDOR).unwrap();
        fs::write(run.path().join("nvidia.yaml"), VENDOR.replace("/dev/nvidia0", "/dev/newer0")).unwrap();
        let folders = [etc.path().to_owned(), run.path().to_owned()];
        assert_eq!(nodes(&read(&folders).edits(&[&gpu(0, "")]).unwrap()), ["/dev/newer0"]);
        fs::write(run.path().join("again.yaml"), VENDOR).unwrap();
        assert_eq!(read(&folders).edits(&[&gpu(0, "")]), None);
    }
}
