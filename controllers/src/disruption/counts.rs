//! How many pods a budget expects, and how many of them it wants to be healthy.

use std::{collections::BTreeMap, sync::Arc};

use claw_client::api::Object;
use claw_runtime::{World, owner};
use k8s_openapi::{
    Resource as _,
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};

/// What a budget wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// Pods there should be.
    pub pods: usize,
    /// Of them, those that should be healthy.
    pub desired: usize,
}

impl Expected {
    /// How many may go. A budget that is about no pods allows nothing, so that it is safe when the first of them come.
    pub fn allowed(self, healthy: usize) -> usize {
        if self.pods == 0 { 0 } else { healthy.saturating_sub(self.desired) }
    }
}

/// What a budget wants of these pods; why it cannot be said, where a share of an unknown number is asked for.
pub(super) fn expected(
    budget: &PodDisruptionBudget,
    pods: &[&Arc<Pod>],
    world: &World,
) -> Result<Expected, String> {
    let Some(spec) = &budget.spec else { return Ok(Expected { pods: 0, desired: 0 }) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let all = scale(pods, world)?;
            Ok(Expected { pods: all, desired: all.saturating_sub(of(most, all)?) })
        }
        (None, Some(least @ IntOrString::Int(_))) => {
            Ok(Expected { pods: pods.len(), desired: of(least, pods.len())? })
        }
        (None, Some(share @ IntOrString::String(_))) => {
            let all = scale(pods, world)?;
            Ok(Expected { pods: all, desired: of(share, all)? })
        }
        (None, None) => Ok(Expected { pods: 0, desired: 0 }),
    }
}

/// A number, or a share of all that is rounded up.
fn of(amount: &IntOrString, all: usize) -> Result<usize, String> {
    match amount {
        IntOrString::Int(number) => Ok(usize::try_from(*number).unwrap_or(0)),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<usize>().ok());
            let percent = percent.ok_or_else(|| format!("invalid value for IntOrString: \"{text}\""))?;
            Ok((percent * all).div_ceil(100))
        }
    }
}

/// How many pods the controllers of these pods want together.
fn scale(pods: &[&Arc<Pod>], world: &World) -> Result<usize, String> {
    let mut by_controller: BTreeMap<String, i32> = BTreeMap::new();
    for pod in pods {
        // A pod that nobody controls is not expected by anybody.
        let Some(controller) = owner::controller_of(&pod.metadata) else { continue };
        let (uid, replicas) = replicas_of(pod, controller, world)?;
        by_controller.insert(uid, replicas);
    }
    Ok(by_controller.into_values().map(|replicas| usize::try_from(replicas).unwrap_or(0)).sum())
}

/// Who decides how many pods like this one there are, and how many.
fn replicas_of(pod: &Pod, controller: &OwnerReference, world: &World) -> Result<(String, i32), String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = |meta: &ObjectMeta| meta.uid.clone().unwrap_or_default();
    let found = match (controller.api_version.as_str(), controller.kind.as_str()) {
        (ReplicaSet::API_VERSION, ReplicaSet::KIND) => {
            let set = owned_by::<ReplicaSet>(namespace, controller, world);
            set.map(|set| {
                let above =
                    owner::controller_of(&set.metadata).filter(|above| above.kind == Deployment::KIND);
                let deployment = above.and_then(|above| owned_by::<Deployment>(namespace, above, world));
                match deployment {
                    Some(one) => (uid(&one.metadata), one.spec.as_ref().and_then(|spec| spec.replicas)),
                    None => (uid(&set.metadata), set.spec.as_ref().and_then(|spec| spec.replicas)),
                }
            })
        }
        (StatefulSet::API_VERSION, StatefulSet::KIND) => {
            let set = owned_by::<StatefulSet>(namespace, controller, world);
            set.map(|set| (uid(&set.metadata), set.spec.as_ref().and_then(|spec| spec.replicas)))
        }
        (ReplicationController::API_VERSION, ReplicationController::KIND) => {
            let set = owned_by::<ReplicationController>(namespace, controller, world);
            set.map(|set| (uid(&set.metadata), set.spec.as_ref().and_then(|spec| spec.replicas)))
        }
        (version, kind) => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            return Err(format!(
                "pod {name} is controlled by {kind} \"{}\" ({version}), whose scale is not known here: give minAvailable as a number",
                controller.name
            ));
        }
    };
    // Gone, or not seen yet: nobody expects the pod then.
    Ok(found.map_or_else(|| (controller.uid.clone(), 0), |(uid, replicas)| (uid, replicas.unwrap_or(1))))
}

/// The controller that a reference names, in that incarnation.
fn owned_by<K: Object>(namespace: &str, owner: &OwnerReference, world: &World) -> Option<Arc<K>> {
    let snapshot = world.kind::<K>();
    snapshot
        .get(namespace, &owner.name)
        .filter(|found| found.metadata().uid.as_ref() == Some(&owner.uid))
        .cloned()
}
