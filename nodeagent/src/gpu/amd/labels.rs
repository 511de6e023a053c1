//! What the Node says of AMD's GPUs, by the names of AMD's node labeller. What differs between them is left out: a label
//! has one value. Pure.

use std::collections::BTreeMap;

use super::Amd;
use crate::gpu::{
    Gpu, Inventory,
    facts::{common, label_value},
};

/// None without such GPUs.
pub fn labels(inventory: &Inventory) -> BTreeMap<String, String> {
    let all = || inventory.gpus.iter().filter(|gpu| gpu.amd.is_some());
    let of_amd = |field: fn(&Amd) -> Option<String>| common(all(), |gpu| gpu.amd.as_ref().and_then(field));
    let found = [
        ("product-name", common(all(), |gpu| Some(product(gpu)))),
        ("vram", common(all(), |gpu| vram(gpu.memory_bytes))),
        ("device-id", of_amd(|amd| amd.device_id.clone())),
        ("cu-count", of_amd(|amd| amd.compute_units.map(|count| count.to_string()))),
        ("simd-count", of_amd(|amd| amd.simds.map(|count| count.to_string()))),
        ("driver-version", common(all(), |_| inventory.amdgpu_version.clone())),
    ];
    let said = found.into_iter().filter_map(|(name, value)| {
        let value = label_value(&value?);
        (!value.is_empty()).then(|| (format!("amd.com/gpu.{name}"), value))
    });
    said.collect()
}

/// With `_` for blanks, and without brackets.
fn product(gpu: &Gpu) -> String {
    gpu.model.replace(' ', "_").replace(['(', ')'], "")
}

/// In whole GiB, to the nearest.
fn vram(bytes: u64) -> Option<String> {
    (bytes > 0).then(|| format!("{}G", (bytes + (1 << 29)) >> 30))
}
