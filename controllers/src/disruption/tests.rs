//! What a budget allows, for pictures of the world.

use claw_runtime::caches::Caches;
use serde_json::{Value, json};

use super::*;
use crate::pods::build;

fn now() -> Timestamp {
    Timestamp::from_second(1_000).unwrap()
}

fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    serde_json::from_value(json!({
        "metadata": {"name": "b", "namespace": "default", "generation": 3}, "spec": spec, "status": status,
    }))
    .unwrap()
}

/// Pods of a set of a deployment, of which some are ready.
fn pods(ready: usize, unready: usize) -> Vec<Pod> {
    let of = |number: usize| {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "set", "controller": true}]);
        build::pod(
            &format!("p{number}"),
            json!({"metadata": {"labels": {"app": "web"}, "ownerReferences": owner}}),
        )
    };
    let ready_ones = (0..ready).map(|number| build::ready(of(number), 10));
    ready_ones.chain((ready..ready + unready).map(of)).collect()
}

fn world(pods: Vec<Pod>, replicas: i32) -> World {
    let caches = Caches::offline();
    let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "deployment", "controller": true}]);
    let set = json!({"metadata": {"name": "web-1", "namespace": "default", "uid": "set", "ownerReferences": owner}, "spec": {"replicas": 1, "selector": {}}});
    let deployment = json!({"metadata": {"name": "web", "namespace": "default", "uid": "deployment"}, "spec": {"replicas": replicas, "selector": {}, "template": {}}});
    caches.set::<ReplicaSet>(vec![serde_json::from_value(set).unwrap()]);
    caches.set::<Deployment>(vec![serde_json::from_value(deployment).unwrap()]);
    caches.set(pods);
    caches.world()
}

fn counted(budget: PodDisruptionBudget, world: &World) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let plan = Budgets.plan(&Arc::new(budget), world, now());
    (serde_json::from_value(plan.status.unwrap()).unwrap(), plan.requeue_after)
}

fn figures(status: &PodDisruptionBudgetStatus) -> [i32; 4] {
    let figures =
        [status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed];
    figures.map(Option::unwrap)
}

#[test]
fn numbers_and_shares_decide_how_many_may_go() {
    for (spec, ready, unready, replicas, expected) in [
        (json!({"minAvailable": 2}), 3, 0, 3, [3, 2, 3, 1]),
        (json!({"minAvailable": 2}), 2, 1, 3, [3, 2, 2, 0]),
        (json!({"minAvailable": 5}), 3, 0, 3, [3, 5, 3, 0]),
        (json!({"minAvailable": "50%"}), 3, 0, 3, [3, 2, 3, 1]),
        (json!({"minAvailable": "100%"}), 3, 0, 3, [3, 3, 3, 0]),
        (json!({"maxUnavailable": 1}), 3, 0, 3, [3, 2, 3, 1]),
        (json!({"maxUnavailable": 1}), 2, 0, 3, [3, 2, 2, 0]),
        (json!({"maxUnavailable": "30%"}), 10, 0, 10, [10, 7, 10, 3]),
        (json!({"maxUnavailable": "25%"}), 3, 0, 3, [3, 2, 3, 1]),
        (json!({"maxUnavailable": 9}), 3, 0, 3, [3, 0, 3, 3]),
        (json!({"minAvailable": 0}), 0, 0, 3, [0, 0, 0, 0]),
        (json!({"maxUnavailable": "100%"}), 0, 0, 3, [0, 0, 0, 0]),
    ] {
        let (status, _) = counted(budget(spec.clone(), json!({})), &world(pods(ready, unready), replicas));
        assert_eq!(figures(&status), expected, "{spec} of {ready}+{unready}/{replicas}");
        assert_eq!(status.observed_generation, Some(3));
        let condition = conditions::find(status.conditions.iter().flatten(), ALLOWED).unwrap();
        let said = if expected[3] > 0 { (TRUE, "SufficientPods") } else { (FALSE, "InsufficientPods") };
        assert_eq!((condition.status(), condition.reason()), said);
    }
}

#[test]
fn an_evicted_pod_counts_as_gone_before_it_is_seen_to_go_and_again_if_it_stays() {
    let evicted = |second: i64| {
        let time = Timestamp::from_second(second).unwrap().to_string();
        budget(json!({"minAvailable": 1}), json!({"disruptedPods": {"p0": time, "other": time}}))
    };
    let (status, again) = counted(evicted(990), &world(pods(3, 0), 3));
    assert_eq!(figures(&status), [3, 1, 2, 1]);
    assert_eq!(status.disrupted_pods.unwrap().keys().collect::<Vec<_>>(), ["p0"], "only of pods there are");
    assert_eq!(again, Some(Duration::from_secs(110)));
    let (status, again) = counted(evicted(870), &world(pods(3, 0), 3));
    assert_eq!((figures(&status), status.disrupted_pods, again), ([3, 1, 3, 2], None, None));
}

#[test]
fn a_pod_on_its_way_out_is_not_healthy() {
    let mut some = pods(3, 0);
    some[0].metadata.deletion_timestamp = Some(Time(now()));
    let (status, _) = counted(budget(json!({"maxUnavailable": 1}), json!({})), &world(some, 3));
    assert_eq!(figures(&status), [3, 2, 2, 0]);
}

#[test]
fn a_share_of_what_nobody_can_count_allows_nothing_and_says_why() {
    let owner =
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true}]);
    let of_job = build::pod("p", json!({"metadata": {"labels": {"app": "web"}, "ownerReferences": owner}}));
    let caches_of = |pod: Pod| world(vec![build::ready(pod, 10)], 3);
    let was = json!({"disruptionsAllowed": 4, "conditions": [{"type": UNATTENDED, "status": "False", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let (status, _) = counted(budget(json!({"maxUnavailable": 1}), was), &caches_of(of_job.clone()));
    assert_eq!(status.disruptions_allowed, Some(0));
    let all = status.conditions.unwrap();
    let condition = conditions::find(&all, ALLOWED).unwrap();
    assert_eq!((condition.status(), condition.reason()), (FALSE, "SyncFailed"));
    assert!(condition.message().contains("controlled by Job \"j\""), "{}", condition.message());
    assert_eq!(all.len(), 1, "somebody acts on budgets now");
    let (status, _) = counted(budget(json!({"minAvailable": 0}), json!({})), &caches_of(of_job));
    assert_eq!(figures(&status), [1, 0, 1, 1], "a number needs no share of anything");
}
