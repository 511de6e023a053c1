//! `KernelJob`s: each becomes one pod at a time, until one of them has calculated what is ordered.
//!
//! A try is written into the status before its pod is made, its pod's uid once that was seen, and why it is to end before its pod is
//! deleted; and its pod stays until its end is written there. So whoever comes after a death knows what was begun and what ended: no
//! number is tried twice, no end is forgotten, and after `Complete` nothing runs.
//!
//! Writes the whole status, with the conditions `Complete`, `Failed` and `Suspended`. Must never know: how a worker calculates, or which nodes
//! and devices there are.

mod attempts;
mod course;
mod figures;
mod made;
mod outcome;
#[cfg(test)]
mod tests;
mod tracking;

use std::sync::Arc;

use claw_runtime::{Controller, Plan, Watches, World};
use claw_schemas::api::KernelJob;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};

use self::course::Course;
pub use self::tracking::Leftovers;

/// The controller of kernel jobs.
pub struct KernelJobs;

impl Controller for KernelJobs {
    type Object = KernelJob;

    fn name(&self) -> &'static str {
        "kernel-job"
    }

    fn watches(&self, watches: &mut Watches<KernelJob>) {
        watches.owned::<Pod>();
        watches.reads::<Node>();
    }

    fn plan(&self, job: &Arc<KernelJob>, world: &World, now: Timestamp) -> Plan {
        if job.metadata.deletion_timestamp.is_some() {
            // What it made goes with it: all of it names the job as its owner, and nothing waits for how it ends (`tracking`).
            return Plan::nothing();
        }
        Course::of(job, world, now).run()
    }
}
