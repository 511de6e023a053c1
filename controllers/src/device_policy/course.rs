//! One plan for one policy: which looks are to be made, which are over and done with, and how far it all is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use claw_graph::qualification::{Check, Qualification, compare};
use claw_runtime::{
    Action, Plan, World,
    conditions::{self, Condition as _, FALSE, TRUE},
    owner,
};
use claw_schemas::{
    api::{
        DEVICES_FIT, DeviceCheck, DeviceCheckSpec, DeviceFacts, DeviceName, DevicePolicy, DevicePolicyStatus,
        POLICY_LABEL,
    },
    gpu::keeps_away,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::Node,
        resource::{v1::DeviceClass, v1beta2::DeviceTaintRule},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use sha2::{Digest as _, Sha256};

use super::{
    Known,
    looks::{self, Asks, End, Look},
    scope::{Labels, Scope},
    taints::{self, Objection, Wanted},
};
use crate::{
    device_check::{facts, findings},
    scheduler::devices::Device,
    workers,
};

/// Looks under way where a policy does not say how many: in all, and on one node.
const PARALLEL_DEFAULT: usize = 16;
const PARALLEL_PER_NODE_DEFAULT: usize = 1;

/// A look that has waited for its device for so long lets others begin: somebody has the device, and may keep it for days.
const STANDS_IN_LINE: Duration = Duration::from_secs(60);

/// Before a device is looked at again that could not be, and the most after some more of that.
const DELAY_FIRST: Duration = Duration::from_secs(10);
const DELAY_MAX: Duration = Duration::from_secs(600);

/// Annotation of a check: how many before it could not be carried out, one after the other.
const FAILURES: &str = "clawbernetes.io/failures";

/// Devices that a message names.
const NAMED_MAX: usize = 5;

const ACCEPTED: &str = "Accepted";
const CHECKED: &str = "Checked";

/// A device that the policy means, and what there is about it.
struct Meant<'a> {
    name: DeviceName,
    facts: DeviceFacts,
    /// Its agent says that it has a fault.
    is_faulty: bool,
    /// Somebody can look at it now.
    is_there: bool,
    /// The policy's looks at it, newest first.
    looks: Vec<(Look, &'a Arc<DeviceCheck>)>,
}

/// One plan for one policy, as it grows.
pub struct Course<'a> {
    policy: &'a DevicePolicy,
    world: &'a World,
    now: Timestamp,
    asks: Asks,
    status: DevicePolicyStatus,
    plan: Plan,
}

impl<'a> Course<'a> {
    pub fn of(policy: &'a DevicePolicy, world: &'a World, now: Timestamp) -> Self {
        let (status, asks) = (policy.status.clone().unwrap_or_default(), Asks::of(policy));
        Self { policy, world, now, asks, status, plan: Plan::nothing() }
    }

    pub(super) fn run(mut self, known: &mut Known) -> Plan {
        let checks = self.world.kind::<DeviceCheck>();
        let uid = self.policy.metadata.uid.as_deref().unwrap_or_default();
        let own: Vec<&Arc<DeviceCheck>> = checks
            .owned_by(uid)
            .filter(|check| owner::is_controlled_by(&check.metadata, self.policy))
            .collect();
        self.status.observed_generation = self.policy.metadata.generation;
        match self.meant(known, &own) {
            Err((reason, why)) => self.set(ACCEPTED, false, reason, &why),
            Ok(meant) => {
                self.set(ACCEPTED, true, "Accepted", "it can be told which devices are meant");
                self.carry_out(&meant, &own);
            }
        }
        self.plan.status(&self.status)
    }

    /// The devices that are meant, by name.
    fn meant<'c>(
        &self,
        known: &mut Known,
        own: &[&'c Arc<DeviceCheck>],
    ) -> Result<Vec<Meant<'c>>, (&'static str, String)> {
        let classes = self.world.kind::<DeviceClass>();
        let class = |name: &str| classes.get("", name).map(|class| &class.spec);
        let scope = Scope::of(&self.policy.spec, class, &mut known.selectors)
            .map_err(|why| ("SelectorsNotUsable", why))?;
        let mut looks: BTreeMap<&DeviceName, Vec<(Look, &Arc<DeviceCheck>)>> = BTreeMap::new();
        for check in own.iter().copied() {
            looks.entry(&check.spec.device).or_default().push((Look::of(check), check));
        }
        looks.values_mut().for_each(|looks| looks::newest_first(looks));
        let mut meant = Vec::new();
        for node in self.world.kind::<Node>().iter() {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let labels: Labels = node.metadata.labels.clone().unwrap_or_default();
            for device in known.inventory.of(name) {
                let is_meant = scope.means(device, &labels);
                if is_meant.map_err(|why| ("SelectorFailed", format!("device {}: {why}", device.id.name)))? {
                    meant.extend(self.about(device, node, &mut looks));
                }
            }
        }
        meant.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(meant)
    }

    fn about<'c>(
        &self,
        device: &Device,
        node: &Node,
        looks: &mut BTreeMap<&DeviceName, Vec<(Look, &'c Arc<DeviceCheck>)>>,
    ) -> Option<Meant<'c>> {
        let name = DeviceName {
            driver: device.id.driver.to_string(),
            pool: device.id.pool.to_string(),
            name: device.id.name.to_string(),
        };
        let all = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_faulty = device.taints.iter().any(keeps_away);
        Some(Meant {
            facts: facts::facts(
                &device.attributes,
                node.metadata.name.as_deref().unwrap_or_default(),
                facts::boot_id(node),
            )?,
            is_faulty,
            is_there: !is_faulty
                && !facts::is_replayed(&device.attributes)
                && conditions::is_true(all, "Ready"),
            looks: looks.remove(&name).unwrap_or_default(),
            name,
        })
    }

    fn carry_out(&mut self, meant: &[Meant<'_>], own: &[&Arc<DeviceCheck>]) {
        let gone = self.sweep(meant, own);
        let objections = self.objections(meant, &gone);
        self.level_rules(meant, &objections, &gone);
        self.begin(meant, &gone);
        self.tell(meant, &objections, &gone);
    }

    /// Deletes looks at what is not meant, or not there, any more; those that are no longer true; and those that later ones stand for. Gives
    /// the uids of those that are gone by that.
    fn sweep(&mut self, meant: &[Meant<'_>], own: &[&Arc<DeviceCheck>]) -> BTreeSet<String> {
        let uid = |check: &DeviceCheck| check.metadata.uid.clone().unwrap_or_default();
        let names: BTreeSet<&DeviceName> = meant.iter().map(|one| &one.name).collect();
        let strays = own.iter().filter(|check| !names.contains(&check.spec.device));
        let mut over: Vec<&Arc<DeviceCheck>> = strays.copied().collect();
        over.extend(meant.iter().flat_map(Meant::over));
        let gone = over.iter().map(|check| uid(check)).collect();
        let left = over.iter().filter(|check| check.metadata.deletion_timestamp.is_none());
        self.plan.actions.extend(left.map(|check| Action::delete(&***check)));
        gone
    }

    /// What speaks against devices, by name: what the newest look at each found, or that it is slower than others of its model are.
    fn objections(&self, meant: &[Meant<'_>], gone: &BTreeSet<String>) -> BTreeMap<DeviceName, Objection> {
        let mut objections = BTreeMap::new();
        let mut fleet: Vec<(&Meant<'_>, &DeviceCheck, Qualification)> = Vec::new();
        for one in meant {
            let Some((look, check)) = one.newest(gone) else { continue };
            if look.end == End::NotFit {
                let against = findings::objection(check);
                let words = against.map_or_else(
                    || "it was found not to be fit".to_owned(),
                    |finding| format!("{}: {}", finding.check, finding.words),
                );
                objections.insert(one.name.clone(), Objection { check: name_of(check), words });
            }
            fleet.extend(findings::measured(check).map(|measured| (one, &***check, measured)));
        }
        for level in claw_graph::qualification::Level::ALL {
            let of_level = || fleet.iter().filter(|(_, _, measured)| measured.level == level);
            let mut all: Vec<Qualification> = of_level().map(|(_, _, measured)| measured.clone()).collect();
            compare(&mut all);
            for ((one, check, before), after) in of_level().zip(all) {
                let new = after.findings.get(before.findings.len());
                let slow = new.filter(|finding| finding.check == Check::Fleet && !finding.passed);
                let words = slow.map(|finding| format!("{}: {}", finding.check, finding.words));
                let objection = words.map(|words| Objection { check: name_of(check), words });
                if let Some(objection) = objection {
                    objections.entry(one.name.clone()).or_insert(objection);
                }
            }
        }
        objections
    }

    fn level_rules(
        &mut self,
        meant: &[Meant<'_>],
        objections: &BTreeMap<DeviceName, Objection>,
        gone: &BTreeSet<String>,
    ) {
        let wanted = meant.iter().map(|one| {
            let wanted = match objections.get(&one.name) {
                Some(objection) => Wanted::Rule(objection.clone()),
                None if one.newest(gone).is_some() => Wanted::None,
                None => Wanted::AsItIs,
            };
            (self.name_for(&one.name), (one.name.clone(), wanted))
        });
        let wanted = wanted.collect();
        let rules = self.world.kind::<DeviceTaintRule>();
        let own = rules.owned_by(self.policy.metadata.uid.as_deref().unwrap_or_default());
        let own: Vec<_> =
            own.filter(|rule| owner::is_controlled_by(&rule.metadata, self.policy)).cloned().collect();
        self.plan.actions.extend(taints::level(self.policy, &own, &wanted));
    }

    /// Makes as many of the looks that are wanted as may be under way at once.
    fn begin(&mut self, meant: &[Meant<'_>], gone: &BTreeSet<String>) {
        let (mut all, mut by_node) = (0, BTreeMap::<&str, usize>::new());
        for one in meant.iter().filter(|one| self.stands_in_line(one, gone)) {
            all += 1;
            *by_node.entry(one.facts.node.as_str()).or_default() += 1;
        }
        let most = |given: Option<i32>, default| {
            given.and_then(|most| usize::try_from(most).ok()).unwrap_or(default)
        };
        let spec = &self.policy.spec;
        let all_max = most(spec.max_parallel, PARALLEL_DEFAULT);
        let node_max = most(spec.max_parallel_per_node, PARALLEL_PER_NODE_DEFAULT);
        for one in meant {
            if !self.is_wanted(one, gone) {
                continue;
            }
            let on_node = by_node.entry(one.facts.node.as_str()).or_default();
            if all >= all_max || *on_node >= node_max {
                self.plan.look_again_after(STANDS_IN_LINE);
                continue;
            }
            (all, *on_node) = (all + 1, *on_node + 1);
            let check = self.check_for(one);
            let told =
                format!("Created device check {{name}} for device {} of {}", one.name.name, one.name.pool);
            self.plan.actions.push(
                Action::create(&check)
                    .on_success("SuccessfulCreate", told)
                    .on_failure("FailedCreate", "Error creating: {error}"),
            );
        }
    }

    /// Whether a look at the device is under way that others wait for.
    fn stands_in_line(&self, one: &Meant<'_>, gone: &BTreeSet<String>) -> bool {
        let Some(check) = one.under_way(gone) else { return false };
        let is_running = check.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        let made = check.metadata.creation_timestamp.as_ref();
        is_running || made.is_none_or(|made| self.world.age(made.0, self.now) < STANDS_IN_LINE)
    }

    /// Whether the device is to be looked at now; if later, the plan is looked at again then.
    fn is_wanted(&mut self, one: &Meant<'_>, gone: &BTreeSet<String>) -> bool {
        if !one.is_there || one.under_way(gone).is_some() {
            return false;
        }
        let mut wait = Duration::ZERO;
        if let Some((look, check)) = one.newest(gone)
            && look.answers(&self.asks, &one.facts)
        {
            let Some(seconds) = self.policy.spec.recheck_after_seconds else { return false };
            let after = Duration::from_secs(seconds.try_into().unwrap_or(0));
            wait = after.saturating_sub(self.age_of_end(check));
        }
        if let Some((look, check)) = one.looks.first()
            && look.end == End::Failed
        {
            let delay = delay(failures(check) + 1);
            wait = wait.max(delay.saturating_sub(self.age_of_end(check)));
        }
        if !wait.is_zero() {
            self.plan.look_again_after(wait);
        }
        wait.is_zero()
    }

    fn age_of_end(&self, check: &DeviceCheck) -> Duration {
        let ended = check.status.as_ref().and_then(|status| status.completion_time.as_ref());
        ended.map_or(Duration::ZERO, |ended| self.world.age(ended.0, self.now))
    }

    /// The next look at a device. Its number follows from the last one's, so that none is made twice.
    fn check_for(&self, one: &Meant<'_>) -> DeviceCheck {
        let last = one.looks.first();
        let number = last.map_or(0, |(look, _)| look.number + 1);
        let failures =
            last.filter(|(look, _)| look.end == End::Failed).map_or(0, |(_, check)| failures(check) + 1);
        let spec = &self.policy.spec;
        let mut check = DeviceCheck::new(
            &format!("{}-{number}", self.name_for(&one.name)),
            DeviceCheckSpec {
                device: one.name.clone(),
                level: spec.level.clone(),
                minimums: spec.minimums.clone(),
                timeout_seconds: spec.timeout_seconds,
                ttl_seconds_after_finished: None,
            },
        );
        let policy = self.policy.metadata.name.clone().unwrap_or_default();
        check.metadata.labels = Some(BTreeMap::from([(POLICY_LABEL.to_owned(), policy)]));
        if failures > 0 {
            check.metadata.annotations = Some(BTreeMap::from([(FAILURES.to_owned(), failures.to_string())]));
        }
        check.metadata.owner_references = Some(vec![owner::reference_to(self.policy)]);
        check
    }

    /// What is about one device of the policy's: its rule, and its checks with a number behind it.
    fn name_for(&self, device: &DeviceName) -> String {
        let text = format!("{}/{}/{}", device.driver, device.pool, device.name);
        let digest = Sha256::digest(text.as_bytes());
        let hash: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{hash}", self.policy.metadata.name.as_deref().unwrap_or_default())
    }

    fn tell(
        &mut self,
        meant: &[Meant<'_>],
        objections: &BTreeMap<DeviceName, Objection>,
        gone: &BTreeSet<String>,
    ) {
        let count = |number: usize| Some(i32::try_from(number).unwrap_or(i32::MAX));
        let is_fit = |one: &&Meant<'_>| {
            let newest = one.newest(gone);
            newest.is_some_and(|(look, _)| look.end == End::Fit && look.answers(&self.asks, &one.facts))
                && !objections.contains_key(&one.name)
        };
        let fit = meant.iter().filter(is_fit).count();
        let unfit: Vec<&DeviceName> = objections.keys().collect();
        let unchecked: Vec<&DeviceName> = meant
            .iter()
            .filter(|one| !is_fit(one) && !objections.contains_key(&one.name))
            .map(|one| &one.name)
            .collect();
        self.status.devices = count(meant.len());
        self.status.fit = count(fit);
        self.status.not_fit = count(unfit.len());
        self.status.unchecked = count(unchecked.len());
        self.status.running = count(meant.iter().filter(|one| one.under_way(gone).is_some()).count());
        match unchecked.is_empty() {
            true => self.set(CHECKED, true, "AllChecked", "all devices that are meant were looked at"),
            false => {
                let text = format!("not looked at yet: {}", shown(&unchecked));
                self.set(CHECKED, false, "Unchecked", &text);
            }
        }
        match unfit.is_empty() {
            true => self.set(DEVICES_FIT, true, "NoneNotFit", "no device that was looked at is not fit"),
            false => self.set(DEVICES_FIT, false, "DevicesNotFit", &format!("not fit: {}", shown(&unfit))),
        }
    }

    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let condition = Condition::build(kind, if holds { TRUE } else { FALSE }, reason, message);
        conditions::set(&mut self.status.conditions, condition, self.policy.metadata.generation, self.now);
    }
}

impl<'a> Meant<'a> {
    /// The newest look that found something, of those that stay.
    fn newest(&self, gone: &BTreeSet<String>) -> Option<&(Look, &'a Arc<DeviceCheck>)> {
        self.looks.iter().find(|(look, check)| {
            matches!(look.end, End::Fit | End::NotFit)
                && check.metadata.uid.as_ref().is_none_or(|uid| !gone.contains(uid))
        })
    }

    /// The look that is under way.
    fn under_way(&self, gone: &BTreeSet<String>) -> Option<&'a Arc<DeviceCheck>> {
        let is_it = |(look, check): &&(Look, &'a Arc<DeviceCheck>)| {
            look.end == End::UnderWay && check.metadata.uid.as_ref().is_none_or(|uid| !gone.contains(uid))
        };
        self.looks.iter().find(is_it).map(|(_, check)| *check)
    }

    /// Looks that nobody needs any more: those that found a device fit that has a fault since, with all before them, and those that later
    /// ones stand for. What stays: what is under way, the newest of all, the newest that found something, and the last that found the device
    /// not to be fit.
    fn over(&self) -> Vec<&'a Arc<DeviceCheck>> {
        let found = |(look, _): &&(Look, &Arc<DeviceCheck>)| matches!(look.end, End::Fit | End::NotFit);
        let newest = self.looks.iter().position(|one| found(&one));
        let last_not_fit = self.looks.iter().position(|(look, _)| look.end == End::NotFit);
        let false_from = newest.filter(|at| self.is_faulty && self.looks[*at].0.end == End::Fit);
        let stays = |at: usize, look: &Look| {
            let is_needed =
                look.end == End::UnderWay || at == 0 || Some(at) == newest || Some(at) == last_not_fit;
            is_needed && false_from.is_none_or(|from| at < from)
        };
        let looks = self.looks.iter().enumerate();
        looks.filter(|(at, (look, _))| !stays(*at, look)).map(|(_, (_, check))| *check).collect()
    }
}

/// How many looks before this one could not be carried out.
fn failures(check: &DeviceCheck) -> u32 {
    let said = check.metadata.annotations.as_ref().and_then(|all| all.get(FAILURES));
    said.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How long is waited after so many failures.
fn delay(failures: u32) -> Duration {
    workers::delay(failures, DELAY_FIRST, DELAY_MAX)
}

fn name_of(check: &DeviceCheck) -> String {
    check.metadata.name.clone().unwrap_or_default()
}

/// `n1/gpu-a, n1/gpu-b and 3 more`
fn shown(names: &[&DeviceName]) -> String {
    let few: Vec<String> =
        names.iter().take(NAMED_MAX).map(|name| format!("{}/{}", name.pool, name.name)).collect();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => few.join(", "),
        more => format!("{} and {more} more", few.join(", ")),
    }
}
