//! Deleting: grace, finalizers, preconditions, whole collections.

use claw_client::{
    Verb,
    request::{DeleteOptions, ListOptions, Propagation},
};
use claw_schemas::status::Reason;
use serde_json::json;

use crate::world::{bound_pod, configmaps, deployment, deployments, names, pod, pods, world};

fn grace(seconds: i64) -> DeleteOptions {
    DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
}

#[tokio::test]
async fn a_plain_delete_answers_success_with_the_uid() {
    let world = world().await;
    world.configmap("x", &json!({})).await;
    let uid = world.get(configmaps().named("x")).await.unwrap()["metadata"]["uid"].clone();
    let status = world.delete(configmaps().named("x"), Default::default()).await.unwrap();
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(status["details"], json!({"name": "x", "kind": "configmaps", "uid": uid}));
    assert!(world.get(configmaps().named("x")).await.is_err());
}

#[tokio::test]
async fn a_bound_pod_stays_until_its_node_has_stopped_it() {
    let world = world().await;
    bound_pod(&world, "x").await;
    let marked = world.delete(pods().named("x"), Default::default()).await.unwrap();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again = world.delete(pods().named("x"), Default::default()).await.unwrap();
    assert_eq!(again, marked, "a second delete changes nothing");
    let gone = world.delete(pods().named("x"), grace(0)).await.unwrap();
    assert_eq!(gone["kind"], "Pod");
    assert!(world.get(pods().named("x")).await.is_err());
}

#[tokio::test]
async fn a_pod_that_runs_nowhere_goes_at_once() {
    let world = world().await;
    world.create(pods(), &pod("unbound")).await.unwrap();
    world.delete(pods().named("unbound"), Default::default()).await.unwrap();
    bound_pod(&world, "over").await;
    world
        .merge(pods().named("over").sub("status"), &json!({"status": {"phase": "Succeeded"}}))
        .await
        .unwrap();
    world.delete(pods().named("over"), Default::default()).await.unwrap();
    assert!(names(&world.list(pods(), Default::default()).await.unwrap()).is_empty());
}

#[tokio::test]
async fn an_object_with_finalizers_goes_when_the_last_is_removed() {
    let world = world().await;
    let body = json!({"metadata": {"name": "x", "finalizers": ["example.com/a", "example.com/b"]}});
    world.create(configmaps(), &body).await.unwrap();
    let marked = world.delete(configmaps().named("x"), Default::default()).await.unwrap();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let more = json!({"metadata": {"finalizers": ["example.com/a", "example.com/b", "example.com/c"]}});
    let error = world.merge(configmaps().named("x"), &more).await.unwrap_err();
    assert_eq!(error.details.causes[0].field, "metadata.finalizers");
    let one = json!({"metadata": {"finalizers": ["example.com/b"]}});
    world.merge(configmaps().named("x"), &one).await.unwrap();
    let none = json!({"metadata": {"finalizers": null}});
    world.merge(configmaps().named("x"), &none).await.unwrap();
    assert_eq!(world.get(configmaps().named("x")).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn propagation_policies_leave_their_finalizer_for_the_collector() {
    let world = world().await;
    for (name, policy, finalizer) in
        [("a", Propagation::Foreground, "foregroundDeletion"), ("b", Propagation::Orphan, "orphan")]
    {
        world.create(deployments(), &deployment(name, 1)).await.unwrap();
        let options = DeleteOptions { propagation: Some(policy), ..DeleteOptions::default() };
        let marked = world.delete(deployments().named(name), options).await.unwrap();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        assert_eq!(marked["metadata"]["generation"], 2, "a deletion is a change of what is wanted");
    }
    world.create(deployments(), &deployment("c", 1)).await.unwrap();
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    assert_eq!(world.delete(deployments().named("c"), options).await.unwrap()["status"], "Success");
}

#[tokio::test]
async fn preconditions_that_do_not_hold_are_409() {
    let world = world().await;
    let revision = world.configmap("x", &json!({})).await;
    let uid = DeleteOptions { precondition_uid: Some("other".into()), ..DeleteOptions::default() };
    assert_eq!(world.delete(configmaps().named("x"), uid).await.unwrap_err().reason, Reason::Conflict);
    let with = |revision: &str| DeleteOptions {
        precondition_resource_version: Some(revision.to_owned()),
        ..DeleteOptions::default()
    };
    assert_eq!(world.delete(configmaps().named("x"), with("1")).await.unwrap_err().reason, Reason::Conflict);
    assert_eq!(
        world.delete(configmaps().named("x"), with("abc")).await.unwrap_err().reason,
        Reason::BadRequest
    );
    world.delete(configmaps().named("x"), with(&revision)).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_deletes_nothing() {
    let world = world().await;
    world.configmap("x", &json!({})).await;
    let options = DeleteOptions { dry_run: true, ..DeleteOptions::default() };
    world.delete(configmaps().named("x"), options).await.unwrap();
    assert!(world.get(configmaps().named("x")).await.is_ok());
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let world = world().await;
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        world.configmap(name, &json!({"app": app})).await;
    }
    let list = ListOptions { label_selector: "app=web".into(), ..ListOptions::default() };
    let verb = Verb::DeleteCollection { list, delete: DeleteOptions::default() };
    let deleted = world.ask(configmaps(), verb).await.unwrap();
    assert_eq!((&deleted["kind"], names(&deleted)), (&json!("ConfigMapList"), vec!["a", "c"]));
    assert_eq!(names(&world.list(configmaps(), Default::default()).await.unwrap()), ["b"]);
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_a_list_of_it_would_go() {
    let world = world().await;
    for name in ["a", "b", "c", "d"] {
        world.configmap(name, &json!({})).await;
    }
    let delete = |limit: u64, continue_token: Option<String>| {
        let list = ListOptions { limit, continue_token, ..ListOptions::default() };
        Verb::DeleteCollection { list, delete: DeleteOptions::default() }
    };
    let first = ListOptions { limit: 2, ..ListOptions::default() };
    let page = world.list(configmaps(), first).await.unwrap();
    world.ask(configmaps(), delete(1, None)).await.unwrap();
    assert_eq!(names(&world.list(configmaps(), ListOptions::default()).await.unwrap()), ["b", "c", "d"]);
    let token = page["metadata"]["continue"].as_str().map(str::to_owned);
    world.ask(configmaps(), delete(0, token)).await.unwrap();
    assert_eq!(names(&world.list(configmaps(), ListOptions::default()).await.unwrap()), ["b"]);
}
