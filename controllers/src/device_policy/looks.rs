//! What the looks at a device come to: pure rules, which the policies' controller and the scheduler share, so that both mean the same.
//!
//! Must never know: how looks are made, and what becomes of a device.

use std::{cmp::Reverse, collections::BTreeMap};

use claw_graph::qualification::Level;
use claw_runtime::{conditions, owner};
use claw_schemas::{
    api::{DeviceCheck, DeviceFacts, DevicePolicy, DevicePolicySpec},
    custom::Spec as _,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::device_check::{FAILED, FIT, facts::difference};

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has not.
    UnderWay,
    /// The device could not be looked at.
    Failed,
    /// The device may be used.
    Fit,
    /// The device may not be used.
    NotFit,
}

/// One look, as far as it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Uid of the policy that wanted it.
    pub policy: Option<String>,
    /// Later ones of a device have larger ones.
    pub number: u64,
    pub end: End,
    level: Level,
    minimums: BTreeMap<String, Quantity>,
    /// What the device was.
    facts: Option<DeviceFacts>,
}

impl Look {
    /// As it is stored.
    pub fn of(check: &DeviceCheck) -> Self {
        let status = check.status.as_ref();
        let verdict = status.and_then(|status| status.verdict.as_deref());
        let has_failed = status.is_some_and(|status| conditions::is_true(&status.conditions, FAILED));
        let name = check.metadata.name.as_deref().unwrap_or_default();
        let controller = owner::controller_of(&check.metadata);
        Self {
            policy: controller
                .filter(|owner| owner.kind == DevicePolicySpec::KIND)
                .map(|owner| owner.uid.clone()),
            number: name.rsplit('-').next().and_then(|text| text.parse().ok()).unwrap_or(0),
            end: match verdict {
                _ if has_failed => End::Failed,
                None => End::UnderWay,
                Some(FIT) => End::Fit,
                Some(_) => End::NotFit,
            },
            level: check.spec.level.as_deref().and_then(Level::of).unwrap_or_default(),
            minimums: check.spec.minimums.clone(),
            facts: status.and_then(|status| status.device.clone()),
        }
    }

    /// Whether it found out what is asked, of the device as it is now.
    pub fn answers(&self, asks: &Asks, facts: &DeviceFacts) -> bool {
        self.level >= asks.level
            && self.minimums == asks.minimums
            && self.facts.as_ref().is_some_and(|was| difference(was, facts).is_none())
    }
}

/// What a policy wants to know of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Asks {
    /// Uid of the policy: it counts its own looks alone.
    policy: String,
    level: Level,
    minimums: BTreeMap<String, Quantity>,
}

impl Asks {
    /// As it is stored.
    pub fn of(policy: &DevicePolicy) -> Self {
        Self {
            policy: policy.metadata.uid.clone().unwrap_or_default(),
            level: policy.spec.level.as_deref().and_then(Level::of).unwrap_or_default(),
            minimums: policy.spec.minimums.clone(),
        }
    }

    /// Whether a look is one of the policy's.
    pub fn wanted(&self, look: &Look) -> bool {
        look.policy.as_ref() == Some(&self.policy)
    }
}

/// Whether the newest look of the policy has found the device, as it is now, fit. One that is under way takes the word from those
/// before it: what they found was too old for somebody. One that could not be carried out has no word.
pub fn has_passed<'a>(looks: impl IntoIterator<Item = &'a Look>, asks: &Asks, facts: &DeviceFacts) -> bool {
    let own = looks.into_iter().filter(|look| asks.wanted(look) && look.end != End::Failed);
    let newest = own.max_by_key(|look| look.number);
    newest.is_some_and(|look| look.end == End::Fit && look.answers(asks, facts))
}

/// Newest first.
pub fn newest_first<T>(looks: &mut [(Look, T)]) {
    looks.sort_by_key(|(look, _)| Reverse(look.number));
}

#[cfg(test)]
pub mod tests {
    use claw_schemas::api::DevicePolicySpec;
    use serde_json::{Value, json};

    use super::*;

    pub fn facts(boot_id: &str) -> DeviceFacts {
        DeviceFacts {
            node: "n1".to_owned(),
            uuid: "GPU-A".to_owned(),
            boot_id: Some(boot_id.to_owned()),
            ..DeviceFacts::default()
        }
    }

    fn policy(spec: Value) -> DevicePolicy {
        let mut policy =
            DevicePolicy::new("every", serde_json::from_value::<DevicePolicySpec>(spec).unwrap());
        policy.metadata.uid = Some("uid-every".to_owned());
        policy
    }

    fn look(number: u64, end: End) -> Look {
        Look {
            policy: Some("uid-every".to_owned()),
            number,
            end,
            level: Level::Quick,
            minimums: BTreeMap::new(),
            facts: Some(facts("b1")),
        }
    }

    fn passed(looks: &[Look], spec: Value, boot_id: &str) -> bool {
        has_passed(looks, &Asks::of(&policy(spec)), &facts(boot_id))
    }

    #[test]
    fn only_a_look_at_the_device_as_it_is_that_asked_enough_has_passed_it() {
        let fit = [look(3, End::Fit)];
        assert!(passed(&fit, json!({}), "b1"));
        assert!(!passed(&[], json!({}), "b1"), "nobody has looked");
        assert!(!passed(&fit, json!({}), "b2"), "the machine was started anew");
        assert!(!passed(&fit, json!({"level": "Full"}), "b1"), "it was looked at less thoroughly");
        assert!(!passed(&fit, json!({"minimums": {"copyBytesPerSecond": "1T"}}), "b1"), "more is asked now");
        assert!(!passed(&[look(3, End::NotFit)], json!({}), "b1"));
        let full = Look { level: Level::Full, ..look(3, End::Fit) };
        assert!(passed(&[full], json!({}), "b1"), "it was looked at more thoroughly");
        let others = Look { policy: None, ..look(3, End::Fit) };
        assert!(!passed(&[others], json!({}), "b1"), "a look by hand is for people");
    }

    #[test]
    fn the_newest_look_counts_unless_it_could_not_be_carried_out() {
        let after = |end: End| passed(&[look(10, end), look(9, End::Fit)], json!({}), "b1");
        assert_eq!(
            [End::UnderWay, End::NotFit, End::Failed, End::Fit].map(after),
            [false, false, true, true]
        );
        assert!(passed(&[look(9, End::NotFit), look(10, End::Fit)], json!({}), "b1"));
    }
}
