//! The course of one job: from what was begun, and what its pod says, to the next step.
//!
//! Every step is either a change of the status or something done outside that the stored status already speaks of, so
//! that a death between the two loses nothing: a try is entered before its pod is made, and the reason why it must end before its
//! pod is deleted.
//!
//! Must never know: what pods look like inside (`outcome`, `made`).

mod ending;

use std::{sync::Arc, time::Duration};

use claw_runtime::{
    Action, Plan, World,
    conditions::{self, Condition as _, FALSE, TRUE},
    execute::ENSURE,
    owner,
};
use claw_schemas::{
    api::{KernelJob, KernelJobStatus},
    status::Reason,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};

use super::{
    attempts::{self, DEADLINE, SUSPENDED},
    made, outcome, tracking,
};
use crate::{
    pods,
    workers::{self, Cause},
};

const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";

/// A pod that is going is looked at so often, because its node may be lost meanwhile, which changes nothing of the pod.
const GOING_LOOK: Duration = Duration::from_secs(10);

/// One plan for one job, as it grows.
pub struct Course<'a> {
    job: &'a KernelJob,
    world: &'a World,
    now: Timestamp,
    /// As it is to be.
    status: KernelJobStatus,
    plan: Plan,
}

impl<'a> Course<'a> {
    pub fn of(job: &'a KernelJob, world: &'a World, now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        Self { job, world, now, status, plan: Plan::nothing() }
    }

    /// The next step.
    pub fn run(mut self) -> Plan {
        if !self.is_over() {
            self.go_on();
        }
        self.release_pods();
        self.remove_strays();
        self.status.observed_generation = self.job.metadata.generation;
        self.status.phase = Some(self.phase().to_owned());
        if self.is_over() {
            self.leave_in_time();
        }
        self.plan.status(&self.status)
    }

    fn go_on(&mut self) {
        self.heed_suspension();
        if let Some(at) = attempts::open(&self.status.attempts) {
            self.follow(at);
        }
        if self.is_over() {
            return;
        }
        if attempts::open(&self.status.attempts).is_none() {
            self.begin();
        }
        if let Some(left) = self.time_left().filter(|left| !left.is_zero()) {
            self.plan.look_again_after(left);
        }
    }

    fn is_over(&self) -> bool {
        self.has(COMPLETE) || self.has(FAILED)
    }

    fn has(&self, condition: &str) -> bool {
        conditions::is_true(&self.status.conditions, condition)
    }

    fn is_suspended(&self) -> bool {
        self.job.spec.suspend == Some(true)
    }

    /// Says whether it stands still. The time that it may take counts anew when it goes on, as that of a Job does.
    fn heed_suspension(&mut self) {
        match (self.is_suspended(), self.has(SUSPENDED)) {
            (true, false) => {
                self.status.start_time = None;
                self.set(SUSPENDED, TRUE, "JobSuspended", "the job is suspended");
                self.announce(false, "Suspended", "Job suspended");
            }
            (false, true) => {
                self.status.start_time = Some(Time(self.now));
                self.set(SUSPENDED, FALSE, "JobResumed", "the job is resumed");
                self.announce(false, "Resumed", "Job resumed");
            }
            _ => {}
        }
    }

    /// Enters the next try, once it is time for it.
    fn begin(&mut self) {
        if let Some(cause) = self.must_stop() {
            if cause.reason == DEADLINE {
                self.fail(&cause);
            }
            return;
        }
        let wait = attempts::wait(&self.status.attempts, |ended| self.world.age(ended, self.now));
        if !wait.is_zero() {
            let delay = attempts::delay(&self.status.attempts).as_secs();
            let last =
                self.status.attempts.last().and_then(|last| last.reason.as_deref()).unwrap_or_default();
            self.status.progress = Some(format!("tries again {delay} s after {last}"));
            self.plan.look_again_after(wait);
            return;
        }
        self.status.progress = None;
        self.status.start_time.get_or_insert(Time(self.now));
        attempts::make_room(&mut self.status.attempts);
        let next =
            attempts::next(self.job.metadata.name.as_deref().unwrap_or_default(), &self.status.attempts);
        self.status.attempts.push(next);
    }

    /// Does what the try under way asks for.
    fn follow(&mut self, at: usize) {
        match self.pod_of(at) {
            Some(pod) => self.look_at(at, &pod),
            None if self.status.attempts[at].uid.is_some() => self.lose(at),
            None => self.start(at),
        }
    }

    /// Somebody has deleted the pod of a try, and it did not say how it ended.
    fn lose(&mut self, at: usize) {
        let doing = self.status.progress.clone().map(|doing| format!(" ({doing})")).unwrap_or_default();
        self.end(at, Cause::new("PodDeleted", format!("the pod was deleted{doing}")), None);
    }

    /// The pod of a try: that of its name, or, once it was seen, that very one.
    fn pod_of(&self, at: usize) -> Option<Arc<Pod>> {
        let attempt = &self.status.attempts[at];
        let namespace = self.job.metadata.namespace.as_deref().unwrap_or_default();
        let pod = Arc::clone(self.world.kind::<Pod>().get(namespace, &attempt.pod)?);
        let is_it = owner::is_controlled_by(&pod.metadata, self.job)
            && (attempt.uid.is_none() || attempt.uid == pod.metadata.uid);
        is_it.then_some(pod)
    }

    /// Makes the pod of a try that stands in the stored status.
    fn start(&mut self, at: usize) {
        if let Some(cause) = self.must_stop().or_else(|| self.refusal()) {
            return self.end(at, cause, None);
        }
        let order = match self.job.spec.order() {
            Ok(order) => order,
            Err(fault) => {
                return self.end(at, Cause::of_the_job("BadOrder", fault.below("spec").to_string()), None);
            }
        };
        let seconds_max =
            self.time_left().map(|left| i64::try_from(left.as_secs()).unwrap_or(i64::MAX).max(1));
        let pod = made::pod(self.job, &self.status.attempts[at], seconds_max);
        let template = made::claim_template(self.job);
        let makes =
            [Some(Action::ensure(&made::order_map(self.job, &order))), template.as_ref().map(Action::ensure)];
        let makes = makes
            .into_iter()
            .flatten()
            .chain([Action::ensure(&pod).on_success("SuccessfulCreate", "Created pod: {name}")]);
        self.plan
            .actions
            .extend(makes.map(|make| make.on_failure("FailedCreate", "Error creating: {error}")));
        self.status.progress = self.world.last_failure().map(|failure| failure.error.message.clone());
    }

    /// Why what a job makes can never be made, if the last try to make it has shown that.
    fn refusal(&self) -> Option<Cause> {
        let failure = self.world.last_failure().filter(|failure| failure.verb == ENSURE)?;
        let said = &failure.error.message;
        match failure.error.reason {
            Reason::AlreadyExists => Some(Cause::of_the_job(
                "NameTaken",
                format!("{said}, and is not of this job: remove it, or give the job another name"),
            )),
            Reason::Invalid | Reason::RequestEntityTooLarge => Some(Cause::of_the_job("Refused", said)),
            _ => None,
        }
    }

    /// Why a try must end whatever it does, or not begin.
    fn must_stop(&self) -> Option<Cause> {
        if self.is_suspended() {
            return Some(Cause::new(SUSPENDED, "the job was suspended"));
        }
        let is_late = self.time_left().is_some_and(|left| left.is_zero());
        is_late.then(|| {
            let seconds = self.job.spec.active_deadline_seconds.unwrap_or(0);
            Cause::new(DEADLINE, format!("the job was active for longer than {seconds} s"))
        })
    }

    /// What is left of the time that the job may take.
    fn time_left(&self) -> Option<Duration> {
        let all = Duration::from_secs(self.job.spec.active_deadline_seconds?.try_into().unwrap_or(0));
        let start = self.status.start_time.as_ref()?;
        Some(all.saturating_sub(self.world.age(start.0, self.now)))
    }

    /// Why the stored status says that a try is to end.
    fn noted(&self, at: usize) -> Option<Cause> {
        let attempt = &self.status.attempts[at];
        Some(Cause::new(attempt.reason.as_deref()?, attempt.message.clone().unwrap_or_default()))
    }

    fn look_at(&mut self, at: usize, pod: &Pod) {
        let attempt = &mut self.status.attempts[at];
        attempt.uid.clone_from(&pod.metadata.uid);
        attempt.node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        if pods::is_finished(pod) {
            match outcome::of(pod) {
                Ok(report) => self.complete(at, *report),
                Err((cause, device)) => self.end(at, cause, device),
            }
        } else if pods::is_terminating(pod) {
            self.see_off(at, pod);
        } else if self.noted(at).is_some() {
            self.plan.actions.push(delete(pod));
        } else if let Some(cause) = self.must_stop().or_else(|| workers::trouble(pod)) {
            self.note(at, cause);
        } else {
            self.status.progress = workers::doing(pod);
        }
    }

    /// Waits for a pod that is going, as long as there is somebody who ends it.
    fn see_off(&mut self, at: usize, pod: &Pod) {
        if let Some(cause) = workers::disruption(pod).filter(|_| self.noted(at).is_none()) {
            self.note(at, cause);
        }
        if tracking::is_let_go(pod) {
            return self.lose(at);
        }
        if !self.is_lost(pod) {
            self.plan.look_again_after(GOING_LOOK);
            return;
        }
        match outcome::of(pod) {
            Ok(report) => self.complete(at, *report),
            Err((_, device)) => {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
                self.end(at, Cause::new("NodeLost", format!("node {node} does not answer")), device);
            }
        }
    }

    /// Whether the node of a pod is gone, or not heard of.
    fn is_lost(&self, pod: &Pod) -> bool {
        workers::is_lost(pod, |name| self.world.kind::<Node>().get("", name).cloned())
    }

    /// Writes down why a try is to end: the next plan ends it.
    fn note(&mut self, at: usize, cause: Cause) {
        let attempt = &mut self.status.attempts[at];
        (attempt.reason, attempt.message) = (Some(cause.reason), Some(cause.message));
    }

    /// Keeps pods no longer of which the stored status says how they ended, or which no try of it has.
    fn release_pods(&mut self) {
        let stored = self.job.status.as_ref().map_or(&[][..], |status| &status.attempts);
        let open = attempts::open(stored).map(|at| &stored[at]);
        let is_open = |pod: &Pod| {
            open.is_some_and(|open| {
                pod.metadata.name.as_ref() == Some(&open.pod)
                    && (open.uid.is_none() || open.uid == pod.metadata.uid)
            })
        };
        let released = self.own_pods(|pod| tracking::is_kept(pod) && !is_open(pod));
        self.plan.actions.extend(released.iter().map(|pod| tracking::release(pod)));
    }

    /// Deletes pods that the job has and that no try of it needs.
    fn remove_strays(&mut self) {
        let open = attempts::open(&self.status.attempts).map(|at| self.status.attempts[at].pod.as_str());
        let strays = self.own_pods(|pod| pods::is_active(pod) && pod.metadata.name.as_deref() != open);
        self.plan.actions.extend(strays.iter().map(|pod| delete(pod)));
    }

    /// Pods that the job controls and of which something holds.
    fn own_pods(&self, holds: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let pods = self.world.kind::<Pod>();
        let owned = pods.owned_by(self.job.metadata.uid.as_deref().unwrap_or_default());
        owned.filter(|pod| owner::is_controlled_by(&pod.metadata, self.job) && holds(pod)).cloned().collect()
    }

    fn phase(&self) -> &'static str {
        if self.has(COMPLETE) {
            return COMPLETE;
        }
        if self.has(FAILED) {
            return FAILED;
        }
        if self.is_suspended() {
            return SUSPENDED;
        }
        let open = attempts::open(&self.status.attempts).and_then(|at| self.pod_of(at));
        if open.is_some_and(|pod| workers::is_running(&pod)) { "Running" } else { "Pending" }
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let condition = Condition::build(kind, status, reason, message);
        conditions::set(&mut self.status.conditions, condition, self.job.metadata.generation, self.now);
    }

    fn announce(&mut self, warning: bool, reason: &str, message: impl Into<String>) {
        self.plan.actions.push(Action::announce(warning, reason, message));
    }
}

fn delete(pod: &Pod) -> Action {
    Action::delete(pod)
        .on_success("SuccessfulDelete", "Deleted pod: {name}")
        .on_failure("FailedDelete", "Error deleting: {error}")
}
