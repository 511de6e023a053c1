//! What a device is, as its slice and its node tell now. Pure.
//!
//! Must never know: who asks.

use std::collections::BTreeMap;

use claw_graph::order::Backend;
use claw_schemas::{api::DeviceFacts, gpu};
use k8s_openapi::api::{core::v1::Node, resource::v1::DeviceAttribute};

/// What tells a device of a node from others, and from what it was before; `None` for one that has no uuid, which nobody could claim.
pub fn facts(
    attributes: &BTreeMap<String, DeviceAttribute>,
    node: &str,
    boot_id: Option<&str>,
) -> Option<DeviceFacts> {
    let text = |name: &str| {
        let value = attributes.get(name)?;
        value.string.clone().or_else(|| value.version.clone())
    };
    Some(DeviceFacts {
        node: node.to_owned(),
        uuid: text("uuid")?,
        model: text("productName"),
        driver_version: text("driverVersion"),
        boot_id: boot_id.filter(|id| !id.is_empty()).map(str::to_owned),
    })
}

/// Which start of its machine a node is in.
pub fn boot_id(node: &Node) -> Option<&str> {
    Some(node.status.as_ref()?.node_info.as_ref()?.boot_id.as_str()).filter(|id| !id.is_empty())
}

/// Whether a device is one of a recording: nobody can look at it.
pub fn is_replayed(attributes: &BTreeMap<String, DeviceAttribute>) -> bool {
    attributes.get("replayed").is_some_and(|value| value.bool == Some(true))
}

/// The way to a device, in the words of workers.
pub fn backend(attributes: &BTreeMap<String, DeviceAttribute>) -> Backend {
    match attributes.get("type").and_then(|value| value.string.as_deref()) {
        Some(gpu::AMD_TYPE | gpu::VULKAN_TYPE) => Backend::Vulkan,
        _ => Backend::Cuda,
    }
}

/// How a device is no longer what it was; `None` while it is.
pub fn difference(was: &DeviceFacts, is: &DeviceFacts) -> Option<String> {
    let boots = (was.boot_id.as_deref(), is.boot_id.as_deref());
    if was.uuid != is.uuid {
        Some(format!("it is {} now, and was {}", is.uuid, was.uuid))
    } else if was.node != is.node {
        Some(format!("it is on node {} now, and was on {}", is.node, was.node))
    } else if matches!(boots, (Some(before), Some(now)) if before != now) {
        Some(format!("node {} was started anew", is.node))
    } else if was.driver_version != is.driver_version {
        let shown = |version: &Option<String>| version.clone().unwrap_or_else(|| "unknown".to_owned());
        Some(format!(
            "its driver is {} now, and was {}",
            shown(&is.driver_version),
            shown(&was.driver_version)
        ))
    } else {
        None
    }
}
