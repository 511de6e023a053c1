//! Which devices a pod has: those of claims that are reserved for it, and GPUs that it has by number.

use claw_client::Snapshot;
use claw_schemas::gpu::{DRIVER, NO_EXECUTE, slice_name};
use k8s_openapi::api::{
    core::v1::Pod,
    resource::{
        v1::{Device, DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice},
        v1beta2::DeviceTaintRuleSpec,
    },
};

use crate::{holdings, pods, pools, resource_claims, taint_rules};

/// A device that somebody has.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    pub driver: String,
    pub pool: String,
    pub device: String,
    /// What its request puts up with. Who asks by number puts up with nothing.
    pub tolerations: Vec<DeviceToleration>,
}

impl Use {
    /// Whether a rule is about the device.
    pub fn is_of(&self, rule: &DeviceTaintRuleSpec) -> bool {
        taint_rules::selects(rule, &self.driver, &self.pool, &self.device)
    }

    /// The taints that its driver says it has, by the newest that it says of the pool.
    pub fn taints(&self, slices: &Snapshot<ResourceSlice>) -> Vec<DeviceTaint> {
        let device = pools::device(slices, &self.driver, &self.pool, &self.device);
        device.and_then(|device| device.taints.clone()).unwrap_or_default()
    }
}

/// Whether a pod is on a node, goes on, and asks for devices at all.
pub fn may_have_devices(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let has_claims = spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty());
    node_of(pod).is_some() && !pods::is_finished(pod) && (has_claims || !holdings::known(pod).1.is_empty())
}

/// All devices of a pod.
pub fn of(pod: &Pod, claims: &Snapshot<ResourceClaim>, slices: &Snapshot<ResourceSlice>) -> Vec<Use> {
    if node_of(pod).is_none() || pods::is_finished(pod) {
        return Vec::new();
    }
    let reserved = resource_claims::claims_of(pod).into_iter().filter_map(|key| claims.by_key(&key));
    let reserved = reserved.filter(|claim| is_reserved(claim, pod));
    reserved.flat_map(|claim| given_by(claim)).chain(by_number(pod, slices)).collect()
}

/// The GPUs that a pod has because it asked for a number of them.
pub fn by_number(pod: &Pod, slices: &Snapshot<ResourceSlice>) -> Vec<Use> {
    let (_, uuids) = holdings::known(pod);
    let Some(node) = node_of(pod).filter(|_| !uuids.is_empty() && !pods::is_finished(pod)) else {
        return Vec::new();
    };
    let Some(slice) = slices.get("", &slice_name(node)) else { return Vec::new() };
    let gpus = slice.spec.devices.iter().flatten();
    let held = gpus.filter(|gpu| uuid_of(gpu).is_some_and(|uuid| uuids.contains(uuid)));
    let used = held.map(|gpu| Use {
        driver: DRIVER.to_owned(),
        pool: slice.spec.pool.name.clone(),
        device: gpu.name.clone(),
        tolerations: Vec::new(),
    });
    used.collect()
}

/// What a claim was given.
pub fn given_by(claim: &ResourceClaim) -> Vec<Use> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    let results = devices.iter().flat_map(|devices| devices.results.iter().flatten());
    let given = results.map(|one| Use {
        driver: one.driver.clone(),
        pool: one.pool.clone(),
        device: one.device.clone(),
        tolerations: one.tolerations.clone().unwrap_or_default(),
    });
    given.collect()
}

/// Whether a slice has a device that is to be taken from who has it.
pub fn evicts(slice: &ResourceSlice) -> bool {
    let taints = slice.spec.devices.iter().flatten().flat_map(|device| device.taints.iter().flatten());
    taints.into_iter().any(|taint| taint.effect == NO_EXECUTE)
}

fn is_reserved(claim: &ResourceClaim, pod: &Pod) -> bool {
    let users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    users.into_iter().any(|one| pod.metadata.uid.as_deref() == Some(&one.uid))
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn uuid_of(device: &Device) -> Option<&str> {
    device.attributes.as_ref()?.get("uuid")?.string.as_deref()
}
