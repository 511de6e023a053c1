//! Plans of policies about devices: which looks they want, which they give up, and what they say of devices.

use claw_runtime::{
    Caches,
    action::{Step, describe},
    conditions, owner,
};
use claw_schemas::api::{DevicePolicyStatus, NOT_FIT, OBJECTION};
use serde_json::{Value, json};

use super::*;
use crate::pods::build::json_patch_merge;

/// A policy and a cluster of nodes n1 and n2 with two GPUs each: gpu-a and gpu-b, gpu-c and gpu-d.
struct Stage {
    policy: DevicePolicy,
    checks: Vec<DeviceCheck>,
    rules: Vec<DeviceTaintRule>,
    slices: Vec<ResourceSlice>,
    nodes: Vec<Node>,
    now: i64,
}

impl Stage {
    fn set(spec: &Value) -> Self {
        let policy =
            json!({"metadata": {"name": "every", "uid": "uid-every", "generation": 1}, "spec": spec});
        let node = |name: &str| -> Node {
            typed(json!({
                "metadata": {"name": name, "labels": {"name": name}},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }))
        };
        Self {
            policy: typed(policy),
            checks: Vec::new(),
            rules: Vec::new(),
            slices: vec![slice("n1", &["a", "b"]), slice("n2", &["c", "d"])],
            nodes: vec![node("n1"), node("n2")],
            now: 1_000,
        }
    }

    fn plan(&self) -> Plan {
        let caches = Caches::offline();
        caches.set(self.checks.clone());
        caches.set(self.rules.clone());
        caches.set(self.slices.clone());
        caches.set(self.nodes.clone());
        let now = Timestamp::from_second(self.now).unwrap();
        DevicePolicies::default().plan(&Arc::new(self.policy.clone()), &caches.world(), now)
    }

    /// Plans, and does it: what is made is there, what is deleted is gone. Gives what was done, without events and hashes.
    fn step(&mut self) -> Vec<String> {
        let plan = self.plan();
        let done = describe(&plan.actions).into_iter().filter(|line| !line.starts_with("event")).collect();
        self.policy.status = plan.status.map(typed);
        for action in &plan.actions {
            match (&action.step, &*action.target.plural) {
                (Step::Create(made), "devicechecks") => self.checks.push(self.made(made)),
                (Step::Create(made), _) => self.rules.push(self.made(made)),
                (Step::Patch(_, patch), "devicetaintrules") => {
                    for rule in &mut self.rules {
                        if rule.metadata.name == action.target.name {
                            let mut changed = json!(rule);
                            json_patch_merge(&mut changed, patch);
                            *rule = typed(changed);
                        }
                    }
                }
                (Step::Delete(_), "devicechecks") => {
                    self.checks.retain(|one| one.metadata.name != action.target.name)
                }
                (Step::Delete(_), _) => self.rules.retain(|one| one.metadata.name != action.target.name),
                _ => {}
            }
        }
        done
    }

    fn made<K: serde::de::DeserializeOwned>(&self, object: &Value) -> K {
        let mut object = object.clone();
        object["metadata"]["uid"] = json!(format!("uid-{}", object["metadata"]["name"]));
        object["metadata"]["creationTimestamp"] =
            json!(Timestamp::from_second(self.now).unwrap().to_string());
        typed(object)
    }

    /// The looks that are under way have ended so, with that rate.
    fn ended(&mut self, verdict: &str, rate: f64) {
        let now = Timestamp::from_second(self.now).unwrap().to_string();
        for check in &mut self.checks {
            if check.status.is_some() {
                continue;
            }
            let (name, pool) = (check.spec.device.name.clone(), check.spec.device.pool.clone());
            let finding = json!({
                "check": "Copy", "passed": verdict == "Fit", "words": "as it is", "figures": {"copyBytesPerSecond": rate},
            });
            let (kind, verdict) =
                if verdict.is_empty() { ("Failed", Value::Null) } else { ("Complete", json!(verdict)) };
            let condition = json!({
                "type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": now,
            });
            check.status = Some(typed(json!({
                "device": {"node": pool, "uuid": name.to_uppercase(), "model": "H100"},
                "phase": kind, "verdict": verdict, "completionTime": now, "conditions": [condition],
                "findings": if kind == "Failed" { json!([]) } else { json!([finding]) },
            })));
        }
    }

    /// Looks at all devices until there is nothing to look at.
    fn all_looked_at(&mut self, verdict: &str) {
        loop {
            self.step();
            if self.checks.iter().all(|check| check.status.is_some()) {
                return;
            }
            self.ended(verdict, 1.0);
        }
    }

    fn fault(&mut self, slice: usize, device: usize, taints: &Value) {
        let devices = self.slices[slice].spec.devices.as_mut().unwrap();
        devices[device].taints = typed(taints.clone());
    }

    fn status(&self) -> &DevicePolicyStatus {
        self.policy.status.as_ref().expect("a status was written")
    }

    /// Devices, fit, not fit, unchecked, under way.
    fn counts(&self) -> [i32; 5] {
        let status = self.status();
        [status.devices, status.fit, status.not_fit, status.unchecked, status.running]
            .map(Option::unwrap_or_default)
    }

    fn condition(&self, kind: &str) -> (&str, &str, &str) {
        let found = conditions::find(&self.status().conditions, kind);
        found.map_or_else(Default::default, |found| (&*found.status, &*found.reason, &*found.message))
    }

    /// Devices that are looked at, or were.
    fn looked_at(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.checks.iter().map(|check| check.spec.device.name.as_str()).collect();
        all.sort_unstable();
        all
    }
}

fn slice(node: &str, gpus: &[&str]) -> ResourceSlice {
    let devices: Vec<Value> = gpus
        .iter()
        .map(|name| {
            let uuid = format!("GPU-{}", name.to_uppercase());
            json!({"name": format!("gpu-{name}"), "attributes": {
                "uuid": {"string": uuid}, "productName": {"string": "H100"}, "type": {"string": "gpu"},
            }})
        })
        .collect();
    typed(json!({"metadata": {"name": node}, "spec": {
        "driver": "gpu.clawbernetes.io", "nodeName": node, "devices": devices,
        "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
    }}))
}

fn typed<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("the test writes valid objects")
}

#[test]
fn every_device_is_looked_at_once_and_one_on_each_node_at_a_time() {
    let mut stage = Stage::set(&json!({"level": "Full", "minimums": {"copyBytesPerSecond": "1"}}));
    assert_eq!(stage.step().len(), 2);
    assert_eq!(stage.looked_at(), ["gpu-a", "gpu-c"]);
    let check = &stage.checks[0];
    assert_eq!(check.spec.level.as_deref(), Some("Full"));
    assert_eq!(check.spec.minimums.len(), 1);
    assert!(owner::is_controlled_by(&check.metadata, &stage.policy));
    assert_eq!(stage.step(), [""; 0], "they are under way");
    assert_eq!((stage.counts(), stage.condition("Checked").0), ([4, 0, 0, 4, 2], "False"));
    stage.ended("Fit", 1.0);
    stage.step();
    assert_eq!(stage.looked_at(), ["gpu-a", "gpu-b", "gpu-c", "gpu-d"]);
    stage.ended("Fit", 1.0);
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!((stage.counts(), stage.condition("Checked").0), ([4, 4, 0, 0, 0], "True"));
    assert_eq!(stage.condition("DevicesFit").0, "True");
    stage.now += 1_000_000;
    assert_eq!(stage.step(), [""; 0], "and never again while they are what they are");
}

#[test]
fn so_many_are_under_way_as_the_policy_says_and_who_waits_long_lets_others_begin() {
    let mut stage = Stage::set(&json!({"maxParallel": 1, "maxParallelPerNode": 5}));
    stage.step();
    assert_eq!(stage.looked_at(), ["gpu-a"]);
    stage.now += 61;
    stage.step();
    assert_eq!(stage.looked_at(), ["gpu-a", "gpu-b"], "somebody has gpu-a");
    stage.checks[1].status = Some(typed(json!({"phase": "Running"})));
    stage.now += 61;
    assert_eq!(stage.step(), [""; 0], "gpu-b is being looked at");
}

#[test]
fn a_device_that_is_not_fit_has_a_rule_until_a_later_look_finds_it_fit() {
    let mut stage =
        Stage::set(&json!({"nodeSelector": {"name": "n1"}, "effect": "NoExecute", "maxParallelPerNode": 2}));
    stage.step();
    stage.ended("NotFit", 1.0);
    assert_eq!(stage.step().len(), 2);
    let selects = |rule: &&DeviceTaintRule| {
        let selector = rule.spec.device_selector.as_ref().unwrap();
        (selector.pool.as_deref(), selector.device.as_deref()) == (Some("n1"), Some("gpu-a"))
    };
    let rule = stage.rules.iter().find(selects).unwrap();
    let taint = &rule.spec.taint;
    assert_eq!((taint.key.as_str(), taint.effect.as_str()), (NOT_FIT, "NoExecute"));
    assert_eq!(taint.value, stage.checks[0].metadata.name);
    assert_eq!(rule.metadata.annotations.clone().unwrap()[OBJECTION], "Copy: as it is");
    assert_eq!((stage.counts(), stage.condition("DevicesFit").1), ([2, 0, 2, 0, 0], "DevicesNotFit"));
    assert_eq!(stage.step(), [""; 0]);
    // Somebody repaired it, and wants to know.
    stage.checks.clear();
    stage.step();
    assert_eq!(
        (stage.checks.len(), stage.rules.len()),
        (2, 2),
        "what was found holds until it is looked at again"
    );
    stage.ended("Fit", 1.0);
    stage.step();
    assert_eq!((stage.rules.len(), stage.counts()), (0, [2, 2, 0, 0, 0]));
}

#[test]
fn what_is_to_become_of_devices_changes_with_the_policy() {
    let mut stage = Stage::set(&json!({"nodeSelector": {"name": "n1"}, "maxParallelPerNode": 2}));
    stage.step();
    stage.ended("NotFit", 1.0);
    stage.step();
    stage.policy.spec.effect = Some("None".to_owned());
    assert!(stage.step().iter().all(|line| line.contains("\"effect\":\"None\"")));
    assert_eq!(stage.step(), [""; 0]);
    stage.policy.spec.node_selector = [("name".to_owned(), "n2".to_owned())].into();
    stage.step();
    assert_eq!((stage.rules.len(), stage.looked_at()), (0, vec!["gpu-c", "gpu-d"]));
}

#[test]
fn a_look_is_no_longer_true_after_a_fault_or_an_absence_of_its_device() {
    let mut stage = Stage::set(&json!({"nodeSelector": {"name": "n1"}}));
    stage.all_looked_at("Fit");
    assert_eq!(stage.counts(), [2, 2, 0, 0, 0]);
    stage.fault(0, 0, &json!([{"key": "gpu.clawbernetes.io/xid", "value": "79", "effect": "NoSchedule"}]));
    assert_eq!(stage.step().len(), 1);
    assert_eq!(
        (stage.looked_at(), stage.counts()),
        (vec!["gpu-b"], [2, 1, 0, 1, 0]),
        "nobody looks at it now"
    );
    stage.fault(0, 0, &json!([]));
    stage.all_looked_at("Fit");
    assert_eq!(stage.looked_at(), ["gpu-a", "gpu-b"]);
    let slice = stage.slices.remove(0);
    assert_eq!(stage.step().len(), 2, "both are away");
    stage.slices.push(slice);
    stage.step();
    stage.step();
    assert_eq!(stage.counts(), [2, 0, 0, 2, 1]);
}

#[test]
fn a_device_is_looked_at_again_after_its_machine_was_started_anew_and_when_it_is_time() {
    let mut stage = Stage::set(
        &json!({"nodeSelector": {"name": "n1"}, "recheckAfterSeconds": 100, "maxParallelPerNode": 2}),
    );
    stage.all_looked_at("Fit");
    stage.now += 99;
    assert_eq!(stage.step(), [""; 0]);
    stage.now += 1;
    assert_eq!(stage.step().len(), 2);
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(stage.counts(), [2, 2, 0, 0, 2], "what was found so far is not wrong");
    stage.ended("Fit", 1.0);
    assert_eq!(stage.step().len(), 2, "the looks before are deleted");
    assert!(stage.checks.iter().all(|check| check.metadata.name.as_ref().unwrap().ends_with("-1")));
    let info = json!({
        "architecture": "", "bootID": "b2", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
        "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
    });
    for check in &mut stage.checks {
        check.status.as_mut().unwrap().device.as_mut().unwrap().boot_id = Some("b1".to_owned());
    }
    stage.nodes[0].status.as_mut().unwrap().node_info = Some(typed(info));
    assert_eq!(stage.step().len(), 2);
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(stage.counts(), [2, 0, 0, 2, 2]);
}

#[test]
fn a_device_that_could_not_be_looked_at_is_tried_again_later_and_later() {
    let mut stage = Stage::set(
        &json!({"maxParallel": 1, "nodeSelector": {"name": "n1"}, "selectors": ["device.attributes['gpu.clawbernetes.io'].uuid == 'GPU-A'"]}),
    );
    let mut waits = Vec::new();
    for _ in 0..9 {
        stage.step();
        stage.ended("", 0.0);
        let began = stage.now;
        stage.step();
        while stage.checks.iter().all(|check| check.status.is_some()) {
            stage.now += 5;
            stage.step();
        }
        waits.push(stage.now - began);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    stage.step();
    assert_eq!(stage.checks.len(), 1, "those before are deleted");
    stage.ended("Fit", 1.0);
    stage.step();
    assert_eq!(stage.counts(), [1, 1, 0, 0, 0]);
}

#[test]
fn a_device_slower_than_its_model_has_a_rule_whenever_that_shows() {
    let mut stage = Stage::set(&json!({"maxParallel": 9, "maxParallelPerNode": 9}));
    stage.step();
    for check in &stage.checks.clone() {
        let rate = if check.spec.device.name == "gpu-c" { 0.5 } else { 1.0 };
        let others: Vec<DeviceCheck> = stage.checks.drain(..).collect();
        let (own, others) = others.into_iter().partition(|one| one.spec.device == check.spec.device);
        stage.checks = own;
        stage.ended("Fit", rate);
        stage.checks.extend::<Vec<_>>(others);
    }
    stage.step();
    assert_eq!((stage.rules.len(), stage.counts()), (1, [4, 3, 1, 0, 0]));
    let words = stage.rules[0].metadata.annotations.clone().unwrap().remove(OBJECTION).unwrap();
    assert_eq!(words, "Fleet: copyBytesPerSecond is 50 % of the median");
    assert!(stage.condition("DevicesFit").2.contains("n2/gpu-c"));
}

#[test]
fn the_last_look_that_found_a_device_not_to_be_fit_is_kept_for_people() {
    let mut stage = Stage::set(
        &json!({"nodeSelector": {"name": "n1"}, "recheckAfterSeconds": 10, "selectors": ["device.attributes['gpu.clawbernetes.io'].uuid == 'GPU-A'"]}),
    );
    for verdict in ["NotFit", "NotFit", "Fit", "Fit"] {
        stage.step();
        stage.ended(verdict, 1.0);
        stage.now += 10;
    }
    stage.now -= 10;
    stage.step();
    let kept: Vec<&str> =
        stage.checks.iter().filter_map(|check| check.status.as_ref()?.verdict.as_deref()).collect();
    assert_eq!(kept, ["NotFit", "Fit"]);
    assert!(stage.rules.is_empty());
    stage.fault(0, 0, &json!([{"key": "gpu.clawbernetes.io/ecc", "effect": "NoSchedule"}]));
    stage.step();
    assert_eq!((stage.checks.len(), stage.rules.len()), (0, 0), "what is old does not hold again");
}

#[test]
fn what_nobody_can_look_at_now_waits() {
    let mut stage = Stage::set(&json!({}));
    stage.nodes.pop();
    let lost = json!({"metadata": {"name": "n2"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    stage.nodes.push(typed(lost));
    let devices = stage.slices[0].spec.devices.as_mut().unwrap();
    devices[0].attributes.as_mut().unwrap().insert("replayed".to_owned(), typed(json!({"bool": true})));
    stage.step();
    stage.step();
    assert_eq!((stage.looked_at(), stage.counts()), (vec!["gpu-b"], [4, 0, 0, 4, 1]));
}

#[test]
fn a_policy_that_cannot_be_understood_says_so_and_does_nothing() {
    for (spec, reason, message) in [
        (json!({"deviceClassName": "none"}), "SelectorsNotUsable", "device class none does not exist"),
        (
            json!({"selectors": ["device.attributes['a'].b == 1"]}),
            "SelectorFailed",
            "device gpu-a: spec.selectors[0]: CEL runtime error: ",
        ),
    ] {
        let mut stage = Stage::set(&spec);
        assert_eq!(stage.step(), [""; 0]);
        let said = stage.condition("Accepted");
        assert_eq!((said.0, said.1), ("False", reason));
        assert!(said.2.starts_with(message), "{}", said.2);
    }
}

#[test]
fn a_policy_that_goes_is_left_alone() {
    let mut stage = Stage::set(&json!({}));
    stage.policy.metadata.deletion_timestamp = Some(typed(json!("2026-01-01T00:00:00Z")));
    let plan = stage.plan();
    assert!(plan.actions.is_empty() && plan.status.is_none(), "{plan:?}");
}

/// What is written to a node's status, with that condition and these rules.
fn told(condition: Option<&Value>, rules: &[DeviceTaintRule], checks: &[DeviceCheck]) -> Vec<String> {
    let caches = Caches::offline();
    caches.set(rules.to_vec());
    caches.set(checks.to_vec());
    let conditions: Vec<&Value> = condition.into_iter().collect();
    let node: Node = typed(json!({"metadata": {"name": "n1"}, "status": {"conditions": conditions}}));
    describe(&DevicesFit.plan(&Arc::new(node), &caches.world(), Timestamp::UNIX_EPOCH).actions)
}

#[test]
fn a_node_says_which_of_its_devices_are_not_fit_and_why() {
    let mut stage = Stage::set(&json!({"maxParallel": 9, "maxParallelPerNode": 9}));
    stage.step();
    stage.ended("NotFit", 1.0);
    stage.step();
    assert_eq!(stage.rules.len(), 4);
    let lines = told(None, &stage.rules, &stage.checks);
    let words = "gpu-a: Copy: as it is; gpu-b: Copy: as it is";
    assert_eq!(
        lines,
        [
            format!(
                r#"patch nodes n1 {{"status":{{"conditions":[{{"lastTransitionTime":"1970-01-01T00:00:00Z","message":"{words}","reason":"DevicesNotFit","status":"False","type":"DevicesFit"}}]}}}}"#
            ),
            format!("event DevicesNotFit: {words}"),
        ]
    );
    let said = json!({"type": "DevicesFit", "status": "False", "reason": "DevicesNotFit", "message": words});
    assert_eq!(told(Some(&said), &stage.rules, &stage.checks), [""; 0]);
    let gone = told(Some(&said), &[], &[]);
    assert_eq!(
        gone,
        [r#"patch nodes n1 {"status":{"conditions":[{"$patch":"delete","type":"DevicesFit"}]}}"#]
    );
    stage.checks.iter_mut().for_each(|check| check.status.as_mut().unwrap().verdict = Some("Fit".to_owned()));
    let well = told(Some(&said), &[], &stage.checks);
    assert!(well[0].contains(r#""status":"True""#) && well[1].starts_with("event DevicesFit: "), "{well:?}");
}
