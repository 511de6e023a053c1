//! Deployments: roll a template out over ReplicaSets, scale, pause, keep history.
//!
//! Writes the status counts and the conditions `Available`, `Progressing` and `ReplicaFailure`, with the reasons and
//! sentences that `kubectl rollout status` and `kubectl wait` rely on. A rollback needs no code: it is a template
//! that an older ReplicaSet already has.
//!
//! Must never know: how ReplicaSets make pods.

mod recreate;
mod revision;
mod rolling;
mod scale;
mod sets;
mod status;
mod template;

use std::sync::Arc;

use claw_client::ObjectKey;
use claw_runtime::{Action, Controller, Outcome, Plan, Watches, World, owner};
use claw_schemas::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentSpec, ReplicaSet},
    core::v1::Pod,
};

use crate::claim::{self, claim};
use sets::Sets;

/// The controller of Deployments.
pub struct Deployments;

impl Controller for Deployments {
    type Object = Deployment;

    fn name(&self) -> &'static str {
        "deployment"
    }

    fn watches(&self, watches: &mut Watches<Deployment>) {
        watches.owned::<ReplicaSet>();
        watches.mapped::<ReplicaSet>(|set, deployments| {
            claim::adopters(&set.metadata, deployments, |d| d.spec.as_ref().map(|spec| &spec.selector))
        });
        // Recreate waits until the last old pod is gone, which no status of a ReplicaSet tells.
        let sets = watches.reads::<ReplicaSet>();
        watches.mapped::<Pod>(move |pod, deployments| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let set = owner::controller_of(&pod.metadata).and_then(|set| sets.get(namespace, &set.name));
            let owner = set.as_ref().and_then(|set| owner::controller_of(&set.metadata));
            let deployment = owner.and_then(|owner| deployments.get(namespace, &owner.name));
            let recreates = deployment.filter(|d| d.spec.as_ref().is_some_and(|spec| !is_rolling(spec)));
            recreates.map(|deployment| ObjectKey::of(&deployment.metadata)).into_iter().collect()
        });
    }

    fn plan(&self, deployment: &Arc<Deployment>, world: &World, now: Timestamp) -> Plan {
        let Some(spec) = &deployment.spec else { return Plan::wait("the Deployment has no spec") };
        let selector = match LabelSelector::from_meta(&spec.selector) {
            Ok(selector) if selector.is_empty() => {
                return Plan::wait("spec.selector is empty and would select every pod");
            }
            Ok(selector) => selector,
            Err(error) => return Plan::wait(format!("spec.selector: {error}")),
        };
        let limits = match rolling::limits(spec) {
            Ok(limits) => limits,
            Err(error) => return Plan::wait(error),
        };
        let claimed = claim::<_, ReplicaSet>(&**deployment, &selector, world);
        let rollout = Rollout { deployment, spec, limits, world, now };
        let mut plan = rollout.plan(Sets::new(spec, claimed.objects));
        plan.actions.splice(0..0, claimed.actions);
        plan
    }
}

/// Whether pods are replaced bit by bit, which is the default.
fn is_rolling(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
}

/// Everything a plan for one Deployment looks at.
struct Rollout<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    limits: rolling::Limits,
    world: &'a World,
    now: Timestamp,
}

impl Rollout<'_> {
    fn plan(&self, mut sets: Sets) -> Plan {
        let mut conditions = status::Conditions::of(self);
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return Plan::nothing().status(&self.status(&sets, conditions.all));
        }
        conditions.note_pause(self);
        self.sync_revision(&mut sets, &mut conditions);
        let paused = self.spec.paused == Some(true);
        if paused || self.is_scaling(&sets) {
            self.scale(&mut sets);
            if paused {
                self.clean_up(&mut sets);
            }
            return self.finish(sets, conditions, false);
        }
        let step = if is_rolling(self.spec) {
            self.ensure_new(&mut sets, &mut conditions).map(|()| self.roll(&mut sets))
        } else {
            self.recreate(&mut sets, &mut conditions)
        };
        if let Err(plan) = step {
            return *plan;
        }
        if self.is_complete() {
            self.clean_up(&mut sets);
        }
        self.finish(sets, conditions, true)
    }

    /// Makes the plan out of what was decided about the sets.
    fn finish(&self, sets: Sets, mut conditions: status::Conditions, judge_progress: bool) -> Plan {
        let mut plan = Plan { actions: sets.actions(self), ..Plan::default() };
        plan.actions.extend(self.revision_annotation(&sets));
        if judge_progress {
            conditions.judge(self, &sets);
            if let Some(delay) = conditions.until_deadline(self) {
                plan.look_again_after(delay);
            }
        }
        conditions.note_failures(self, &sets);
        let status = self.status(&sets, conditions.all);
        if !status::is_complete(self.deployment, &status) {
            plan.outcome = Outcome::Wait { reason: status::what_is_missing(self.deployment, &status) };
        }
        plan.status(&status)
    }

    fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    /// Replicas asked for.
    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
}

/// Event `ScalingReplicaSet`, in Kubernetes' words.
fn scaling(action: Action, set: &str, from: i32, to: i32) -> Action {
    let direction = if to > from { "up" } else { "down" };
    action
        .on_success("ScalingReplicaSet", format!("Scaled {direction} replica set {set} from {from} to {to}"))
}

#[cfg(test)]
mod tests;
