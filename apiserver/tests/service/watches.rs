//! Watches: what is seen, in which order, from where on, and how they end.

use std::{sync::Arc, time::Duration};

use claw_client::{
    ResourceRef,
    request::{IncludeObject, View, WatchOptions},
};
use serde_json::{Value, json};

use crate::world::{configmaps, pods, revision, world};

fn from(revision: &str) -> WatchOptions {
    WatchOptions { resource_version: Some(revision.to_owned()), ..WatchOptions::default() }
}

#[tokio::test]
async fn a_watch_from_a_revision_sees_only_what_came_after() {
    let world = world().await;
    let start = world.configmap("a", &json!({})).await;
    let mut watch = world.watch(configmaps(), from(&start)).await;
    assert!(watch.is_silent());
    world.configmap("b", &json!({})).await;
    world.merge(configmaps().named("a"), &json!({"data": {"k": "2"}})).await.unwrap();
    world.delete(configmaps().named("b"), Default::default()).await.unwrap();
    assert_eq!(watch.take(3).await, ["ADDED b", "MODIFIED a", "DELETED b"]);
}

#[tokio::test]
async fn a_watch_from_nothing_begins_with_what_exists() {
    for start in [None, Some("0".to_owned()), Some(String::new())] {
        let world = world().await;
        world.configmap("a", &json!({})).await;
        world.configmap("b", &json!({})).await;
        let options = WatchOptions { resource_version: start, ..WatchOptions::default() };
        let mut watch = world.watch(configmaps(), options).await;
        world.configmap("c", &json!({})).await;
        assert_eq!(watch.take(3).await, ["ADDED a", "ADDED b", "ADDED c"]);
    }
}

#[tokio::test]
async fn initial_events_end_with_their_bookmark() {
    let world = world().await;
    world.configmap("a", &json!({})).await;
    let options =
        WatchOptions { send_initial_events: true, allow_bookmarks: true, ..WatchOptions::default() };
    let mut watch = world.watch(configmaps(), options).await;
    assert_eq!(watch.take(1).await, ["ADDED a"]);
    let (kind, bookmark) = watch.next().await.unwrap();
    assert_eq!(kind, "BOOKMARK");
    assert_eq!((&bookmark["kind"], &bookmark["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(revision(&bookmark), world.service.store().revision().to_string());
    world.configmap("b", &json!({})).await;
    assert_eq!(watch.take(1).await, ["ADDED b"]);
}

#[tokio::test]
async fn an_expired_revision_is_one_error_event_and_the_end() {
    let world = world().await;
    let old = world.configmap("a", &json!({})).await;
    world.configmap("b", &json!({})).await;
    let now = world.service.store().revision();
    world.service.store().compact(now).await.unwrap();
    let mut watch = world.watch(configmaps(), from(&old)).await;
    let (kind, status) = watch.next().await.unwrap();
    assert_eq!((kind, &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
    assert!(status["message"].as_str().unwrap().starts_with("too old resource version: "));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_revision_ahead_of_the_server_stays_silent_until_it_is_reached() {
    let world = world().await;
    let ahead = world.service.store().revision() + 2;
    let mut watch = world.watch(configmaps(), from(&ahead.to_string())).await;
    world.configmap("a", &json!({})).await;
    world.configmap("b", &json!({})).await;
    assert!(watch.is_silent());
    world.configmap("c", &json!({})).await;
    assert_eq!(watch.take(1).await, ["ADDED c"]);
}

#[tokio::test]
async fn a_watch_from_a_revision_that_is_none_is_refused() {
    let world = world().await;
    for none in ["-1", "one", "1.0", "99999999999999999999"] {
        let watch = world.service.watch(&world.who, configmaps(), from(none), View::Object).await;
        assert_eq!(watch.err().unwrap().code, 400, "{none}");
    }
}

/// Nor does it say what has not been reached is over: a client would begin at it again.
#[tokio::test(start_paused = true)]
async fn a_bookmark_of_a_watch_ahead_is_never_before_where_it_began() {
    let world = world().await;
    let ahead = world.service.store().revision() + 3;
    let options =
        WatchOptions { allow_bookmarks: true, timeout_seconds: Some(100), ..from(&ahead.to_string()) };
    let mut watch = world.watch(configmaps(), options).await;
    world.configmap("early", &json!({})).await;
    let (kind, bookmark) = watch.next_at_last().await.unwrap();
    assert_eq!((kind, revision(&bookmark)), ("BOOKMARK", ahead.to_string()));
    for name in ["b", "c", "d"] {
        world.configmap(name, &json!({})).await;
    }
    let told = watch.next_at_last().await.unwrap();
    assert_eq!((told.0, &told.1["metadata"]["name"]), ("ADDED", &json!("d")));
    assert_eq!(watch.next_at_last().await.unwrap().0, "BOOKMARK");
    assert!(watch.next_at_last().await.is_none());
}

#[tokio::test]
async fn entering_a_selector_is_added_and_leaving_it_deleted_at_that_revision() {
    let world = world().await;
    let start = world.service.store().revision().to_string();
    let options = WatchOptions { label_selector: "app=web".into(), ..from(&start) };
    let mut watch = world.watch(configmaps(), options).await;
    world.configmap("x", &json!({"app": "db"})).await;
    let app = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    world.merge(configmaps().named("x"), &app("web")).await.unwrap();
    world.merge(configmaps().named("x"), &json!({"data": {"k": "2"}})).await.unwrap();
    let left = world.merge(configmaps().named("x"), &app("db")).await.unwrap();
    world.delete(configmaps().named("x"), Default::default()).await.unwrap();
    assert_eq!(watch.take(2).await, ["ADDED x", "MODIFIED x"]);
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!(kind, "DELETED");
    assert_eq!(revision(&object), revision(&left), "the revision at which it left");
    assert_eq!(object["metadata"]["labels"]["app"], "web", "as it last was in the selector");
    assert!(watch.is_silent(), "what happens outside of the selector is not seen");
}

#[tokio::test]
async fn one_name_or_one_node_can_be_watched() {
    let world = world().await;
    let start = world.service.store().revision().to_string();
    let by = |field: &str| WatchOptions { field_selector: field.to_owned(), ..from(&start) };
    let mut name = world.watch(pods(), by("metadata.name=b")).await;
    let mut node = world.watch(ResourceRef::collection("", "v1", "pods"), by("spec.nodeName=n1")).await;
    for one in ["a", "b", "bb"] {
        crate::world::bound_pod(&world, one).await;
    }
    world
        .delete(
            pods().named("b"),
            claw_client::request::DeleteOptions { grace_period_seconds: Some(0), ..Default::default() },
        )
        .await
        .unwrap();
    assert_eq!(name.take(3).await, ["ADDED b", "MODIFIED b", "DELETED b"]);
    assert_eq!(node.take(4).await, ["ADDED a", "ADDED b", "ADDED bb", "DELETED b"]);
}

#[tokio::test]
async fn a_deleted_object_is_seen_as_it_was_with_the_revision_of_its_end() {
    let world = world().await;
    let made = world.configmap("x", &json!({})).await;
    world.delete(configmaps().named("x"), Default::default()).await.unwrap();
    let mut watch = world.watch(configmaps(), from(&made)).await;
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind, &object["data"]["k"]), ("DELETED", &json!("v")));
    assert_eq!(revision(&object), world.service.store().revision().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_watchers_see_one_order_without_gap_or_double() {
    let world = Arc::new(world().await);
    let start = world.service.store().revision().to_string();
    let mut watches = Vec::new();
    for _ in 0..8 {
        watches.push(world.watch(configmaps(), from(&start)).await);
    }
    let writers = (0..4).map(|writer| {
        let world = world.clone();
        tokio::spawn(async move {
            for n in 0..25 {
                world.configmap(&format!("w{writer}-{n}"), &json!({})).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut orders = Vec::new();
    for watch in &mut watches {
        orders.push(watch.take(100).await);
    }
    assert_eq!(orders[0].len(), 100);
    assert!(orders.iter().all(|order| *order == orders[0]));
    // Resuming in the middle gives exactly the rest.
    let middle = world.get(configmaps().named(orders[0][49].strip_prefix("ADDED ").unwrap())).await.unwrap();
    let mut resumed = world.watch(configmaps(), from(&revision(&middle))).await;
    assert_eq!(resumed.take(50).await, orders[0][50..]);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_every_minute_and_before_the_end() {
    let world = world().await;
    let start = world.configmap("a", &json!({})).await;
    let options = WatchOptions { allow_bookmarks: true, timeout_seconds: Some(100), ..from(&start) };
    let began = tokio::time::Instant::now();
    let mut watch = world.watch(configmaps(), options).await;
    let mut seen = Vec::new();
    while let Some((kind, object)) = watch.next_at_last().await {
        seen.push((kind, began.elapsed().as_secs(), revision(&object)));
    }
    let now = world.service.store().revision().to_string();
    assert_eq!(seen, [("BOOKMARK", 60, now.clone()), ("BOOKMARK", 98, now)]);
    assert_eq!(began.elapsed().as_secs(), 100, "it ends when it was asked to");
}

/// A client that resumes from a bookmark would miss whatever comes after it and is older.
#[tokio::test(start_paused = true)]
async fn a_bookmark_is_never_ahead_of_what_was_not_delivered() {
    let world = Arc::new(world().await);
    let start = world.configmap("first", &json!({})).await;
    let options = WatchOptions { allow_bookmarks: true, timeout_seconds: Some(600), ..from(&start) };
    let mut prompt = world.watch(configmaps(), options.clone()).await;
    let mut late = world.watch(configmaps(), options).await;
    // Some of the writes fall together with the bookmarks, which are due every minute.
    let writer = tokio::spawn({
        let world = world.clone();
        async move {
            for n in 0..80 {
                tokio::time::sleep(Duration::from_secs(5)).await;
                world.configmap(&format!("c{n}"), &json!({})).await;
                world.create(pods(), &crate::world::pod(&format!("p{n}"))).await.unwrap();
            }
        }
    });
    let mut seen = Vec::new();
    while !writer.is_finished() {
        seen.push(prompt.next_at_last().await.unwrap());
    }
    assert!(seen.iter().filter(|(kind, _)| *kind == "BOOKMARK").count() >= 6);
    in_order(&seen);
    let mut seen = Vec::new();
    while let Some(event) = late.next_at_last().await {
        seen.push(event);
    }
    let kinds: Vec<_> = seen.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.iter().position(|kind| *kind == "BOOKMARK"), Some(80), "first all that it missed");
    in_order(&seen);
}

/// Nothing is older than what came before it, and no event as old as a bookmark before it.
fn in_order(seen: &[(&str, Value)]) {
    let revision = |object: &Value| revision(object).parse::<u64>().unwrap();
    for two in seen.windows(2) {
        let (before, after) = (revision(&two[0].1), revision(&two[1].1));
        assert!(before < after || (before == after && two[1].0 == "BOOKMARK"), "{two:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_lives_as_long_as_was_asked_and_half_an_hour_or_more_if_nothing_was() {
    let world = world().await;
    for (timeout_seconds, at_least_s, at_most_s) in [
        (Some(1), 1, 1),
        (Some(290), 290, 290),
        (Some(600), 600, 600),
        (None, 1800, 3600),
        (Some(0), 1800, 3600),
        (Some(u64::MAX), 86_400, 86_400),
    ] {
        let began = tokio::time::Instant::now();
        let options = WatchOptions { timeout_seconds, ..from("1") };
        assert!(world.watch(pods(), options).await.next_at_last().await.is_none());
        let lived = began.elapsed().as_secs();
        assert!((at_least_s..=at_most_s).contains(&lived), "{timeout_seconds:?}: {lived} s");
    }
}

#[tokio::test]
async fn a_slow_watcher_gets_what_it_missed_or_is_closed_without_an_error_and_starts_over() {
    let world = world().await;
    let start = world.configmap("start", &json!({})).await;
    let (mut slow, mut slower) =
        (world.watch(configmaps(), from(&start)).await, world.watch(configmaps(), from(&start)).await);
    let mut expected = Vec::new();
    for n in 0..300 {
        world.configmap(&format!("c{n}"), &json!({})).await;
        expected.push(format!("ADDED c{n}"));
    }
    assert_eq!(slow.take(300).await, expected);
    let mut seen = slower.take(1).await;
    let now = world.service.store().revision();
    world.service.store().compact(now).await.unwrap();
    let mut last = start;
    while let Some((kind, object)) = slower.next().await {
        assert_eq!(kind, "ADDED", "the end comes without a word: {object}");
        seen.push(format!("ADDED {}", object["metadata"]["name"].as_str().unwrap()));
        last = revision(&object);
    }
    assert!(seen.len() < expected.len() && seen == expected[..seen.len()], "a beginning without a gap");
    let mut resumed = world.watch(configmaps(), from(&last)).await;
    assert_eq!(resumed.next().await.unwrap().1["reason"], "Expired");
    let list = world.list(configmaps(), Default::default()).await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 301);
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_bookmarks_gets_none() {
    let world = world().await;
    let options = WatchOptions { timeout_seconds: Some(300), ..from("1") };
    let mut watch = world.watch(pods(), options).await;
    assert!(watch.next_at_last().await.is_none());
}

#[tokio::test]
async fn a_bookmark_of_another_kind_s_writes_lets_a_client_resume_late() {
    let world = world().await;
    let start = world.service.store().revision();
    for n in 0..5 {
        world.configmap(&format!("c{n}"), &json!({})).await;
    }
    let options =
        WatchOptions { send_initial_events: true, allow_bookmarks: true, ..WatchOptions::default() };
    let (_, bookmark) = world.watch(pods(), options).await.next().await.unwrap();
    assert_eq!(revision(&bookmark), (start + 5).to_string());
}

#[tokio::test]
async fn tables_in_a_watch_have_one_row_and_columns_only_once() {
    let world = world().await;
    world.configmap("a", &json!({})).await;
    let view = View::Table(IncludeObject::Metadata);
    let mut watch = world.watch_as(configmaps(), WatchOptions::default(), view).await;
    let (_, first) = watch.next().await.unwrap();
    world.configmap("b", &json!({})).await;
    let (kind, second) = watch.next().await.unwrap();
    assert_eq!((kind, &first["kind"], &second["kind"]), ("ADDED", &json!("Table"), &json!("Table")));
    assert_eq!((&first["rows"][0]["cells"][0], &second["rows"][0]["cells"][0]), (&json!("a"), &json!("b")));
    assert!(first["columnDefinitions"].is_array() && second["columnDefinitions"].is_null());
    assert_eq!(second["rows"].as_array().unwrap().len(), 1);
    assert_eq!(revision(&second), world.service.store().revision().to_string());
}

#[tokio::test]
async fn metadata_watches_carry_metadata_alone() {
    let world = world().await;
    let start = world.service.store().revision().to_string();
    let mut watches = [
        world.watch_as(configmaps(), from(&start), View::Metadata).await,
        world.watch_as(configmaps(), from(&start), View::Metadata).await,
    ];
    world.configmap("a", &json!({})).await;
    for watch in &mut watches {
        let (_, object) = watch.next().await.unwrap();
        assert_eq!(object["kind"], "PartialObjectMetadata");
        assert!(object["metadata"]["uid"].is_string() && object.get("data").is_none());
    }
}

#[tokio::test]
async fn closing_ends_watches_cleanly_and_refuses_new_ones() {
    let world = world().await;
    let mut watch = world.watch(configmaps(), WatchOptions::default()).await;
    assert!(watch.is_silent());
    world.service.close_watches();
    assert!(watch.next().await.is_none());
    assert_eq!(world.try_watch(configmaps()).await.err().unwrap().code, 503);
}

#[tokio::test]
async fn more_watches_than_the_limit_are_429_with_a_time_to_retry() {
    let world = world().await;
    let mut held = Vec::new();
    for _ in 0..claw_apiserver::service::limits::WATCHES_OPEN_MAX {
        held.push(world.try_watch(configmaps()).await.unwrap());
    }
    let error = world.try_watch(configmaps()).await.err().unwrap();
    assert_eq!(error.code, 429);
    assert!(error.details.retry_after_seconds > 0);
    world.configmap("still-served", &json!({})).await;
    drop(held);
    assert!(world.try_watch(configmaps()).await.is_ok());
}
