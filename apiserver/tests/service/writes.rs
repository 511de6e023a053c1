//! Creating: what the server adds, and what it refuses.

use claw_client::{
    ResourceRef, Verb,
    request::{FieldValidation, View, WriteOptions},
};
use claw_schemas::status::Reason;
use serde_json::{Value, json};

use crate::world::{
    configmaps, deployment, deployments, names, namespaces, parse, pod, pods, revision, world,
};

#[tokio::test]
async fn a_new_object_gets_a_uid_a_time_a_revision_and_its_type() {
    let world = world().await;
    let body = json!({"metadata": {"name": "x", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"}});
    let made = world.create(configmaps(), &body).await.unwrap();
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(!made["metadata"]["creationTimestamp"].as_str().unwrap().starts_with("2001"));
    assert_eq!(revision(&made), world.service.store().revision().to_string());
    assert_eq!(world.get(configmaps().named("x")).await.unwrap(), made);
}

#[tokio::test]
async fn the_generation_of_a_new_workload_is_one_and_its_status_is_not_the_callers() {
    let world = world().await;
    let mut body = deployment("web", 2);
    body["status"] = json!({"replicas": 7});
    body["metadata"]["generation"] = json!(9);
    let made = world.create(deployments(), &body).await.unwrap();
    assert_eq!(made["metadata"]["generation"], 1);
    assert_ne!(made["status"]["replicas"], 7);
}

#[tokio::test]
async fn a_taken_name_is_409_already_exists() {
    let world = world().await;
    world.configmap("x", &json!({})).await;
    let error = world.create(configmaps(), &json!({"metadata": {"name": "x"}})).await.unwrap_err();
    assert_eq!((error.code, error.reason), (409, Reason::AlreadyExists));
    assert_eq!(error.message, "configmaps \"x\" already exists");
}

#[tokio::test]
async fn a_put_makes_what_is_not_there_of_those_kinds_of_which_upstream_lets_it() {
    let world = world().await;
    let leases = ResourceRef::collection("coordination.k8s.io", "v1", "leases").in_namespace("default");
    let put = |resource: ResourceRef, object: &Value| {
        let body = object.to_string().into();
        let verb = Verb::Update { body, options: crate::world::by("m") };
        world.ask_whole(resource, verb, View::Object)
    };
    let mut lease =
        json!({"metadata": {"name": "l", "resourceVersion": "7"}, "spec": {"holderIdentity": "a"}});
    lease["metadata"]["uid"] = json!("u");
    let error = put(leases.clone().named("l"), &lease).await.unwrap_err();
    assert_eq!((error.code, error.reason), (409, Reason::Conflict), "it replaces a certain one: {error}");
    lease["metadata"].as_object_mut().unwrap().remove("uid");
    let made = put(leases.clone().named("l"), &lease).await.unwrap();
    assert_eq!(made.code, 201);
    let made = parse(&made.body);
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "m");
    lease["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let error = put(leases.clone().named("l"), &lease).await.unwrap_err();
    assert_eq!((error.code, error.reason), (422, Reason::Invalid), "nobody takes one unseen: {error}");
    assert_eq!(put(leases.named("l"), &made).await.unwrap().code, 200);
    let map = json!({"metadata": {"name": "x"}});
    assert_eq!(put(configmaps().named("x"), &map).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_generated_name_is_five_letters_after_its_prefix() {
    let world = world().await;
    let body = json!({"metadata": {"generateName": "web-"}});
    let one = world.create(configmaps(), &body).await.unwrap();
    let two = world.create(configmaps(), &body).await.unwrap();
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    assert_eq!(one["metadata"]["name"].as_str().unwrap().len(), 9);
    let error = world.create(configmaps(), &json!({"metadata": {}})).await.unwrap_err();
    assert_eq!(error.details.causes[0].field, "metadata.name");
}

#[tokio::test]
async fn the_namespace_of_the_body_must_be_that_of_the_path() {
    let world = world().await;
    let body = json!({"metadata": {"name": "x", "namespace": "kube-system"}});
    let error = world.create(configmaps(), &body).await.unwrap_err();
    assert_eq!(error.reason, Reason::BadRequest);
    assert!(error.message.contains("does not match the namespace sent on the request"), "{error}");
}

#[tokio::test]
async fn a_missing_namespace_is_404_and_a_terminating_one_403() {
    let world = world().await;
    let there = configmaps().in_namespace("nowhere");
    let error = world.create(there, &json!({"metadata": {"name": "x"}})).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (404, "namespaces \"nowhere\" not found"));

    world.create(namespaces(), &json!({"metadata": {"name": "doomed"}})).await.unwrap();
    world.delete(namespaces().named("doomed"), Default::default()).await.unwrap();
    let there = configmaps().in_namespace("doomed");
    let error = world.create(there, &json!({"metadata": {"name": "x"}})).await.unwrap_err();
    assert_eq!(error.code, 403);
    assert_eq!(error.details.causes[0].reason, "NamespaceTerminating");
}

#[tokio::test]
async fn a_body_of_another_kind_or_version_is_refused() {
    let world = world().await;
    let error = world.create(pods(), &deployment("web", 1)).await.unwrap_err();
    assert!(error.message.contains("does not match the expected API version (v1)"), "{error}");
    let mut body = pod("x");
    body["kind"] = json!("Node");
    let error = world.create(pods(), &body).await.unwrap_err();
    assert!(error.message.contains("does not match the expected kind (Pod)"), "{error}");
}

#[tokio::test]
async fn a_new_object_cannot_name_a_revision() {
    let world = world().await;
    let body = json!({"metadata": {"name": "x", "resourceVersion": "5"}});
    let error = world.create(configmaps(), &body).await.unwrap_err();
    assert_eq!(error.message, "resourceVersion should not be set on objects to be created");
}

#[tokio::test]
async fn unknown_fields_are_dropped_warned_about_or_refused_as_asked() {
    let world = world().await;
    let mut body = deployment("web", 1);
    body["spec"]["replicaz"] = json!(3);
    let verb = |name: &str, field_validation| {
        let mut body = body.clone();
        body["metadata"]["name"] = json!(name);
        let options = WriteOptions { field_validation, ..WriteOptions::default() };
        Verb::Create { body: body.to_string().into(), options }
    };
    let error = world.ask(deployments(), verb("a", FieldValidation::Strict)).await.unwrap_err();
    assert_eq!(error.code, 400);
    assert!(error.message.contains("strict decoding error: unknown field \"spec.replicaz\""), "{error}");
    let warned =
        world.ask_whole(deployments(), verb("b", FieldValidation::Warn), View::Object).await.unwrap();
    assert_eq!(warned.warnings, ["unknown field \"spec.replicaz\""]);
    let ignored =
        world.ask_whole(deployments(), verb("c", FieldValidation::Ignore), View::Object).await.unwrap();
    assert!(ignored.warnings.is_empty());
    let stored = world.get(deployments().named("b")).await.unwrap();
    assert!(stored["spec"].get("replicaz").is_none());
}

#[tokio::test]
async fn duplicate_fields_are_warned_about_or_refused() {
    let world = world().await;
    let body = || br#"{"metadata":{"name":"x"},"data":{"a":"1","a":"2"}}"#.as_slice().into();
    let options = WriteOptions { field_validation: FieldValidation::Strict, ..WriteOptions::default() };
    let error = world.ask(configmaps(), Verb::Create { body: body(), options }).await.unwrap_err();
    assert!(error.message.contains("duplicate field \"data.a\""), "{error}");
    let verb = Verb::Create { body: body(), options: WriteOptions::default() };
    let made = world.ask_whole(configmaps(), verb, View::Object).await.unwrap();
    assert_eq!(made.warnings, ["duplicate field \"data.a\""]);
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_400_and_names_the_field() {
    let world = world().await;
    let mut body = deployment("web", 1);
    body["spec"]["replicas"] = json!("three");
    let error = world.create(deployments(), &body).await.unwrap_err();
    assert_eq!(error.code, 400);
    assert!(error.message.contains("spec.replicas"), "{error}");
}

#[tokio::test]
async fn an_invalid_object_is_422_with_causes() {
    let world = world().await;
    let error = world.create(configmaps(), &json!({"metadata": {"name": "Not A Name"}})).await.unwrap_err();
    assert_eq!((error.code, error.reason), (422, Reason::Invalid));
    assert_eq!(error.details.causes[0].field, "metadata.name");
}

#[tokio::test]
async fn yaml_is_as_good_as_json() {
    let world = world().await;
    let body = "kind: ConfigMap\nmetadata:\n  name: written\ndata:\n  a: \"1\"\n".into();
    let made =
        world.ask(configmaps(), Verb::Create { body, options: WriteOptions::default() }).await.unwrap();
    assert_eq!(made["data"]["a"], "1");
}

#[tokio::test]
async fn a_dry_run_answers_as_usual_and_stores_nothing() {
    let world = world().await;
    let dry = || WriteOptions { dry_run: true, ..WriteOptions::default() };
    let body = || json!({"metadata": {"name": "x"}, "data": {"a": "2"}}).to_string().into();
    let before = world.service.store().revision();
    let made = world.ask(configmaps(), Verb::Create { body: body(), options: dry() }).await.unwrap();
    assert!(made["metadata"]["uid"].is_string());
    assert!(world.get(configmaps().named("x")).await.is_err());

    world.configmap("x", &json!({})).await;
    let error = world.ask(configmaps(), Verb::Create { body: body(), options: dry() }).await.unwrap_err();
    assert_eq!(error.reason, Reason::AlreadyExists);
    let update = Verb::Update { body: body(), options: dry() };
    assert_eq!(world.ask(configmaps().named("x"), update).await.unwrap()["data"]["a"], "2");
    assert_eq!(world.get(configmaps().named("x")).await.unwrap()["data"]["k"], "v");
    assert_eq!(world.service.store().revision(), before + 1);
}

#[tokio::test]
async fn objects_above_the_size_limit_are_refused() {
    let world = world().await;
    let body = |bytes: usize| json!({"metadata": {"name": "x"}, "data": {"big": "x".repeat(bytes)}});
    let error = world.create(configmaps(), &body(4 << 20)).await.unwrap_err();
    assert_eq!(error.code, 413);
    let error = world.create(configmaps(), &body(2 << 20)).await.unwrap_err();
    assert!([413, 422].contains(&error.code), "{error}");
}

#[tokio::test]
async fn the_system_namespaces_are_there_from_the_start_and_stay() {
    let world = world().await;
    world.service.ensure_bootstrap_objects().await.unwrap();
    let list = world.list(namespaces(), Default::default()).await.unwrap();
    assert_eq!(names(&list), ["default", "kube-node-lease", "kube-public", "kube-system"]);
    assert_eq!(list["items"][0]["status"]["phase"], "Active");
    let error = world.delete(namespaces().named("default"), Default::default()).await.unwrap_err();
    assert_eq!(error.message, "namespaces \"default\" is forbidden: this namespace may not be deleted");
}
