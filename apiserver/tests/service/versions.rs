//! Owners who wrote in different versions of a kind: what each owns is said in its own version, and asked about there.

use claw_client::{ResourceRef, Verb, request::PatchKind};
use claw_schemas::ApiError;
use serde_json::{Value, json};

use crate::{
    conversion::{paint, painted, paints},
    custom::{define, definition, redefine, version, widget, widgets},
    world::{World, by, parse, revision, world},
};

async fn apply(world: &World, manager: &str, version: &str, spec: &Value) -> Result<Value, ApiError> {
    apply_with(world, manager, version, spec, false).await
}

async fn apply_with(
    world: &World,
    manager: &str,
    version: &str,
    spec: &Value,
    force: bool,
) -> Result<Value, ApiError> {
    let mut config = paint("a", version, "none");
    config["spec"] = spec.clone();
    world.apply(paints(version).named("a"), manager, &config, force).await.map(|answer| parse(&answer.body))
}

/// (manager, version, what it owns of the spec) of every entry.
fn owned(object: &Value) -> Vec<(&str, &str, Vec<&str>)> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default();
            let fields = entry["fieldsV1"]["f:spec"].as_object().into_iter().flatten();
            (text("manager"), text("apiVersion"), fields.map(|(field, _)| field.as_str()).collect())
        })
        .collect()
}

#[tokio::test]
async fn a_field_is_in_conflict_by_whatever_name_it_goes_in_another_version() {
    let world = painted().await;
    apply(&world, "a", "v1", &json!({"color": "red"})).await.unwrap();
    let error = apply(&world, "b", "v2", &json!({"colour": "blue"})).await.unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.color");
    let shared = apply(&world, "b", "v2", &json!({"colour": "red"})).await.unwrap();
    assert_eq!(
        owned(&shared),
        [("a", "example.com/v1", vec!["f:color"]), ("b", "example.com/v2", vec!["f:colour"])]
    );
    let left = apply(&world, "a", "v1", &json!({})).await.unwrap();
    assert_eq!(left["spec"]["color"], "red", "the other owner, in the other version, keeps it");
    apply(&world, "a", "v1", &json!({"color": "red"})).await.unwrap();
    let won = apply_with(&world, "b", "v2", &json!({"colour": "blue"}), true).await.unwrap();
    assert_eq!(won["spec"]["colour"], "blue");
    assert_eq!(owned(&won), [("b", "example.com/v2", vec!["f:colour"])]);
}

#[tokio::test]
async fn an_applier_gives_up_in_one_version_what_it_applied_in_another() {
    let world = painted().await;
    apply(&world, "a", "v1", &json!({"color": "red", "size": 3})).await.unwrap();
    let moved = apply(&world, "a", "v2", &json!({"size": 3})).await.unwrap();
    assert_eq!(moved["spec"], json!({"size": 3}));
    assert_eq!(owned(&moved), [("a", "example.com/v2", vec!["f:size"])]);
    let back = apply(&world, "a", "v1", &json!({"color": "red", "size": 3})).await.unwrap();
    let kept = apply(&world, "a", "v2", &json!({"colour": "red", "size": 3})).await.unwrap();
    assert_eq!((&back["spec"]["color"], &kept["spec"]["colour"]), (&json!("red"), &json!("red")));
}

#[tokio::test]
async fn whoever_updates_in_one_version_takes_from_who_applied_in_another() {
    let world = painted().await;
    apply(&world, "a", "v1", &json!({"color": "red", "size": 3})).await.unwrap();
    let patch = json!({"spec": {"colour": "blue"}}).to_string();
    let verb = Verb::Patch { kind: PatchKind::Merge, body: patch.into(), options: by("u"), force: false };
    let changed = world.ask(paints("v2").named("a"), verb).await.unwrap();
    assert_eq!(
        owned(&changed),
        [("a", "example.com/v1", vec!["f:size"]), ("u", "example.com/v2", vec!["f:colour"])]
    );
}

/// Writes the entries by hand, as a client may.
async fn written_in(world: &World, path: ResourceRef, api_version: &str) -> Value {
    let entries = json!([{
        "manager": "old", "operation": "Apply", "apiVersion": api_version, "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:color": {}}},
    }]);
    let patch = json!({"metadata": {"managedFields": entries}}).to_string();
    let verb = Verb::Patch { kind: PatchKind::Merge, body: patch.into(), options: by("u"), force: false };
    world.ask(path, verb).await.unwrap()
}

#[tokio::test]
async fn a_conversion_that_fails_stops_an_apply_and_no_other_write() {
    let world = painted().await;
    world.create(paints("v1"), &paint("stubborn", "v1", "color")).await.unwrap();
    let one = || paints("v1").named("stubborn");
    let before = written_in(&world, one(), "example.com/v2").await;
    let changed = world.merge(one(), &json!({"spec": {"color": "blue"}})).await.unwrap();
    assert_eq!(changed["spec"]["color"], "blue");
    assert_eq!(changed["metadata"]["managedFields"], before["metadata"]["managedFields"]);
    let config = paint("stubborn", "v1", "color");
    let error = world.apply(one(), "b", &config, true).await.unwrap_err();
    assert_eq!(error.code, 500);
    assert!(error.message.ends_with("failed: it does not want to"), "{error}");
}

#[tokio::test]
async fn versions_that_differ_in_name_alone_share_their_owners() {
    let world = world().await;
    define(&world, &definition(&[version("v1", true), version("v1beta1", false)])).await;
    let apply = |manager: &'static str, version: &'static str, spec: Value| {
        let mut config = widget("x", &spec);
        config["apiVersion"] = json!(format!("example.com/{version}"));
        let world = &world;
        async move { world.apply(widgets(version).named("x"), manager, &config, false).await }
    };
    apply("a", "v1beta1", json!({"color": "red", "replicas": 3})).await.unwrap();
    let error = apply("b", "v1", json!({"replicas": 4})).await.unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let moved = parse(&apply("a", "v1", json!({"color": "red"})).await.unwrap().body);
    assert_eq!(moved["spec"], json!({"color": "red", "replicas": 1}), "given up, and so the default");
}

#[tokio::test]
async fn who_wrote_in_a_version_that_is_no_more_owns_nothing() {
    let world = world().await;
    define(&world, &definition(&[version("v1", true), version("v2", false)])).await;
    let mut config = widget("x", &json!({"color": "red", "replicas": 2}));
    config["apiVersion"] = json!("example.com/v2");
    world.apply(widgets("v2").named("x"), "old", &config, false).await.unwrap();
    let one = || widgets("v1").named("x");
    let versions =
        |versions: Vec<Value>| move |object: &mut Value| object["spec"]["versions"] = versions.into();

    let mut unserved = version("v2", false);
    unserved["served"] = json!(false);
    redefine(&world, "widgets.example.com", versions(vec![version("v1", true), unserved])).await;
    let wish = widget("x", &json!({"color": "red", "replicas": 3}));
    let error = world.apply(one(), "new", &wish, false).await.unwrap_err();
    assert!(
        error.message.ends_with("conflict with \"old\": .spec.replicas"),
        "not served is not gone: {error}"
    );

    redefine(&world, "widgets.example.com", versions(vec![version("v1", true)])).await;
    let won = parse(&world.apply(one(), "new", &wish, false).await.unwrap().body);
    assert_eq!(owned(&won), [("new", "example.com/v1", vec!["f:color", "f:replicas"])]);
}

#[tokio::test]
async fn an_update_forgets_who_wrote_in_a_version_that_is_no_more() {
    let world = world().await;
    define(&world, &definition(&[version("v1", true)])).await;
    world.create(widgets("v1"), &widget("x", &json!({"color": "red"}))).await.unwrap();
    let one = || widgets("v1").named("x");
    let before = written_in(&world, one(), "example.com/v0").await;
    assert_eq!(owned(&before)[0].1, "example.com/v0", "a write that changes nothing asks nobody");
    let patch = json!({"spec": {"replicas": 5}}).to_string();
    let verb = Verb::Patch { kind: PatchKind::Merge, body: patch.into(), options: by("u"), force: false };
    let after = world.ask(one(), verb).await.unwrap();
    assert_eq!(owned(&after), [("u", "example.com/v1", vec!["f:replicas"])]);
    assert_ne!(revision(&before), revision(&after));
}

fn scalers(version: &str) -> ResourceRef {
    ResourceRef::collection("autoscaling", version, "horizontalpodautoscalers").in_namespace("default")
}

#[tokio::test]
async fn built_in_kinds_of_two_versions_share_their_owners() {
    let world = world().await;
    let of = json!({"kind": "Deployment", "name": "web"});
    let config = |version: &str, spec: Value| json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": spec});
    let one =
        config("v1", json!({"scaleTargetRef": of, "maxReplicas": 4, "targetCPUUtilizationPercentage": 70}));
    world.apply(scalers("v1").named("web"), "a", &one, false).await.unwrap();
    let metrics = |percent: u64| {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
    };
    let other = |percent| config("v2", json!({"metrics": metrics(percent)}));
    let error = world.apply(scalers("v2").named("web"), "b", &other(50), false).await.unwrap_err();
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"a\": .spec.targetCPUUtilizationPercentage"
    );
    world.apply(scalers("v2").named("web"), "b", &other(70), false).await.unwrap();
    let without = config("v1", json!({"scaleTargetRef": of, "maxReplicas": 4}));
    let left = parse(&world.apply(scalers("v1").named("web"), "a", &without, false).await.unwrap().body);
    assert_eq!(left["spec"]["targetCPUUtilizationPercentage"], 70, "it is asked for in v2");
}

#[tokio::test]
async fn an_event_has_owners_in_both_of_its_groups() {
    let world = world().await;
    let events =
        |group: &str| ResourceRef::collection(group, "v1", "events").in_namespace("default").named("e");
    let newer = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "c-1",
        "action": "Act", "reason": "Because", "note": "so it is", "type": "Normal",
    });
    world.apply(events("events.k8s.io"), "a", &newer, false).await.unwrap();
    let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "not so"});
    let error = world.apply(events(""), "b", &core, false).await.unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"a\": .note");
}

#[tokio::test]
async fn a_list_that_became_one_piece_belongs_to_everybody_who_owned_a_part_of_it() {
    let world = world().await;
    let mut keyed = version("v1", true);
    let parts = "/schema/openAPIV3Schema/properties/spec/properties/parts";
    let list = keyed.pointer_mut(parts).unwrap();
    list["x-kubernetes-list-type"] = json!("map");
    list["x-kubernetes-list-map-keys"] = json!(["name"]);
    list["items"]["required"] = json!(["name"]);
    define(&world, &definition(&[keyed])).await;
    let one = || widgets("v1").named("x");
    let with = |names: &[&str]| {
        let parts: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        widget("x", &json!({"color": "red", "parts": parts}))
    };
    world.apply(one(), "a", &with(&["p"]), false).await.unwrap();
    world.apply(one(), "b", &with(&["q"]), false).await.unwrap();
    redefine(&world, "widgets.example.com", |object| {
        let list = object.pointer_mut(&format!("/spec/versions/0{parts}")).unwrap();
        list["x-kubernetes-list-type"] = json!("atomic");
        list.as_object_mut().unwrap().remove("x-kubernetes-list-map-keys");
    })
    .await;
    let error = world.apply(one(), "c", &with(&["r"]), false).await.unwrap_err();
    assert_eq!(
        error.message,
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.parts\nconflicts with \"b\":\n- .spec.parts"
    );
}
