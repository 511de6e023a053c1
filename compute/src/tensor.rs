//! Tensors that lie on a device.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::Buffer;
use claw_graph::{DType, TensorType};
use half::{bf16, f16};
use std::sync::Arc;

/// A tensor on a device. It never changes; clones share their memory.
#[derive(Clone)]
pub struct Tensor {
    pub(crate) device: Device,
    /// Elements lie row after row from its beginning.
    pub(crate) buffer: Buffer,
    pub(crate) of: TensorType,
    /// What it was made with, if indices were among it.
    pub(crate) faults: Vec<Arc<Faults>>,
}

/// What a run says of its operations that take indices.
pub struct Faults {
    /// A word for each: not 0 if an index was outside its axis.
    pub(crate) words: Buffer,
    /// What its graph calls each.
    pub(crate) operations: Vec<String>,
}

/// A type of numbers that tensors hold.
pub trait Element: bytemuck::Pod {
    /// The same type, as tensors name it.
    const DTYPE: DType;
}

macro_rules! element {
    ($($element:ty: $dtype:ident),+) => { $(impl Element for $element { const DTYPE: DType = DType::$dtype; })+ };
}

element!(f32: F32, f16: F16, bf16: Bf16, i32: I32, i8: I8);

impl Tensor {
    /// Its type and shape.
    #[must_use]
    pub const fn of(&self) -> &TensorType {
        &self.of
    }

    /// Its elements in row-major order, once everything that makes them has ended well.
    ///
    /// # Errors
    /// [`Error::Data`] if its elements are of another type; otherwise as [`Tensor::to_bytes`].
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.of.dtype {
            return Err(Error::Data(format!("{} is read as {}", self.of, T::DTYPE)));
        }
        Ok(bytemuck::pod_collect_to_vec(&self.to_bytes()?))
    }

    /// Its elements as bytes in row-major order, little-endian.
    ///
    /// # Errors
    /// [`Error::Index`] if an index was outside its axis in what it is made of; whatever went wrong on the device.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        for faults in &self.faults {
            let words = self.device.download(&faults.words, 4 * faults.operations.len())?;
            if let Some(word) = words.chunks(4).position(|word| word != [0; 4]) {
                return Err(Error::Index { operation: faults.operations[word].clone() });
            }
        }
        self.device.download(&self.buffer, self.of.size_bytes())
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.of, self.device.properties().id)
    }
}
