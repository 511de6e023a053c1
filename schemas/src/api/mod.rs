//! Kinds that Kubernetes has not: group `clawbernetes.io`, as Rust types.
//!
//! A kind is a spec and a status; object, list and definition follow from [`custom`](crate::custom).
//!
//! Must never know: who carries out what is asked for.

mod device_check;
mod device_policy;
mod kernel_job;

/// The group of these kinds.
pub const GROUP: &str = "clawbernetes.io";

pub use device_check::{
    CHECK_LABEL, CHECK_NAME_BYTES_MAX, CHECK_PRIORITY, DeviceCheck, DeviceCheckSpec, DeviceCheckStatus,
    DeviceFacts, DeviceFinding, DeviceName,
};
pub use device_policy::{
    DEVICES_FIT, DevicePolicy, DevicePolicySpec, DevicePolicyStatus, NOT_FIT, OBJECTION, POLICY_LABEL,
    UNCHECKED,
};
pub use kernel_job::{
    IMAGE, JOB_FINALIZER, JOB_LABEL, KernelDevice, KernelFigures, KernelInput, KernelJob, KernelJobAttempt,
    KernelJobSpec, KernelJobStatus, KernelOutput, KernelResult, KeyOf, PROGRESS, PathIn, places,
};
