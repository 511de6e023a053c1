//! What computes, and what is linked with what, as the kernel's compute driver (KFD) tells: a folder for each node, which
//! is a processor or a GPU, with a folder for each of its links.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The type of a link that is xGMI, in the kernel's numbers for links.
const LINK_XGMI: u64 = 11;

/// GPUs of a machine, by the number in `/dev/dri/renderDN`.
#[derive(Debug, Default)]
pub struct Topology(BTreeMap<u32, Node>);

/// One GPU.
#[derive(Debug, Default)]
pub struct Node {
    number: u64,
    /// Numbers of the nodes that it has xGMI links to.
    linked: BTreeSet<u64>,
    /// `gfx90a`
    pub target: Option<String>,
    /// Its name for life; also of one that says nothing of it elsewhere.
    pub unique_id: Option<u64>,
    /// All nodes of one have xGMI links to each other.
    pub hive: Option<u64>,
    pub simds: Option<u32>,
    pub compute_units: Option<u32>,
}

impl Topology {
    /// Empty where there is no compute driver.
    pub fn read(sys: &Path) -> Self {
        let nodes = folders(&sys.join("class/kfd/kfd/topology/nodes"));
        Self(nodes.iter().filter_map(|folder| node(folder)).collect())
    }

    /// The GPU that a render node belongs to.
    pub fn of(&self, minor: u32) -> Option<&Node> {
        self.0.get(&minor)
    }

    /// Whether one has an xGMI link to another.
    pub fn is_linked(&self, one: Option<u32>, other: Option<u32>) -> bool {
        let node = |minor: Option<u32>| minor.and_then(|minor| self.0.get(&minor));
        node(one).zip(node(other)).is_some_and(|(one, other)| one.linked.contains(&other.number))
    }
}

/// `None` for a processor, which has no render node.
fn node(folder: &Path) -> Option<(u32, Node)> {
    let properties = properties(folder);
    let known = |name: &str| properties.get(name).copied().filter(|value| *value > 0);
    let minor = known("drm_render_minor").and_then(|minor| u32::try_from(minor).ok())?;
    let simds = known("simd_count").and_then(|count| u32::try_from(count).ok());
    let simds_of_unit = known("simd_per_cu").and_then(|count| u32::try_from(count).ok());
    let node = Node {
        number: folder.file_name()?.to_str()?.parse().ok()?,
        linked: links(folder),
        target: known("gfx_target_version").map(target),
        unique_id: known("unique_id"),
        hive: known("hive_id"),
        simds,
        compute_units: simds.zip(simds_of_unit).map(|(all, of_unit)| all / of_unit),
    };
    Some((minor, node))
}

fn links(node: &Path) -> BTreeSet<u64> {
    let links = folders(&node.join("io_links")).into_iter().map(|link| properties(&link));
    let xgmi = links.filter(|link| link.get("type") == Some(&LINK_XGMI));
    xgmi.filter_map(|link| link.get("node_to").copied()).collect()
}

/// A name and a number in each line.
fn properties(folder: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(folder.join("properties")).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

/// `gfx90a` from 90010: two digits each for the version, the minor and the step, of which the latter are written as one.
fn target(version: u64) -> String {
    let (major, minor, step) = (version / 10_000, version / 100 % 100, version % 100);
    format!("gfx{major}{minor:x}{step:x}")
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_written_as_compilers_call_them() {
        let names = [90_010, 90_402, 100_300, 110_000, 120_001].map(target);
        assert_eq!(names, ["gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1201"]);
    }
}
