//! Memory on a device: who holds how much, and how tensors lie in it.

use crate::error::{Error, Result};
use claw_graph::{Shape, TensorType};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in use on one device, against a limit.
#[derive(Debug)]
pub struct Meter {
    used: AtomicU64,
    peak: AtomicU64,
    limit: u64,
}

impl Meter {
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), peak: AtomicU64::new(0), limit })
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Acquire)
    }

    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts bytes in before they are allocated, so that two that ask at once cannot both have the rest.
    pub fn lease(self: &Arc<Self>, bytes: usize) -> Result<Lease> {
        let needed = bytes as u64;
        let more = |used: u64| used.checked_add(needed).filter(|sum| *sum <= self.limit);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(before) => {
                self.peak.fetch_max(before + needed, Ordering::AcqRel);
                Ok(Lease { meter: Arc::clone(self), bytes: needed })
            }
            Err(used) => Err(Error::OutOfMemory { needed, used, limit: self.limit }),
        }
    }
}

/// Bytes that count as used until it is dropped.
#[derive(Debug)]
pub struct Lease {
    meter: Arc<Meter>,
    bytes: u64,
}

impl Lease {
    /// Bytes that nobody has leased yet.
    pub fn room(&self) -> u64 {
        self.meter.limit - self.meter.used().min(self.meter.limit)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.meter.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A piece of memory of a device. Freed when the last clone goes; what a device still calculates with is freed after that.
#[derive(Clone)]
pub struct Buffer(Arc<(Box<dyn Any + Send + Sync>, Lease)>);

impl Buffer {
    pub fn new(memory: impl Any + Send + Sync, lease: Lease) -> Self {
        Self(Arc::new((Box::new(memory), lease)))
    }

    /// The memory, as the backend that made it knows it. Whoever mixes devices is stopped before (`Error::Elsewhere`).
    pub fn memory<T: Any>(&self) -> &T {
        self.0.0.downcast_ref().expect("a buffer is used by the device that made it")
    }
}

/// How a tensor lies in a buffer: where its first element is, and how far apart neighbours on each axis are. In elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub offset: usize,
    pub strides: Vec<usize>,
}

impl Layout {
    /// Row after row, from the beginning.
    pub fn rows(shape: &Shape) -> Self {
        Self { offset: 0, strides: shape.strides() }
    }

    /// Whether a tensor of this shape lies row after row, wherever it begins. Strides of axes that have one element say nothing.
    pub fn is_rows(&self, shape: &Shape) -> bool {
        let mut expected = 1;
        shape.iter().zip(&self.strides).rev().all(|(extent, stride)| {
            let fits = *extent == 1 || *stride == expected;
            expected *= (*extent).max(1);
            fits
        }) || shape.elements() == 0
    }
}

/// A tensor as a kernel sees it.
#[derive(Clone)]
pub struct View {
    pub buffer: Buffer,
    pub of: TensorType,
    pub layout: Layout,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_is_not_given_twice() {
        let meter = Meter::new(100);
        let first = meter.lease(60).expect("there is room");
        assert_eq!(meter.lease(41).err(), Some(Error::OutOfMemory { needed: 41, used: 60, limit: 100 }));
        drop(first);
        let _all = meter.lease(100).expect("everything came back");
        assert_eq!((meter.used(), meter.peak()), (100, 100));
        assert!(meter.lease(usize::MAX).is_err());
    }

    #[test]
    fn axes_of_one_element_do_not_matter_to_where_rows_lie() {
        let shape = Shape::new([3, 1, 4]).expect("a shape");
        let layout = |strides: [usize; 3]| Layout { offset: 7, strides: strides.to_vec() };
        assert!(layout([4, 4, 1]).is_rows(&shape) && layout([4, 99, 1]).is_rows(&shape));
        assert!(!layout([1, 4, 3]).is_rows(&shape) && !layout([0, 4, 1]).is_rows(&shape));
    }
}
