//! Plans of looks at devices, step by step: what is done, and what the status says then.

use claw_client::ApiError;
use claw_runtime::{Caches, action::describe, execute::Failure, owner};
use claw_schemas::{api::DeviceFinding, status::Reason};
use serde_json::{Value, json};

use super::*;
use crate::pods::build::json_patch_merge;

/// A check, its pod, its device and its node at one moment, and how they go on.
struct Stage {
    check: DeviceCheck,
    others: Vec<DeviceCheck>,
    pods: Vec<Pod>,
    slice: ResourceSlice,
    nodes: Vec<Node>,
    failure: Option<Failure>,
    now: i64,
}

impl Stage {
    /// A fresh check, with changes to its spec, of a GPU with changes to its attributes.
    fn set(spec: &Value, attributes: &Value) -> Self {
        let mut check = json!({
            "metadata": {"name": "look", "uid": "uid-look", "generation": 1},
            "spec": {"device": {"driver": "gpu.clawbernetes.io", "pool": "n1", "name": "gpu-a"}, "level": "Full"},
        });
        json_patch_merge(&mut check["spec"], spec);
        let mut all = json!({
            "type": {"string": "gpu"}, "uuid": {"string": "GPU-A"}, "productName": {"string": "H100"},
            "driverVersion": {"version": "580.1.2"},
        });
        json_patch_merge(&mut all, attributes);
        let slice = json!({"metadata": {"name": "s"}, "spec": {
            "driver": "gpu.clawbernetes.io", "nodeName": "n1",
            "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-a", "attributes": all}],
        }});
        let mut stage = Self {
            check: typed(check),
            others: Vec::new(),
            pods: Vec::new(),
            slice: typed(slice),
            nodes: Vec::new(),
            failure: None,
            now: 100,
        };
        stage.boot("b1");
        stage
    }

    /// The node, after that start of its machine.
    fn boot(&mut self, id: &str) {
        let info = json!({
            "architecture": "", "bootID": id, "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
        });
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let node = json!({"metadata": {"name": "n1"}, "status": {"nodeInfo": info, "conditions": ready}});
        self.nodes = vec![typed(node)];
    }

    /// With its pod made and seen, running.
    fn running(spec: &Value) -> Self {
        let mut stage = Self::set(spec, &json!({}));
        stage.step();
        stage.step();
        stage.make_pod();
        stage.step();
        stage
    }

    fn make_pod(&mut self) {
        self.pods = vec![typed(json!({
            "metadata": {
                "name": "look", "namespace": NAMESPACE, "uid": "uid-pod",
                "ownerReferences": [owner::reference_to(&self.check)],
            },
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running"},
        }))];
    }

    /// Plans, writes the status, and gives what else was to be done, without events.
    fn step(&mut self) -> Vec<String> {
        let caches = Caches::offline();
        let all = self.others.iter().cloned().chain([self.check.clone()]);
        caches.set(all.collect::<Vec<_>>());
        caches.set(self.pods.clone());
        caches.set(vec![self.slice.clone()]);
        caches.set(self.nodes.clone());
        let world = caches.world().after_failure(self.failure.clone());
        let now = Timestamp::from_second(self.now).unwrap();
        let plan = DeviceChecks.plan(&Arc::new(self.check.clone()), &world, now);
        self.check.status = plan.status.map(typed);
        describe(&plan.actions).into_iter().filter(|line| !line.starts_with("event")).collect()
    }

    fn pod_is(&mut self, status: &Value) {
        let mut pod = json!(self.pods[0]);
        json_patch_merge(&mut pod, &json!({"status": status}));
        self.pods = vec![typed(pod)];
    }

    /// The worker ended with that report.
    fn ended(&mut self, end: &Value) {
        let worker = json!([{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": end},
        }]);
        let phase = if end["exitCode"] == 0 { "Succeeded" } else { "Failed" };
        self.pod_is(&json!({"phase": phase, "containerStatuses": worker}));
    }

    fn found(&mut self, findings: &Value) {
        let found = json!({
            "device": {"id": "cuda:0", "model": "H100"}, "level": "Full", "seconds": 12.0, "findings": findings,
        });
        let report = json!({"state": "Complete", "doing": "load", "runs": 0, "qualification": found});
        self.ended(&json!({"exitCode": 0, "message": report.to_string()}));
    }

    fn status(&self) -> &DeviceCheckStatus {
        self.check.status.as_ref().expect("a status was written")
    }

    fn condition(&self, kind: &str) -> (&str, &str) {
        let found = conditions::find(&self.status().conditions, kind);
        found.map_or_else(Default::default, |found| (&*found.reason, &*found.message))
    }

    fn verdict(&self) -> &str {
        self.status().verdict.as_deref().unwrap_or_default()
    }
}

fn typed<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("the test writes valid objects")
}

fn copied(rate: f64) -> Value {
    json!({"check": "Copy", "passed": true, "words": "well", "figures": {"copyBytesPerSecond": rate}})
}

#[test]
fn what_is_looked_at_is_written_down_before_anything_is_made() {
    let mut stage = Stage::set(&json!({}), &json!({}));
    assert_eq!(stage.step(), [""; 0]);
    let device = stage.status().device.clone().unwrap();
    assert_eq!(
        json!(device),
        json!({"node": "n1", "uuid": "GPU-A", "model": "H100", "driverVersion": "580.1.2", "bootID": "b1"})
    );
    assert_eq!(stage.step(), ["ensure resourceclaims kube-system/look", "ensure pods kube-system/look"]);
    stage.make_pod();
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(
        (stage.status().pod_uid.as_deref(), stage.status().phase.as_deref()),
        (Some("uid-pod"), Some("Running"))
    );
    let progress = json!({"type": "clawbernetes.io/Progress", "status": "True", "message": "memory: ones"});
    stage.pod_is(&json!({"conditions": [progress]}));
    stage.step();
    assert_eq!(stage.status().progress.as_deref(), Some("memory: ones"));
}

#[test]
fn the_claim_is_of_this_device_and_bears_every_taint_and_the_pod_waits_for_nothing_else() {
    let stage = Stage::running(&json!({"timeoutSeconds": 60}));
    let facts = stage.status().device.clone().unwrap();
    let claim = json!(made::claim(&stage.check, &facts));
    assert_eq!(
        claim["spec"]["devices"]["requests"][0]["exactly"],
        json!({
            "deviceClassName": "gpu.clawbernetes.io", "tolerations": [{"operator": "Exists"}],
            "selectors": [{"cel": {"expression": "device.attributes[\"gpu.clawbernetes.io\"].uuid == \"GPU-A\""}}],
        })
    );
    let pod = json!(made::pod(&stage.check, &facts, claw_graph::order::Backend::Cuda));
    let worker = &pod["spec"]["containers"][0];
    assert_eq!(worker["command"], json!(["/clawbernetes", "device-check", "Full", "cuda"]));
    assert_eq!(pod["spec"]["activeDeadlineSeconds"], 60);
    assert_eq!(pod["spec"]["priorityClassName"], "device-check");
    assert_eq!(pod["spec"]["tolerations"], json!([{"operator": "Exists", "effect": "NoSchedule"}]));
    assert_eq!(worker["resources"], json!({"claims": [{"name": "device"}]}));
}

#[test]
fn the_way_to_a_device_follows_from_its_type() {
    use claw_graph::order::Backend::{Cuda, Vulkan};
    let of = |kind: &str| {
        let stage = Stage::set(&json!({}), &json!({"type": {"string": kind}}));
        let devices = stage.slice.spec.devices.clone().unwrap();
        facts::backend(&devices[0].attributes.clone().unwrap())
    };
    assert_eq!(["gpu", "mig", "amdgpu", "vulkan"].map(of), [Cuda, Cuda, Vulkan, Vulkan]);
}

#[test]
fn a_device_is_fit_if_nothing_was_found_against_it_and_it_is_as_quick_as_it_must_be() {
    let mut stage = Stage::running(&json!({"minimums": {"copyBytesPerSecond": "2T"}}));
    stage.found(&json!([copied(2.1e12)]));
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!((stage.verdict(), stage.condition(COMPLETE).0), (FIT, "Checked"));
    let named: Vec<&str> = stage.status().findings.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(named, ["Copy", "Minimums"]);
    let before = stage.status().clone();
    assert_eq!((stage.step(), stage.status()), (vec![], &before), "nothing more happens");

    let mut slow = Stage::running(&json!({"minimums": {"copyBytesPerSecond": "2T"}}));
    slow.found(&json!([copied(1.9e12)]));
    slow.step();
    assert_eq!(slow.verdict(), NOT_FIT);

    let mut wrong = Stage::running(&json!({}));
    wrong.found(&json!([copied(2e12), {"check": "Memory", "passed": false, "words": "3 words differ"}]));
    wrong.step();
    assert_eq!((wrong.verdict(), wrong.condition(COMPLETE).0), (NOT_FIT, "Checked"));
}

#[test]
fn a_device_that_is_slower_than_others_of_its_model_is_not_fit() {
    let other = |number: i64, level: &str| -> DeviceCheck {
        let name = format!("gpu-{number}");
        typed(json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"device": {"driver": "gpu.clawbernetes.io", "pool": "n2", "name": name}, "level": level},
            "status": {
                "verdict": "Fit", "device": {"node": "n2", "uuid": name, "model": "H100"}, "findings": [copied(2e12)],
                "completionTime": "1970-01-01T00:00:10Z",
            },
        }))
    };
    for (level, verdict) in [("Full", NOT_FIT), ("Quick", FIT)] {
        let mut stage = Stage::running(&json!({}));
        stage.others = (0..3).map(|number| other(number, level)).collect();
        stage.found(&json!([copied(1e12)]));
        stage.step();
        assert_eq!(stage.verdict(), verdict, "those beside it were looked at {level}");
    }
}

#[test]
fn what_happens_around_the_device_does_not_speak_against_it() {
    let stopped = json!({
        "state": "Failed", "doing": "memory: ones", "runs": 0,
        "failure": {"reason": "Stopped", "message": "the worker was told to stop"},
    });
    let at_work = json!({"state": "Running", "doing": "memory: ones", "runs": 0});
    type Case = (fn(&mut Stage, &Value), Value, &'static str);
    let cases: [Case; 7] = [
        (
            |stage, _| stage.pod_is(&json!({"phase": "Failed", "reason": "Evicted", "message": "memory"})),
            json!({}),
            "Evicted",
        ),
        (
            |stage, _| {
                stage.pod_is(&json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "too long"}))
            },
            json!({}),
            "DeadlineExceeded",
        ),
        (
            |stage, report| stage.ended(&json!({"exitCode": 143, "message": report.to_string()})),
            stopped,
            "Stopped",
        ),
        (
            |stage, report| {
                stage.ended(&json!({"exitCode": 137, "signal": 9, "message": report.to_string()}))
            },
            at_work.clone(),
            "Killed",
        ),
        (
            |stage, report| {
                stage.ended(&json!({"exitCode": 137, "reason": "OOMKilled", "message": report.to_string()}))
            },
            at_work,
            "OOMKilled",
        ),
        (|stage, _| stage.ended(&json!({"exitCode": 0, "message": "what?"})), json!({}), "NoReport"),
        (|stage, _| stage.pods.clear(), json!({}), "PodDeleted"),
    ];
    for (happens, report, reason) in cases {
        let mut stage = Stage::running(&json!({}));
        happens(&mut stage, &report);
        stage.step();
        assert_eq!((stage.verdict(), stage.condition(FAILED).0), ("", reason));
        assert!(is_over(stage.status()));
    }
}

#[test]
fn a_pod_that_cannot_run_is_ended_once_the_status_says_why() {
    let mut stage = Stage::running(&json!({}));
    let waiting = json!([{
        "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
    }]);
    stage.pod_is(&json!({"phase": "Pending", "containerStatuses": waiting}));
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(stage.condition(FAILED), ("ImagePullBackOff", "no such image"));
    assert_eq!(stage.step(), ["delete pods kube-system/look"]);
}

#[test]
fn a_device_that_is_another_by_now_was_not_looked_at() {
    let mut stage = Stage::running(&json!({}));
    stage.boot("b2");
    stage.found(&json!([copied(2e12)]));
    stage.step();
    assert_eq!(stage.verdict(), "");
    let (reason, message) = stage.condition(FAILED);
    assert_eq!(reason, "DeviceChanged");
    assert!(message.ends_with("node n1 was started anew"), "{message}");

    let mut stage = Stage::running(&json!({}));
    stage.slice.spec.devices = None;
    stage.step();
    assert_eq!(stage.condition(FAILED).0, "DeviceNotFound");
    assert_eq!(stage.step(), ["delete pods kube-system/look"]);
}

#[test]
fn what_nobody_can_look_at_is_said_at_once() {
    for (attributes, reason) in
        [(json!({"replayed": {"bool": true}}), "Replayed"), (json!({"uuid": {"string": null}}), "NoUUID")]
    {
        let mut stage = Stage::set(&json!({}), &attributes);
        assert_eq!(stage.step(), [""; 0]);
        assert_eq!(stage.condition(FAILED).0, reason);
    }
    let mut stage = Stage::set(&json!({}), &json!({}));
    stage.nodes.clear();
    stage.step();
    assert_eq!(stage.condition(FAILED).0, "NodeNotFound");
}

#[test]
fn a_name_that_somebody_else_has_ends_the_check() {
    let mut stage = Stage::set(&json!({}), &json!({}));
    stage.step();
    let error = ApiError::new(Reason::AlreadyExists, "pods \"look\" already exists");
    stage.failure = Some(Failure { action: "ensure".to_owned(), verb: claw_runtime::execute::ENSURE, error });
    stage.step();
    assert_eq!(stage.condition(FAILED).0, "NameTaken");
}

#[test]
fn a_pod_that_goes_is_waited_for_as_long_as_its_node_answers() {
    let mut stage = Stage::running(&json!({}));
    stage.pods[0].metadata.deletion_timestamp = Some(typed(json!("2026-01-01T00:00:00Z")));
    stage.step();
    assert!(!is_over(stage.status()));
    let lost = json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    stage.nodes = vec![typed(lost)];
    stage.step();
    assert_eq!(stage.condition(FAILED), ("NodeLost", "node n1 does not answer"));
}

#[test]
fn a_check_that_is_over_is_kept_as_long_as_it_says() {
    let mut stage = Stage::running(&json!({"ttlSecondsAfterFinished": 60}));
    stage.found(&json!([copied(2e12)]));
    stage.step();
    stage.now += 59;
    assert_eq!(stage.step(), [""; 0]);
    stage.now += 1;
    assert_eq!(stage.step(), ["delete devicechecks look"]);
}

#[test]
fn findings_are_told_as_they_were_found() {
    let mut stage = Stage::running(&json!({}));
    stage.found(&json!([copied(2e12)]));
    stage.step();
    let expected = DeviceFinding {
        check: "Copy".to_owned(),
        passed: true,
        words: "well".to_owned(),
        figures: [("copyBytesPerSecond".to_owned(), 2e12)].into(),
    };
    assert_eq!(stage.status().findings, [expected]);
    let measured = findings::measured(&stage.check).unwrap();
    assert_eq!((measured.device.model.as_str(), measured.findings.len()), ("H100", 1));
}
