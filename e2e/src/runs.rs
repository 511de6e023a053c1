//! What must hold of kernel jobs at every moment, whoever dies: a job has one active pod at the most, no try has two pods, nothing is
//! calculated again once a pod was complete, and what is over stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::history::place_of;

/// Jobs and their pods as they are, one change after the other.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// Active pods by their job's uid.
    active: BTreeMap<String, BTreeSet<String>>,
    /// The pod of each name that a job gave, by the job's uid and the name.
    tries: BTreeMap<(String, String), String>,
    /// The pod that was complete, by its job's uid.
    complete: BTreeMap<String, String>,
    /// The status of a job that is over, by its uid.
    over: BTreeMap<String, Value>,
}

impl Runs {
    /// A pod as it is now, or is gone.
    ///
    /// # Errors
    /// When its job has another that is active, had one of its name, or has had one that was complete.
    pub fn pod(&mut self, pod: &Value, gone: bool) -> Result<(), String> {
        let Some(job) = job_of(pod) else { return Ok(()) };
        let (uid, name) = (text(&pod["metadata"]["uid"]), text(&pod["metadata"]["name"]));
        let first = self.tries.entry((job.clone(), name)).or_insert_with(|| uid.clone());
        if *first != uid {
            return Err(format!("{} is {uid}, and was {first}", place_of(pod)));
        }
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if let Some(complete) =
            self.complete.get(&job).filter(|complete| **complete != uid && !ended && !gone)
        {
            return Err(format!("{} is there although {complete} was complete", place_of(pod)));
        }
        if is_complete(pod) {
            self.complete.insert(job.clone(), uid.clone());
        }
        let active = self.active.entry(job).or_default();
        if gone || ended || !pod["metadata"]["deletionTimestamp"].is_null() {
            active.remove(&uid);
        } else {
            active.insert(uid);
        }
        if active.len() > 1 { Err(format!("{} is not alone: {active:?}", place_of(pod))) } else { Ok(()) }
    }

    /// A job as it is now.
    ///
    /// # Errors
    /// When it was over, and now says something else of how it ended.
    pub fn job(&mut self, job: &Value) -> Result<(), String> {
        let (uid, status) = (text(&job["metadata"]["uid"]), how_it_ended(&job["status"]));
        if let Some(before) = self.over.get(&uid).filter(|before| **before != status) {
            return Err(format!("{} was over with {before}, and now says {status}", place_of(job)));
        }
        let ends = ["Complete", "Failed"].into_iter().filter(|kind| is_true(job, kind)).count();
        if ends > 0 {
            self.over.insert(uid, status);
        }
        if ends > 1 { Err(format!("{} is complete and has failed", place_of(job))) } else { Ok(()) }
    }
}

/// The uid of the kernel job that controls a pod.
fn job_of(pod: &Value) -> Option<String> {
    let mut owners = pod["metadata"]["ownerReferences"].as_array()?.iter();
    let owner = owners.find(|owner| owner["controller"] == true && owner["kind"] == "KernelJob")?;
    owner["uid"].as_str().map(str::to_owned)
}

/// Whether its worker reports that it has calculated all.
fn is_complete(pod: &Value) -> bool {
    let mut all = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let worker = all.find(|one| one["name"] == "worker");
    let message = worker.and_then(|worker| worker["state"]["terminated"]["message"].as_str());
    let report = message.and_then(|message| serde_json::from_str::<Value>(message).ok());
    pod["status"]["phase"] == "Succeeded" && report.is_some_and(|report| report["state"] == "Complete")
}

fn how_it_ended(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(fields) = status.as_object_mut() {
        // What is said of a newer spec, e.g. of how long the job is kept.
        fields.remove("observedGeneration");
    }
    status
}

fn is_true(job: &Value, kind: &str) -> bool {
    let mut conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|one| one["type"] == kind && one["status"] == "True")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, phase: &str) -> Value {
        let owner = json!({"kind": "KernelJob", "uid": "job", "controller": true});
        json!({"metadata": {"name": name, "uid": uid, "ownerReferences": [owner]}, "status": {"phase": phase}})
    }

    fn job(kind: &str, figures: u64) -> Value {
        let condition = json!({"type": kind, "status": "True"});
        json!({"metadata": {"name": "j", "uid": "job"}, "status": {"figures": figures, "conditions": [condition]}})
    }

    #[test]
    fn a_second_pod_is_found_until_the_first_has_ended_or_goes() {
        let mut runs = Runs::default();
        assert!(runs.pod(&pod("j-0", "a", "Running"), false).is_ok());
        assert!(runs.clone().pod(&pod("j-1", "b", "Pending"), false).is_err());
        assert!(runs.clone().pod(&pod("j-0", "b", "Pending"), false).is_err(), "the same try");
        let mut going = pod("j-0", "a", "Running");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        for (end, gone) in
            [(pod("j-0", "a", "Failed"), false), (going, false), (pod("j-0", "a", "Running"), true)]
        {
            let mut runs = runs.clone();
            assert!(runs.pod(&end, gone).is_ok());
            assert!(runs.pod(&pod("j-1", "b", "Pending"), false).is_ok());
        }
        assert!(runs.pod(&json!({"metadata": {"name": "other"}}), false).is_ok());
    }

    #[test]
    fn whatever_runs_after_one_was_complete_is_found_though_that_is_gone() {
        let mut runs = Runs::default();
        let mut complete = pod("j-0", "a", "Succeeded");
        let end = json!({"message": json!({"state": "Complete"}).to_string()});
        complete["status"]["containerStatuses"] = json!([{"name": "worker", "state": {"terminated": end}}]);
        assert!(runs.pod(&complete, false).is_ok() && runs.pod(&complete, true).is_ok());
        assert!(runs.clone().pod(&pod("j-1", "b", "Pending"), false).is_err());
        assert!(runs.pod(&pod("j-1", "b", "Failed"), false).is_ok(), "it may have been there before");
    }

    #[test]
    fn what_is_over_stays_as_it_is() {
        let mut runs = Runs::default();
        assert!(runs.job(&json!({"metadata": {"uid": "job"}, "status": {"figures": 0}})).is_ok());
        assert!(runs.job(&job("Complete", 1)).is_ok() && runs.job(&job("Complete", 1)).is_ok());
        assert!(runs.clone().job(&job("Complete", 2)).is_err());
        assert!(runs.clone().job(&job("Failed", 1)).is_err());
    }
}
