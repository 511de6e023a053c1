//! What the Node says of GPUs that Vulkan knows, in the manner of other makers' labels. What differs between them is left out: a label has
//! one value. Pure.

use std::collections::BTreeMap;

use claw_schemas::gpu::{SOFTWARE_LABEL, VULKAN_RESOURCE};

use super::Vulkan;
use crate::gpu::{
    Gpu, Inventory,
    facts::{common, label_value},
};

/// None without such GPUs.
pub fn labels(inventory: &Inventory) -> BTreeMap<String, String> {
    let all = || inventory.gpus.iter().filter(|gpu| gpu.vulkan.is_some());
    let count = all().count();
    if count == 0 {
        return BTreeMap::new();
    }
    let of_vulkan =
        |field: fn(&Vulkan) -> Option<String>| common(all(), |gpu| gpu.vulkan.as_ref().and_then(field));
    let found = [
        ("present", Some("true".to_owned())),
        ("count", Some(count.to_string())),
        ("product", common(all(), |gpu| Some(gpu.model.clone()))),
        ("memory", common(all(), |gpu| Some((gpu.memory_bytes >> 20).to_string()))),
        ("type", of_vulkan(|gpu| Some(gpu.kind.name().to_owned()))),
        ("vendor-id", of_vulkan(|gpu| Some(gpu.vendor_id.clone()))),
        ("device-id", of_vulkan(|gpu| Some(gpu.device_id.clone()))),
        ("driver-name", of_vulkan(|gpu| gpu.driver_name.clone())),
        ("driver-version", of_vulkan(|gpu| gpu.driver_version.clone())),
    ];
    let said = found.into_iter().filter_map(|(name, value)| {
        let value = label_value(&value?);
        (!value.is_empty()).then(|| (format!("{VULKAN_RESOURCE}.{name}"), value))
    });
    let mut labels: BTreeMap<String, String> = said.collect();
    if all().filter_map(|gpu: &Gpu| gpu.vulkan.as_ref()).any(Vulkan::is_software) {
        labels.insert(SOFTWARE_LABEL.to_owned(), "true".to_owned());
    }
    labels
}
