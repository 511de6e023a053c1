//! Render nodes: the files through which programs reach GPUs without a screen, and the devices that they belong to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use claw_graph::known::Adapter;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// The number in `/dev/dri/renderDN`.
    pub minor: u32,
    /// On the PCI bus, where its device is there: `0000:03:00.0`
    pub place: Option<String>,
    /// The device's own folder.
    pub folder: PathBuf,
    /// The kernel's driver of it: `i915`
    pub driver: Option<String>,
}

impl Node {
    /// Whether it is the file of an adapter. Its number says so where the driver tells it, else its place.
    pub fn is_of(&self, adapter: &Adapter) -> bool {
        match adapter.render_minor {
            Some(minor) => minor == self.minor,
            None => self.place.is_some() && self.place == adapter.pci_bus_id,
        }
    }
}

/// All of a machine whose `/sys` is here, in the order of their numbers.
pub fn nodes(sys: &Path) -> Vec<Node> {
    let entries = fs::read_dir(sys.join("class/drm")).into_iter().flatten().flatten();
    let node = |entry: fs::DirEntry| {
        let minor = entry.file_name().to_str()?.strip_prefix("renderD")?.parse().ok()?;
        let folder = fs::canonicalize(entry.path().join("device")).ok()?;
        let driver = fs::canonicalize(folder.join("driver")).ok();
        let driver = driver.and_then(|driver| Some(driver.file_name()?.to_str()?.to_owned()));
        Some(Node { minor, place: place(&folder), folder, driver })
    };
    let mut nodes: Vec<Node> = entries.filter_map(node).collect();
    nodes.sort();
    nodes
}

/// The last place on the PCI bus on the way to a device: what a virtual machine's cards are plugged into is one level up.
fn place(folder: &Path) -> Option<String> {
    let names = folder.components().rev().filter_map(|part| part.as_os_str().to_str());
    names.into_iter().find(|name| is_place(name)).map(str::to_owned)
}

/// `0000:03:00.0`
fn is_place(name: &str) -> bool {
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let is_hex = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.len() == 4 && parts.iter().all(is_hex) && name.matches(':').count() == 2
}
