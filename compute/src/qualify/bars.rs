//! What a device must reach.

/// Bytes a second that a model's data sheet promises of its memory.
struct Known {
    /// How its driver names it, or the beginning of that.
    name: &'static str,
    memory_bytes_per_second: f64,
}

/// From the makers' data sheets: NVIDIA's of H200 (2024), H100 (2023: SXM, PCIe, NVL), A100 (2021: both sizes, both forms), L40S, L40, L4, A40, A10, V100, T4 and
/// the whitepapers of Ada and Ampere; AMD's of MI300X (2023), MI250X and MI210 (2022). Names that begin alike: the longer first.
const KNOWN: [Known; 20] = [
    known("NVIDIA H200", 4.8e12),
    known("NVIDIA H100 PCIe", 2.0e12),
    known("NVIDIA H100 NVL", 3.9e12),
    known("NVIDIA H100", 3.35e12),
    known("NVIDIA A100-SXM4-80GB", 2.039e12),
    known("NVIDIA A100 80GB PCIe", 1.935e12),
    known("NVIDIA A100", 1.555e12),
    known("NVIDIA L40S", 0.864e12),
    known("NVIDIA L40", 0.864e12),
    known("NVIDIA L4", 0.3e12),
    known("NVIDIA A40", 0.696e12),
    known("NVIDIA A10", 0.6e12),
    known("Tesla V100", 0.9e12),
    known("Tesla T4", 0.32e12),
    known("NVIDIA GeForce RTX 4090", 1.008e12),
    known("NVIDIA GeForce RTX 3090", 0.936e12),
    known("AMD Instinct MI300X", 5.3e12),
    // A card of this name is two devices with half of it each.
    known("AMD Instinct MI250X", 1.6e12),
    known("AMD Instinct MI250", 1.6e12),
    known("AMD Instinct MI210", 1.6e12),
];

const fn known(name: &'static str, memory_bytes_per_second: f64) -> Known {
    Known { name, memory_bytes_per_second }
}

/// What a copy must reach of the data sheet. A good one reaches nine tenths; what is far below that has lost part of its memory's width.
pub const OF_DATA_SHEET: f64 = 0.6;
/// What a device must keep of its first speed under load. Boards slow down by a tenth or two as they get warm, and by half if their cooling fails.
pub const UNDER_LOAD: f64 = 0.7;

/// What a model's data sheet promises of its memory, in bytes a second. A part of a card (MIG) has no data sheet.
pub fn memory_rate(model: &str) -> Option<f64> {
    let found = KNOWN.iter().find(|known| model.starts_with(known.name));
    found.filter(|_| !model.contains("MIG")).map(|known| known.memory_bytes_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_name_is_not_hidden_by_a_shorter_one() {
        for (at, known) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..at].iter().all(|before| !known.name.starts_with(before.name)), "{}", known.name);
        }
        assert_eq!(memory_rate("NVIDIA H100 80GB HBM3"), Some(3.35e12));
        assert_eq!(memory_rate("NVIDIA A100-SXM4-80GB MIG 1g.10gb"), None);
    }
}
