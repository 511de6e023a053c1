//! Watches: how they begin, what every event says, how they end.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{DATASETS, MAPS, MERGE, Rig, TABLE, WATCH_LIST, dataset, revision};

const METADATA: &str = "accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const OBJECT: &str = "accept: application/json";

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_cleanly_at_its_time_out_and_not_within_a_second_of_silence() {
    let rig = Rig::start().await;
    let began = Instant::now();
    let mut watch = rig.watch(&format!("{MAPS}?watch=true&timeoutSeconds=1")).await;
    assert_eq!(watch.next().await, None);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

/// client-go and kube-rs drop an event that does not say what it is of, and start over at one without a revision.
#[tokio::test(flavor = "multi_thread")]
async fn every_event_in_every_form_names_its_type_and_its_revision() {
    let rig = Rig::start().await;
    for (accept, api_version, kind) in [
        (OBJECT, "v1", "ConfigMap"),
        (METADATA, "meta.k8s.io/v1", "PartialObjectMetadata"),
        (TABLE, "meta.k8s.io/v1", "Table"),
    ] {
        rig.map("a").await;
        let one = format!("{MAPS}/a");
        let mut watch = rig.watch_as(&format!("{MAPS}?{WATCH_LIST}"), accept).await;
        rig.patch(&one, MERGE, &json!({"data": {"k": "2"}})).await.expect(200);
        rig.delete(&one, &json!({})).await.expect(200);
        let mut last = 0;
        for expected in ["ADDED", "BOOKMARK", "MODIFIED", "DELETED"] {
            let event = watch.next().await.unwrap();
            let object = &event["object"];
            assert_eq!(event["type"], expected, "{event}");
            assert_eq!(
                (&object["apiVersion"], &object["kind"]),
                (&json!(api_version), &json!(kind)),
                "{event}"
            );
            assert!(revision(object) >= last && revision(object) > 0, "{event}");
            last = revision(object);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_watch_is_200_with_one_error_event_of_410_and_a_clean_end() {
    let rig = Rig::start().await;
    let old = revision(&rig.map("a").await);
    rig.forget_history().await;
    for accept in [OBJECT, METADATA, TABLE] {
        let mut watch = rig.watch_as(&format!("{MAPS}?watch=true&resourceVersion={old}"), accept).await;
        let event = watch.next().await.unwrap();
        let status = &event["object"];
        assert_eq!((&event["type"], &status["kind"]), (&json!("ERROR"), &json!("Status")), "{event}");
        assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")), "{event}");
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("too old resource version: {old} (")), "{message}");
        assert_eq!(watch.next().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_events_are_added_alone_and_end_with_their_bookmark_whatever_happens_meanwhile() {
    let rig = Rig::start().await;
    rig.maps(&["a", "b"]).await;
    let mut watch = rig.watch(&format!("{MAPS}?{WATCH_LIST}")).await;
    rig.delete(&format!("{MAPS}/a"), &json!({})).await.expect(200);
    rig.map("c").await;
    assert_eq!(watch.take(2).await, ["ADDED a", "ADDED b"]);
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    let gone = watch.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert!(revision(&gone["object"]) > revision(&bookmark["object"]));
    assert_eq!(watch.take(1).await, ["ADDED c"]);
}

/// `kubectl wait`, `rollout status` and `delete` of 1.36 hang until their time-out where that bookmark is missing.
#[tokio::test(flavor = "multi_thread")]
async fn the_initial_events_of_every_kind_in_every_form_end_with_their_bookmark() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    rig.map("a").await;
    rig.post(DATASETS, &dataset("d")).await;
    for (path, _) in rig.watchable().await {
        for accept in [OBJECT, METADATA, TABLE] {
            let query = format!("{WATCH_LIST}&fieldSelector=metadata.name%3Dnone&timeoutSeconds=60");
            let mut watch = rig.watch_as(&format!("{path}?{query}"), accept).await;
            let event = watch.next().await.unwrap();
            assert_eq!(event["type"], "BOOKMARK", "{path}: {event}");
            let object = &event["object"];
            let about = if accept == TABLE { &object["rows"][0]["object"] } else { object };
            let ends = &about["metadata"]["annotations"]["k8s.io/initial-events-end"];
            assert_eq!(*ends, "true", "{path}: {event}");
            assert!(revision(object) > 0, "{path}: {event}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_lists_and_then_watches_from_there_misses_nothing_and_sees_nothing_twice() {
    let rig = Rig::start().await;
    rig.maps(&["a", "b"]).await;
    let list = rig.get(&format!("{MAPS}?limit=500&resourceVersion=0")).await;
    rig.map("c").await;
    let path = format!("{MAPS}?allowWatchBookmarks=true&resourceVersion={}&watch=true", revision(&list));
    let mut watch = rig.watch(&path).await;
    rig.delete(&format!("{MAPS}/a"), &json!({})).await.expect(200);
    assert_eq!(watch.take(2).await, ["ADDED c", "DELETED a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_one_name_sees_that_object_alone() {
    let rig = Rig::start().await;
    rig.maps(&["a", "b"]).await;
    let one = format!("{MAPS}?{WATCH_LIST}&fieldSelector=metadata.name%3Db&timeoutSeconds=60");
    let mut watch = rig.watch(&one).await;
    for name in ["a", "b"] {
        rig.delete(&format!("{MAPS}/{name}"), &json!({})).await.expect(200);
    }
    assert_eq!(watch.take(3).await, ["ADDED b", "BOOKMARK -", "DELETED b"]);
}
