//! Taints that devices have from elsewhere than their slice. All sources of such come together in [`Sources::of`].
//!
//! A further source is a field of [`Sources`] and a line in [`Sources::of`]. Whoever changes one does it by
//! [`Inventory::retaint`](super::inventory::Inventory::retaint), which sees to it that the devices of all nodes concerned are what they
//! should be; what is to be told to pods follows from that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use claw_schemas::gpu::keeps_away;
use k8s_openapi::api::resource::{v1::DeviceTaint, v1beta2::DeviceTaintRuleSpec};

use super::{held, inventory::DeviceId};
use crate::taint_rules;

/// Everybody who taints devices beside their drivers.
#[derive(Default)]
pub struct Sources {
    /// DeviceTaintRules, by name.
    rules: BTreeMap<String, DeviceTaintRuleSpec>,
    /// Devices that policies hold back, by node.
    held: BTreeMap<Arc<str>, BTreeSet<DeviceId>>,
}

impl Sources {
    /// The taints of a device that keep somebody away.
    pub fn of(&self, device: &DeviceId) -> Vec<DeviceTaint> {
        let rules = self.rules.values().filter(|rule| is_about(rule, device)).map(taint_rules::taint);
        let held = self.held.get(&device.pool).filter(|held| held.contains(device)).map(|_| held::taint());
        rules.filter(keeps_away).chain(held).collect()
    }

    /// A rule as it was taken for so far.
    pub fn rule(&self, name: &str) -> Option<&DeviceTaintRuleSpec> {
        self.rules.get(name)
    }

    /// Whether there is a rule that may keep somebody away from devices of a pool, whichever these are.
    pub fn may_taint(&self, driver: &str, pool: &str) -> bool {
        let mut rules = self.rules.values().filter(|rule| taint_rules::selects_in(rule, driver, pool));
        rules.any(|rule| keeps_away(&taint_rules::taint(rule)))
    }

    /// Those of a node's devices that policies hold back.
    pub fn held(&self, node: &str) -> Option<&BTreeSet<DeviceId>> {
        self.held.get(node)
    }

    /// Policies hold back these of a node's devices, whose pools have its name.
    pub fn set_held(&mut self, node: &Arc<str>, devices: BTreeSet<DeviceId>) {
        if devices.is_empty() {
            self.held.remove(node);
        } else {
            self.held.insert(Arc::clone(node), devices);
        }
    }

    /// A rule is this now, or gone.
    pub fn set_rule(&mut self, name: &str, rule: Option<DeviceTaintRuleSpec>) {
        match rule {
            Some(rule) => self.rules.insert(name.to_owned(), rule),
            None => self.rules.remove(name),
        };
    }
}

/// Whether a rule is about a device.
pub fn is_about(rule: &DeviceTaintRuleSpec, device: &DeviceId) -> bool {
    taint_rules::selects(rule, &device.driver, &device.pool, &device.name)
}

/// A taint in a message, as kube-scheduler writes those of nodes: `{key: value}`.
pub fn shown(taint: &DeviceTaint) -> String {
    format!("{{{}: {}}}", taint.key, taint.value.as_deref().unwrap_or_default())
}
