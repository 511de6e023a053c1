//! Versions that differ in more than their name: a webhook converts, over real TLS.

use std::sync::Arc;

use claw_client::{
    ResourceRef,
    request::{ListOptions, WatchOptions},
};
use claw_schemas::status::Reason;
use serde_json::{Value, json};

use crate::{
    custom::{define, definitions},
    programs::Program,
    world::{World, world},
};

/// A webhook that knows `spec.color` of version v1 as `spec.colour` of v2.
async fn webhook() -> Arc<Program> {
    Program::start(answer).await
}

fn answer(review: &Value) -> Value {
    let wanted = review["request"]["desiredAPIVersion"].as_str().unwrap();
    let objects: Vec<Value> = review["request"]["objects"].as_array().unwrap().clone();
    let refused = objects.iter().any(|object| object["metadata"]["name"] == "stubborn");
    let converted: Vec<Value> = objects.into_iter().map(|object| convert(object, wanted)).collect();
    let result = if refused {
        json!({"status": "Failed", "message": "it does not want to"})
    } else {
        json!({"status": "Success"})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": review["request"]["uid"], "result": result, "convertedObjects": converted},
    })
}

fn convert(mut object: Value, wanted: &str) -> Value {
    let (from, to) = if wanted.ends_with("v2") { ("color", "colour") } else { ("colour", "color") };
    object["apiVersion"] = wanted.into();
    // An apply may ask about an object of which nothing is left.
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(value) = spec.remove(from)
    {
        spec.insert(to.to_owned(), value);
    }
    // Of metadata, a webhook can change only these two; the rest is ignored.
    object["metadata"]["annotations"] = json!({"converted-to": wanted});
    object["metadata"]["generation"] = json!(99);
    object
}

fn definition(client_config: &Value) -> Value {
    let version = |name: &str, field: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {field: {"type": "string"}, "size": {"type": "integer", "default": 1}}}}}}})
    };
    json!({
        "metadata": {"name": "paints.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "paints", "kind": "Paint"},
            "versions": [version("v1", "color", true), version("v2", "colour", false)],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client_config}},
        },
    })
}

pub fn paints(version: &str) -> ResourceRef {
    ResourceRef::collection("example.com", version, "paints").in_namespace("default")
}

pub fn paint(name: &str, version: &str, field: &str) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Paint", "metadata": {"name": name}, "spec": {field: "red"}})
}

pub async fn painted() -> World {
    let world = world().await;
    define(&world, &definition(&webhook().await.client_config())).await;
    world
}

#[tokio::test]
async fn a_webhook_converts_what_is_read_and_written() {
    let world = painted().await;
    let made = world.create(paints("v2"), &paint("a", "v2", "colour")).await.unwrap();
    assert_eq!(
        (&made["apiVersion"], &made["spec"]),
        (&json!("example.com/v2"), &json!({"colour": "red", "size": 1}))
    );
    let stored = world.get(paints("v1").named("a")).await.unwrap();
    assert_eq!(
        (&stored["apiVersion"], &stored["spec"]),
        (&json!("example.com/v1"), &json!({"color": "red", "size": 1}))
    );
    assert_eq!(stored["metadata"]["annotations"], json!({"converted-to": "example.com/v1"}));
    assert_eq!(
        (&stored["metadata"]["generation"], &stored["metadata"]["uid"]),
        (&json!(1), &made["metadata"]["uid"])
    );

    let changed = world.merge(paints("v2").named("a"), &json!({"spec": {"colour": "blue"}})).await.unwrap();
    assert_eq!(changed["spec"]["colour"], "blue");
    assert_eq!(world.get(paints("v1").named("a")).await.unwrap()["spec"]["color"], "blue");
    world.create(paints("v1"), &paint("b", "v1", "color")).await.unwrap();
    let list = world.list(paints("v2"), ListOptions::default()).await.unwrap();
    let colours: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|item| &item["spec"]["colour"]).collect();
    assert_eq!(colours, ["blue", "red"]);
    let mut watch = world.watch(paints("v2"), WatchOptions::default()).await;
    for expected in ["blue", "red"] {
        assert_eq!(watch.next().await.unwrap().1["spec"]["colour"], expected);
    }
    world.merge(paints("v1").named("b"), &json!({"spec": {"color": "green"}})).await.unwrap();
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind, &object["spec"]["colour"]), ("MODIFIED", &json!("green")));
}

#[tokio::test]
async fn a_webhook_that_fails_says_why_and_leaves_the_storage_version_alone() {
    let world = painted().await;
    world.create(paints("v1"), &paint("stubborn", "v1", "color")).await.unwrap();
    let error = world.get(paints("v2").named("stubborn")).await.unwrap_err();
    assert_eq!((error.code, error.reason), (500, Reason::InternalError));
    assert_eq!(
        error.message,
        "conversion webhook for example.com/v2, Kind=Paint failed: it does not want to"
    );
    assert_eq!(world.get(paints("v1").named("stubborn")).await.unwrap()["spec"]["color"], "red");
}

#[tokio::test]
async fn a_webhook_that_cannot_be_trusted_or_reached_is_told_apart() {
    for (config, words) in [
        (json!({"service": {"namespace": "x", "name": "y"}}), "this cluster has no Services yet"),
        (json!({"url": "https://localhost:1/"}), "Post \"https://localhost:1/\""),
        (json!({"url": webhook().await.url, "caBundle": webhook().await.bundle}), "certificate"),
    ] {
        let world = world().await;
        define(&world, &definition(&config)).await;
        world.create(paints("v1"), &paint("a", "v1", "color")).await.unwrap();
        let error = world.get(paints("v2").named("a")).await.unwrap_err();
        assert!(error.message.contains(words), "{error}");
        assert_eq!(
            world.get(definitions().named("paints.example.com")).await.unwrap()["kind"],
            "CustomResourceDefinition"
        );
    }
}
