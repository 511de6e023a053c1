//! ResourceClaims: made for pods that name a template, freed when their pods have ended, and kept while they are in use.
//!
//! Two controllers. [`Templates`] makes the claims of pods and tells the pods so (`status.resourceClaimStatuses`). [`Claims`]
//! takes pods that have ended out of `status.reservedFor`, takes the devices back from a claim that nobody has reserved,
//! lets such a claim go when it is being deleted, and deletes one that was made for a pod which has ended.
//!
//! Must never know: which devices there are. The scheduler allocates them, and reserves claims for pods as it does.

mod templates;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use claw_client::ObjectKey;
use claw_runtime::{Action, Controller, Plan, Watches, World, finalizer, owner};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{ResourceClaim, ResourceClaimConsumerReference},
};
use serde_json::json;

pub use self::templates::Templates;
use crate::pods;

/// Keeps a claim as long as devices are allocated to it. Kubernetes' name.
pub const PROTECTION: &str = "resource.kubernetes.io/delete-protection";

/// Annotation of a claim that was made for a pod: what the pod calls it. Kubernetes' name.
const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";

/// How long to wait for what is known of pods to be as new as what is known of a claim.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The controller of claims.
pub struct Claims;

impl Controller for Claims {
    type Object = ResourceClaim;

    fn name(&self) -> &'static str {
        "resourceclaim"
    }

    fn watches(&self, watches: &mut Watches<ResourceClaim>) {
        watches.mapped::<Pod>(|pod, _| claims_of(pod));
    }

    fn plan(&self, claim: &Arc<ResourceClaim>, world: &World, _: Timestamp) -> Plan {
        let all = world.kind::<Pod>();
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let is_current = |name: &str, uid: &str| {
            let pod = all.get(namespace, name);
            let found = pod.filter(|pod| pod.metadata.uid.as_deref() == Some(uid));
            (found.is_some(), found.is_some_and(|pod| !pods::is_finished(pod)))
        };
        let status = claim.status.clone().unwrap_or_default();
        let reserved = status.reserved_for.unwrap_or_default();
        let owner = owner_pod(claim);
        let known =
            reserved.iter().filter(|one| is_pod(one)).map(|one| (one.name.as_str(), one.uid.as_str()));
        // A pod that is missing is gone, or so new that only the claim tells of it. Nobody new uses one that is being deleted.
        let is_missing = known.chain(owner).any(|(name, uid)| !is_current(name, uid).0);
        let is_deleting = claim.metadata.deletion_timestamp.is_some();
        if is_missing && !is_deleting && all.revision() < revision(claim) {
            return Plan::wait("the pods of the claim may not be known yet").again_after(CATCH_UP);
        }
        let consumers: Vec<ResourceClaimConsumerReference> = reserved
            .iter()
            .filter(|one| !is_pod(one) || is_current(&one.name, &one.uid).1)
            .cloned()
            .collect();
        let mut plan = Plan::nothing();
        let is_idle = consumers.is_empty();
        if consumers.len() < reserved.len() || (is_idle && status.allocation.is_some()) {
            plan = plan.then(reserve(claim, &consumers));
        } else if is_idle && finalizer::step(&**claim, PROTECTION) == finalizer::Step::CleanUp {
            plan = plan.then(finalizer::remove(&**claim, PROTECTION));
        }
        let is_over = owner.is_some_and(|(name, uid)| !is_current(name, uid).1);
        if is_idle && is_over && !is_deleting {
            plan = plan.then(Action::delete(&**claim));
        }
        plan
    }
}

/// Leaves a claim to these; its devices go back if there are none.
fn reserve(claim: &ResourceClaim, consumers: &[ResourceClaimConsumerReference]) -> Action {
    let status = if consumers.is_empty() {
        json!({"allocation": null, "devices": null, "reservedFor": null})
    } else {
        json!({"reservedFor": consumers})
    };
    Action::merge_unchanged(claim, json!({"status": status})).in_status()
}

fn is_pod(consumer: &ResourceClaimConsumerReference) -> bool {
    consumer.resource == "pods" && consumer.api_group.as_deref().unwrap_or_default().is_empty()
}

/// Name and uid of the pod that a claim was made for.
fn owner_pod(claim: &ResourceClaim) -> Option<(&str, &str)> {
    claim.metadata.annotations.as_ref()?.get(POD_CLAIM_NAME)?;
    let owner = owner::controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod")?;
    Some((&owner.name, &owner.uid))
}

fn revision(claim: &ResourceClaim) -> u64 {
    claim.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// The claims that a pod uses, as far as it knows them.
pub(crate) fn claims_of(pod: &Pod) -> Vec<ObjectKey> {
    let named = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let made = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    let names = named
        .filter_map(|claim| claim.resource_claim_name.clone())
        .chain(made.filter_map(|claim| claim.resource_claim_name.clone()));
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    names.map(|name| ObjectKey::new(namespace.clone(), name)).collect()
}
