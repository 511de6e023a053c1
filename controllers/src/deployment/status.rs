//! Status counts and conditions of a Deployment, in the words of Kubernetes that tools match on.
//!
//! Must never know: what is done about them.

use std::time::Duration;

use claw_runtime::conditions::{self, Condition as _, FALSE, TRUE, UNKNOWN};
use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    Rollout,
    sets::{Set, Sets},
};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const CREATE_FAILED: &str = "ReplicaSetCreateError";

/// A value of `progressDeadlineSeconds` that Kubernetes reads as "none".
const NO_DEADLINE: i32 = i32::MAX;

/// Slack after a deadline, so that the look at it does not come a moment early.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// The conditions while a plan is made.
pub struct Conditions {
    pub all: Vec<DeploymentCondition>,
}

/// Kubernetes leaves counts of zero out, and clients know it.
fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count > 0)
}

fn sum(sets: &Sets, of: impl Fn(&Set) -> i32) -> i32 {
    sets.iter().map(of).sum()
}

impl Rollout<'_> {
    /// The status that the sets, as they are now, add up to.
    pub(super) fn status(&self, sets: &Sets, conditions: Vec<DeploymentCondition>) -> DeploymentStatus {
        let available = sets.available();
        let mut conditions = conditions;
        let (status, reason, message) = if available >= self.replicas() - self.unavailable_max() {
            (TRUE, "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            (FALSE, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        let condition = DeploymentCondition::build(AVAILABLE, status, reason, message);
        conditions::set(&mut conditions, condition, None, self.now);
        let terminating = sum(sets, |set| set.status().terminating_replicas.unwrap_or(0));
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: nonzero(sum(sets, |set| set.status().replicas)),
            updated_replicas: nonzero(sets.new.as_ref().map_or(0, |new| new.status().replicas)),
            ready_replicas: nonzero(sum(sets, |set| set.status().ready_replicas.unwrap_or(0))),
            available_replicas: nonzero(available),
            unavailable_replicas: nonzero(sum(sets, |set| set.replicas) - available),
            terminating_replicas: Some(terminating),
            collision_count: self.old_status().collision_count,
            conditions: Some(conditions),
        }
    }

    fn unavailable_max(&self) -> i32 {
        if super::is_rolling(self.spec) { self.limits.unavailable } else { 0 }
    }

    fn old_status(&self) -> DeploymentStatus {
        self.deployment.status.clone().unwrap_or_default()
    }

    /// Whether the rollout was complete when the Deployment was last written.
    pub(super) fn is_complete(&self) -> bool {
        self.deployment.status.as_ref().is_some_and(|status| is_complete(self.deployment, status))
    }

    fn deadline(&self) -> Option<Duration> {
        let seconds = self.spec.progress_deadline_seconds.unwrap_or(600);
        (seconds != NO_DEADLINE).then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    }
}

/// Whether every replica is new and available.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let all = |count: Option<i32>| count.unwrap_or(0) == wanted;
    all(status.updated_replicas)
        && all(status.replicas)
        && all(status.available_replicas)
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Why it is not, for a person.
pub fn what_is_missing(deployment: &Deployment, status: &DeploymentStatus) -> String {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or(0);
    let old = status.replicas.unwrap_or(0) - updated;
    let available = status.available_replicas.unwrap_or(0);
    format!("{updated} of {wanted} replicas are updated, {available} are available, {old} old ones are left")
}

/// Whether the counts moved towards completion.
fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| n(status.replicas) - n(status.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

impl Conditions {
    pub fn of(rollout: &Rollout<'_>) -> Self {
        Self { all: rollout.old_status().conditions.unwrap_or_default() }
    }

    fn progressing(&self) -> Option<&DeploymentCondition> {
        conditions::find(&self.all, PROGRESSING)
    }

    fn reason(&self) -> &str {
        self.progressing().map_or("", |condition| condition.reason())
    }

    /// Sets `Progressing`, unless status and reason are what they were.
    fn progress(&mut self, status: &str, reason: &str, message: &str, now: Timestamp) {
        let same = |c: &DeploymentCondition| c.status == status && c.reason() == reason;
        if !self.progressing().is_some_and(same) {
            let condition = DeploymentCondition::build(PROGRESSING, status, reason, message);
            conditions::set(&mut self.all, condition, None, now);
        }
    }

    /// Time does not count against a paused rollout.
    pub fn note_pause(&mut self, rollout: &Rollout<'_>) {
        let paused = rollout.spec.paused == Some(true);
        match self.reason() {
            _ if rollout.deadline().is_none() => {}
            // Somebody has already been told that it failed.
            TIMED_OUT => {}
            PAUSED if !paused => self.progress(UNKNOWN, RESUMED, "Deployment is resumed", rollout.now),
            PAUSED => {}
            _ if paused => self.progress(UNKNOWN, PAUSED, "Deployment is paused", rollout.now),
            _ => {}
        }
    }

    /// A set that has the template was there already.
    pub fn found(&mut self, rollout: &Rollout<'_>, set: &str) {
        if rollout.deadline().is_some() && self.progressing().is_none() {
            let message = format!("Found new replica set \"{set}\"");
            self.progress(TRUE, "FoundNewReplicaSet", &message, rollout.now);
        }
    }

    /// A set is created for the template, or could not be.
    pub fn created(&mut self, rollout: &Rollout<'_>, set: &str) {
        if rollout.deadline().is_none() {
            return;
        }
        match rollout.world.last_failure().filter(|failure| failure.verb == "create") {
            Some(failure) => {
                let message =
                    format!("Failed to create new replica set \"{set}\": {}", failure.error.message);
                self.progress(FALSE, CREATE_FAILED, &message, rollout.now);
            }
            None => {
                let message = format!("Created new replica set \"{set}\"");
                self.progress(TRUE, "NewReplicaSetCreated", &message, rollout.now);
            }
        }
    }

    /// Says whether the rollout is complete, moves, or has stood still for too long.
    pub fn judge(&mut self, rollout: &Rollout<'_>, sets: &Sets) {
        let Some(deadline) = rollout.deadline() else {
            conditions::remove(&mut self.all, PROGRESSING);
            return;
        };
        let (old, now) = (rollout.old_status(), rollout.now);
        let new = rollout.status(sets, Vec::new());
        let settled = new.replicas == new.updated_replicas && self.reason() == COMPLETE;
        if settled {
            return;
        }
        let about = match &sets.new {
            Some(set) => format!("ReplicaSet \"{}\"", set.name()),
            None => format!("Deployment \"{}\"", rollout.name()),
        };
        if is_complete(rollout.deployment, &new) {
            self.progress(TRUE, COMPLETE, &format!("{about} has successfully progressed."), now);
        } else if has_progressed(&old, &new) {
            self.renew(&format!("{about} is progressing."), now);
        } else if self.is_overdue(rollout, deadline) {
            self.progress(FALSE, TIMED_OUT, &format!("{about} has timed out progressing."), now);
        }
    }

    /// Progress restarts the clock of the deadline, which is the condition's update time.
    fn renew(&mut self, message: &str, now: Timestamp) {
        let condition = DeploymentCondition::build(PROGRESSING, TRUE, "ReplicaSetUpdated", message);
        conditions::set(&mut self.all, condition, None, now);
        if let Some(condition) = self.all.iter_mut().find(|condition| condition.type_ == PROGRESSING) {
            condition.last_update_time = Some(Time(now));
        }
    }

    fn is_overdue(&self, rollout: &Rollout<'_>, deadline: Duration) -> bool {
        match self.progressing() {
            None => false,
            Some(condition) if condition.reason() == COMPLETE => false,
            Some(condition) if condition.reason() == TIMED_OUT => true,
            Some(condition) => {
                let since = condition.last_update_time.as_ref();
                since.is_some_and(|since| rollout.world.age(since.0, rollout.now) > deadline)
            }
        }
    }

    /// How long until a rollout that stands still is overdue.
    pub fn until_deadline(&self, rollout: &Rollout<'_>) -> Option<Duration> {
        let deadline = rollout.deadline()?;
        let condition = self.progressing().filter(|c| ![COMPLETE, TIMED_OUT].contains(&c.reason()))?;
        let since = condition.last_update_time.as_ref()?.0;
        Some(deadline.saturating_sub(rollout.world.age(since, rollout.now)) + DEADLINE_SLACK)
    }

    /// Passes on why a set cannot create its pods.
    pub fn note_failures(&mut self, rollout: &Rollout<'_>, sets: &Sets) {
        let failure = sets.iter().find_map(|set| {
            let conditions = set.status().conditions.unwrap_or_default();
            let failure = conditions::find(&conditions, REPLICA_FAILURE)?;
            let (status, reason, message) = (failure.status(), failure.reason(), failure.message());
            Some(DeploymentCondition::build(REPLICA_FAILURE, status, reason, message))
        });
        match failure {
            Some(failure) => {
                conditions::set(&mut self.all, failure, None, rollout.now);
            }
            None => conditions::remove(&mut self.all, REPLICA_FAILURE),
        }
    }
}
