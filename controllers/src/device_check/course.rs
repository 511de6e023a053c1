//! The course of one check: from what was begun, and what its pod says, to the next step.
//!
//! Every step is either a change of the status or something done outside that the stored status already speaks of.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claw_graph::{
    order::Backend,
    qualification::{Finding, Qualification},
};
use claw_runtime::{
    Action, Plan, World,
    conditions::{self, Condition as _, TRUE},
    execute::ENSURE,
    owner,
};
use claw_schemas::{
    api::{DeviceCheck, DeviceCheckStatus, DeviceFacts},
    status::Reason,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod},
        resource::v1::ResourceSlice,
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};

use super::{COMPLETE, FAILED, FIT, NAMESPACE, NOT_FIT, facts, findings, is_over, made, outcome};
use crate::{
    pods, pools,
    workers::{self, Cause},
};

/// A pod that is going is looked at so often, because its node may be lost meanwhile, which changes nothing of the pod.
const GOING_LOOK: Duration = Duration::from_secs(10);
/// A check that is to go right after its end goes once that is written.
const SOON: Duration = Duration::from_secs(1);

/// One plan for one check, as it grows.
pub struct Course<'a> {
    check: &'a DeviceCheck,
    world: &'a World,
    now: Timestamp,
    /// As it is to be.
    status: DeviceCheckStatus,
    plan: Plan,
}

impl<'a> Course<'a> {
    pub fn of(check: &'a DeviceCheck, world: &'a World, now: Timestamp) -> Self {
        let status = check.status.clone().unwrap_or_default();
        Self { check, world, now, status, plan: Plan::nothing() }
    }

    /// The next step.
    pub fn run(mut self) -> Plan {
        if is_over(&self.status) {
            self.clear_away();
        } else {
            self.go_on();
        }
        self.status.observed_generation = self.check.metadata.generation;
        self.status.phase = Some(self.phase().to_owned());
        if is_over(&self.status) {
            self.leave_in_time();
        }
        self.plan.status(&self.status)
    }

    fn go_on(&mut self) {
        let (is, backend) = match self.look_up() {
            Ok(found) => found,
            Err(cause) => return self.fail(&cause),
        };
        let Some(was) = self.status.device.clone() else {
            (self.status.device, self.status.start_time) = (Some(is), Some(Time(self.now)));
            self.status.pod = self.check.metadata.name.clone();
            return;
        };
        if let Some(pod) = self.pod().filter(|pod| pods::is_finished(pod)) {
            return self.end(&pod, &was, &is);
        }
        if let Some(difference) = facts::difference(&was, &is) {
            return self.fail(&changed(&difference));
        }
        match self.pod() {
            Some(pod) => self.look_at(&pod),
            None if self.status.pod_uid.is_some() => {
                self.fail(&Cause::new("PodDeleted", "the pod that looked at it was deleted"));
            }
            None => self.start(&was, backend),
        }
    }

    /// What the device is now, and the way to it; or why nobody can look at it.
    fn look_up(&self) -> Result<(DeviceFacts, Backend), Cause> {
        let name = &self.check.spec.device;
        let (slices, nodes) = (self.world.kind::<ResourceSlice>(), self.world.kind::<Node>());
        let Some(device) = pools::device(&slices, &name.driver, &name.pool, &name.name) else {
            let why = format!(
                "no ResourceSlice lists device {} in pool {} of {}",
                name.name, name.pool, name.driver
            );
            return Err(Cause::new("DeviceNotFound", why));
        };
        let Some(node) = nodes.get("", &name.pool) else {
            return Err(Cause::new("NodeNotFound", format!("there is no node {}", name.pool)));
        };
        let none = BTreeMap::new();
        let attributes = device.attributes.as_ref().unwrap_or(&none);
        if facts::is_replayed(attributes) {
            let why = "the device is one of a recording: nobody can look at it";
            return Err(Cause::new("Replayed", why));
        }
        let Some(is) = facts::facts(attributes, &name.pool, facts::boot_id(node)) else {
            return Err(Cause::new("NoUUID", "the device has no uuid, by which it could be claimed"));
        };
        Ok((is, facts::backend(attributes)))
    }

    /// The pod of this check: that of its name, or, once it was seen, that very one.
    fn pod(&self) -> Option<Arc<Pod>> {
        let name = self.check.metadata.name.as_deref().unwrap_or_default();
        let pod = Arc::clone(self.world.kind::<Pod>().get(NAMESPACE, name)?);
        let is_it = owner::is_controlled_by(&pod.metadata, self.check)
            && (self.status.pod_uid.is_none() || self.status.pod_uid == pod.metadata.uid);
        is_it.then_some(pod)
    }

    /// Makes what looks at the device; the stored status says which that is.
    fn start(&mut self, facts: &DeviceFacts, backend: Backend) {
        if let Some(cause) = self.refusal() {
            return self.fail(&cause);
        }
        let claim = Action::ensure(&made::claim(self.check, facts));
        let pod = Action::ensure(&made::pod(self.check, facts, backend))
            .on_success("SuccessfulCreate", "Created pod: {name}");
        let makes = [claim, pod];
        self.plan
            .actions
            .extend(makes.map(|make| make.on_failure("FailedCreate", "Error creating: {error}")));
        self.status.progress = self.world.last_failure().map(|failure| failure.error.message.clone());
    }

    /// Why what a check makes can never be made, if the last try to make it has shown that.
    fn refusal(&self) -> Option<Cause> {
        let failure = self.world.last_failure().filter(|failure| failure.verb == ENSURE)?;
        let said = &failure.error.message;
        match failure.error.reason {
            Reason::AlreadyExists => {
                let why =
                    format!("{said}, and is not of this check: remove it, or give the check another name");
                Some(Cause::new("NameTaken", why))
            }
            Reason::Invalid | Reason::RequestEntityTooLarge => Some(Cause::new("Refused", said)),
            _ => None,
        }
    }

    fn look_at(&mut self, pod: &Pod) {
        self.status.pod_uid.clone_from(&pod.metadata.uid);
        if pods::is_terminating(pod) {
            self.see_off(pod);
        } else if let Some(cause) = workers::trouble(pod) {
            self.fail(&cause);
        } else {
            self.status.progress = workers::doing(pod);
        }
    }

    /// Waits for a pod that is going, as long as there is somebody who ends it.
    fn see_off(&mut self, pod: &Pod) {
        if workers::is_lost(pod, |name| self.world.kind::<Node>().get("", name).cloned()) {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
            self.fail(&Cause::new("NodeLost", format!("node {node} does not answer")));
        } else {
            self.plan.look_again_after(GOING_LOOK);
        }
    }

    /// The pod has ended, while the device was what it was, or not.
    fn end(&mut self, pod: &Pod, was: &DeviceFacts, is: &DeviceFacts) {
        self.status.pod_uid.clone_from(&pod.metadata.uid);
        match (outcome::of(pod), facts::difference(was, is)) {
            (Ok(_), Some(difference)) => self.fail(&changed(&difference)),
            (Ok(found), None) => self.complete(found, was),
            (Err(cause), _) => self.fail(&cause),
        }
    }

    fn complete(&mut self, found: Qualification, facts: &DeviceFacts) {
        let Qualification { level, findings: mut all, .. } = found;
        let least = &self.check.spec.minimums;
        let as_found = findings::of_model(facts, level, all.clone());
        all.extend(findings::minimums(&as_found, least));
        all.extend(self.beside_others(as_found));
        self.status.findings = findings::told(&all);
        let objection = all.iter().find(|finding| !finding.passed);
        self.status.verdict = Some(if objection.is_none() { FIT } else { NOT_FIT }.to_owned());
        self.set(COMPLETE, "Checked", "the device was looked at");
        match objection {
            None => self.announce(false, FIT, format!("Device {} is fit", self.check.spec.device.name)),
            Some(Finding { check, words, .. }) => {
                let text = format!("Device {} is not fit: {check}: {words}", self.check.spec.device.name);
                self.announce(true, NOT_FIT, text);
            }
        }
    }

    /// How it compares with others of its model that were looked at as thoroughly: of each the newest look.
    fn beside_others(&self, own: Qualification) -> Option<Finding> {
        let checks = self.world.kind::<DeviceCheck>();
        let mut newest = BTreeMap::new();
        let others = checks.iter().filter(|check| check.spec.device != self.check.spec.device);
        for check in others {
            let Some(measured) = findings::measured(check) else { continue };
            let at = check.status.as_ref().and_then(|status| status.completion_time.clone());
            if measured.level != own.level || measured.device.model != own.device.model {
                continue;
            }
            let known = newest.entry(&check.spec.device).or_insert_with(|| (at.clone(), measured.clone()));
            if known.0 < at {
                *known = (at, measured);
            }
        }
        let mut fleet: Vec<Qualification> = newest.into_values().map(|(_, measured)| measured).collect();
        fleet.push(own);
        findings::beside(&mut fleet)
    }

    fn fail(&mut self, cause: &Cause) {
        self.set(FAILED, &cause.reason, &cause.message);
        self.announce(true, &cause.reason, cause.message.clone());
    }

    fn set(&mut self, kind: &str, reason: &str, message: &str) {
        let condition = Condition::build(kind, TRUE, reason, message);
        conditions::set(&mut self.status.conditions, condition, self.check.metadata.generation, self.now);
        self.status.completion_time = Some(Time(self.now));
        self.status.progress = None;
    }

    fn announce(&mut self, warning: bool, reason: &str, message: impl Into<String>) {
        self.plan.actions.push(Action::announce(warning, reason, message));
    }

    /// Ends a pod that is still there after the check is over: the stored status says why.
    fn clear_away(&mut self) {
        let pods = self.world.kind::<Pod>();
        let owned = pods.owned_by(self.check.metadata.uid.as_deref().unwrap_or_default());
        let left =
            owned.filter(|pod| owner::is_controlled_by(&pod.metadata, self.check) && pods::is_active(pod));
        self.plan.actions.extend(left.map(|pod| {
            Action::delete(&**pod)
                .on_success("SuccessfulDelete", "Deleted pod: {name}")
                .on_failure("FailedDelete", "Error deleting: {error}")
        }));
    }

    fn phase(&self) -> &'static str {
        let is = |kind: &str| conditions::is_true(&self.status.conditions, kind);
        match (is(COMPLETE), is(FAILED)) {
            (true, _) => COMPLETE,
            (_, true) => FAILED,
            _ if self.pod().is_some_and(|pod| workers::is_running(&pod)) => "Running",
            _ => "Pending",
        }
    }

    /// Deletes a check that is over, when its time has come.
    fn leave_in_time(&mut self) {
        let Some(seconds) = self.check.spec.ttl_seconds_after_finished else { return };
        let kept = Duration::from_secs(seconds.try_into().unwrap_or(0));
        let ended = self.status.completion_time.as_ref();
        let age = ended.map_or(Duration::ZERO, |ended| self.world.age(ended.0, self.now));
        match kept.saturating_sub(age) {
            Duration::ZERO if self.check.status.as_ref() == Some(&self.status) => {
                self.plan.actions.push(Action::delete(self.check));
            }
            left => self.plan.look_again_after(left.max(SOON)),
        }
    }
}

fn changed(difference: &str) -> Cause {
    Cause::new("DeviceChanged", format!("the device is not what it was when this began: {difference}"))
}
