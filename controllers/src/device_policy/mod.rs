//! `DevicePolicy`s: devices are looked at before anybody's work is given to them, and those that are not fit are kept from it.
//!
//! A policy wants one `DeviceCheck` after the other of each device that it means, as long as no look at the device *as it is now* has
//! answered what it asks. What looks found is nowhere but in the checks: one that is no longer true, because its device was gone or had a
//! fault since, is deleted when that is seen. That nobody is given a device which is yet to be looked at is the scheduler's own doing, by the
//! same rules (`looks`), so that there is no moment between.
//!
//! | module | owns |
//! |---|---|
//! | `scope` | which devices a policy means |
//! | `looks` | what looks at a device come to |
//! | `course` | the checks that a policy makes and deletes, and its status |
//! | `taints` | the DeviceTaintRules of devices that are not fit |
//! | `nodes` | the condition `DevicesFit` of Nodes |
//!
//! Writes the whole status of policies, with the conditions `Accepted`, `Checked` and `DevicesFit`, and that one of Nodes. Must never know: how a
//! device is looked at, or who has it.

mod course;
pub mod looks;
mod nodes;
pub mod scope;
mod taints;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use claw_client::{ObjectKey, Store};
use claw_runtime::{Controller, Plan, Watches, World};
use claw_schemas::api::{DeviceCheck, DevicePolicy};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::Node,
    resource::{
        v1::{DeviceClass, ResourceSlice},
        v1beta2::DeviceTaintRule,
    },
};
use parking_lot::Mutex;

use self::course::Course;
pub use self::nodes::DevicesFit;
use crate::scheduler::devices::{Inventory, Selectors};

/// The controller of policies.
#[derive(Default)]
pub struct DevicePolicies {
    known: Mutex<Known>,
}

/// What slices say, and what expressions mean: each is worked out once.
#[derive(Default)]
struct Known {
    versions: BTreeMap<String, Option<String>>,
    inventory: Inventory,
    selectors: Selectors,
}

impl Known {
    /// Brings it level with the slices that there are.
    fn follow(&mut self, world: &World) {
        let slices = world.kind::<ResourceSlice>();
        let gone = self.versions.keys().filter(|name| slices.get("", name).is_none());
        for name in gone.cloned().collect::<Vec<_>>() {
            self.versions.remove(&name);
            self.inventory.remove(&name);
        }
        for slice in slices.iter() {
            let (name, version) = (&slice.metadata.name, &slice.metadata.resource_version);
            let name = name.clone().unwrap_or_default();
            if self.versions.get(&name) != Some(version) {
                self.inventory.apply(slice);
                self.versions.insert(name, version.clone());
            }
        }
    }
}

impl Controller for DevicePolicies {
    type Object = DevicePolicy;

    fn name(&self) -> &'static str {
        "device-policy"
    }

    fn watches(&self, watches: &mut Watches<DevicePolicy>) {
        watches.owned::<DeviceCheck>();
        watches.owned::<DeviceTaintRule>();
        watches.mapped::<ResourceSlice>(|_, policies| all(policies));
        watches.mapped::<Node>(|_, policies| all(policies));
        watches.mapped::<DeviceClass>(|_, policies| all(policies));
    }

    fn plan(&self, policy: &Arc<DevicePolicy>, world: &World, now: Timestamp) -> Plan {
        if policy.metadata.deletion_timestamp.is_some() {
            // Its checks and rules go with it: all of them name it as their owner.
            return Plan::nothing();
        }
        let mut known = self.known.lock();
        known.follow(world);
        Course::of(policy, world, now).run(&mut known)
    }
}

fn all(policies: &Store<DevicePolicy>) -> Vec<ObjectKey> {
    policies.list().iter().map(|policy| ObjectKey::of(&policy.metadata)).collect()
}
