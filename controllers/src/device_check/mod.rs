//! `DeviceCheck`s: each becomes one pod, on the one device that it names, and says what that has found.
//!
//! A check is one try. What it looks at is written into the status before anything is made, its pod's uid once that was seen, and how it
//! ended before a pod that is left over is deleted: a controller that dies in between makes no second pod and forgets no end. Whether there
//! is to be another check is for whoever made this one to say (`device_policy`).
//!
//! | module | owns |
//! |---|---|
//! | `facts` | what a device is, by its slice and its node |
//! | `made` | the claim and the pod |
//! | `outcome` | what a pod that has ended says of the device |
//! | `findings` | minimums, and the comparison with others of the model |
//!
//! Writes the whole status, with the conditions `Complete` and `Failed`. Must never know: how a device is looked at, or policies.

mod course;
pub mod facts;
pub mod findings;
mod made;
mod outcome;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use claw_client::ObjectKey;
use claw_runtime::{Controller, Plan, Watches, World, conditions};
use claw_schemas::api::{DeviceCheck, DeviceCheckStatus};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    resource::v1::ResourceSlice,
};

use self::course::Course;

/// It was looked at, and there is a verdict.
pub const COMPLETE: &str = "Complete";
/// It could not be looked at.
pub const FAILED: &str = "Failed";
/// The verdict on a device that may be used.
pub const FIT: &str = "Fit";
/// The verdict on one that may not.
pub const NOT_FIT: &str = "NotFit";

/// The namespace of what looks at devices.
pub const NAMESPACE: &str = "kube-system";

/// The controller of looks at devices.
pub struct DeviceChecks;

impl Controller for DeviceChecks {
    type Object = DeviceCheck;

    fn name(&self) -> &'static str {
        "device-check"
    }

    fn watches(&self, watches: &mut Watches<DeviceCheck>) {
        watches.owned::<Pod>();
        watches.reads::<Node>();
        watches.mapped::<ResourceSlice>(|slice, checks| {
            let is_there = |check: &Arc<DeviceCheck>| {
                check.spec.device.pool == slice.spec.pool.name && !check.status.as_ref().is_some_and(is_over)
            };
            let concerned = checks.list().into_iter().filter(is_there);
            concerned.map(|check| ObjectKey::of(&check.metadata)).collect()
        });
    }

    fn plan(&self, check: &Arc<DeviceCheck>, world: &World, now: Timestamp) -> Plan {
        if check.metadata.deletion_timestamp.is_some() {
            // What it made goes with it: all of it names the check as its owner.
            return Plan::nothing();
        }
        Course::of(check, world, now).run()
    }
}

/// Whether a check has ended.
pub fn is_over(status: &DeviceCheckStatus) -> bool {
    [COMPLETE, FAILED].iter().any(|kind| conditions::is_true(&status.conditions, kind))
}
