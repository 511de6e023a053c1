//! What drivers say of a machine's devices before anything is opened: one JSON document.
//!
//! Drivers crash processes that ask them. So whoever must not crash (a node agent) starts a process that asks and writes a list of
//! [`Known`], and shares these types with it and nothing else.

use serde::{Deserialize, Serialize};

/// Variable of a container: names of the devices of Vulkan ([`Adapter::uuid`]) that it was given, separated by commas. Where it is set, a
/// worker opens no other device of Vulkan.
pub const VULKAN_DEVICES: &str = "CLAWBERNETES_VULKAN_DEVICES";

/// A device that a driver of this machine knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// How it is opened: `cuda:0`.
    pub name: String,
    /// Whether it calculates on a CPU, be it through Vulkan.
    pub is_cpu: bool,
    /// What Vulkan says of it, where it is one of Vulkan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
}

/// A device of Vulkan, as its driver describes it. What the driver does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Adapter {
    /// `VK-` and the driver's UUID of the device; of one whose driver gives none, what its facts are digested to. It is the same in each
    /// process and container of a machine while hardware and driver are; another machine may have one with the same.
    pub uuid: String,
    /// The model, in the driver's words.
    pub model: String,
    /// What it is.
    pub kind: AdapterKind,
    /// Of its maker, on the PCI bus: 32902 (0x8086) is Intel. Makers that have none there have a number of Khronos', above 65535.
    pub vendor_id: u32,
    /// Of its model, by its maker.
    pub device_id: u32,
    /// Where it is plugged in: `0000:03:00.0`
    pub pci_bus_id: Option<String>,
    /// The number in `/dev/dri/renderDN`.
    pub render_minor: Option<u32>,
    /// `Intel open-source Mesa driver`
    pub driver_name: Option<String>,
    /// Its version, and what else it says: `Mesa 22.3.6`
    pub driver_info: Option<String>,
    /// Bytes of memory that are the device's own. Of one that shares the machine's, what it may have of that.
    pub memory_bytes: u64,
}

/// What a device of Vulkan is (`VkPhysicalDeviceType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// A part of the processor or the board, which shares the machine's memory.
    Integrated,
    /// A part of a card, in a virtual machine.
    Virtual,
    /// None of these.
    #[default]
    Other,
    /// Software: it calculates on the machine's processors.
    Cpu,
}

impl AdapterKind {
    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "other",
            Self::Cpu => "cpu",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_not_written_and_kinds_are_written_as_they_are_called() {
        let known = Known { name: "cuda:0".to_owned(), is_cpu: false, adapter: None };
        assert_eq!(serde_json::to_string(&known).unwrap(), r#"{"name":"cuda:0","isCpu":false}"#);
        use AdapterKind::{Cpu, Discrete, Integrated, Other, Virtual};
        for kind in [Discrete, Integrated, Virtual, Other, Cpu] {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(text, format!("{:?}", kind.name()));
        }
    }
}
