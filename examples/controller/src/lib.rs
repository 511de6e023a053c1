//! Sweeps: one program, run once for each value of a parameter, a few at a time.
//!
//! The whole controller is [`Sweeps::plan`](Controller::plan): from a sweep and its pods to what to do next. Who calls it,
//! when, and what happens after a failure is the business of `claw-runtime`.
//!
//! Owns the pods of a sweep, its status, and the condition `Complete`.

pub mod kind;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use claw_runtime::{
    Action, Controller, Plan, Watches, World,
    conditions::{self, Condition as _},
    owner,
};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kind::{Sweep, SweepStatus};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Label of every pod: which sweep it is of.
pub const SWEEP: &str = "tuning.example.com/sweep";
/// The condition: `True` once every value has been run.
pub const COMPLETE: &str = "Complete";

/// The controller of sweeps.
pub struct Sweeps;

impl Controller for Sweeps {
    type Object = Sweep;

    fn name(&self) -> &'static str {
        "sweep"
    }

    fn watches(&self, watches: &mut Watches<Sweep>) {
        watches.owned::<Pod>();
    }

    fn plan(&self, sweep: &Arc<Sweep>, world: &World, now: Timestamp) -> Plan {
        if sweep.metadata.deletion_timestamp.is_some() {
            // Its pods go with it: they name it as their owner.
            return Plan::nothing();
        }
        let runs = Runs::of(sweep, world);
        let status = runs.status(sweep, world, now);
        let plan = Plan { actions: runs.next_steps(sweep), ..Plan::default() }.status(&status);
        match time_left(sweep, &status, |since| world.age(since, now)) {
            None => plan,
            Some(Duration::ZERO) => plan.then(Action::delete(&**sweep)),
            Some(left) => plan.again_after(left),
        }
    }
}

/// What a sweep should run, and what it does run.
struct Runs<'a> {
    /// Every value, by the name of its pod.
    values: BTreeMap<String, &'a str>,
    /// Pods that run one of the values.
    wanted: Vec<Arc<Pod>>,
    /// Pods whose value was taken away.
    stray: Vec<Arc<Pod>>,
}

impl<'a> Runs<'a> {
    fn of(sweep: &'a Sweep, world: &World) -> Self {
        let values: BTreeMap<_, _> =
            sweep.spec.values.iter().map(|value| (pod_name(sweep, value), value.as_str())).collect();
        let pods = world.kind::<Pod>();
        let owned = pods.owned_by(sweep.metadata.uid.as_deref().unwrap_or_default()).cloned();
        let (wanted, stray) = owned.partition(|pod| values.contains_key(name_of(pod)));
        Self { values, wanted, stray }
    }

    fn active(&self) -> usize {
        let all = self.wanted.iter().chain(&self.stray);
        all.filter(|pod| !matches!(phase_of(pod), "Succeeded" | "Failed")).count()
    }

    /// Takes away what is not wanted, and starts what is missing while there is room.
    fn next_steps(&self, sweep: &Sweep) -> Vec<Action> {
        let stays = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
        let deletes = self.stray.iter().filter(stays).map(|pod| Action::delete(&**pod));
        let there: BTreeSet<_> = self.wanted.iter().map(|pod| name_of(pod)).collect();
        let missing = self.values.iter().filter(|(name, _)| !there.contains(name.as_str()));
        let room = (sweep.spec.parallelism as usize).saturating_sub(self.active());
        let creates = missing.take(room).map(|(name, value)| {
            Action::create(&new_pod(sweep, name, value))
                .on_success("Started", format!("{{name}} runs with {value}"))
                .on_failure("FailedCreate", "{error}")
        });
        deletes.chain(creates).collect()
    }

    fn status(&self, sweep: &Sweep, world: &World, now: Timestamp) -> SweepStatus {
        let ended = |phase| self.wanted.iter().filter(|pod| phase_of(pod) == phase).count();
        let (succeeded, failed) = (ended("Succeeded"), ended("Failed"));
        let left = self.values.len() - succeeded - failed;
        let (complete, reason, message) = match (left, world.last_failure()) {
            (0, _) if failed == 0 => (conditions::TRUE, "AllSucceeded", String::new()),
            (0, _) => (conditions::TRUE, "SomeFailed", format!("{failed} failed")),
            (_, Some(failure)) => (conditions::FALSE, "Stuck", failure.to_string()),
            (left, None) => (conditions::FALSE, "Running", format!("{left} to go")),
        };
        let mut all = sweep.status.clone().unwrap_or_default().conditions;
        let condition = Condition::build(COMPLETE, complete, reason, &message);
        conditions::set(&mut all, condition, sweep.metadata.generation, now);
        SweepStatus { active: self.active(), succeeded, failed, conditions: all }
    }
}

/// Follows from the value, so that no value is ever run by two pods, whatever happens between two looks. Of a thousand
/// values, two share their ten digits once in two million sweeps.
fn pod_name(sweep: &Sweep, value: &str) -> String {
    let digest = format!("{:x}", Sha256::digest(value));
    format!("{}-{}", sweep.metadata.name.as_deref().unwrap_or_default(), &digest[..10])
}

fn new_pod(sweep: &Sweep, name: &str, value: &str) -> Pod {
    let meta = &sweep.metadata;
    let pod = json!({
        "metadata": {
            "name": name, "namespace": meta.namespace, "labels": {SWEEP: meta.name},
            "ownerReferences": [owner::reference_to(sweep)],
        },
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "main", "image": sweep.spec.image, "args": sweep.spec.args,
            "env": [{"name": "VALUE", "value": value}],
        }]},
    });
    serde_json::from_value(pod).expect("it is written as a pod is")
}

/// How long a complete sweep is still kept, where it says how long.
fn time_left(sweep: &Sweep, status: &SweepStatus, age: impl Fn(Timestamp) -> Duration) -> Option<Duration> {
    let kept = Duration::from_secs(sweep.spec.ttl_seconds_after_finished?.into());
    let complete = conditions::find(&status.conditions, COMPLETE).filter(|it| it.status == "True")?;
    Some(kept.saturating_sub(age(complete.since()?)))
}

fn name_of(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

#[cfg(test)]
mod tests;
