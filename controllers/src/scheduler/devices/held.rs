//! Devices that a policy holds back: nobody is given one before a look has found it, as it is now, fit. Pure.
//!
//! Which devices a policy means, and what looks come to, are the policies' own rules (`device_policy`). What is decided here is when they are
//! asked: with every change of slices, nodes, classes, policies and looks, before anybody is given anything.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use claw_schemas::{
    api::{DeviceCheck, DevicePolicy, UNCHECKED},
    gpu::is_nvidia,
};
use k8s_openapi::api::{core::v1::Node, resource::v1::DeviceTaint};

use super::{
    allocate::Classes,
    inventory::{Device, DeviceId},
    selector::Selectors,
};
use crate::{
    device_check::facts,
    device_policy::{
        looks::{Asks, Look, has_passed},
        scope::{Labels, Scope},
    },
};

/// Label of a node, as NVIDIA's feature discovery has it: how its GPUs are shared by those who ask for a number; `none` if they are not.
const SHARING_LABEL: &str = "nvidia.com/gpu.sharing-strategy";

/// A policy that holds devices back.
struct Policy {
    object: DevicePolicy,
    asks: Asks,
    /// None while it cannot be told which devices are meant: then none are.
    scope: Option<Scope>,
}

/// What policies need to know of a node.
#[derive(Clone, Debug, Default, PartialEq)]
struct Place {
    labels: Labels,
    boot_id: Option<String>,
}

/// Who holds which devices back.
#[derive(Default)]
pub struct HoldBack {
    policies: BTreeMap<String, Policy>,
    /// By device, and by the look's uid.
    looks: HashMap<DeviceId, BTreeMap<String, Look>>,
    places: HashMap<Arc<str>, Place>,
}

impl HoldBack {
    /// Whether there is nobody who holds anything back.
    pub fn is_idle(&self) -> bool {
        self.policies.is_empty()
    }

    /// A policy appeared or changed. Whether that may change which devices are held back.
    pub fn apply_policy(
        &mut self,
        policy: &DevicePolicy,
        classes: &Classes,
        selectors: &mut Selectors,
    ) -> bool {
        let name = policy.metadata.name.clone().unwrap_or_default();
        let is_going = policy.metadata.deletion_timestamp.is_some();
        if policy.spec.hold_back == Some(false) || is_going {
            return self.policies.remove(&name).is_some();
        }
        let known = self.policies.get(&name);
        if known.is_some_and(|known| {
            known.object.spec == policy.spec && known.object.metadata.uid == policy.metadata.uid
        }) {
            return false;
        }
        let (asks, scope) = (Asks::of(policy), scope(policy, classes, selectors));
        self.policies.insert(name, Policy { object: policy.clone(), asks, scope });
        true
    }

    /// A policy is gone. Whether it held devices back.
    pub fn remove_policy(&mut self, name: &str) -> bool {
        self.policies.remove(name).is_some()
    }

    /// Classes have changed. Whether a policy names one.
    pub fn follow_classes(&mut self, classes: &Classes, selectors: &mut Selectors) -> bool {
        let mut concerned = false;
        for policy in
            self.policies.values_mut().filter(|policy| policy.object.spec.device_class_name.is_some())
        {
            policy.scope = scope(&policy.object, classes, selectors);
            concerned = true;
        }
        concerned
    }

    /// A look appeared or changed.
    pub fn apply_look(&mut self, check: &DeviceCheck) {
        let uid = check.metadata.uid.clone().unwrap_or_default();
        self.looks.entry(id_of(check)).or_default().insert(uid, Look::of(check));
    }

    /// A look is gone.
    pub fn remove_look(&mut self, check: &DeviceCheck) {
        let id = id_of(check);
        if let Some(looks) = self.looks.get_mut(&id) {
            looks.remove(check.metadata.uid.as_deref().unwrap_or_default());
            if looks.is_empty() {
                self.looks.remove(&id);
            }
        }
    }

    /// A node appeared or changed. Whether that may change which of its devices are held back.
    pub fn apply_node(&mut self, node: &Node) -> bool {
        let place = Place {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            boot_id: facts::boot_id(node).map(str::to_owned),
        };
        let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
        self.places.get(&name) != Some(&place) && {
            self.places.insert(name, place);
            true
        }
    }

    /// A node is gone.
    pub fn remove_node(&mut self, name: &str) {
        self.places.remove(name);
    }

    /// Those of a node's devices that are held back.
    pub fn of(&self, node: &str, devices: &[Arc<Device>]) -> BTreeSet<DeviceId> {
        let Some(place) = self.places.get(node).filter(|_| !self.is_idle()) else { return BTreeSet::new() };
        let held = devices.iter().filter(|device| self.holds(device, node, place));
        held.map(|device| device.id.clone()).collect()
    }

    /// Whether a node's GPUs of a kind are shared, as far as it says so. Shared ones are no devices, so no rule and no policy is about them.
    pub fn are_shared(&self, node: &str, resource: &str) -> bool {
        let strategy = self.places.get(node).and_then(|place| place.labels.get(SHARING_LABEL));
        is_nvidia(resource) && strategy.is_some_and(|strategy| strategy != "none")
    }

    /// Whether there is a policy that may hold some of a node's devices back.
    pub fn may_hold(&self, node: &str) -> bool {
        let Some(place) = self.places.get(node) else { return !self.is_idle() };
        let scopes = self.policies.values().filter_map(|policy| policy.scope.as_ref());
        scopes.into_iter().any(|scope| scope.is_about_node(&place.labels))
    }

    fn holds(&self, device: &Device, node: &str, place: &Place) -> bool {
        let Some(facts) = facts::facts(&device.attributes, node, place.boot_id.as_deref()) else {
            return false;
        };
        let looks = self.looks.get(&device.id);
        self.policies.values().any(|policy| {
            let is_meant = |scope: &Scope| scope.means(device, &place.labels) == Ok(true);
            let looks = looks.into_iter().flat_map(BTreeMap::values);
            policy.scope.as_ref().is_some_and(is_meant) && !has_passed(looks, &policy.asks, &facts)
        })
    }
}

fn scope(policy: &DevicePolicy, classes: &Classes, selectors: &mut Selectors) -> Option<Scope> {
    Scope::of(&policy.spec, |name| classes.get(name), selectors).ok()
}

/// The device that a look is at.
pub fn id_of(check: &DeviceCheck) -> DeviceId {
    let device = &check.spec.device;
    DeviceId {
        driver: device.driver.as_str().into(),
        pool: device.pool.as_str().into(),
        name: device.name.as_str().into(),
    }
}

/// The taint of a device that is held back.
pub fn taint() -> DeviceTaint {
    DeviceTaint { key: UNCHECKED.to_owned(), effect: "NoSchedule".to_owned(), ..DeviceTaint::default() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::resource::v1::DeviceClass;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::{
        super::{Devices, Touched},
        *,
    };
    use crate::scheduler::devices::build::slice;

    fn typed<K: DeserializeOwned>(object: Value) -> K {
        serde_json::from_value(object).expect("the test writes valid objects")
    }

    fn node(labels: &Value, boot_id: &str) -> Node {
        let info = json!({
            "architecture": "", "bootID": boot_id, "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
        });
        typed(json!({"metadata": {"name": "n", "labels": labels}, "status": {"nodeInfo": info}}))
    }

    fn policy(spec: &Value) -> DevicePolicy {
        typed(json!({"metadata": {"name": "every", "uid": "uid-every"}, "spec": spec}))
    }

    /// A look at GPU A, which was that after this start of its machine.
    fn look(number: u32, verdict: Option<&str>, boot_id: &str) -> DeviceCheck {
        let facts = json!({
            "node": "n", "uuid": "A", "bootID": boot_id, "model": "NVIDIA H100 80GB HBM3", "driverVersion": "580.159.4",
        });
        typed(json!({
            "metadata": {
                "name": format!("every-{number}"), "uid": format!("uid-{number}"),
                "ownerReferences": [{
                    "apiVersion": "clawbernetes.io/v1", "kind": "DevicePolicy", "name": "every", "uid": "uid-every",
                    "controller": true,
                }],
            },
            "spec": {"device": {"driver": "gpu.clawbernetes.io", "pool": "n", "name": "a"}},
            "status": {"verdict": verdict, "device": facts},
        }))
    }

    /// A node with GPUs A and B, and a policy about them.
    fn stage(spec: &Value) -> Devices {
        let mut devices = Devices::default();
        devices.apply_node(&node(&json!({"pool": "training"}), "b1"));
        devices.apply_policy(&policy(spec));
        devices.apply_slice(&slice("n", &[("A", json!({})), ("B", json!({}))]));
        devices
    }

    /// Those that are held back.
    fn held(devices: &Devices) -> Vec<&str> {
        let all = devices.inventory.of("n").iter();
        let held = all.filter(|device| device.taints.iter().any(|taint| taint.key == UNCHECKED));
        held.map(|device| &*device.id.name).collect()
    }

    #[test]
    fn a_device_is_held_back_from_the_moment_when_it_is_there_until_it_was_found_fit() {
        let mut devices = stage(&json!({}));
        assert_eq!(held(&devices), ["a", "b"]);
        assert!(devices.inventory.of("n").iter().all(|device| device.resource().is_none()), "by number, too");
        devices.apply_check(&look(0, None, "b1"));
        assert_eq!(held(&devices), ["a", "b"]);
        assert_eq!(devices.apply_check(&look(0, Some("Fit"), "b1")), Touched::from([Arc::from("n")]));
        assert_eq!(held(&devices), ["b"]);
        devices.apply_check(&look(1, None, "b1"));
        assert_eq!(held(&devices), ["a", "b"], "somebody wants to know it anew");
        devices.remove_check(&look(1, None, "b1"));
        assert_eq!(held(&devices), ["b"]);
        devices.apply_check(&look(2, Some("NotFit"), "b1"));
        assert_eq!(held(&devices), ["a", "b"]);
    }

    #[test]
    fn a_node_that_has_not_said_which_gpus_it_has_is_not_left_to_choose_one() {
        let is_named = |spec: &Value, labels: &Value| {
            let mut devices = Devices::default();
            devices.apply_policy(&policy(spec));
            devices.apply_node(&node(labels, "b1"));
            devices.names_all("n", &"nvidia.com/gpu".into())
        };
        assert!(is_named(&json!({}), &json!({})));
        assert!(is_named(&json!({}), &json!({"nvidia.com/gpu.sharing-strategy": "none"})));
        assert!(!is_named(&json!({}), &json!({"nvidia.com/gpu.sharing-strategy": "time-slicing"})));
        assert!(!is_named(&json!({"holdBack": false}), &json!({})));
        assert!(!is_named(&json!({"nodeSelector": {"pool": "other"}}), &json!({})));
    }

    #[test]
    fn what_is_another_device_by_now_is_held_back_again() {
        let mut devices = stage(&json!({}));
        devices.apply_check(&look(0, Some("Fit"), "b1"));
        devices.apply_node(&node(&json!({}), "b2"));
        assert_eq!(held(&devices), ["a", "b"]);
        devices.apply_check(&look(1, Some("Fit"), "b2"));
        assert_eq!(held(&devices), ["b"]);
        let other = json!({"driverVersion": {"version": "590.0.0"}});
        devices.apply_slice(&slice("n", &[("A", other)]));
        assert_eq!(held(&devices), ["a"]);
    }

    #[test]
    fn nobody_holds_back_what_no_policy_means() {
        assert!(held(&stage(&json!({"holdBack": false}))).is_empty());
        assert!(held(&stage(&json!({"nodeSelector": {"pool": "other"}}))).is_empty());
        let mut devices =
            stage(&json!({"selectors": ["device.attributes['gpu.clawbernetes.io'].uuid == 'B'"]}));
        assert_eq!(held(&devices), ["b"]);
        devices.apply_policy(&policy(&json!({})));
        assert_eq!(held(&devices), ["a", "b"]);
        devices.apply_policy(&policy(&json!({"holdBack": false})));
        assert!(held(&devices).is_empty());
        devices.apply_policy(&policy(&json!({})));
        devices.remove_policy("every");
        assert!(held(&devices).is_empty());
    }

    #[test]
    fn a_policy_means_its_class_as_that_is_now() {
        let mut devices = stage(&json!({"deviceClassName": "some"}));
        assert!(held(&devices).is_empty(), "the class is not there");
        let class = |uuid: &str| -> DeviceClass {
            let is_it = format!("device.attributes['gpu.clawbernetes.io'].uuid == '{uuid}'");
            typed(
                json!({"metadata": {"name": "some"}, "spec": {"selectors": [{"cel": {"expression": is_it}}]}}),
            )
        };
        devices.apply_class(&class("A"));
        assert_eq!(held(&devices), ["a"]);
        devices.apply_class(&class("B"));
        assert_eq!(held(&devices), ["b"]);
        devices.remove_class("some");
        assert!(held(&devices).is_empty());
    }
}
