//! What a container needs to use a GPU that Vulkan knows: its render node, and the names of those that it was given, by which our workers
//! find them. Drivers are the image's.

use std::path::Path;

use claw_graph::known::VULKAN_DEVICES;

use crate::gpu::{Gpu, amd, cdi::ContainerEdits};

/// For GPUs of a recording: their names, and nothing behind them.
pub fn names_only(gpus: &[&Gpu]) -> ContainerEdits {
    let uuids: Vec<&str> = gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    ContainerEdits { env: vec![format!("{VULKAN_DEVICES}={}", uuids.join(","))], ..ContainerEdits::default() }
}

/// Everything for these GPUs, whose files are in this folder: `/dev`. Software has no files.
pub fn edits(gpus: &[&Gpu], dev: &Path) -> Result<ContainerEdits, String> {
    let hardware = gpus.iter().filter(|gpu| !gpu.vulkan.as_ref().is_some_and(super::Vulkan::is_software));
    let files = hardware.map(|gpu| {
        let minor = gpu.minor.ok_or("the driver does not say which device file it has")?;
        Ok::<_, String>(format!("dri/renderD{minor}"))
    });
    let files = files.collect::<Result<Vec<_>, _>>()?;
    Ok(ContainerEdits { env: names_only(gpus).env, ..amd::host::files(&files, dev)? })
}
