//! Plans of ReplicaSets, as text.

use claw_client::ApiError;
use claw_runtime::{action::describe, caches::Caches, execute::Failure};
use claw_schemas::status::Reason;
use serde_json::json;

use super::*;
use crate::pods::build::{json_patch_merge, pod, ready};

fn set(more: serde_json::Value) -> ReplicaSet {
    let mut base = json!({
        "metadata": {"name": "web-1", "namespace": "default", "uid": "uid-web-1", "generation": 2},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"note": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    json_patch_merge(&mut base, &more);
    serde_json::from_value(base).unwrap()
}

fn replica(name: &str, more: serde_json::Value) -> Pod {
    let mut pod = pod(name, json!({"metadata": {"labels": {"app": "web"}}, "status": {"phase": "Running"}}));
    pod.metadata.owner_references = Some(vec![owner::reference_to(&set(json!({})))]);
    let mut value = serde_json::to_value(pod).unwrap();
    json_patch_merge(&mut value, &more);
    serde_json::from_value(value).unwrap()
}

fn world(set: &ReplicaSet, pods: Vec<Pod>) -> World {
    let caches = Caches::offline();
    caches.set(vec![set.clone()]);
    caches.set(pods);
    caches.world()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn plan(set: ReplicaSet, pods: Vec<Pod>) -> Plan {
    let world = world(&set, pods);
    ReplicaSets.plan(&Arc::new(set), &world, at(100))
}

fn status_of(plan: &Plan) -> ReplicaSetStatus {
    serde_json::from_value(plan.status.clone().unwrap()).unwrap()
}

#[test]
fn missing_pods_are_created_from_the_template() {
    let plan = plan(set(json!({})), vec![replica("a", json!({}))]);
    assert_eq!(describe(&plan.actions), ["create pods default/web-1-*"; 2]);
    let claw_runtime::action::Step::Create(body) = &plan.actions[0].step else { panic!() };
    assert_eq!(body["metadata"]["generateName"], "web-1-");
    assert_eq!(body["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(body["metadata"]["annotations"], json!({"note": "x"}));
    let owner = &body["metadata"]["ownerReferences"][0];
    assert_eq!(owner["kind"], "ReplicaSet");
    assert_eq!((&owner["controller"], &owner["blockOwnerDeletion"]), (&json!(true), &json!(true)));
    assert_eq!(body["spec"]["containers"][0]["image"], "i");
}

#[test]
fn pods_that_end_or_leave_are_replaced_and_not_counted() {
    let pods = vec![
        replica("a", json!({})),
        replica("b", json!({"status": {"phase": "Failed"}})),
        replica("c", json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"}})),
    ];
    let plan = plan(set(json!({})), pods);
    assert_eq!(describe(&plan.actions), ["create pods default/web-1-*"; 2]);
    let status = status_of(&plan);
    assert_eq!((status.replicas, status.terminating_replicas), (1, Some(1)));
}

#[test]
fn too_many_pods_are_deleted_the_least_useful_first() {
    let pods = vec![
        ready(replica("a", json!({"spec": {"nodeName": "n1", "containers": []}})), 10),
        replica("b", json!({"spec": {"nodeName": "n2", "containers": []}})),
        ready(replica("c", json!({"spec": {"nodeName": "n3", "containers": []}})), 90),
    ];
    let plan = plan(set(json!({"spec": {"replicas": 1}})), pods);
    assert_eq!(describe(&plan.actions), ["delete pods default/b", "delete pods default/c"]);
}

#[test]
fn an_orphan_that_matches_is_adopted_and_one_that_stopped_matching_is_released() {
    let mut stranger = replica("stranger", json!({"metadata": {"labels": {"app": "other"}}}));
    stranger.metadata.owner_references = None;
    let mut orphan = replica("orphan", json!({}));
    orphan.metadata.owner_references = None;
    let relabelled = replica("relabelled", json!({"metadata": {"labels": {"app": "debug"}}}));
    let plan = plan(set(json!({"spec": {"replicas": 1}})), vec![stranger, orphan, relabelled]);
    let reference = serde_json::to_string(&owner::reference_to(&set(json!({})))).unwrap();
    assert_eq!(
        describe(&plan.actions),
        [
            r#"patch pods default/relabelled {"metadata":{"ownerReferences":[{"$patch":"delete","uid":"uid-web-1"}]}}"#
                .to_owned(),
            "confirm replicasets default/web-1".to_owned(),
            format!(
                r#"patch pods default/orphan {{"metadata":{{"ownerReferences":[{}]}}}}"#,
                sorted(&reference)
            ),
        ],
    );
    assert_eq!(status_of(&plan).replicas, 1, "the adopted pod counts");
}

/// JSON with its keys in the order that `serde_json::Value` prints them.
fn sorted(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json).unwrap().to_string()
}

#[test]
fn pods_of_another_controller_are_left_alone() {
    let mut foreign = replica("foreign", json!({}));
    foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "somebody".into();
    let plan = plan(set(json!({"spec": {"replicas": 0}})), vec![foreign]);
    assert_eq!(describe(&plan.actions), [""; 0]);
}

#[test]
fn a_set_that_is_being_deleted_touches_no_pod() {
    let deleting = set(json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:00Z"}}));
    let mut orphan = replica("orphan", json!({}));
    orphan.metadata.owner_references = None;
    let plan = plan(deleting, vec![replica("a", json!({})), orphan]);
    assert_eq!(describe(&plan.actions), [""; 0]);
}

#[test]
fn availability_waits_for_min_ready_seconds_and_asks_to_look_again() {
    let pods = vec![ready(replica("a", json!({})), 95), ready(replica("b", json!({})), 10)];
    let plan = plan(set(json!({"spec": {"replicas": 2, "minReadySeconds": 30}})), pods);
    let status = status_of(&plan);
    assert_eq!((status.ready_replicas, status.available_replicas), (Some(2), Some(1)));
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(25)));
}

#[test]
fn a_refused_create_shows_as_a_condition_until_it_succeeds() {
    let error = ApiError::new(Reason::Forbidden, "exceeded quota");
    let failure = Failure { action: String::new(), verb: "create", error };
    let set = Arc::new(set(json!({})));
    let failed = ReplicaSets.plan(&set, &world(&set, vec![]).after_failure(Some(failure)), at(1));
    let conditions = status_of(&failed).conditions.unwrap();
    assert_eq!(conditions[0].type_, "ReplicaFailure");
    assert_eq!(conditions[0].reason.as_deref(), Some("FailedCreate"));
    assert_eq!(conditions[0].message.as_deref(), Some("exceeded quota"));
    let mut again = (*set).clone();
    again.status = Some(status_of(&failed));
    assert_eq!(status_of(&plan(again, vec![])).conditions, None);
}

#[test]
fn one_plan_creates_no_more_than_a_burst() {
    let plan = plan(set(json!({"spec": {"replicas": 2000}})), vec![]);
    assert_eq!(plan.actions.len(), BURST_MAX);
}
