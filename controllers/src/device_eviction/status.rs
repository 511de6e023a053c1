//! The condition `EvictionInProgress` of a rule, in Kubernetes' words.
//!
//! Counting looks at all pods, so it is done at most every ten seconds, and once for a rule that only asks what would happen.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use claw_runtime::{Plan, World, conditions};
use claw_schemas::gpu::NO_EXECUTE;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::Pod,
        resource::{
            v1::{ResourceClaim, ResourceSlice},
            v1beta2::DeviceTaintRule,
        },
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};

use super::{stay, uses};
use crate::{pools, taint_rules};

/// The one condition of a rule.
const IN_PROGRESS: &str = "EvictionInProgress";

/// Why it is as it is.
const PENDING: &str = "PodsPendingEviction";
const COMPLETED: &str = "Completed";

/// The shortest time between two looks, Kubernetes' figure.
const PERIOD: Duration = Duration::from_secs(10);

/// What a rule should say, if it says something else.
pub fn plan(rule: &DeviceTaintRule, world: &World, now: Timestamp) -> Plan {
    let mut status = rule.status.clone().unwrap_or_default();
    let known = conditions::find(status.conditions.iter().flatten(), IN_PROGRESS).cloned();
    let effect = rule.spec.taint.effect.as_str();
    if let Some(known) = known.as_ref().filter(|known| known.observed_generation == rule.metadata.generation)
    {
        if effect != NO_EXECUTE {
            return Plan::nothing();
        }
        let passed = world.age(known.last_transition_time.0, now);
        if passed < PERIOD {
            return Plan::nothing().again_after(PERIOD - passed);
        }
    }
    let was_busy = known.as_ref().is_some_and(|known| matches!(known.reason.as_str(), PENDING | COMPLETED));
    let (is_busy, reason, message) = match effect {
        NO_EXECUTE => match Pods::of(rule, world) {
            Pods { count: 0, .. } if was_busy => (false, COMPLETED, String::new()),
            Pods { count: 0, .. } => (false, "NotStarted", String::new()),
            pods => (true, PENDING, format!("{} evicted in {}.", pods.need_to_be(), pods.namespaces())),
        },
        "None" => (false, "NoEffect", forecast(rule, world)),
        _ => (false, "OtherEffect", "Eviction only happens for the NoExecute effect.".to_owned()),
    };
    let mut condition = Condition {
        type_: IN_PROGRESS.to_owned(),
        status: if is_busy { conditions::TRUE } else { conditions::FALSE }.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: rule.metadata.generation,
        last_transition_time: known.as_ref().map_or(Time(now), |known| known.last_transition_time.clone()),
    };
    if known.as_ref() == Some(&condition) {
        return Plan::nothing();
    }
    // Kubernetes moves it with every change, and so do we: it says when pods were counted.
    condition.last_transition_time = Time(now);
    let all = status.conditions.get_or_insert_default();
    all.retain(|one| one.type_ != IN_PROGRESS);
    all.push(condition);
    Plan::nothing().status(&status)
}

/// What would happen if the effect were another.
fn forecast(rule: &DeviceTaintRule, world: &World) -> String {
    let pods = Pods::of(rule, world);
    format!(
        "{} selected. {} selected. {} evicted in {} if the effect was NoExecute. This information will not be updated again. \
         Recreate the DeviceTaintRule to trigger an update.",
        counted(published(rule, world), "published device"),
        counted(allocated(rule, world), "allocated device"),
        pods.would_be(),
        pods.namespaces(),
    )
}

/// Pods that a rule drives out, those on their way among them.
struct Pods {
    count: usize,
    namespaces: usize,
}

impl Pods {
    /// As if the rule had the effect.
    fn of(rule: &DeviceTaintRule, world: &World) -> Self {
        let (claims, slices) = (world.kind::<ResourceClaim>(), world.kind::<ResourceSlice>());
        let mut taint = taint_rules::taint(&rule.spec);
        NO_EXECUTE.clone_into(&mut taint.effect);
        let must_go = |pod: &&Arc<Pod>| {
            let used = uses::of(pod, &claims, &slices);
            used.iter().any(|one| one.is_of(&rule.spec) && stay::patience(&one.tolerations, &taint).is_some())
        };
        let all = world.kind::<Pod>();
        let pods: Vec<_> = all.iter().filter(|pod| uses::may_have_devices(pod)).filter(must_go).collect();
        let namespaces: BTreeSet<_> = pods.iter().map(|pod| &pod.metadata.namespace).collect();
        Self { count: pods.len(), namespaces: namespaces.len() }
    }

    fn need_to_be(&self) -> String {
        if self.count == 1 {
            "1 pod needs to be".to_owned()
        } else {
            format!("{} pods need to be", self.count)
        }
    }

    fn would_be(&self) -> String {
        format!("{} would be", counted(self.count, "pod"))
    }

    fn namespaces(&self) -> String {
        match self.namespaces {
            1 => "1 namespace".to_owned(),
            count => format!("{count} different namespaces"),
        }
    }
}

/// Devices that the newest slices of their pools list.
fn published(rule: &DeviceTaintRule, world: &World) -> usize {
    let slices = world.kind::<ResourceSlice>();
    let is_selected = |slice: &ResourceSlice, device: &str| {
        taint_rules::selects(&rule.spec, &slice.spec.driver, &slice.spec.pool.name, device)
    };
    let in_slice = |slice: &Arc<ResourceSlice>| {
        slice.spec.devices.iter().flatten().filter(|device| is_selected(slice, &device.name)).count()
    };
    slices.iter().filter(|slice| pools::is_current(&slices, slice)).map(in_slice).sum()
}

/// Devices that claims have, and GPUs that pods have by number.
fn allocated(rule: &DeviceTaintRule, world: &World) -> usize {
    let (claims, slices) = (world.kind::<ResourceClaim>(), world.kind::<ResourceSlice>());
    let selected = |used: Vec<uses::Use>| used.iter().filter(|one| one.is_of(&rule.spec)).count();
    let by_claim: usize = claims.iter().map(|claim| selected(uses::given_by(claim))).sum();
    let pods = world.kind::<Pod>();
    let by_number: usize = pods.iter().map(|pod| selected(uses::by_number(pod, &slices))).sum();
    by_claim + by_number
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
