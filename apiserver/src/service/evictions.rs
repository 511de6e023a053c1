//! Evictions: deletions of pods that ask the disruption budgets first.
//!
//! A budget is changed in the transaction that deletes the pod. So of two evictions at the same time that want the last
//! disruption which a budget allows, one is refused.

use claw_client::{
    Response,
    request::{View, WriteOptions},
};
use claw_schemas::{
    ApiError,
    schema::time_text,
    selector::LabelSelector,
    status::{Cause, Reason},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    ObjectService, decode,
    delete::{Why, success},
    encode, errors,
    kinds::Target,
    object::{check_name, is_deleting, text},
    pods::delete_options,
};
use crate::store::{Change, Expect, Key, Write};

const GROUP: &str = "policy";
const PLURAL: &str = "poddisruptionbudgets";

/// The group is served in its first version only, but kubectl up to 1.21 sends evictions of the one before it, which look
/// the same.
const VERSIONS: [&str; 2] = ["policy/v1", "policy/v1beta1"];

/// Pods of one budget that may be on their way out at a time; more would make it too large an object. Upstream's figure.
const DISRUPTED_MAX: usize = 2000;

/// How soon to try again while a budget is not counted yet.
const COUNTING_RETRY_S: u32 = 10;

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

impl ObjectService {
    /// Deletes a pod on behalf of somebody who empties a node, unless a budget forbids it.
    pub(super) async fn evict(
        &self,
        target: &Target,
        sent: &[u8],
        options: &WriteOptions,
    ) -> Result<Response, ApiError> {
        let mut eviction = decode::document(sent)?.value;
        expect_eviction(&eviction)?;
        if !text(&eviction, "name").is_empty() {
            check_name(target, &eviction)?;
        }
        self.ask_about(target, &mut eviction, options).await?;
        let mut delete = delete_options(&eviction["deleteOptions"])?;
        delete.dry_run |= options.dry_run;
        self.delete_because(target, &delete, View::Object, Why::Evicted).await?;
        Ok(Response { code: 201, body: success(target, ""), warnings: Vec::new() })
    }

    /// What the eviction of a pod changes in its budget.
    pub(super) async fn disruption(&self, target: &Target, pod: &Value) -> Result<Vec<Write>, ApiError> {
        if is_no_disruption(pod) {
            return Ok(Vec::new());
        }
        let prefix = Key::collection(GROUP, PLURAL, Some(&target.namespace));
        let stored = self.store.list(&prefix, None, 0, None).await.map_err(errors::from_store)?.items;
        let mut budgets = Vec::new();
        for record in stored {
            let budget = encode::value_of(&record)?;
            if covers(&budget, pod) {
                budgets.push((record, budget));
            }
        }
        let Some((record, mut budget)) = budgets.pop() else { return Ok(Vec::new()) };
        if !budgets.is_empty() {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::of_code(500, why));
        }
        if !takes_one(&budget, pod)? {
            return Ok(Vec::new());
        }
        take(&mut budget, &target.name, Timestamp::now());
        let change = Change::Put(encode::draft(&budget));
        Ok(vec![Write { key: record.key, expect: Expect::Revision(record.revision), change }])
    }
}

fn expect_eviction(eviction: &Value) -> Result<(), ApiError> {
    let said = |field: &str| eviction[field].as_str().unwrap_or_default();
    let (version, kind) = (said("apiVersion"), said("kind"));
    if matches!(kind, "" | "Eviction") && (version.is_empty() || VERSIONS.contains(&version)) {
        return Ok(());
    }
    let expected = VERSIONS[0];
    Err(ApiError::bad_request(format!(
        "the data ({version}, {kind}) does not match the expected ({expected}, Eviction)"
    )))
}

/// Whether nothing is lost with a pod: it does not run yet, or not any more.
fn is_no_disruption(pod: &Value) -> bool {
    is_deleting(pod) || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
}

/// Whether a budget is about a pod. An empty selector is about all, none about no pod.
fn covers(budget: &Value, pod: &Value) -> bool {
    let selector = &budget["spec"]["selector"];
    let parsed = serde_json::from_value(selector.clone()).ok();
    let selector =
        parsed.filter(|_| selector.is_object()).and_then(|one| LabelSelector::from_meta(&one).ok());
    selector.is_some_and(|one| one.matches_with(|key| pod["metadata"]["labels"][key].as_str()))
}

/// Whether an eviction takes one of the disruptions that a budget allows, or needs none.
fn takes_one(budget: &Value, pod: &Value) -> Result<bool, ApiError> {
    let status = &budget["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let (healthy, desired) = (count("currentHealthy"), count("desiredHealthy"));
    if !is_ready(pod) {
        let spared = match budget["spec"]["unhealthyPodEvictionPolicy"].as_str() {
            Some("AlwaysAllow") => true,
            _ => healthy >= desired && desired > 0,
        };
        if spared {
            return Ok(false);
        }
    }
    let name = text(budget, "name");
    if count("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(why, COUNTING_RETRY_S));
    }
    let forbidden = |why: &str| {
        let message = format!("{PLURAL}.{GROUP} \"{name}\" is forbidden: {why}");
        Err(ApiError::new(Reason::Forbidden, message).about(GROUP, PLURAL, name))
    };
    if count("disruptionsAllowed") < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_MAX) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if count("disruptionsAllowed") == 0 {
        return Err(refused(why_none(budget, healthy, desired), 0));
    }
    Ok(true)
}

fn why_none(budget: &Value, healthy: i64, desired: i64) -> String {
    let name = text(budget, "name");
    let failed = |one: &&Value| one["type"] == "DisruptionAllowed" && one["reason"] == "SyncFailed";
    match budget["status"]["conditions"].as_array().into_iter().flatten().find(failed) {
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            condition["message"].as_str().unwrap_or_default()
        ),
        None => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        }
    }
}

fn refused(why: String, retry_after_s: u32) -> ApiError {
    let mut error = ApiError::too_many_requests(REFUSED, retry_after_s);
    let reason = "DisruptionBudget".to_owned();
    error.details.causes.push(Cause { reason, message: why, field: String::new() });
    error
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// Writes into a pod that goes that it had to make room, for whoever counts its failures. Upstream's words.
pub(super) fn tell(pod: &mut Value, now: Timestamp) {
    const TYPE: &str = "DisruptionTarget";
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    if conditions.iter().any(|one| one["type"] == TYPE && one["status"] == "True") {
        return;
    }
    conditions.retain(|one| one["type"] != TYPE);
    conditions.push(json!({
        "type": TYPE, "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastTransitionTime": time_text(now),
    }));
}

/// Takes one disruption of a budget. Until the pod is seen to go, its name says that it does not count any more.
fn take(budget: &mut Value, pod: &str, now: Timestamp) {
    let now = time_text(now);
    let status = &mut budget["status"];
    let left = status["disruptionsAllowed"].as_i64().unwrap_or(0) - 1;
    status["disruptionsAllowed"] = left.into();
    if !status["disruptedPods"].is_object() {
        status["disruptedPods"] = json!({});
    }
    status["disruptedPods"][pod] = now.as_str().into();
    let conditions = status["conditions"].as_array_mut().into_iter().flatten();
    for condition in conditions.filter(|one| left == 0 && one["type"] == "DisruptionAllowed") {
        condition["status"] = "False".into();
        condition["reason"] = "InsufficientPods".into();
        condition["lastTransitionTime"] = now.as_str().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, ready: &str) -> Value {
        json!({"metadata": {"labels": {"app": "a"}}, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "spec": {"selector": {"matchLabels": {"app": "a"}}}, "status": status})
    }

    fn counted(healthy: i64, desired: i64, allowed: i64) -> Value {
        budget(
            json!({"observedGeneration": 2, "currentHealthy": healthy, "desiredHealthy": desired, "disruptionsAllowed": allowed}),
        )
    }

    #[test]
    fn a_pod_that_does_not_run_is_no_disruption() {
        for (phase, lost) in [("Running", true), ("Pending", false), ("Succeeded", false), ("Failed", false)]
        {
            assert_eq!(!is_no_disruption(&pod(phase, "True")), lost, "{phase}");
        }
        let mut going = pod("Running", "True");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(is_no_disruption(&going));
    }

    #[test]
    fn what_a_budget_has_left_decides() {
        let running = pod("Running", "True");
        assert_eq!(takes_one(&counted(3, 2, 1), &running), Ok(true));
        let error = takes_one(&counted(2, 2, 0), &running).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (429, REFUSED));
        let cause = &error.details.causes[0];
        let said = "The disruption budget b needs 2 healthy pods and has 2 currently";
        assert_eq!((cause.reason.as_str(), cause.message.as_str()), ("DisruptionBudget", said));
        let fresh = takes_one(&budget(json!({"observedGeneration": 1, "disruptionsAllowed": 1})), &running)
            .unwrap_err();
        assert_eq!(fresh.details.retry_after_seconds, COUNTING_RETRY_S);
        assert!(fresh.details.causes[0].message.ends_with("is still being processed by the server."));
        assert_eq!(takes_one(&counted(2, 2, -1), &running).unwrap_err().code, 403);
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_freely_where_the_others_suffice() {
        let broken = pod("Running", "False");
        assert_eq!(takes_one(&counted(2, 2, 0), &broken), Ok(false));
        assert!(takes_one(&counted(1, 2, 0), &broken).is_err());
        let mut always = counted(1, 2, 0);
        always["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        assert_eq!(takes_one(&always, &broken), Ok(false));
    }

    #[test]
    fn an_evicted_pod_says_so_once() {
        let mut pod =
            json!({"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        tell(&mut pod, "2026-01-01T00:00:00Z".parse().unwrap());
        let told = pod.clone();
        tell(&mut pod, "2026-01-01T00:00:09Z".parse().unwrap());
        assert_eq!(pod, told);
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        assert_eq!((conditions.len(), &conditions[1]["type"]), (2, &json!("DisruptionTarget")));
        let mut bare = json!({"metadata": {}});
        tell(&mut bare, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(bare["status"]["conditions"][0]["reason"], "EvictionByEvictionAPI");
    }

    #[test]
    fn what_is_taken_is_written_down_by_name() {
        let mut budget = counted(3, 2, 1);
        budget["status"]["conditions"] =
            json!([{"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods"}]);
        take(&mut budget, "p", "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        assert_eq!(budget["status"]["disruptedPods"], json!({"p": "2026-01-01T00:00:00Z"}));
        let condition = &budget["status"]["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("False"), &json!("InsufficientPods"))
        );
    }

    #[test]
    fn selectors_choose_pods_and_no_selector_chooses_none() {
        let of = |selector: Value| covers(&json!({"spec": {"selector": selector}}), &pod("Running", "True"));
        assert!(of(json!({"matchLabels": {"app": "a"}})) && of(json!({})));
        assert!(!of(json!({"matchLabels": {"app": "b"}})) && !of(Value::Null));
    }

    #[test]
    fn evictions_of_either_version_are_understood() {
        for version in VERSIONS {
            assert_eq!(expect_eviction(&json!({"apiVersion": version, "kind": "Eviction"})), Ok(()));
        }
        assert_eq!(expect_eviction(&json!({"apiVersion": "v1", "kind": "Pod"})).unwrap_err().code, 400);
    }
}
