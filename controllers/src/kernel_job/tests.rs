//! Plans of kernel jobs, step by step: what is done, and what the status says then.

mod ends;
mod kept;
mod made;
mod stops;

use std::time::Duration;

use claw_client::ApiError;
use claw_runtime::{
    Caches,
    action::{Step, describe},
    conditions,
    execute::Failure,
    owner,
};
use claw_schemas::{
    api::{KernelJobAttempt, KernelJobStatus},
    status::Reason,
};
use serde_json::{Value, json};

use super::*;
use crate::pods::build::json_patch_merge;

/// A job, its pods and its nodes at one moment, and how they go on.
struct Stage {
    job: KernelJob,
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    failure: Option<Failure>,
    now: i64,
}

impl Stage {
    /// A fresh job, with changes to its spec.
    fn set(spec: &Value) -> Self {
        let mut job = json!({
            "metadata": {"name": "sum", "namespace": "default", "uid": "uid-sum", "generation": 1},
            "spec": {
                "inputs": [{"name": "a", "dtype": "f32", "shape": [4], "fill": 1.0}],
                "operations": [{"name": "b", "op": "Add", "inputs": ["a", "a"]}],
                "outputs": [{"value": "b"}],
            },
        });
        json_patch_merge(&mut job["spec"], spec);
        let node = json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        Self { job: typed(job), pods: vec![], nodes: vec![typed(node)], failure: None, now: 100 }
    }

    /// With its first pod made and seen, on a node.
    fn running(spec: &Value) -> Self {
        let mut stage = Self::set(spec);
        stage.step();
        stage.make_pod(&json!({}));
        stage.step();
        stage
    }

    fn plan(&self) -> Plan {
        let caches = Caches::offline();
        caches.set(vec![self.job.clone()]);
        caches.set(self.pods.clone());
        caches.set(self.nodes.clone());
        let world = caches.world().after_failure(self.failure.clone());
        KernelJobs.plan(&Arc::new(self.job.clone()), &world, Timestamp::from_second(self.now).unwrap())
    }

    /// Plans, writes the status, and gives what else was to be done, without events.
    fn step(&mut self) -> Vec<String> {
        let plan = self.plan();
        let done = describe(&plan.actions).into_iter().filter(|line| !line.starts_with("event")).collect();
        self.job.status = plan.status.map(typed);
        done
    }

    /// Makes the pod of the last try, on node n1 and running but for the changes.
    fn make_pod(&mut self, more: &Value) {
        let name = self.last().pod.clone();
        let mut pod = json!({
            "metadata": {
                "name": name, "namespace": "default", "uid": format!("uid-{name}"),
                "ownerReferences": [owner::reference_to(&self.job)],
            },
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running"},
        });
        json_patch_merge(&mut pod, more);
        self.pods.push(typed(pod));
    }

    /// Changes the last pod.
    fn pod_is(&mut self, more: &Value) {
        let mut pod = json!(self.pods.pop().expect("there is a pod"));
        json_patch_merge(&mut pod, more);
        self.pods.push(typed(pod));
    }

    /// The last pod's worker has ended with that message.
    fn worker_ended(&mut self, phase: &str, end: &Value) {
        let statuses = json!([{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": end},
        }]);
        self.pod_is(&json!({"status": {"phase": phase, "containerStatuses": statuses}}));
    }

    /// It has ended with that report.
    fn reported(&mut self, exit_code: i32, report: &Value) {
        let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
        self.worker_ended(
            phase,
            &json!({"exitCode": exit_code, "reason": "Error", "message": report.to_string()}),
        );
    }

    fn status(&self) -> &KernelJobStatus {
        self.job.status.as_ref().expect("a status was written")
    }

    fn last(&self) -> &KernelJobAttempt {
        self.status().attempts.last().expect("a try was entered")
    }

    /// Why the last try failed, or is to end.
    fn why(&self) -> (&str, &str) {
        let last = self.last();
        (last.reason.as_deref().unwrap_or_default(), last.message.as_deref().unwrap_or_default())
    }

    fn phase(&self) -> &str {
        self.status().phase.as_deref().unwrap_or_default()
    }

    fn condition(&self, kind: &str) -> (&str, &str, &str) {
        let found = conditions::find(&self.status().conditions, kind);
        found.map_or_else(Default::default, |found| (&*found.status, &*found.reason, &*found.message))
    }
}

fn typed<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("the test writes valid objects")
}

fn events(plan: &Plan) -> Vec<String> {
    describe(&plan.actions).into_iter().filter(|line| line.starts_with("event")).collect()
}

fn failed_with(reason: Reason, message: &str) -> Option<Failure> {
    let error = ApiError::new(reason, message);
    Some(Failure { action: "ensure".to_owned(), verb: claw_runtime::execute::ENSURE, error })
}

#[test]
fn a_try_is_entered_before_anything_is_made_for_it() {
    let mut stage = Stage::set(&json!({}));
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(
        (stage.last().pod.as_str(), stage.last().uid.as_deref(), stage.phase()),
        ("sum-0", None, "Pending")
    );
    assert_eq!(stage.status().start_time.as_ref().unwrap().0.as_second(), 100);
    assert_eq!(stage.step(), ["ensure configmaps default/sum-order", "ensure pods default/sum-0"]);
    assert_eq!(stage.status().attempts.len(), 1, "it is the same try until its pod is seen");
}

#[test]
fn a_pod_is_written_down_once_it_is_seen_and_then_nothing_is_done_but_wait() {
    let mut stage = Stage::set(&json!({}));
    stage.step();
    stage.make_pod(&json!({"spec": {"nodeName": null}, "status": {"phase": "Pending"}}));
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!((stage.last().uid.as_deref(), stage.last().node.as_deref()), (Some("uid-sum-0"), None));
    stage.pod_is(&json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}));
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!((stage.last().node.as_deref(), stage.phase()), (Some("n1"), "Running"));
}

#[test]
fn why_it_waits_is_in_the_words_of_the_scheduler_and_of_the_node() {
    let mut stage = Stage::set(&json!({}));
    stage.step();
    let unscheduled =
        json!({"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"});
    stage.make_pod(
        &json!({"spec": {"nodeName": null}, "status": {"phase": "Pending", "conditions": [unscheduled]}}),
    );
    stage.step();
    assert_eq!(
        (stage.phase(), stage.status().progress.as_deref()),
        ("Pending", Some("0/1 nodes are available"))
    );
    let stuck = json!({"phase": "Pending", "conditions": [], "message": "configmap \"data\" not found"});
    stage.pod_is(&json!({"spec": {"nodeName": "n1"}, "status": stuck}));
    stage.step();
    assert_eq!(stage.status().progress.as_deref(), Some("configmap \"data\" not found"));
}

#[test]
fn what_the_worker_does_is_copied() {
    let mut stage = Stage::running(&json!({}));
    assert_eq!(stage.status().progress, None);
    let progress = json!({"type": "clawbernetes.io/Progress", "status": "True", "message": "run 3 of 10"});
    stage.pod_is(&json!({"status": {"conditions": [progress]}}));
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(stage.status().progress.as_deref(), Some("run 3 of 10"));
    let before = stage.status().clone();
    stage.step();
    assert_eq!(*stage.status(), before, "nothing changed, so nothing is written");
}

#[test]
fn a_job_that_goes_is_left_alone() {
    let mut stage = Stage::running(&json!({}));
    stage.job.metadata.deletion_timestamp = Some(typed(json!("2026-01-01T00:00:00Z")));
    let plan = stage.plan();
    assert!(plan.actions.is_empty() && plan.status.is_none(), "{plan:?}");
}

#[test]
fn pods_that_no_try_needs_are_deleted_and_those_of_others_are_not() {
    let mut stage = Stage::running(&json!({}));
    let mut stray = stage.pods[0].clone();
    (stray.metadata.name, stray.metadata.uid) = (Some("stray".to_owned()), Some("uid-stray".to_owned()));
    let mut other = stray.clone();
    other.metadata.name = Some("other".to_owned());
    other.metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned();
    stage.pods.extend([stray, other]);
    assert_eq!(stage.step(), ["delete pods default/stray"]);
}
