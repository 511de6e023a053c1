//! The machine's processors as a device: all threads, vector instructions found at run time, and a well-kept matrix product.
//!
//! A step is done when `start` returns. Whatever the type of a tensor, arithmetic is in `f32`: rows are widened, worked on, and rounded once.

mod attention;
mod elementwise;
mod index;
mod math;
mod matmul;
mod memory;
mod random;
mod rows;
mod scratch;

#[cfg(test)]
pub use memory::flip_a_bit;
pub use scratch::scratch_bytes;

use crate::backend::{Backend, Fault, Properties, Step};
use crate::error::{Error, Result};
use crate::memory::{Buffer, Lease, View};
use crate::tensor::Element;
use claw_graph::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memory::{Elements, Kept, read, read_buffer, set, write, write_buffer};
use std::borrow::Cow;
use std::sync::Arc;

/// Freed memory that is kept for the next tensors, at most; and at most this part of the machine's.
const KEPT_BYTES_MAX: u64 = 1 << 30;
const KEPT_PART_MAX: u64 = 16;

pub struct Cpu {
    properties: Properties,
    kept: Arc<Kept>,
}

impl Cpu {
    pub fn new() -> Self {
        let memory_bytes = machine_memory("MemTotal:");
        let kept_max = memory_bytes.map_or(0, |bytes| bytes / KEPT_PART_MAX).min(KEPT_BYTES_MAX);
        Self {
            kept: Kept::new(usize::try_from(kept_max).unwrap_or(0)),
            properties: Properties {
                id: "cpu".to_owned(),
                model: model().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
                driver: None,
                memory_bytes,
                // Memory as such is what is limited.
                buffer_bytes_max: u64::MAX,
                units: u32::try_from(rayon::current_num_threads()).ok(),
                floats: DType::FLOATS.to_vec(),
                is_cpu: true,
                shares_memory: true,
            },
        }
    }
}

/// A figure of the machine's memory, in bytes; `None` where the system does not say.
pub fn machine_memory(figure: &str) -> Option<u64> {
    let told = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix(figure))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn model() -> Option<String> {
    let told = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = told.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Types that are calculated with, in `f32`.
trait Float: Element + Send + Sync {
    fn widen(from: &[Self], to: &mut [f32]);
    fn narrow(from: &[f32], to: &mut [Self]);
    fn wide(self) -> f32;
    fn of(wide: f32) -> Self;

    /// The same elements, where they are `f32` already.
    fn as_wide(elements: &[Self]) -> Option<&[f32]>;
    fn as_wide_mut(elements: &mut [Self]) -> Option<&mut [f32]>;
}

impl Float for f32 {
    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    fn wide(self) -> f32 {
        self
    }

    fn of(wide: f32) -> Self {
        wide
    }

    fn as_wide(elements: &[Self]) -> Option<&[f32]> {
        Some(elements)
    }

    fn as_wide_mut(elements: &mut [Self]) -> Option<&mut [f32]> {
        Some(elements)
    }
}

macro_rules! narrow_float {
    ($($float:ty),+) => { $(impl Float for $float {
        fn widen(from: &[Self], to: &mut [f32]) {
            from.convert_to_f32_slice(to);
        }

        fn narrow(from: &[f32], to: &mut [Self]) {
            to.convert_from_f32_slice(from);
        }

        fn wide(self) -> f32 {
            self.to_f32()
        }

        fn of(wide: f32) -> Self {
            Self::from_f32(wide)
        }

        fn as_wide(_: &[Self]) -> Option<&[f32]> {
            None
        }

        fn as_wide_mut(_: &mut [Self]) -> Option<&mut [f32]> {
            None
        }
    })+ };
}

narrow_float!(f16, bf16);

/// All elements in `f32`: as they are, or widened.
fn widened<T: Float>(elements: &[T]) -> Cow<'_, [f32]> {
    T::as_wide(elements).map_or_else(
        || {
            let mut wide = vec![0.0; elements.len()];
            T::widen(elements, &mut wide);
            wide.into()
        },
        Cow::Borrowed,
    )
}

/// As `widened`, into scratch memory where they are not `f32` already.
fn widened_into<'elements, T: Float>(
    elements: &'elements [T],
    scratch: &'elements mut Vec<f32>,
) -> &'elements [f32] {
    match T::as_wide(elements) {
        Some(wide) => wide,
        None => {
            scratch.resize(elements.len(), 0.0);
            T::widen(elements, scratch);
            scratch
        }
    }
}

/// Has elements made in `f32`: in their place, or in scratch memory, from which they are rounded. `work` finds anything in them.
fn through_wide<T: Float>(to: &mut [T], scratch: &mut Vec<f32>, work: impl FnOnce(&mut [f32])) {
    match T::as_wide_mut(to) {
        Some(to) => work(to),
        None => {
            scratch.resize(to.len(), 0.0);
            work(scratch);
            T::narrow(scratch, to);
        }
    }
}

/// Calls a function that is generic over float types with the one that is meant.
macro_rules! with_float {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            claw_graph::DType::F16 => $function::<half::f16>($($argument),*),
            claw_graph::DType::Bf16 => $function::<half::bf16>($($argument),*),
            claw_graph::DType::F32 => $function::<f32>($($argument),*),
            other => unreachable!("the graph calculates with floats, not {other}"),
        }
    };
}

impl Backend for Cpu {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn memory_free_bytes(&self) -> Option<u64> {
        machine_memory("MemAvailable:")
    }

    fn allocate(&self, bytes: usize, lease: Lease) -> Result<Buffer> {
        self.kept.allocate(bytes, lease).ok_or_else(|| Error::OutOfMemory {
            needed: bytes as u64,
            used: 0,
            limit: self.properties.memory_bytes.unwrap_or(u64::MAX),
        })
    }

    fn upload(&self, bytes: &[u8], lease: Lease) -> Result<Buffer> {
        let buffer = self.allocate(bytes.len(), lease)?;
        let mut elements = write_buffer(&buffer);
        bytemuck::cast_slice_mut(elements.all::<i8>())[..bytes.len()].copy_from_slice(bytes);
        drop(elements);
        Ok(buffer)
    }

    fn download(&self, buffer: &Buffer, bytes: usize) -> Result<Vec<u8>> {
        Ok(bytemuck::cast_slice(read_buffer(buffer).all::<i8>())[..bytes].to_vec())
    }

    fn start(&self, step: &Step, operands: &[View], results: &[View], fault: Option<&Fault>) -> Result<()> {
        let to = &results[0];
        let dtype = operands.first().map_or(to.of.dtype, |operand| operand.of.dtype);
        match step {
            Step::Map(program) => with_float!(to.of.dtype, map(program, operands, to)),
            Step::Copy => elementwise::copy(&operands[0], to),
            Step::Cast => elementwise::cast(&operands[0], to),
            Step::Random { distribution, seed } => random::fill(*distribution, *seed, to),
            Step::Reduce { reduction, rows } => {
                with_float!(dtype, reduce(*reduction, *rows, &operands[0], to))
            }
            Step::ArgReduce { largest, rows } => {
                with_float!(dtype, arg_reduce(*largest, *rows, &operands[0], to))
            }
            Step::CountDifferent { rows } => rows::count_different(*rows, operands, to),
            Step::Softmax { log, rows } => with_float!(dtype, softmax(*log, *rows, &operands[0], to)),
            Step::Norm { epsilon, rows } => with_float!(dtype, norm(*epsilon, *rows, operands, to)),
            Step::Rotary { base, offset } => with_float!(dtype, rotary(*base, *offset, &operands[0], to)),
            Step::MatMul => with_float!(dtype, matmul(operands, to)),
            Step::Attention { causal, scale } => with_float!(dtype, attention(*causal, *scale, operands, to)),
            Step::TopK { k, largest, rows } => {
                with_float!(dtype, top_k(*k, *largest, *rows, &operands[0], results))
            }
            Step::Gather { rows } => index::gather(*rows, operands, to, fault),
            Step::ScatterAdd { rows } => with_float!(dtype, scatter_add(*rows, operands, to, fault)),
            Step::Quantize { rows } => with_float!(dtype, quantize(*rows, &operands[0], results)),
            Step::Dequantize { rows } => with_float!(to.of.dtype, dequantize(*rows, operands, to)),
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

use attention::attention;
use elementwise::map;
use index::{scatter_add, top_k};
use matmul::matmul;
use rows::{arg_reduce, dequantize, norm, quantize, reduce, rotary, softmax};
