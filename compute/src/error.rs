//! What can go wrong.

use claw_graph::DType;

/// Why something was not calculated. Nothing that was asked for together with it can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such device, or what it needs is missing.
    #[error("{device}: {why}")]
    Unavailable {
        /// The device that was asked for.
        device: String,
        /// What is missing, and what to install.
        why: String,
    },
    /// A device that cannot do this at all.
    #[error("{device} cannot {what}")]
    Unsupported {
        /// The device.
        device: String,
        /// What it cannot.
        what: String,
    },
    /// More memory than there is, or than this process may use.
    #[error("{needed} bytes more are needed on the device, {used} of {limit} are in use")]
    OutOfMemory {
        /// Bytes that were asked for.
        needed: u64,
        /// Bytes that are in use.
        used: u64,
        /// Bytes that may be used.
        limit: u64,
    },
    /// The device, its driver or its compiler failed. The device must be opened anew.
    #[error("the device failed: {0}")]
    Failed(String),
    /// An index of `Gather` or `ScatterAdd` outside its axis.
    #[error("{operation:?}: an index is outside its axis, which takes 0 to one less than its extent")]
    Index {
        /// The operation, as its graph calls it.
        operation: String,
    },
    /// Values that do not make a tensor of this shape, or are read as another type.
    #[error("{0}")]
    Data(String),
    /// A tensor of another device.
    #[error("a tensor lies on another device than it is used on")]
    Elsewhere,
}

impl Error {
    pub(crate) fn unsupported_type(device: &str, dtype: DType) -> Self {
        Self::Unsupported { device: device.to_owned(), what: format!("calculate with {dtype}") }
    }
}

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;
