//! Whether memory keeps what is written: all of it is filled before any of it is looked at.

use super::{Sketch, Tell, differing, shape};
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
    let most = PIECE_BYTES.min(device.properties().buffer_bytes_max).min(device.memory_limit() / 8);
    let piece = (most as usize / ROW_BYTES).max(1) * ROW_BYTES;
    let wanted = bytes(device, level);
    let pieces = (wanted / piece as u64).max(1) as usize;
    let mut faults = Vec::new();
    for (name, pattern) in PATTERNS {
        tell(Check::Memory, &format!("memory: {name} in {} MiB", (pieces * piece) >> 20));
        let written = (0..pieces)
            .map(|number| Ok(device.run(&draw(pattern, number, piece)?, &[])?.remove(0)))
            .collect::<Result<Vec<Tensor>>>()?;
        device.finish()?;
        let mut words = 0;
        for (number, tensor) in written.iter().enumerate() {
            let again = device.run(&draw(pattern, number, piece)?, &[])?.remove(0);
            words += differing(device, tensor, &again)?;
        }
        if words > 0 {
            faults.push(format!("{words} words are not the {name} that were written"));
        }
    }
    let mib = (pieces * piece) >> 20;
    let words = if faults.is_empty() {
        format!("{mib} MiB keep {} patterns", PATTERNS.len())
    } else {
        faults.join("; ")
    };
    let figures = [("memoryBytes".to_owned(), (pieces * piece) as f64)].into();
    Ok(Finding { check: Check::Memory, passed: faults.is_empty(), words, figures })
}

/// How much is looked at. What it is compared with needs a place, too, as does whatever the driver takes.
fn bytes(device: &Device, level: Level) -> u64 {
    let free = device.memory_free_bytes().filter(|_| !device.properties().is_cpu);
    let most = free.map_or(UNKNOWN_BYTES, |free| free / 10 * 9);
    match level {
        Level::Quick => most.min(4 << 30),
        Level::Full => most,
    }
    .min(device.memory_limit() / 2)
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
