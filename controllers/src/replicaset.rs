//! ReplicaSets: keep a number of pods running from one template.
//!
//! Writes status counts and the condition `ReplicaFailure`. Must never know: Deployments.

use std::{sync::Arc, time::Duration};

use claw_runtime::{
    Action, Controller, Plan, Watches, World,
    conditions::{self, Condition as _},
    owner,
};
use claw_schemas::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    claim::{self, claim},
    pods::{self, Availability},
};

/// Pods created or deleted in one plan: bounds the burst on the API; the next plan does the rest. Kubernetes' figure.
const BURST_MAX: usize = 500;

/// The controller of ReplicaSets.
pub struct ReplicaSets;

impl Controller for ReplicaSets {
    type Object = ReplicaSet;

    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn watches(&self, watches: &mut Watches<ReplicaSet>) {
        watches.owned::<Pod>();
        watches.mapped::<Pod>(|pod, sets| {
            claim::adopters(&pod.metadata, sets, |set| set.spec.as_ref().map(|spec| &spec.selector))
        });
    }

    fn plan(&self, set: &Arc<ReplicaSet>, world: &World, now: Timestamp) -> Plan {
        let Some(spec) = &set.spec else { return Plan::wait("the ReplicaSet has no spec") };
        let selector = match LabelSelector::from_meta(&spec.selector) {
            Ok(selector) => selector,
            Err(error) => return Plan::wait(format!("spec.selector: {error}")),
        };
        let claimed = claim::<_, Pod>(&**set, &selector, world);
        let mut plan = Plan { actions: claimed.actions, ..Plan::default() };
        let (active, rest): (Vec<_>, Vec<_>) =
            claimed.objects.into_iter().partition(|pod| pods::is_active(pod));
        if set.metadata.deletion_timestamp.is_none() {
            plan.actions.extend(resize(set, spec, &active, world));
        }
        let terminating = rest.iter().filter(|pod| !pods::is_finished(pod)).count();
        let (status, next_look) = status(set, spec, &active, terminating, world, now);
        if let Some(delay) = next_look {
            plan.look_again_after(delay);
        }
        plan.status(&status)
    }
}

fn wanted(spec: &ReplicaSetSpec) -> usize {
    usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0)
}

/// Creates the pods that are missing, or deletes those that are too many.
fn resize(set: &ReplicaSet, spec: &ReplicaSetSpec, active: &[Arc<Pod>], world: &World) -> Vec<Action> {
    let wanted = wanted(spec);
    if active.len() < wanted {
        let create = Action::create(&new_pod(set, spec))
            .on_success("SuccessfulCreate", "Created pod: {name}")
            .on_failure("FailedCreate", "Error creating: {error}");
        return vec![create; (wanted - active.len()).min(BURST_MAX)];
    }
    let excess = (active.len() - wanted).min(BURST_MAX);
    if excess == 0 {
        return Vec::new();
    }
    let mut candidates = active.to_vec();
    pods::order_for_deletion(&mut candidates, &siblings(set, active, world));
    let delete = |pod: &Arc<Pod>| {
        Action::delete(&**pod)
            .on_success("SuccessfulDelete", "Deleted pod: {name}")
            .on_failure("FailedDelete", "Error deleting: {error}")
    };
    candidates.iter().take(excess).map(delete).collect()
}

/// Active pods of all sets with the same controller: a node that holds many of them can spare one.
fn siblings(set: &ReplicaSet, active: &[Arc<Pod>], world: &World) -> Vec<Arc<Pod>> {
    let Some(parent) = owner::controller_of(&set.metadata) else { return active.to_vec() };
    let (sets, pods) = (world.kind::<ReplicaSet>(), world.kind::<Pod>());
    let uids = sets.owned_by(&parent.uid).filter_map(|sibling| sibling.metadata.uid.clone());
    uids.flat_map(|uid| pods.owned_by(&uid).filter(|pod| pods::is_active(pod)).cloned().collect::<Vec<_>>())
        .collect()
}

fn new_pod(set: &ReplicaSet, spec: &ReplicaSetSpec) -> Pod {
    let template = spec.template.clone().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default())),
        namespace: set.metadata.namespace.clone(),
        labels: meta.labels,
        annotations: meta.annotations,
        finalizers: meta.finalizers,
        owner_references: Some(vec![owner::reference_to(set)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec, status: None }
}

/// The status, and when a pod next becomes available by the passage of time.
fn status(
    set: &ReplicaSet,
    spec: &ReplicaSetSpec,
    active: &[Arc<Pod>],
    terminating: usize,
    world: &World,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let (mut ready, mut available, mut labelled) = (0, 0, 0);
    let mut next_look: Option<Duration> = None;
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template = spec.template.as_ref().and_then(|template| template.metadata.as_ref());
    let wanted_labels = template.and_then(|meta| meta.labels.clone()).unwrap_or_default();
    for pod in active {
        let labels = pod.metadata.labels.as_ref();
        let has = |(key, value): (&String, &String)| labels.and_then(|all| all.get(key)) == Some(value);
        labelled += i32::from(wanted_labels.iter().all(has));
        ready += i32::from(pods::is_ready(pod));
        match pods::availability(pod, min_ready, |since| world.age(since, now)) {
            Availability::Available => available += 1,
            Availability::In(left) => next_look = Some(next_look.map_or(left, |other| other.min(left))),
            Availability::No => {}
        }
    }
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: nonzero(labelled),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(available),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: failure_condition(old.conditions.unwrap_or_default(), world, now),
    };
    (status, next_look)
}

/// Kubernetes leaves counts of zero out, and clients know it.
fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count > 0)
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// `ReplicaFailure` says why pods could not be created or deleted, for as long as that is so.
fn failure_condition(
    mut all: Vec<ReplicaSetCondition>,
    world: &World,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let reason = world.last_failure().and_then(|failure| match failure.verb {
        "create" => Some(("FailedCreate", &failure.error.message)),
        "delete" => Some(("FailedDelete", &failure.error.message)),
        _ => None,
    });
    match reason {
        Some((reason, message)) => {
            let failed = ReplicaSetCondition::build("ReplicaFailure", conditions::TRUE, reason, message);
            conditions::set(&mut all, failed, None, now);
        }
        None => conditions::remove(&mut all, "ReplicaFailure"),
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests;
