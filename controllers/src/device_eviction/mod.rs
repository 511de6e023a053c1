//! Pods whose devices have a taint with the effect `NoExecute` that they do not tolerate: they are deleted. Kubernetes'
//! device taint eviction.
//!
//! Two controllers. [`Evictions`] ends pods, by claim or by number, at once or when the seconds are over for which their request
//! tolerates the taint. [`Rules`] says in each DeviceTaintRule how far that is.
//!
//! | module | owns |
//! |---|---|
//! | `uses` | which devices a pod has, and what of them it tolerates |
//! | `stay` | how long it may keep them |
//! | `status` | the condition of a rule |
//!
//! Writes the pod condition `DisruptionTarget`, and the condition `EvictionInProgress` of rules. Must never know: what made somebody
//! taint a device.

mod status;
mod stay;
#[cfg(test)]
mod tests;
mod uses;

use std::sync::Arc;

use claw_client::{ObjectKey, Store};
use claw_runtime::{Action, Controller, Plan, Watches, World, conditions};
use claw_schemas::{gpu::NO_EXECUTE, schema::time_text};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::Pod,
    resource::{
        v1::{ResourceClaim, ResourceSlice},
        v1beta2::DeviceTaintRule,
    },
};
use serde_json::json;

use self::stay::Stay;

/// The controller of pods that must go.
pub struct Evictions;

/// The controller of what rules say of that.
pub struct Rules;

impl Controller for Evictions {
    type Object = Pod;

    fn name(&self) -> &'static str {
        "device-taint-eviction"
    }

    fn watches(&self, watches: &mut Watches<Pod>) {
        watches.mapped::<ResourceClaim>(|claim, _| users_of(claim));
        // Taints that end pods are rare: nobody else's change costs anything.
        watches.mapped::<ResourceSlice>(|slice, pods| match uses::evicts(slice) {
            true => with_devices(pods),
            false => Vec::new(),
        });
        watches.mapped::<DeviceTaintRule>(|rule, pods| match rule.spec.taint.effect == NO_EXECUTE {
            true => with_devices(pods),
            false => Vec::new(),
        });
    }

    fn plan(&self, pod: &Arc<Pod>, world: &World, now: Timestamp) -> Plan {
        if pod.metadata.deletion_timestamp.is_some() || !uses::may_have_devices(pod) {
            return Plan::nothing();
        }
        let (claims, slices) = (world.kind::<ResourceClaim>(), world.kind::<ResourceSlice>());
        let used = uses::of(pod, &claims, &slices);
        match stay::of(&used, &slices, &world.kind::<DeviceTaintRule>(), |since| world.age(since, now)) {
            Stay::Forever => Plan::nothing(),
            Stay::For(left) => Plan::nothing().again_after(left),
            Stay::Over => evict(pod, now),
        }
    }
}

impl Controller for Rules {
    type Object = DeviceTaintRule;

    fn name(&self) -> &'static str {
        "device-taint-rule"
    }

    fn watches(&self, watches: &mut Watches<DeviceTaintRule>) {
        let (claims, slices) = (watches.reads::<ResourceClaim>(), watches.reads::<ResourceSlice>());
        watches.mapped::<Pod>(move |pod, rules| {
            let evicting = evicting(rules);
            if evicting.is_empty() || !uses::may_have_devices(pod) {
                return Vec::new();
            }
            let used = uses::of(pod, &claims.snapshot(), &slices.snapshot());
            evicting.iter().filter(|rule| used.iter().any(|one| one.is_of(&rule.spec))).map(key_of).collect()
        });
        watches.mapped::<ResourceClaim>(|claim, rules| {
            let evicting = evicting(rules);
            if evicting.is_empty() {
                return Vec::new();
            }
            let given = uses::given_by(claim);
            evicting.iter().filter(|rule| given.iter().any(|one| one.is_of(&rule.spec))).map(key_of).collect()
        });
    }

    fn plan(&self, rule: &Arc<DeviceTaintRule>, world: &World, now: Timestamp) -> Plan {
        if rule.metadata.deletion_timestamp.is_some() {
            return Plan::nothing();
        }
        status::plan(rule, world, now)
    }
}

/// The pod says why it goes before it does, so that whoever made it can tell this from a failure.
fn evict(pod: &Pod, now: Timestamp) -> Plan {
    let known = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_told = conditions::find(known, "DisruptionTarget")
        .is_some_and(|known| known.reason.as_deref() == Some("DeletionByDeviceTaintManager"));
    let mut plan = Plan::nothing();
    if !is_told {
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByDeviceTaintManager",
            "message": "Device Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": time_text(now),
        });
        plan = plan.then(Action::strategic(pod, json!({"status": {"conditions": [condition]}})).in_status());
    }
    plan.then(Action::delete(pod).on_success("DeviceTaintManagerEviction", "Marking for deletion"))
}

fn evicting(rules: &Store<DeviceTaintRule>) -> Vec<Arc<DeviceTaintRule>> {
    rules.list().into_iter().filter(|rule| rule.spec.taint.effect == NO_EXECUTE).collect()
}

fn key_of(rule: &Arc<DeviceTaintRule>) -> ObjectKey {
    ObjectKey::of(&rule.metadata)
}

fn with_devices(pods: &Store<Pod>) -> Vec<ObjectKey> {
    let all = pods.snapshot();
    all.iter().filter(|pod| uses::may_have_devices(pod)).map(|pod| ObjectKey::of(&pod.metadata)).collect()
}

/// The pods that have reserved a claim.
fn users_of(claim: &Arc<ResourceClaim>) -> Vec<ObjectKey> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    let pods =
        users.filter(|one| one.resource == "pods" && one.api_group.as_deref().unwrap_or_default().is_empty());
    pods.map(|one| ObjectKey::new(namespace, one.name.clone())).collect()
}
