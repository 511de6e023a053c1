//! What a cache must never get wrong: deltas, snapshots, indexes, waiting.

use std::sync::atomic::{AtomicUsize, Ordering};

use claw_schemas::selector::LabelSelector;
use parking_lot::Mutex;

use super::*;
use crate::object::{Cached as _, DynamicObject};

fn object(namespace: &str, name: &str, revision: u64, owner: Option<&str>) -> DynamicObject {
    let owners: Vec<_> = owner
        .map(|uid| serde_json::json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid}))
        .into_iter()
        .collect();
    serde_json::from_value(serde_json::json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-{name}"),
            "resourceVersion": revision.to_string(), "ownerReferences": owners,
            "labels": {"name": name},
        },
    }))
    .unwrap()
}

fn names<'a>(objects: impl Iterator<Item = &'a Arc<DynamicObject>>) -> Vec<String> {
    objects.map(|o| ObjectKey::of(o.meta()).to_string()).collect()
}

fn log_of(store: &Store<DynamicObject>) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let entries = Arc::clone(&log);
    store.subscribe(move |delta| {
        entries.lock().push(match delta {
            Delta::Applied { new, old: None } => format!("new {}", ObjectKey::of(new.meta())),
            Delta::Applied { new, old: Some(_) } => format!("changed {}", ObjectKey::of(new.meta())),
            Delta::Deleted { last } => format!("gone {}", ObjectKey::of(last.meta())),
            Delta::Synced => "synced".to_owned(),
        });
    });
    log
}

#[test]
fn a_relist_tells_only_what_differs() {
    let mut writer = Writer::new();
    let store = writer.store();
    let log = log_of(&store);
    writer.replace(vec![object("a", "x", 1, None), object("a", "y", 2, None)], 5);
    writer.replace(vec![object("a", "y", 2, None), object("b", "z", 7, None)], 8);
    assert_eq!(*log.lock(), ["new a/x", "new a/y", "synced", "new b/z", "gone a/x", "synced"]);
    assert_eq!(store.latest_revision(), 8);
}

#[test]
fn what_is_not_kept_is_still_told_of() {
    let mut writer =
        Writer::new().keep_only(|object: &DynamicObject| object.metadata.owner_references.is_some());
    let store = writer.store();
    let log = log_of(&store);
    let plain = |revision| {
        let mut plain = object("a", "plain", revision, None);
        plain.metadata.owner_references = None;
        plain
    };
    writer.replace(vec![object("a", "owned", 1, Some("o"))], 1);
    writer.apply(plain(2));
    writer.delete(plain(3));
    assert_eq!(*log.lock(), ["new a/owned", "synced", "new a/plain", "gone a/plain"]);
    assert_eq!(store.list().len(), 1);
    assert_eq!(store.latest_revision(), 3);
}

#[test]
fn an_object_recreated_under_its_name_is_a_change_even_at_an_equal_revision() {
    let mut writer = Writer::new();
    let log = log_of(&writer.store());
    writer.replace(vec![object("a", "x", 1, None)], 1);
    let mut other = object("a", "x", 1, None);
    other.metadata.uid = Some("another".to_owned());
    writer.replace(vec![other], 1);
    assert_eq!(*log.lock(), ["new a/x", "synced", "changed a/x", "synced"]);
}

#[test]
fn a_late_subscriber_misses_nothing() {
    let mut writer = Writer::new();
    writer.replace(vec![object("a", "x", 1, None)], 1);
    let log = log_of(&writer.store());
    writer.apply(object("a", "x", 2, None));
    writer.delete(object("a", "x", 3, None));
    assert_eq!(*log.lock(), ["new a/x", "synced", "changed a/x", "gone a/x"]);
}

#[test]
fn a_snapshot_does_not_move_while_the_store_does() {
    let mut writer = Writer::new();
    let store = writer.store();
    writer.replace(vec![object("a", "x", 1, Some("o1"))], 1);
    let before = store.snapshot();
    writer.delete(object("a", "x", 2, Some("o1")));
    writer.apply(object("a", "y", 3, Some("o1")));
    assert_eq!(names(before.iter()), ["a/x"]);
    assert_eq!(names(before.owned_by("o1")), ["a/x"]);
    assert_eq!(names(store.snapshot().owned_by("o1")), ["a/y"]);
}

#[test]
fn changes_that_come_together_are_shown_together_and_told_one_by_one() {
    let mut writer = Writer::new();
    let store = writer.store();
    writer.replace(vec![object("a", "x", 1, None)], 1);
    let log = log_of(&store);
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let (seen, reader) = (Arc::clone(&sizes), store.clone());
    store.subscribe(move |_| seen.lock().push(reader.snapshot().len()));
    sizes.lock().clear();
    writer.change([
        Change::Applied(object("a", "y", 2, None)),
        Change::Deleted(object("a", "x", 3, None)),
        Change::Applied(object("a", "y", 4, None)),
        Change::Advanced(9),
    ]);
    assert_eq!(*log.lock(), ["new a/x", "synced", "new a/y", "gone a/x", "changed a/y"]);
    assert_eq!(*sizes.lock(), [1, 1, 1], "a handler saw a picture from the middle");
    assert_eq!(store.latest_revision(), 9);
}

#[test]
fn a_change_of_owner_moves_the_object_between_owners() {
    let mut writer = Writer::new();
    let store = writer.store();
    writer.apply(object("a", "x", 1, Some("o1")));
    writer.apply(object("a", "x", 2, Some("o2")));
    assert_eq!(names(store.snapshot().owned_by("o1")), Vec::<String>::new());
    assert_eq!(names(store.snapshot().owned_by("o2")), ["a/x"]);
}

#[test]
fn a_namespace_is_read_without_its_neighbours() {
    let mut writer = Writer::new().index("initial", |o: &DynamicObject| {
        o.metadata.name.iter().map(|name| name[..1].to_owned()).collect()
    });
    let store = writer.store();
    writer.replace(
        vec![
            object("a", "x1", 1, None),
            object("a-b", "x2", 2, None),
            object("a", "y3", 3, None),
            object("", "x4", 4, None),
        ],
        4,
    );
    let snapshot = store.snapshot();
    assert_eq!(names(snapshot.in_namespace("a")), ["a/x1", "a/y3"]);
    assert_eq!(names(snapshot.in_namespace("")), ["x4"]);
    assert_eq!(names(snapshot.indexed("initial", "x")), ["x4", "a/x1", "a-b/x2"]);
    let selector = LabelSelector::parse("name in (x1,x2)").unwrap();
    assert_eq!(names(snapshot.select("a", &selector)), ["a/x1"]);
}

#[tokio::test]
async fn a_waiter_for_a_revision_is_woken_by_an_event_or_a_bookmark() {
    let mut writer = Writer::new();
    let store = writer.store();
    let woken = Arc::new(AtomicUsize::new(0));
    let waits: Vec<_> = [3_u64, 9]
        .into_iter()
        .map(|revision| {
            let (store, woken) = (store.clone(), Arc::clone(&woken));
            tokio::spawn(async move {
                store.wait_for_revision(revision).await.unwrap();
                woken.fetch_add(1, Ordering::SeqCst);
                store.latest_revision()
            })
        })
        .collect();
    writer.replace(vec![], 2);
    writer.apply(object("a", "x", 3, None));
    writer.advance(9);
    writer.advance(8);
    for wait in waits {
        wait.await.unwrap();
    }
    assert_eq!((woken.load(Ordering::SeqCst), store.latest_revision()), (2, 9));
}

#[tokio::test]
async fn a_waiter_learns_that_the_writer_is_gone() {
    let writer = Writer::<DynamicObject>::new();
    let store = writer.store();
    drop(writer);
    assert_eq!(store.synced().await, Err(Stopped));
    assert_eq!(store.wait_for_revision(1).await, Err(Stopped));
}
