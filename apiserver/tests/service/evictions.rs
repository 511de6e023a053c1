//! Evictions against disruption budgets.

use claw_client::ResourceRef;
use claw_schemas::{ApiError, status::Reason};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::world::{World, pods, world};

fn budgets() -> ResourceRef {
    ResourceRef::collection("policy", "v1", "poddisruptionbudgets").in_namespace("default")
}

/// A ready pod that a node runs.
async fn running(world: &World, name: &str) {
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "i"}]},
    });
    world.create(pods(), &pod).await.unwrap();
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    world.create(pods().named(name).sub("binding"), &binding).await.unwrap();
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"status": {"phase": "Running", "conditions": ready}});
    world.merge(pods().named(name).sub("status"), &status).await.unwrap();
}

/// A budget as its controller has counted it.
async fn budget(world: &World, name: &str, allowed: i64) {
    let budget = json!({"metadata": {"name": name}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}});
    let made = world.create(budgets(), &budget).await.unwrap();
    let status = json!({"status": {
        "observedGeneration": made["metadata"]["generation"], "currentHealthy": 2 + allowed, "desiredHealthy": 2,
        "expectedPods": 4, "disruptionsAllowed": allowed,
    }});
    world.merge(budgets().named(name).sub("status"), &status).await.unwrap();
}

async fn evict(world: &World, name: &str) -> Result<Value, ApiError> {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}});
    world.create(pods().named(name).sub("eviction"), &eviction).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_evictions_at_once_exactly_those_that_the_budget_allows_pass() {
    let world = world().await;
    let names: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
    for name in &names {
        running(&world, name).await;
    }
    budget(&world, "web", 3).await;
    let outcomes = join_all(names.iter().map(|name| evict(&world, name))).await;
    let passed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(passed, 3);
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!((error.code, error.reason), (429, Reason::TooManyRequests), "{error}");
        assert_eq!(error.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        let cause = &error.details.causes[0];
        assert_eq!(cause.reason, "DisruptionBudget");
        assert_eq!(cause.message, "The disruption budget web needs 2 healthy pods and has 5 currently");
    }
    let status = world.get(budgets().named("web")).await.unwrap()["status"].clone();
    assert_eq!(status["disruptionsAllowed"], 0);
    let noted = status["disruptedPods"].as_object().unwrap();
    assert_eq!(noted.len(), 3);
    for name in &names {
        let pod = world.get(pods().named(name)).await.unwrap();
        let going = pod["metadata"]["deletionTimestamp"].is_string();
        assert_eq!(going, noted.contains_key(name), "{name} goes if, and only if, the budget knows of it");
    }
}

#[tokio::test]
async fn a_budget_that_nobody_has_counted_yet_lets_nothing_go() {
    let world = world().await;
    running(&world, "p").await;
    let fresh = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 0, "selector": {}}});
    world.create(budgets(), &fresh).await.unwrap();
    let error = evict(&world, "p").await.unwrap_err();
    assert_eq!((error.code, error.details.retry_after_seconds), (429, 10));
    // Deleting asks nobody.
    world.delete(pods().named("p"), Default::default()).await.unwrap();
}

#[tokio::test]
async fn two_budgets_on_one_pod_are_one_too_many() {
    let world = world().await;
    running(&world, "p").await;
    budget(&world, "a", 1).await;
    budget(&world, "b", 1).await;
    let error = evict(&world, "p").await.unwrap_err();
    assert_eq!(error.code, 500);
    assert!(error.message.contains("more than one PodDisruptionBudget"), "{error}");
}

#[tokio::test]
async fn pods_that_do_not_run_and_dry_runs_leave_the_budget_alone() {
    let world = world().await;
    budget(&world, "web", 1).await;
    let allowed =
        async || world.get(budgets().named("web")).await.unwrap()["status"]["disruptionsAllowed"].clone();
    let pending = json!({"metadata": {"name": "new", "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.create(pods(), &pending).await.unwrap();
    evict(&world, "new").await.unwrap();
    running(&world, "p").await;
    let dry = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": {"dryRun": ["All"]}});
    world.create(pods().named("p").sub("eviction"), &dry).await.unwrap();
    assert_eq!(allowed().await, 1);
    assert!(world.get(pods().named("p")).await.unwrap()["metadata"]["deletionTimestamp"].is_null());
    let wrong = json!({"metadata": {"name": "p"}, "deleteOptions": {"preconditions": {"uid": "other"}}});
    assert_eq!(world.create(pods().named("p").sub("eviction"), &wrong).await.unwrap_err().code, 409);
    assert_eq!(allowed().await, 1, "an eviction that does not happen takes nothing");
    evict(&world, "p").await.unwrap();
    assert_eq!(allowed().await, 0);
}
