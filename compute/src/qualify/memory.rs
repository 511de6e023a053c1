//! Whether memory keeps what is written: all of it is filled before any of it is looked at.

use super::{Sketch, Tell, differing, shape};
use crate::cpu::machine_memory;
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;
use claw_graph::qualification::{Check, Finding, Level};
use claw_graph::{DType, Distribution, Graph, Op};

/// Bytes of a row of words, whose faults are counted together.
const ROW_BYTES: usize = 1 << 18;
/// Bytes of a piece of memory, where the device has no smaller limit.
const PIECE_BYTES: u64 = 256 << 20;
/// Where nobody says how much there is, and for processors, whose memory is others', too.
const UNKNOWN_BYTES: u64 = 256 << 20;
/// What a quick look is content with.
const QUICK_BYTES: u64 = 4 << 30;
/// Part of the memory that is left alone, for what pieces are compared with and whatever the driver takes.
const LEFT: u64 = 10;
/// Memory of a device is taken in pages, which have room for two to sixteen pieces: so many pieces are no more than what is left alone.
const PIECES_OF_A_PAGE: u64 = 16;

/// What is written. Each bit is 0 and 1 once at least, beside neighbours that are like it and unlike it; and what is drawn differs
/// from place to place, so that two addresses of one cell are seen.
const PATTERNS: [(&str, Pattern); 6] = [
    ("zeros", Pattern::Word(0)),
    ("ones", Pattern::Word(-1)),
    ("zeros and ones by turns", Pattern::Word(0x5555_5555)),
    ("ones and zeros by turns", Pattern::Word(-0x5555_5556)),
    ("random bits", Pattern::Random(1)),
    ("other random bits", Pattern::Random(2)),
];

#[derive(Clone, Copy)]
enum Pattern {
    Word(i32),
    Random(u64),
}

pub fn memory(device: &Device, level: Level, tell: Tell<'_>) -> Result<Finding> {
    let Room { piece, bytes_max, left_alone } = Room::of(device, level);
    // How many pieces there are is found out by the first pattern, which takes the memory.
    let mut pieces = None;
    let mut faults = Vec::new();
    for (name, pattern) in PATTERNS {
        let most = pieces.unwrap_or((bytes_max / piece as u64).max(1) as usize);
        tell(Check::Memory, &format!("memory: {name} in {} MiB", (most * piece) >> 20));
        let mut written: Vec<Tensor> = Vec::new();
        while written.len() < most {
            // What the driver says is as it is now, and others take of it, too.
            let is_room = || device.memory_free_bytes().is_none_or(|free| free >= left_alone);
            if pieces.is_none() && !written.is_empty() && !is_room() {
                break;
            }
            written.push(device.run(&draw(pattern, written.len(), piece)?, &[])?.remove(0));
            if pieces.is_none() {
                device.finish()?;
            }
        }
        device.finish()?;
        pieces = Some(written.len());
        let mut words = 0;
        for (number, tensor) in written.iter().enumerate() {
            let again = device.run(&draw(pattern, number, piece)?, &[])?.remove(0);
            words += differing(device, tensor, &again)?;
        }
        if words > 0 {
            faults.push(format!("{words} words are not the {name} that were written"));
        }
    }
    let bytes = pieces.unwrap_or(0) * piece;
    let words = if faults.is_empty() {
        format!("{} MiB keep {} patterns", bytes >> 20, PATTERNS.len())
    } else {
        faults.join("; ")
    };
    let figures = [("memoryBytes".to_owned(), bytes as f64)].into();
    Ok(Finding { check: Check::Memory, passed: faults.is_empty(), words, figures })
}

/// How much is looked at, and by how much at a time.
struct Room {
    /// Bytes of a piece, whole rows.
    piece: usize,
    /// Bytes that all pieces may have.
    bytes_max: u64,
    /// Bytes that stay free.
    left_alone: u64,
}

impl Room {
    fn of(device: &Device, level: Level) -> Self {
        let properties = device.properties();
        let limit = device.memory_limit();
        // Of a machine's memory, most is others'.
        let (most, left_alone, of_limit) = if properties.is_cpu {
            (UNKNOWN_BYTES, 0, limit / 8)
        } else if properties.shares_memory {
            (machine_memory("MemAvailable:").map_or(UNKNOWN_BYTES, |free| free / 4), limit / LEFT, limit / 8)
        } else {
            let left_alone = properties.memory_bytes.unwrap_or(0) / LEFT;
            let all = properties.memory_bytes.map_or(UNKNOWN_BYTES, |all| all / 2);
            let free = device.memory_free_bytes().map_or(all, |free| free.saturating_sub(left_alone));
            (free, left_alone, (limit / LEFT / PIECES_OF_A_PAGE).max(ROW_BYTES as u64))
        };
        let most = if level == Level::Quick { most.min(QUICK_BYTES) } else { most };
        let piece = PIECE_BYTES.min(properties.buffer_bytes_max).min(of_limit);
        let piece = (piece as usize / ROW_BYTES).max(1) * ROW_BYTES;
        let bytes_max = if properties.shares_memory { limit / 2 } else { limit - limit / LEFT };
        Self { piece, bytes_max: most.min(bytes_max), left_alone }
    }
}

/// A piece's words, as rows.
fn draw(pattern: Pattern, number: usize, bytes: usize) -> Result<Graph> {
    let shape = shape(&[bytes / ROW_BYTES, ROW_BYTES / 4])?;
    let op = match pattern {
        Pattern::Word(word) => Op::Fill { value: f64::from(word), dtype: DType::I32, shape },
        Pattern::Random(stream) => Op::Random {
            distribution: Distribution::Integers { low: i32::MIN, high: i32::MAX },
            seed: stream << 32 | number as u64,
            dtype: DType::I32,
            shape,
        },
    };
    let mut sketch = Sketch::new();
    let words = sketch.add("words", op, &[])?;
    Ok(sketch.ends_with(words))
}
