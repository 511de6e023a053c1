//! What a container needs to use a GPU of AMD, where no CDI file of the vendor says it: the file of the compute driver,
//! which all GPUs share, and the two of the GPU itself. Its libraries come with the image.
//!
//! As AMD's device plugin for Kubernetes does, that is without any variable: AMD's runtime sees the GPUs that it can open.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use crate::gpu::{
    Gpu,
    cdi::{ContainerEdits, DeviceNode},
};

/// What a container may do to them: not make others.
const ACCESS: &str = "rw";

/// For GPUs of a recording that has no device files: their names, and nothing behind them.
pub fn names_only(gpus: &[&Gpu]) -> ContainerEdits {
    let uuids: Vec<&str> = gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    let env = vec![format!("AMD_VISIBLE_DEVICES={}", uuids.join(","))];
    ContainerEdits { env, ..ContainerEdits::default() }
}

/// Everything for these GPUs, whose files are in this folder: `/dev`, or that of a recording.
pub fn edits(gpus: &[&Gpu], dev: &Path) -> Result<ContainerEdits, String> {
    let mut names = vec!["kfd".to_owned()];
    for gpu in gpus {
        let minor = gpu.minor.ok_or("the driver does not say which device file it has")?;
        let card = gpu.amd.as_ref().map(|amd| format!("dri/card{}", amd.card));
        names.extend(card.into_iter().chain([format!("dri/renderD{minor}")]));
    }
    files(&names, dev)
}

/// These files of a folder, and the groups that may use them.
pub fn files(names: &[String], dev: &Path) -> Result<ContainerEdits, String> {
    let nodes = names.iter().map(|name| node(name, dev)).collect::<Result<Vec<_>, _>>()?;
    // Who does not run as root opens them as their group, as on the host.
    let mut groups: Vec<u32> = nodes.iter().filter_map(|node| node.gid).filter(|gid| *gid != 0).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(ContainerEdits { device_nodes: nodes, additional_gids: groups, ..ContainerEdits::default() })
}

fn node(name: &str, dev: &Path) -> Result<DeviceNode, String> {
    let (path, host_path) = (Path::new("/dev").join(name), dev.join(name));
    let found = fs::metadata(&host_path).map_err(|_| format!("there is no {}", host_path.display()))?;
    Ok(DeviceNode {
        path,
        host_path: Some(host_path),
        permissions: Some(ACCESS.to_owned()),
        uid: Some(found.uid()),
        gid: Some(found.gid()),
        ..DeviceNode::default()
    })
}
