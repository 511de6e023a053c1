//! Kinds that users define, from their definition to their last object.

use claw_apiserver::{service::limits::OBJECT_BYTES_MAX, store};
use claw_client::{
    ResourceRef, Verb,
    request::{DeleteOptions, IncludeObject, ListOptions, PatchKind, View, WatchOptions, WriteOptions},
};
use claw_schemas::{ApiError, status::Reason};
use serde_json::{Value, json};

use crate::world::{World, names, parse, revision, world};

pub fn definitions() -> ResourceRef {
    ResourceRef::collection("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

pub fn widgets(version: &str) -> ResourceRef {
    ResourceRef::collection("example.com", version, "widgets").in_namespace("default")
}

/// A version of the kind Widget, with everything a version can have.
pub fn version(name: &str, storage: bool) -> Value {
    json!({
        "name": name, "served": true, "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
            "spec": {"type": "object", "required": ["color"], "properties": {
                "replicas": {"type": "integer", "default": 1, "minimum": 0},
                "color": {"type": "string", "enum": ["red", "blue"]},
                "parts": {"type": "array", "items": {"type": "object", "properties": {
                    "name": {"type": "string"}, "count": {"type": "integer", "default": 1}}}},
            }, "x-kubernetes-validations": [
                {"rule": "self.replicas <= 10 || self.color == 'blue'", "message": "only blue ones may be many"},
                {"rule": "self.color == oldSelf.color", "message": "the color stays", "fieldPath": ".color"},
            ]},
            "status": {"type": "object", "properties": {
                "replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"}}},
        }}},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
        "additionalPrinterColumns": [
            {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
        ],
        "selectableFields": [{"jsonPath": ".spec.color"}],
    })
}

pub fn definition(versions: &[Value]) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": versions,
        },
    })
}

pub fn widget(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

fn condition<'v>(definition: &'v Value, ty: &str) -> &'v Value {
    let conditions = definition["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == ty).unwrap_or(&Value::Null)
}

/// Waits until a definition is as the test wants it.
pub async fn until(world: &World, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let options = WatchOptions { field_selector: format!("metadata.name={name}"), ..WatchOptions::default() };
    let mut watch = world.watch(definitions(), options).await;
    loop {
        let (kind, object) = watch.next().await.unwrap();
        if kind != "DELETED" && holds(&object) {
            return object;
        }
    }
}

/// Whether the server works by what a definition says now.
pub fn in_service(definition: &Value) -> bool {
    condition(definition, "Established")["status"] == "True"
        && definition["status"]["observedGeneration"] == definition["metadata"]["generation"]
}

/// Defines a kind, and waits until it is served.
pub async fn define(world: &World, object: &Value) -> Value {
    let made = world.create(definitions(), object).await.unwrap();
    until(world, made["metadata"]["name"].as_str().unwrap(), in_service).await
}

/// Changes a definition, and waits until the change is in service.
pub async fn redefine(world: &World, name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = world.get(definitions().named(name)).await.unwrap();
    change(&mut object);
    let generation =
        world.update(definitions().named(name), &object).await.unwrap()["metadata"]["generation"].clone();
    until(world, name, |object| object["metadata"]["generation"] == generation && in_service(object)).await
}

async fn widget_world() -> World {
    let world = world().await;
    define(&world, &definition(&[version("v1", true)])).await;
    world
}

fn causes(error: &ApiError) -> Vec<(&str, &str)> {
    error.details.causes.iter().map(|cause| (cause.field.as_str(), cause.message.as_str())).collect()
}

#[tokio::test]
async fn a_definition_says_when_its_kind_is_served() {
    let world = world().await;
    assert_eq!(world.list(widgets("v1"), ListOptions::default()).await.unwrap_err().reason, Reason::NotFound);
    let defined = define(&world, &definition(&[version("v1", true)])).await;
    assert_eq!(condition(&defined, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(
        defined["status"]["acceptedNames"],
        json!({"plural": "widgets", "singular": "widget", "kind": "Widget",
        "listKind": "WidgetList", "shortNames": ["wd"], "categories": ["all"]})
    );
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));
    let list = world.list(widgets("v1"), ListOptions::default()).await.unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("WidgetList"), &json!("example.com/v1")));
    assert!(world.service.registry().named("wd").is_some());
}

#[tokio::test]
async fn custom_objects_are_completed_pruned_and_judged() {
    let world = widget_world().await;
    let made = world
        .create(widgets("v1"), &widget("a", &json!({"color": "red", "parts": [{"name": "x"}], "bogus": 1})))
        .await
        .unwrap();
    assert_eq!(made["spec"], json!({"color": "red", "replicas": 1, "parts": [{"name": "x", "count": 1}]}));
    assert_eq!(made["metadata"]["generation"], 1);

    let error = world
        .create(widgets("v1"), &widget("b", &json!({"color": "pink", "replicas": "two"})))
        .await
        .unwrap_err();
    assert_eq!((error.code, error.reason), (422, Reason::Invalid));
    assert_eq!(
        causes(&error),
        [
            ("spec.color", "Unsupported value: \"pink\": supported values: \"red\", \"blue\""),
            (
                "spec.replicas",
                "Invalid value: \"two\": spec.replicas in body must be of type integer: \"string\""
            ),
        ]
    );
    let error = world
        .create(widgets("v1"), &widget("b", &json!({"color": "red", "replicas": 11})))
        .await
        .unwrap_err();
    assert_eq!(causes(&error), [("spec", "Invalid value: \"object\": only blue ones may be many")]);
    let error = world.merge(widgets("v1").named("a"), &json!({"spec": {"color": "blue"}})).await.unwrap_err();
    assert_eq!(causes(&error), [("spec.color", "Invalid value: \"object\": the color stays")]);

    let strict = WriteOptions {
        field_validation: claw_client::request::FieldValidation::Strict,
        ..WriteOptions::default()
    };
    let body = widget("c", &json!({"color": "red", "bogus": 1})).to_string().into();
    let error = world.ask(widgets("v1"), Verb::Create { body, options: strict }).await.unwrap_err();
    assert_eq!(error.reason, Reason::BadRequest);
    assert!(error.message.contains("strict decoding error: unknown field \"spec.bogus\""), "{error}");

    let mut without = world.get(widgets("v1").named("a")).await.unwrap();
    without["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let error = world.update(widgets("v1").named("a"), &without).await.unwrap_err();
    assert_eq!(error.details.causes[0].field, "metadata.resourceVersion");
    let error = world.patch(widgets("v1").named("a"), PatchKind::Strategic, &json!({})).await.unwrap_err();
    assert_eq!(error.code, 415);
}

#[tokio::test]
async fn status_and_scale_have_doors_of_their_own() {
    let world = widget_world().await;
    let one = || widgets("v1").named("a");
    let mut object = widget("a", &json!({"color": "red"}));
    object["status"] = json!({"phase": "sent with the rest"});
    let made = world.create(widgets("v1"), &object).await.unwrap();
    assert_eq!(made.get("status"), None);
    let changed = world
        .merge(
            one().sub("status"),
            &json!({"spec": {"replicas": 5}, "status": {"replicas": 2, "selector": "a=b"}}),
        )
        .await
        .unwrap();
    assert_eq!((&changed["spec"]["replicas"], &changed["metadata"]["generation"]), (&json!(1), &json!(1)));

    let scale = world.get(one().sub("scale")).await.unwrap();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(1), &json!({"replicas": 2, "selector": "a=b"}))
    );
    let scaled = world.merge(one().sub("scale"), &json!({"spec": {"replicas": 4}})).await.unwrap();
    assert_eq!(scaled["spec"]["replicas"], 4);
    let object = world.get(one()).await.unwrap();
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(4), &json!(2)));
    let labelled = world
        .merge(one(), &json!({"metadata": {"labels": {"x": "y"}}, "status": {"phase": "no"}}))
        .await
        .unwrap();
    assert_eq!(
        (&labelled["metadata"]["generation"], &labelled["status"]["phase"]),
        (&json!(2), &Value::Null)
    );
}

#[tokio::test]
async fn columns_and_selectors_are_those_of_the_definition() {
    let world = widget_world().await;
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        world.create(widgets("v1"), &widget(name, &json!({"color": color}))).await.unwrap();
    }
    let red = ListOptions { field_selector: "spec.color=red".to_owned(), ..ListOptions::default() };
    assert_eq!(names(&world.list(widgets("v1"), red).await.unwrap()), ["a", "c"]);
    let other = ListOptions { field_selector: "spec.replicas=1".to_owned(), ..ListOptions::default() };
    let error = world.list(widgets("v1"), other).await.unwrap_err();
    assert_eq!(error.message, "field label not supported: spec.replicas");
    let view = View::Table(IncludeObject::None);
    let table = world.ask_whole(widgets("v1"), Verb::List(ListOptions::default()), view).await.unwrap();
    let table = parse(&table.body);
    let columns = table["columnDefinitions"].as_array().unwrap();
    assert_eq!(
        columns.iter().map(|c| (&c["name"], &c["priority"])).collect::<Vec<_>>(),
        [(&json!("Name"), &json!(0)), (&json!("Color"), &json!(0)), (&json!("Replicas"), &json!(1))]
    );
    assert_eq!(table["rows"][1]["cells"], json!(["b", "blue", 1]));
}

#[tokio::test]
async fn a_kind_that_goes_takes_its_objects_and_its_watches_along() {
    let world = widget_world().await;
    for name in ["a", "b"] {
        world.create(widgets("v1"), &widget(name, &json!({"color": "red"}))).await.unwrap();
    }
    let mut held = widget("held", &json!({"color": "red"}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.create(widgets("v1"), &held).await.unwrap();
    world.delete(definitions().named("widgets.example.com"), DeleteOptions::default()).await.unwrap();
    let going =
        until(&world, "widgets.example.com", |object| condition(object, "Terminating")["status"] == "True")
            .await;
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));

    // The finalizer holds its object, and with it the kind; whoever set it can still take it away, but nothing new comes.
    let mut watch = world.watch(widgets("v1"), WatchOptions::default()).await;
    let error = loop {
        match world.create(widgets("v1"), &widget("late", &json!({"color": "red"}))).await {
            Err(error) if error.reason != Reason::ServiceUnavailable => break error,
            _ => tokio::task::yield_now().await,
        }
    };
    assert_eq!(error.reason, Reason::MethodNotAllowed);
    let free = json!({"metadata": {"finalizers": null}});
    while let Err(error) = world.merge(widgets("v1").named("held"), &free).await {
        assert_eq!(error.reason, Reason::ServiceUnavailable, "{error}");
        tokio::task::yield_now().await;
    }
    let mut seen = Vec::new();
    while let Some((kind, object)) = watch.next().await {
        seen.push(format!("{kind} {}", object["metadata"]["name"].as_str().unwrap()));
    }
    assert!(
        seen.contains(&"DELETED held".to_owned()),
        "the watch ends after the last object, not before: {seen:?}"
    );
    let gone = gone(&world).await;
    assert_eq!(gone.reason, Reason::NotFound);
    assert!(world.service.registry().named("wd").is_none());
}

/// The answer of a kind that is served no more.
async fn gone(world: &World) -> ApiError {
    loop {
        match world.list(widgets("v1"), ListOptions::default()).await {
            Err(error) if error.reason == Reason::NotFound => return error,
            _ => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn all_versions_show_the_same_objects() {
    let world = world().await;
    define(&world, &definition(&[version("v1", true), version("v1beta1", false)])).await;
    let mut old = widget("a", &json!({"color": "red"}));
    old["apiVersion"] = json!("example.com/v1beta1");
    let mut watches = Vec::new();
    for version in ["v1", "v1beta1"] {
        watches.push((version, world.watch(widgets(version), WatchOptions::default()).await));
    }
    let made = world.create(widgets("v1beta1"), &old).await.unwrap();
    assert_eq!(made["apiVersion"], "example.com/v1beta1");
    let patched =
        world.merge(widgets("v1beta1").named("a"), &json!({"spec": {"replicas": 3}})).await.unwrap();
    assert_eq!(
        (&patched["apiVersion"], &patched["spec"]["replicas"]),
        (&json!("example.com/v1beta1"), &json!(3))
    );
    let mut first = world.get(widgets("v1").named("a")).await.unwrap();
    assert_eq!(
        (&first["apiVersion"], &first["metadata"]["uid"]),
        (&json!("example.com/v1"), &made["metadata"]["uid"])
    );
    assert_eq!(revision(&first), revision(&patched), "one object, one revision, whatever the version");
    let same = world.update(widgets("v1beta1").named("a"), &patched).await.unwrap();
    assert_eq!(revision(&same), revision(&patched), "a write that changes nothing is none, in any version");
    first["spec"]["replicas"] = json!(4);
    world.update(widgets("v1").named("a"), &first).await.unwrap();
    let list = world.list(widgets("v1beta1"), ListOptions::default()).await.unwrap();
    assert_eq!(
        (&list["items"][0]["apiVersion"], &list["items"][0]["spec"]["replicas"]),
        (&json!("example.com/v1beta1"), &json!(4))
    );
    world.delete(widgets("v1beta1").named("a"), DeleteOptions::default()).await.unwrap();
    for (version, watch) in &mut watches {
        for (kind, replicas) in [("ADDED", 1), ("MODIFIED", 3), ("MODIFIED", 4), ("DELETED", 4)] {
            let (seen, object) = watch.next().await.unwrap();
            assert_eq!((seen, &object["spec"]["replicas"]), (kind, &json!(replicas)));
            assert_eq!(object["apiVersion"], format!("example.com/{version}"));
        }
    }
}

#[tokio::test]
async fn the_storage_version_can_move_on() {
    let world = world().await;
    define(&world, &definition(&[version("v1", true), version("v2", false)])).await;
    world.create(widgets("v1"), &widget("a", &json!({"color": "red"}))).await.unwrap();
    let moved = redefine(&world, "widgets.example.com", |object| {
        object["spec"]["versions"] = json!([version("v1", false), version("v2", true)]);
    })
    .await;
    assert_eq!(moved["status"]["storedVersions"], json!(["v1", "v2"]));
    let before = world.get(widgets("v2").named("a")).await.unwrap();
    assert_eq!(before["apiVersion"], "example.com/v2");
    // A write that changes nothing still brings the object into the new version, as Kubernetes' migration relies on.
    let after = world.update(widgets("v2").named("a"), &before).await.unwrap();
    assert_ne!(revision(&before), revision(&after));
    let again = world.update(widgets("v2").named("a"), &after).await.unwrap();
    assert_eq!(revision(&after), revision(&again));

    let gone = json!({"spec": {"versions": [version("v2", true)]}});
    let error = world.merge(definitions().named("widgets.example.com"), &gone).await.unwrap_err();
    assert_eq!(error.details.causes[0].field, "status.storedVersions[0]");
    let status = json!({"status": {"storedVersions": ["v2"]}});
    world.merge(definitions().named("widgets.example.com").sub("status"), &status).await.unwrap();
    world.merge(definitions().named("widgets.example.com"), &gone).await.unwrap();
    gone_version(&world).await;
    assert_eq!(names(&world.list(widgets("v2"), ListOptions::default()).await.unwrap()), ["a"]);
}

pub async fn gone_version(world: &World) {
    while world.list(widgets("v1"), ListOptions::default()).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn objects_of_yesterday_are_read_by_the_schema_of_today() {
    let world = widget_world().await;
    world.create(widgets("v1"), &widget("a", &json!({"color": "red"}))).await.unwrap();
    let mut watch = world.watch(widgets("v1"), WatchOptions::default()).await;
    assert_eq!(watch.take(1).await, ["ADDED a"]);
    redefine(&world, "widgets.example.com", |object| {
        let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let properties = object.pointer_mut(properties).unwrap();
        properties["size"] = json!({"type": "string", "default": "small"});
        properties.as_object_mut().unwrap().remove("parts");
    })
    .await;
    assert!(
        watch.next().await.is_none(),
        "an open watch ends, so that its client starts again by the new rules"
    );
    let read = world.get(widgets("v1").named("a")).await.unwrap();
    assert_eq!(read["spec"], json!({"color": "red", "replicas": 1, "size": "small"}));
    let list = world.list(widgets("v1"), ListOptions::default()).await.unwrap();
    assert_eq!(list["items"][0]["spec"]["size"], "small");
    let (kind, object) = world.watch(widgets("v1"), WatchOptions::default()).await.next().await.unwrap();
    assert_eq!((kind, &object["spec"]["size"]), ("ADDED", &json!("small")));
    let written = world.merge(widgets("v1").named("a"), &json!({"spec": {"replicas": 2}})).await.unwrap();
    assert_eq!(written["spec"]["size"], "small");
}

#[tokio::test]
async fn two_definitions_cannot_have_one_name() {
    let world = widget_world().await;
    let mut rival = definition(&[version("v1", true)]);
    rival["metadata"]["name"] = json!("gadgets.example.com");
    rival["spec"]["names"] = json!({"plural": "gadgets", "kind": "Gadget", "shortNames": ["wd"]});
    world.create(definitions(), &rival).await.unwrap();
    let refused =
        until(&world, "gadgets.example.com", |object| !condition(object, "NamesAccepted").is_null()).await;
    let accepted = condition(&refused, "NamesAccepted");
    assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("ShortNamesConflict")));
    assert_eq!(accepted["message"], "\"wd\" is already in use");
    assert_eq!(condition(&refused, "Established")["status"], "False");
    let gadgets = ResourceRef::collection("example.com", "v1", "gadgets").in_namespace("default");
    assert_eq!(
        world.list(gadgets.clone(), ListOptions::default()).await.unwrap_err().reason,
        Reason::NotFound
    );
    // The name becomes free when the kind that has it goes.
    world.delete(definitions().named("widgets.example.com"), DeleteOptions::default()).await.unwrap();
    until(&world, "gadgets.example.com", in_service).await;
    world.list(gadgets, ListOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_broken_definition_is_refused_with_its_places() {
    let world = world().await;
    let mut object = definition(&[version("v1", true)]);
    object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"]
        [0]["rule"] = json!("self.nope == 1");
    let error = world.create(definitions(), &object).await.unwrap_err();
    assert_eq!(
        causes(&error),
        [(
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule",
            "Invalid value: \"self.nope == 1\": compilation failed: undefined field 'nope'",
        )]
    );
}

#[tokio::test]
async fn a_definition_too_large_for_its_status_stops_no_other_and_no_restart() {
    let store = store::memory();
    let world = World::on(store.clone()).await;
    let mut large = definition(&[version("v1", true)]);
    large["metadata"]["name"] = json!("gadgets.example.com");
    large["spec"]["names"] = json!({"plural": "gadgets", "kind": "Gadget"});
    let mut describe = |letters: usize| {
        let schema = &mut large["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["description"] = json!("x".repeat(letters));
        large.clone()
    };
    let error = world.create(definitions(), &describe(OBJECT_BYTES_MAX)).await.unwrap_err();
    let bytes: usize = error.message.split(' ').nth(4).unwrap().parse().unwrap();
    let fits = describe(OBJECT_BYTES_MAX - (bytes - OBJECT_BYTES_MAX));
    world.create(definitions(), &fits).await.unwrap();
    define(&world, &definition(&[version("v1", true)])).await;
    World::on(store).await.create(widgets("v1"), &widget("a", &json!({"color": "red"}))).await.unwrap();
}

#[tokio::test]
async fn no_patch_makes_an_object_too_deep_to_be_read_again() {
    let world = world().await;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let open = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    define(&world, &definition(&[open])).await;
    let one = || widgets("v1").named("a");
    world.create(widgets("v1"), &widget("a", &json!({"color": "red"}))).await.unwrap();
    let deep = |levels: usize| (0..levels).fold(json!("end"), |below, _| json!({"a": below}));
    let fits = json!([{"op": "add", "path": "/spec/deep", "value": deep(98)}]);
    world.patch(one(), PatchKind::Json, &fits).await.unwrap();
    world.merge(one(), &json!({"metadata": {"labels": {"still": "writable"}}})).await.unwrap();
    for (kind, patch) in [
        (PatchKind::Json, json!([{"op": "add", "path": "/spec/deep", "value": deep(99)}])),
        (PatchKind::Json, json!([{"op": "add", "path": "/spec/deep", "value": deep(120)}])),
        (PatchKind::Merge, json!({"spec": {"deep": deep(122)}})),
    ] {
        let refused = world.patch(one(), kind, &patch).await;
        assert!(matches!(refused, Err(error) if error.code == 400 && error.message.contains("100 levels")));
    }
    world.delete(one(), DeleteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn an_update_of_revision_zero_is_one_without_a_revision() {
    let world = world().await;
    define(&world, &definition(&[version("v1", true)])).await;
    let mut object = world.create(widgets("v1"), &widget("a", &json!({"color": "red"}))).await.unwrap();
    object["metadata"]["resourceVersion"] = json!("0");
    let error = world.update(widgets("v1").named("a"), &object).await.unwrap_err();
    assert_eq!(
        (error.reason, &*error.details.causes[0].field),
        (Reason::Invalid, "metadata.resourceVersion")
    );
}
