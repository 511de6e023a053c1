//! Kinds that Kubernetes has not: group `clawbernetes.io`, as Rust types.
//!
//! A kind is a spec and a status; object, list and definition follow from [`custom`](crate::custom).
//!
//! Must never know: who carries out what is asked for.

mod kernel_job;

/// The group of these kinds.
pub const GROUP: &str = "clawbernetes.io";

pub use kernel_job::{
    IMAGE, JOB_FINALIZER, JOB_LABEL, KernelDevice, KernelFigures, KernelInput, KernelJob, KernelJobAttempt,
    KernelJobSpec, KernelJobStatus, KernelOutput, KernelResult, KeyOf, PROGRESS, PathIn, places,
};
