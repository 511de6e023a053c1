//! What a device must be able to do: the seam between plans and those who carry them out.

use crate::error::{Error, Result};
use crate::memory::{Buffer, Lease, View};
use crate::plan::Program;
use claw_graph::{DType, Distribution, Reduction};
use std::path::Path;

/// What a device says about itself. Nothing is estimated: what its driver does not tell is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// How it is asked for: `cpu`, `cuda:0`, `vulkan:1`.
    pub id: String,
    /// The model, in its driver's words.
    pub model: String,
    /// The driver or library that serves it, with its version where it is told.
    pub driver: Option<String>,
    /// Bytes of its own memory (of the machine's, for a CPU).
    pub memory_bytes: Option<u64>,
    /// Bytes that one buffer may have.
    pub buffer_bytes_max: u64,
    /// Streaming multiprocessors, compute units, or threads.
    pub units: Option<u32>,
    /// The float types that it calculates with.
    pub floats: Vec<DType>,
    /// Whether it calculates on a CPU, be it through Vulkan.
    pub is_cpu: bool,
    /// Whether its memory is the machine's: of processors, and of graphics beside them.
    pub shares_memory: bool,
}

/// One kernel's work. Operands and results lie row after row from the beginning of their buffers, unless said otherwise. No buffer is
/// read and written by one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A program for each element; operands have the result's shape, at any place with any strides. All are of one float type, or the
    /// program is a literal.
    Map(Program),
    /// The same elements elsewhere, any place and strides on both sides, any type.
    Copy,
    /// Another type; see [`claw_graph::Op::Cast`].
    Cast,
    /// Philox numbers; see [`crate::philox`].
    Random { distribution: Distribution, seed: u64 },
    /// `[outer, n, inner]` to `[outer, inner]`.
    Reduce { reduction: Reduction, rows: Rows },
    /// As `Reduce`, the index of the extreme.
    ArgReduce { largest: bool, rows: Rows },
    /// `(a, b)`, in words of 32 bits; counts as `Reduce` sums.
    CountDifferent { rows: Rows },
    /// Within `[outer, n, inner]`, along `n`.
    Softmax { log: bool, rows: Rows },
    /// `(x, scale, shift)`, or `(x, scale)` for the root mean square.
    Norm { epsilon: f32, rows: Rows },
    /// `[…, positions, width]`.
    Rotary { base: f64, offset: usize },
    /// `[…, m, k] × […, k, n]` with the batch axes of the result on both, any strides; the result is of the operands' type or `F32`.
    MatMul,
    /// `(query, key, value)` of four axes.
    Attention { causal: bool, scale: f32 },
    /// Two results: values and indices.
    TopK { k: usize, largest: bool, rows: Rows },
    /// `(x, indices)`.
    Gather { rows: Rows },
    /// `(x, indices, updates)`.
    ScatterAdd { rows: Rows },
    /// Two results: values and scales.
    Quantize { rows: Rows },
    /// `(q, scale)`.
    Dequantize { rows: Rows },
}

/// A tensor as `outer` blocks of `n` rows of `inner` elements: what an axis looks like to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub outer: usize,
    pub n: usize,
    pub inner: usize,
}

/// Where a step says that it met an index outside its axis.
pub struct Fault {
    /// Words, all of them 0 at first.
    pub buffer: Buffer,
    /// The one that becomes 1.
    pub word: usize,
}

/// A device that is open.
pub trait Backend: Send + Sync {
    fn properties(&self) -> &Properties;

    /// Bytes that nobody uses, other processes included; `None` where the driver does not tell.
    fn memory_free_bytes(&self) -> Option<u64> {
        None
    }

    /// Memory with undefined content.
    fn allocate(&self, bytes: usize, lease: Lease) -> Result<Buffer>;

    /// Memory with this content.
    fn upload(&self, bytes: &[u8], lease: Lease) -> Result<Buffer>;

    /// The first bytes of a buffer, once everything started before has ended well.
    fn download(&self, buffer: &Buffer, bytes: usize) -> Result<Vec<u8>>;

    /// Starts a step. Steps take effect in the order in which they were started.
    ///
    /// `fault` is given to steps that take indices: they set its word if one is outside its axis.
    fn start(&self, step: &Step, operands: &[View], results: &[View], fault: Option<&Fault>) -> Result<()>;

    /// Waits until everything that was started has ended, and says how.
    fn finish(&self) -> Result<()>;

    /// Has kept in a folder which of several ways was the fastest, where the device chooses.
    fn keep_choices(&self, _folder: &Path) {}
}

/// The answer of a device to a type it has not.
pub fn supported(properties: &Properties, dtype: DType) -> Result<()> {
    if dtype.is_float() && !properties.floats.contains(&dtype) {
        return Err(Error::unsupported_type(&properties.id, dtype));
    }
    Ok(())
}
