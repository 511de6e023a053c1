//! Pods of kernel jobs stay until their end is in their job's status, whoever deletes them, and no longer than that.
//!
//! Each is made with a finalizer, as those of Jobs are. The plan of its job takes that off once the stored status says how the try
//! ended (`course`). Where no job waits for an end, because it is gone, goes, or has let go of the pod, it is taken off here.
//!
//! Must never know: how tries end.

use std::sync::Arc;

use claw_runtime::{Action, Controller, ObjectKey, Plan, Watches, World, finalizer, owner};
use claw_schemas::api::{JOB_FINALIZER, KernelJob};
use jiff::Timestamp;
use k8s_openapi::{Resource as _, api::core::v1::Pod};

/// Whether a pod stays until our finalizer is taken off.
pub fn is_kept(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|name| name == JOB_FINALIZER)
}

/// Whether only finalizers keep a pod: its node has ended it, it never had one, or somebody would not wait for that.
pub fn is_let_go(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Keeps a pod no longer.
pub fn release(pod: &Pod) -> Action {
    finalizer::remove(pod, JOB_FINALIZER)
}

/// The controller of pods that no job waits for.
pub struct Leftovers;

impl Controller for Leftovers {
    type Object = Pod;

    fn name(&self) -> &'static str {
        "kernel-job-leftovers"
    }

    fn watches(&self, watches: &mut Watches<Pod>) {
        watches.mapped::<KernelJob>(|job, pods| {
            let uid = job.metadata.uid.as_deref().unwrap_or_default();
            pods.snapshot().owned_by(uid).map(|pod| ObjectKey::of(&pod.metadata)).collect()
        });
    }

    fn plan(&self, pod: &Arc<Pod>, world: &World, _: Timestamp) -> Plan {
        if !is_kept(pod) || is_waited_for(pod, world) {
            return Plan::nothing();
        }
        Plan::nothing().then(release(pod))
    }
}

/// Whether there is a job that has this pod, and is to stay.
fn is_waited_for(pod: &Pod, world: &World) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let owner = owner::controller_of(&pod.metadata)
        .filter(|owner| owner.kind == KernelJob::KIND && owner.api_version == KernelJob::API_VERSION);
    let jobs = world.kind::<KernelJob>();
    let job = owner.and_then(|owner| jobs.get(namespace, &owner.name));
    job.is_some_and(|job| {
        owner::is_controlled_by(&pod.metadata, &**job) && job.metadata.deletion_timestamp.is_none()
    })
}
