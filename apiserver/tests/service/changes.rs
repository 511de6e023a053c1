//! Updates and patches: optimistic concurrency, what each endpoint may touch, generations.

use claw_client::request::PatchKind;
use claw_schemas::status::Reason;
use serde_json::json;

use crate::world::{configmaps, deployment, deployments, namespaces, revision, world};

#[tokio::test]
async fn a_stale_update_is_refused_in_kubernetes_words() {
    let world = world().await;
    world.configmap("x", &json!({})).await;
    let mut stale = world.get(configmaps().named("x")).await.unwrap();
    let mut fresh = stale.clone();
    fresh["data"]["k"] = json!("1");
    world.update(configmaps().named("x"), &fresh).await.unwrap();
    stale["data"]["k"] = json!("2");
    let error = world.update(configmaps().named("x"), &stale).await.unwrap_err();
    assert_eq!((error.code, error.reason), (409, Reason::Conflict));
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply your changes to the latest version and try again"
    );
}

#[tokio::test]
async fn an_update_without_a_revision_takes_what_is_there() {
    let world = world().await;
    world.configmap("x", &json!({})).await;
    let body = json!({"metadata": {"name": "x"}, "data": {"k": "new"}});
    assert_eq!(world.update(configmaps().named("x"), &body).await.unwrap()["data"]["k"], "new");
}

#[tokio::test]
async fn uid_and_creation_time_do_not_change() {
    let world = world().await;
    world.configmap("x", &json!({})).await;
    let old = world.get(configmaps().named("x")).await.unwrap();
    let patch = json!({"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z", "labels": {"a": "b"}}});
    let new = world.merge(configmaps().named("x"), &patch).await.unwrap();
    assert_eq!(new["metadata"]["creationTimestamp"], old["metadata"]["creationTimestamp"]);
    let error =
        world.merge(configmaps().named("x"), &json!({"metadata": {"uid": "other"}})).await.unwrap_err();
    assert_eq!(error.code, 409);
    assert!(error.message.contains("Precondition failed: UID in precondition: other"), "{error}");
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_revision() {
    let world = world().await;
    let before = world.configmap("x", &json!({})).await;
    let object = world.get(configmaps().named("x")).await.unwrap();
    assert_eq!(revision(&world.update(configmaps().named("x"), &object).await.unwrap()), before);
    let patch = json!({"data": {"k": "v"}});
    assert_eq!(revision(&world.merge(configmaps().named("x"), &patch).await.unwrap()), before);
}

#[tokio::test]
async fn a_spec_change_counts_the_generation_and_nothing_else_does() {
    let world = world().await;
    world.create(deployments(), &deployment("web", 1)).await.unwrap();
    let web = || deployments().named("web");
    let generation = |object: serde_json::Value| object["metadata"]["generation"].as_i64().unwrap();
    let labelled = world.merge(web(), &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(generation(labelled), 1);
    let status = world.merge(web().sub("status"), &json!({"status": {"replicas": 1}})).await.unwrap();
    assert_eq!(generation(status), 1);
    let scaled = world.merge(web(), &json!({"spec": {"replicas": 3}})).await.unwrap();
    assert_eq!(generation(scaled), 2);
    let forged = world.merge(web(), &json!({"metadata": {"generation": 99}})).await.unwrap();
    assert_eq!(generation(forged), 2);
}

#[tokio::test]
async fn status_and_spec_are_written_through_their_own_endpoints() {
    let world = world().await;
    world.create(deployments(), &deployment("web", 1)).await.unwrap();
    let web = || deployments().named("web");
    let both =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 5}, "status": {"replicas": 4}});
    let after = world.merge(web().sub("status"), &both).await.unwrap();
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(1), &json!(4)));
    assert!(after["metadata"].get("labels").is_none());
    let both = json!({"spec": {"replicas": 6}, "status": {"replicas": 9}});
    let after = world.merge(web(), &both).await.unwrap();
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(6), &json!(4)));
    assert_eq!(world.get(web().sub("status")).await.unwrap(), after);
}

#[tokio::test]
async fn every_kind_of_patch_does_its_work() {
    let world = world().await;
    world.create(deployments(), &deployment("web", 1)).await.unwrap();
    let web = || deployments().named("web");
    let strategic =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "other:2"}]}}}});
    let after = world.patch(web(), PatchKind::Strategic, &strategic).await.unwrap();
    let container = &after["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["name"], &container["image"]), (&json!("main"), &json!("other:2")));
    let operations = json!([{"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "replace", "path": "/spec/replicas", "value": 2}]);
    let after = world.patch(web(), PatchKind::Json, &operations).await.unwrap();
    assert_eq!(after["spec"]["replicas"], 2);
    let error = world.patch(web(), PatchKind::Json, &operations).await.unwrap_err();
    assert_eq!(error.code, 422, "a failed test: {error}");
    assert!(world.patch(web(), PatchKind::Json, &json!({"not": "a list"})).await.is_err());
}

#[tokio::test]
async fn a_patch_is_held_to_the_same_rules_as_a_whole_object() {
    let world = world().await;
    world.create(deployments(), &deployment("web", 1)).await.unwrap();
    let web = || deployments().named("web");
    for (patch, code) in [
        (json!({"spec": {"replicas": "many"}}), 400),
        (json!({"metadata": {"name": "other"}}), 400),
        (json!({"metadata": {"namespace": "other"}}), 400),
        (json!({"kind": "Pod"}), 400),
        (json!({"spec": {"replicas": -1}}), 422),
        (json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}}), 422),
    ] {
        let error = world.merge(web(), &patch).await.unwrap_err();
        assert_eq!(error.code, code, "{patch}: {error}");
    }
}

#[tokio::test]
async fn a_patch_with_a_stale_revision_is_refused() {
    let world = world().await;
    let stale = world.configmap("x", &json!({})).await;
    world.merge(configmaps().named("x"), &json!({"data": {"k": "1"}})).await.unwrap();
    let patch = json!({"metadata": {"resourceVersion": stale}, "data": {"k": "2"}});
    assert_eq!(world.merge(configmaps().named("x"), &patch).await.unwrap_err().reason, Reason::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_patches_of_one_object_all_succeed() {
    let world = std::sync::Arc::new(world().await);
    world.configmap("x", &json!({})).await;
    let patches = (0..32).map(|n| {
        let world = world.clone();
        tokio::spawn(async move {
            world.merge(configmaps().named("x"), &json!({"data": {format!("k{n}"): "1"}})).await.unwrap();
        })
    });
    for patch in patches.collect::<Vec<_>>() {
        patch.await.unwrap();
    }
    let data = world.get(configmaps().named("x")).await.unwrap()["data"].as_object().unwrap().len();
    assert_eq!(data, 33);
}

#[tokio::test]
async fn a_missing_object_is_404_for_every_verb() {
    let world = world().await;
    let missing = || configmaps().named("none");
    let body = json!({"metadata": {"name": "none"}});
    for error in [
        world.get(missing()).await.unwrap_err(),
        world.update(missing(), &body).await.unwrap_err(),
        world.merge(missing(), &json!({})).await.unwrap_err(),
        world.delete(missing(), Default::default()).await.unwrap_err(),
    ] {
        assert_eq!((error.code, error.message.as_str()), (404, "configmaps \"none\" not found"));
    }
}

#[tokio::test]
async fn the_name_of_the_body_must_be_that_of_the_path() {
    let world = world().await;
    world.configmap("x", &json!({})).await;
    for body in [json!({"metadata": {"name": "y"}}), json!({"metadata": {}})] {
        let error = world.update(configmaps().named("x"), &body).await.unwrap_err();
        assert!(error.message.contains("does not match the name on the URL (x)"), "{error}");
    }
}

#[tokio::test]
async fn only_finalize_empties_the_finalizers_of_a_namespace_spec() {
    let world = world().await;
    world.create(namespaces(), &json!({"metadata": {"name": "a"}})).await.unwrap();
    let a = || namespaces().named("a");
    let marked = world.delete(a(), Default::default()).await.unwrap();
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert_eq!(marked["spec"]["finalizers"], json!(["kubernetes"]));
    let mut empty = marked.clone();
    empty["spec"] = json!({});
    empty["metadata"]["labels"] = json!({"not": "finalize's business"});
    world.update(a().sub("finalize"), &empty).await.unwrap();
    assert_eq!(world.get(a()).await.unwrap_err().code, 404);
}
