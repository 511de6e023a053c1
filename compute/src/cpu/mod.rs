//! The machine's processors as a device: all threads, vector instructions found at run time, and a well-kept matrix product.
//!
//! A step is done when `start` returns. Whatever the type of a tensor, arithmetic is in `f32`: rows are widened, worked on, and rounded once.

mod attention;
mod elementwise;
mod index;
mod math;
mod matmul;
mod random;
mod rows;
mod scratch;

pub use scratch::scratch_bytes;

use crate::backend::{Backend, Fault, Properties, Step};
use crate::error::{Error, Result};
use crate::memory::{Buffer, Lease, View};
use crate::tensor::Element;
use claw_graph::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::borrow::Cow;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub struct Cpu {
    properties: Properties,
}

impl Cpu {
    pub fn new() -> Self {
        let memory_bytes = machine_memory("MemTotal:");
        Self {
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
            },
        }
    }
}

/// A figure of the machine's memory, in bytes; `None` where the system does not say.
fn machine_memory(figure: &str) -> Option<u64> {
    let told = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix(figure))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn model() -> Option<String> {
    let told = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = told.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Memory of a tensor. In words of eight bytes, so that elements of all types are aligned.
struct Memory(RwLock<Vec<u64>>);

impl Memory {
    fn of(buffer: &Buffer) -> &RwLock<Vec<u64>> {
        &buffer.memory::<Self>().0
    }
}

/// Elements that are read.
struct Elements<'buffer>(RwLockReadGuard<'buffer, Vec<u64>>);

/// Elements that are written.
struct ElementsMut<'buffer>(RwLockWriteGuard<'buffer, Vec<u64>>);

fn read(view: &View) -> Elements<'_> {
    // A panic elsewhere leaves numbers that nobody is shown: its caller gets no tensor.
    Elements(Memory::of(&view.buffer).read().unwrap_or_else(PoisonError::into_inner))
}

fn write(view: &View) -> ElementsMut<'_> {
    ElementsMut(Memory::of(&view.buffer).write().unwrap_or_else(PoisonError::into_inner))
}

/// Says that an index was outside.
fn set(fault: &Fault) {
    let mut words = Memory::of(&fault.buffer).write().unwrap_or_else(PoisonError::into_inner);
    bytemuck::cast_slice_mut::<u64, u32>(&mut words)[fault.word] = 1;
}

/// What a broken device does to a result.
#[cfg(test)]
pub fn flip_a_bit(view: &View) {
    let mut words = Memory::of(&view.buffer).write().unwrap_or_else(PoisonError::into_inner);
    let middle = words.len() / 2;
    words[middle] ^= 1 << 23;
}

impl Elements<'_> {
    /// All elements of the buffer.
    fn all<T: Element>(&self) -> &[T] {
        bytemuck::cast_slice(&self.0)
    }

    /// The elements of a tensor that lies row after row from the beginning.
    fn of<T: Element>(&self, view: &View) -> &[T] {
        &self.all()[..view.of.shape.elements()]
    }
}

impl ElementsMut<'_> {
    fn all<T: Element>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    fn of<T: Element>(&mut self, view: &View) -> &mut [T] {
        &mut self.all()[..view.of.shape.elements()]
    }
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
        let mut words = Vec::new();
        let length = bytes.div_ceil(8);
        words.try_reserve_exact(length).map_err(|_| Error::OutOfMemory {
            needed: bytes as u64,
            used: 0,
            limit: self.properties.memory_bytes.unwrap_or(u64::MAX),
        })?;
        words.resize(length, 0);
        Ok(Buffer::new(Memory(RwLock::new(words)), lease))
    }

    fn upload(&self, bytes: &[u8], lease: Lease) -> Result<Buffer> {
        let buffer = self.allocate(bytes.len(), lease)?;
        let mut words = Memory::of(&buffer).write().unwrap_or_else(PoisonError::into_inner);
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        drop(words);
        Ok(buffer)
    }

    fn download(&self, buffer: &Buffer, bytes: usize) -> Result<Vec<u8>> {
        let words = Memory::of(buffer).read().unwrap_or_else(PoisonError::into_inner);
        Ok(bytemuck::cast_slice(&words)[..bytes].to_vec())
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
