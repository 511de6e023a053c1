//! How what an agent reports and what is stored become one status.
//!
//! Pure functions over JSON. An agent owns almost all of a status; what others own in it stays. A condition
//! that does not change keeps the time of its last change, whatever the report says.

use claw_schemas::{api::PROGRESS, gpu};
use serde_json::{Map, Value, json};

/// Pod conditions that the agent alone writes: when it leaves one out, it is gone.
const AGENT_POD_CONDITIONS: [&str; 5] =
    ["Initialized", "ContainersReady", "Ready", "PodReadyToStartContainers", PROGRESS];
/// The scheduler's.
const POD_SCHEDULED: &str = "PodScheduled";
/// Pod status fields that others write.
const FOREIGN_POD_FIELDS: [&str; 3] = ["nominatedNodeName", "qosClass", "resourceClaimStatuses"];

/// The status of a pod after a report. `None`, when the report must be ignored: a pod that has finished stays
/// finished.
pub fn pod_status(stored: &Value, reported: Value, now: &str) -> Option<Value> {
    let (before, after) = (phase(stored), phase(&reported));
    if matches!(before, "Succeeded" | "Failed") && before != after {
        return None;
    }
    let Value::Object(mut status) = reported else { return None };
    for field in FOREIGN_POD_FIELDS {
        if let Some(value) = stored.get(field) {
            status.insert(field.to_owned(), value.clone());
        }
    }
    let reported = take_conditions(&mut status);
    let merged = conditions(
        stored,
        reported
            .into_iter()
            .filter(|one| kind(one) != POD_SCHEDULED || !has_condition(stored, POD_SCHEDULED)),
        |kind| !AGENT_POD_CONDITIONS.contains(&kind),
        now,
    );
    if !merged.is_empty() {
        status.insert("conditions".to_owned(), Value::Array(merged));
    }
    Some(Value::Object(status))
}

/// The status of a node after a report: fields it has replace the stored ones, conditions are merged by type, and
/// `ready`, if given, is the `Ready` condition whatever the report says.
pub fn node_status(stored: &Value, reported: Value, ready: Option<Value>, now: &str) -> Value {
    let mut status = stored.as_object().cloned().unwrap_or_default();
    let mut news = match reported {
        Value::Object(news) => news,
        _ => Map::new(),
    };
    let mut reported = take_conditions(&mut news);
    // Who states what the machine has states how its GPUs are, or that there are none.
    let is_whole = news.contains_key("capacity");
    if let Some(ready) = ready {
        reported.retain(|one| kind(one) != "Ready");
        reported.push(ready);
    }
    status.extend(news);
    let merged = conditions(stored, reported.into_iter(), |kind| !is_whole || kind != gpu::CONDITION, now);
    if !merged.is_empty() {
        status.insert("conditions".to_owned(), Value::Array(merged));
    }
    Value::Object(status)
}

/// The `Ready` condition of a reported node status.
pub fn ready_of(status: &Value) -> Option<&Value> {
    status.get("conditions")?.as_array()?.iter().find(|one| kind(one) == "Ready")
}

/// A `Ready` condition.
pub fn ready(status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": "Ready", "status": status, "reason": reason, "message": message })
}

/// Merges conditions by type, in the stored order with new ones behind. Stored ones that are not reported stay if
/// `keep` says so.
fn conditions(
    stored: &Value,
    reported: impl Iterator<Item = Value>,
    keep: impl Fn(&str) -> bool,
    now: &str,
) -> Vec<Value> {
    let old = stored.get("conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut reported: Vec<Value> = reported.filter(Value::is_object).collect();
    let mut merged = Vec::with_capacity(old.len() + reported.len());
    for before in old {
        match reported.iter().position(|one| kind(one) == kind(before)) {
            Some(place) => merged.push(condition(Some(before), reported.remove(place), now)),
            None if keep(kind(before)) => merged.push(before.clone()),
            None => {}
        }
    }
    merged.extend(reported.into_iter().map(|one| condition(None, one, now)));
    merged
}

/// One condition after a report.
fn condition(before: Option<&Value>, mut reported: Value, now: &str) -> Value {
    let same = |field: &str| before.is_some_and(|before| before.get(field) == reported.get(field));
    let unchanged_status = same("status");
    // A heartbeat time alone is no change worth storing. What it is about is: clients wait for the generation that they made.
    if unchanged_status && same("reason") && same("message") && same("observedGeneration") {
        return before.cloned().unwrap_or(reported);
    }
    let kept =
        before.filter(|_| unchanged_status).and_then(|before| before.get("lastTransitionTime")).cloned();
    if let Some(fields) = reported.as_object_mut() {
        match kept {
            Some(time) => drop(fields.insert("lastTransitionTime".to_owned(), time)),
            None if fields.get("lastTransitionTime").is_none_or(Value::is_null) => {
                fields.insert("lastTransitionTime".to_owned(), now.into());
            }
            None => {}
        }
    }
    reported
}

fn take_conditions(status: &mut Map<String, Value>) -> Vec<Value> {
    match status.remove("conditions") {
        Some(Value::Array(conditions)) => conditions,
        _ => Vec::new(),
    }
}

fn has_condition(status: &Value, wanted: &str) -> bool {
    let conditions = status.get("conditions").and_then(Value::as_array);
    conditions.is_some_and(|conditions| conditions.iter().any(|one| kind(one) == wanted))
}

fn kind(condition: &Value) -> &str {
    condition.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn phase(status: &Value) -> &str {
    status.get("phase").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn the_scheduler_keeps_its_condition_and_others_their_fields() {
        let stored = json!({
            "phase": "Pending", "qosClass": "Burstable",
            "conditions": [
                { "type": "PodScheduled", "status": "True", "lastTransitionTime": "t1" },
                { "type": "DisruptionTarget", "status": "True", "lastTransitionTime": "t1" },
                { "type": "Initialized", "status": "True", "lastTransitionTime": "t1" },
            ],
        });
        let reported = json!({
            "phase": "Running", "qosClass": "Guaranteed", "podIP": "10.88.0.2",
            "conditions": [
                { "type": "PodScheduled", "status": "False" },
                { "type": "Ready", "status": "True" },
            ],
        });
        assert_eq!(
            pod_status(&stored, reported, NOW).unwrap(),
            json!({
                "phase": "Running", "qosClass": "Burstable", "podIP": "10.88.0.2",
                "conditions": [
                    { "type": "PodScheduled", "status": "True", "lastTransitionTime": "t1" },
                    { "type": "DisruptionTarget", "status": "True", "lastTransitionTime": "t1" },
                    { "type": "Ready", "status": "True", "lastTransitionTime": NOW },
                ],
            })
        );
    }

    #[test]
    fn a_worker_that_says_nothing_any_more_makes_no_progress() {
        let stored = json!({ "phase": "Running", "conditions": [
            { "type": PROGRESS, "status": "True", "lastTransitionTime": "t1", "message": "run 1 of 2" },
        ] });
        let reported = |conditions: Value| json!({ "phase": "Running", "conditions": conditions });
        let further = json!([{ "type": PROGRESS, "status": "True", "message": "run 2 of 2" }]);
        let merged = pod_status(&stored, reported(further), NOW).unwrap();
        assert_eq!(merged["conditions"][0]["message"], "run 2 of 2");
        assert_eq!(merged["conditions"][0]["lastTransitionTime"], "t1", "it still works");
        assert!(!has_condition(&pod_status(&stored, reported(json!([])), NOW).unwrap(), PROGRESS));
    }

    #[test]
    fn a_condition_says_which_generation_it_is_about() {
        let condition = |generation: u32| {
            json!({ "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "t1", "observedGeneration": generation },
        ] })
        };
        assert_eq!(pod_status(&condition(1), condition(2), NOW).unwrap(), condition(2));
    }

    #[test]
    fn the_same_report_twice_changes_nothing() {
        let reported = json!({
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "t1" }],
        });
        let stored = pod_status(&json!({}), reported.clone(), NOW).unwrap();
        let later = json!({
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "t2", "lastProbeTime": "t2" }],
        });
        assert_eq!(pod_status(&stored, reported, NOW).unwrap(), stored);
        assert_eq!(pod_status(&stored, later, NOW).unwrap(), stored);
    }

    #[test]
    fn a_new_reason_is_stored_but_does_not_count_as_a_transition() {
        let stored = json!({ "conditions": [
            { "type": "Ready", "status": "False", "reason": "A", "lastTransitionTime": "t1" },
        ] });
        let reported = json!({ "conditions": [{ "type": "Ready", "status": "False", "reason": "B" }] });
        let merged = pod_status(&stored, reported, NOW).unwrap();
        assert_eq!(merged["conditions"][0]["reason"], "B");
        assert_eq!(merged["conditions"][0]["lastTransitionTime"], "t1");
    }

    #[test]
    fn a_finished_pod_stays_finished() {
        let stored = json!({ "phase": "Succeeded" });
        assert_eq!(pod_status(&stored, json!({ "phase": "Running" }), NOW), None);
        assert_eq!(pod_status(&stored, json!({ "phase": "Failed" }), NOW), None);
        assert!(pod_status(&stored, json!({ "phase": "Succeeded", "podIP": "x" }), NOW).is_some());
        assert_eq!(pod_status(&stored, json!("garbage"), NOW), None);
    }

    #[test]
    fn a_machine_that_lost_its_gpus_says_nothing_of_them() {
        let gpus = json!({ "type": gpu::CONDITION, "status": "True", "lastTransitionTime": "t1" });
        let stored = json!({ "conditions": [gpus] });
        let alive = node_status(&stored, json!({}), Some(ready("True", "AgentReady", "m")), NOW);
        assert_eq!(alive["conditions"][0], gpus, "who speaks of readiness alone changes nothing else");
        let merged = node_status(&alive, json!({ "capacity": { "cpu": "4" } }), None, NOW);
        assert_eq!(merged["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(merged["conditions"][0]["type"], "Ready");
    }

    #[test]
    fn a_node_report_replaces_what_it_has_and_keeps_the_rest() {
        let stored = json!({
            "capacity": { "cpu": "2" }, "daemonEndpoints": {},
            "conditions": [
                { "type": "Ready", "status": "Unknown", "lastTransitionTime": "t1" },
                { "type": "NetworkUnavailable", "status": "False", "lastTransitionTime": "t1" },
            ],
        });
        let reported = json!({ "capacity": { "cpu": "4" } });
        let merged = node_status(&stored, reported, Some(ready("True", "AgentReady", "m")), NOW);
        assert_eq!(merged["capacity"]["cpu"], "4");
        assert_eq!(merged["daemonEndpoints"], json!({}));
        assert_eq!(merged["conditions"][0]["status"], "True");
        assert_eq!(merged["conditions"][0]["lastTransitionTime"], NOW);
        assert_eq!(merged["conditions"][1]["type"], "NetworkUnavailable");
    }
}
