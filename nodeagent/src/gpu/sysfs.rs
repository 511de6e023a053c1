//! What the kernel's files say of a PCI device, whoever made it.

use std::{fs, path::Path, str::FromStr};

use super::inventory::Pci;

/// What a file says, without the blanks around it.
pub fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?.trim().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// The number that a file says.
pub fn number<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// Where a device is plugged in whose own folder this is.
pub fn pci(folder: &Path, bus_id: String) -> Pci {
    let at = |name: &str| folder.join(name);
    Pci {
        bus_id,
        generation: text(&at("current_link_speed")).and_then(|speed| generation(&speed)),
        generation_max: text(&at("max_link_speed")).and_then(|speed| generation(&speed)),
        width: number(&at("current_link_width")),
        width_max: number(&at("max_link_width")),
        root: Pci::root_in(folder),
    }
}

/// Of PCI Express, by its speed: `16.0 GT/s PCIe`.
fn generation(speed: &str) -> Option<u32> {
    match speed.split_once(' ')?.0 {
        "2.5" => Some(1),
        "5.0" | "5" => Some(2),
        "8.0" | "8" => Some(3),
        "16.0" | "16" => Some(4),
        "32.0" | "32" => Some(5),
        "64.0" | "64" => Some(6),
        _ => None,
    }
}
