//! What client libraries rely on, request by request as they send it: rows of the contract that no other theme holds.

use claw_client::ApiError;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::{
    rest::{CONFIGMAPS, bytes, configmap, get, send},
    world::{World, parse, world},
};

/// A reflector's first list allows any state, is cut into pages, and follows them without naming a revision; it lists again
/// at the revision that it saw last, and after a 410 at none.
#[tokio::test]
async fn client_go_lists_at_zero_then_at_the_last_revision_then_at_none() {
    let world = world().await;
    for name in ["a", "b", "c"] {
        configmap(&world, name).await;
    }
    let (mut names, mut revisions, mut query) =
        (Vec::new(), Vec::new(), "resourceVersion=0&limit=2".to_owned());
    loop {
        let list = list(&world, &query).await;
        names.extend(named(&list));
        revisions.push(revision(&list["metadata"]));
        match list["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => query = format!("limit=2&continue={token}"),
            _ => break,
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    let first = revisions.pop().unwrap();
    assert!(revisions.iter().all(|other| *other == first), "{revisions:?}, {first}");

    configmap(&world, "d").await;
    let again = list(&world, &format!("resourceVersion={first}")).await;
    assert_eq!(named(&again).len(), 4, "not older than that revision, but newer");
    let newest = list(&world, "resourceVersion=").await;
    assert_eq!((named(&newest).len(), revision(&newest["metadata"])), (4, revision(&again["metadata"])));
    assert!(revision(&newest["metadata"]) > first);
}

/// kube-rs and client-go drop an event that does not say what it is of, and start over at one without a revision.
#[tokio::test]
async fn every_event_names_its_type_and_its_revision() {
    let world = world().await;
    configmap(&world, "a").await;
    let path = format!(
        "{CONFIGMAPS}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    let mut body = send(&world, "GET", &path, &[], "").await.into_body().into_data_stream();
    let merge = ["content-type: application/merge-patch+json"];
    let one = format!("{CONFIGMAPS}/a");
    assert_eq!(send(&world, "PATCH", &one, &merge, r#"{"data": {"k": "v"}}"#).await.status(), 200);
    assert_eq!(send(&world, "DELETE", &one, &[], "").await.status(), 200);
    let mut lines: Vec<Value> = Vec::new();
    while lines.len() < 4 {
        let chunk = body.next().await.unwrap().unwrap();
        lines.extend(chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parse));
    }
    let types: Vec<_> = lines.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["ADDED", "BOOKMARK", "MODIFIED", "DELETED"]);
    for event in &lines {
        let object = &event["object"];
        assert_eq!((&object["apiVersion"], &object["kind"]), (&json!("v1"), &json!("ConfigMap")), "{event}");
        assert!(revision(&object["metadata"]) > 0, "{event}");
    }
}

/// kopf takes its finalizer off with a JSON patch that first tests the revision, tries again after a 422, and takes a 404 for
/// done.
#[tokio::test]
async fn kopf_takes_its_finalizer_off_the_object_that_it_saw_or_gets_422() {
    let world = world().await;
    let object = json!({"metadata": {"name": "a", "finalizers": ["example.com/held"]}}).to_string();
    let made = parse(&bytes(send(&world, "POST", CONFIGMAPS, &[], &object).await).await);
    let one = format!("{CONFIGMAPS}/a");
    let merge = ["content-type: application/merge-patch+json"];
    let newer = send(&world, "PATCH", &one, &merge, r#"{"metadata": {"annotations": {"k": "v"}}}"#).await;
    let newer = parse(&bytes(newer).await);
    assert_eq!(send(&world, "DELETE", &one, &[], "").await.status(), 200);

    for stale in [&made, &newer] {
        let (code, status) = release(&world, revision(&stale["metadata"])).await;
        assert_eq!((code, status["reason"].as_str()), (422, Some("Invalid")), "{status}");
        serde_json::from_value::<ApiError>(status).unwrap();
    }
    let held = get(&world, &one).await.1;
    assert_eq!(held["metadata"]["finalizers"], json!(["example.com/held"]), "a failed test changes nothing");
    assert_eq!(release(&world, revision(&held["metadata"])).await.0, 200);
    assert_eq!(get(&world, &one).await.0, 404);
    assert_eq!(release(&world, revision(&held["metadata"])).await.0, 404);
}

async fn release(world: &World, seen: u64) -> (u16, Value) {
    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": seen.to_string()},
        {"op": "remove", "path": "/metadata/finalizers"},
    ]);
    let headers = ["content-type: application/json-patch+json"];
    let answer = send(world, "PATCH", &format!("{CONFIGMAPS}/a"), &headers, &patch.to_string()).await;
    (answer.status().as_u16(), parse(&bytes(answer).await))
}

async fn list(world: &World, query: &str) -> Value {
    let (code, list) = get(world, &format!("{CONFIGMAPS}?{query}")).await;
    assert_eq!(code, 200, "{query}: {list}");
    list
}

fn named(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn revision(metadata: &Value) -> u64 {
    metadata["resourceVersion"].as_str().unwrap().parse().unwrap()
}
