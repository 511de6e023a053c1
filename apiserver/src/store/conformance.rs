//! What every backend must do. Each backend's tests run the whole suite (`conformance!`).

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};

use super::{Change, Draft, Event, Expect, Key, Revision, Store, StoreError, Watch, Write};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs the suite; `$open` is an expression that gives a guard (kept until the end) and a fresh store.
macro_rules! conformance {
    ($open:expr) => {
        $crate::store::conformance::conformance!($open;
            a_written_record_is_read_back_with_its_revision_in_it
            a_transaction_with_one_failing_write_changes_nothing
            a_transaction_gives_consecutive_revisions_and_sees_its_own_writes
            a_check_lets_a_transaction_through_or_not_and_writes_nothing
            expectations_are_checked_against_the_last_write
            of_many_writers_with_one_expectation_one_wins
            records_are_listed_in_key_order_within_their_prefix
            pages_of_one_list_read_one_state_while_writes_go_on
            a_list_at_a_forgotten_or_future_revision_is_refused
            a_watch_from_a_revision_sees_each_later_change_once
            watchers_under_concurrent_writers_see_one_order_without_gap_or_double
            a_deletion_is_seen_with_the_record_before
            a_watch_of_a_prefix_sees_nothing_else_but_makes_progress
            a_watch_ahead_of_the_store_stays_silent_until_it_is_passed
            a_compacted_revision_cannot_be_watched_and_cuts_who_is_behind
            a_deletion_right_after_what_was_compacted_is_told
            a_watcher_that_falls_behind_is_cut_and_nobody_else
            a_dropped_wait_loses_no_change
            a_snapshot_opens_as_a_store
            a_closed_store_ends_watches_and_refuses_writes_but_reads
        );
    };
    ($open:expr; $($name:ident)+) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (_guard, store) = $open;
            $crate::store::conformance::$name(store).await;
        }
    )+ };
}
pub(super) use conformance;

type Shared = Arc<dyn Store>;

pub(super) fn key(namespace: &str, name: &str) -> Key {
    Key::object("", "configmaps", namespace, name)
}

fn all() -> Key {
    Key::collection("", "configmaps", None)
}

pub(super) fn draft(text: &str) -> Draft {
    let head = r#"{"metadata":{"resourceVersion":""#;
    Draft { bytes: format!(r#"{head}"}},"data":"{text}"}}"#).into(), revision_at: head.len() }
}

pub(super) fn put(key: Key, expect: Expect, text: &str) -> Write {
    Write { key, expect, change: Change::Put(draft(text)) }
}

pub(super) fn delete(key: Key, revision: Revision, text: &str) -> Write {
    Write { key, expect: Expect::Revision(revision), change: Change::Delete(draft(text)) }
}

/// Creates a record.
pub(super) async fn create(store: &dyn Store, key: &Key, text: &str) -> Revision {
    store.commit(vec![put(key.clone(), Expect::Absent, text)]).await.unwrap()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it comes in time")
}

async fn take(watch: &mut dyn Watch, count: usize) -> Vec<Arc<Event>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(soon(watch.next()).await.expect("the watch goes on"));
    }
    taken
}

fn revisions(events: &[Arc<Event>]) -> Vec<Revision> {
    events.iter().map(|event| event.record.revision).collect()
}

pub(super) async fn a_written_record_is_read_back_with_its_revision_in_it(store: Shared) {
    let revision = create(&*store, &key("a", "x"), "one").await;
    let record = store.get(&key("a", "x")).await.unwrap().unwrap();
    assert_eq!((record.revision, store.revision()), (revision, revision));
    let text = format!(r#"{{"metadata":{{"resourceVersion":"{revision}"}},"data":"one"}}"#);
    assert_eq!(record.value, text);
    assert!(store.get(&key("a", "y")).await.unwrap().is_none());
}

pub(super) async fn a_transaction_with_one_failing_write_changes_nothing(store: Shared) {
    let first = create(&*store, &key("a", "x"), "one").await;
    let mut watch = store.watch(&all(), first).unwrap();
    let writes = vec![
        put(key("a", "new"), Expect::Absent, "two"),
        put(key("a", "x"), Expect::Revision(first + 7), "two"),
    ];
    let refused = store.commit(writes).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { key: which, actual, .. }
        if which == key("a", "x") && actual == Some(first)));
    assert_eq!(store.revision(), first);
    assert!(store.get(&key("a", "new")).await.unwrap().is_none());
    assert!(watch.try_next().is_none());
}

pub(super) async fn a_transaction_gives_consecutive_revisions_and_sees_its_own_writes(store: Shared) {
    let base = store.revision();
    let writes = vec![
        put(key("a", "x"), Expect::Absent, "one"),
        put(key("a", "y"), Expect::Absent, "one"),
        put(key("a", "x"), Expect::Revision(base + 1), "two"),
        delete(key("a", "y"), base + 2, "gone"),
        put(key("a", "y"), Expect::Absent, "three"),
    ];
    assert_eq!(store.commit(writes).await.unwrap(), base + 5);
    assert_eq!(store.get(&key("a", "x")).await.unwrap().unwrap().revision, base + 3);
    assert_eq!(store.get(&key("a", "y")).await.unwrap().unwrap().revision, base + 5);
    assert_eq!(store.commit(Vec::new()).await.unwrap(), base + 5);
}

pub(super) async fn a_check_lets_a_transaction_through_or_not_and_writes_nothing(store: Shared) {
    let check = |name: &str, expect| Write { key: key("a", name), expect, change: Change::Check };
    let first = create(&*store, &key("a", "x"), "one").await;
    let (is_there, is_free) = (Expect::Revision(first), Expect::Absent);
    let mut watch = store.watch(&all(), first).unwrap();
    let writes = vec![
        check("x", is_there),
        put(key("a", "y"), Expect::Absent, "one"),
        check("z", is_free),
        put(key("a", "y"), Expect::Revision(first + 1), "two"),
        check("y", Expect::Revision(first + 2)),
    ];
    assert_eq!(store.commit(writes).await.unwrap(), first + 2);
    assert_eq!(store.get(&key("a", "x")).await.unwrap().unwrap().revision, first);
    assert_eq!(revisions(&take(&mut *watch, 2).await), [first + 1, first + 2]);
    for wrong in [check("x", is_free), check("x", Expect::Revision(first + 1)), check("z", is_there)] {
        let refused = store.commit(vec![put(key("a", "new"), is_free, "one"), wrong]).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    }
    assert_eq!(store.commit(vec![check("x", is_there)]).await.unwrap(), first + 2);
    assert_eq!(store.revision(), first + 2);
}

pub(super) async fn expectations_are_checked_against_the_last_write(store: Shared) {
    let x = key("a", "x");
    let first = create(&*store, &x, "one").await;
    let taken = store.commit(vec![put(x.clone(), Expect::Absent, "two")]).await.unwrap_err();
    assert!(matches!(taken, StoreError::Conflict { actual: Some(actual), .. } if actual == first));
    let second = store.commit(vec![put(x.clone(), Expect::Revision(first), "two")]).await.unwrap();
    let stale = store.commit(vec![delete(x.clone(), first, "gone")]).await.unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { actual: Some(actual), .. } if actual == second));
    store.commit(vec![delete(x.clone(), second, "gone")]).await.unwrap();
    let gone = store.commit(vec![put(x.clone(), Expect::Revision(second), "late")]).await.unwrap_err();
    assert!(matches!(gone, StoreError::Conflict { actual: None, .. }));
    let nothing = Write { key: x, expect: Expect::Absent, change: Change::Delete(draft("gone")) };
    assert!(matches!(store.commit(vec![nothing]).await, Err(StoreError::Conflict { actual: None, .. })));
}

pub(super) async fn of_many_writers_with_one_expectation_one_wins(store: Shared) {
    let x = key("a", "x");
    let first = create(&*store, &x, "one").await;
    let mut writers = JoinSet::new();
    for writer in 0..32 {
        let (store, write) = (store.clone(), put(x.clone(), Expect::Revision(first), &writer.to_string()));
        writers.spawn(async move { store.commit(vec![write]).await.is_ok() });
    }
    let won = soon(writers.join_all()).await.into_iter().filter(|won| *won).count();
    assert_eq!((won, store.revision()), (1, first + 1));
}

pub(super) async fn records_are_listed_in_key_order_within_their_prefix(store: Shared) {
    for (namespace, name) in [("b", "z"), ("a-b", "x"), ("a", "y"), ("ab", "x"), ("a", "x")] {
        create(&*store, &key(namespace, name), "one").await;
    }
    create(&*store, &Key::object("", "configmapsx", "a", "x"), "one").await;
    create(&*store, &Key::object("apps", "configmaps", "a", "x"), "one").await;
    let names = |page: super::Page| -> Vec<String> {
        page.items.iter().map(|record| record.key.as_str().to_owned()).collect()
    };
    let mut expected = vec!["/configmaps/a/x", "/configmaps/a/y", "/configmaps/a-b/x", "/configmaps/ab/x"];
    expected.push("/configmaps/b/z");
    expected.sort_unstable();
    assert_eq!(names(store.list(&all(), None, 0, None).await.unwrap()), expected);
    let one = Key::collection("", "configmaps", Some("a"));
    let page = store.list(&one, None, 0, None).await.unwrap();
    assert_eq!((page.more, page.total, page.revision), (false, 2, store.revision()));
    assert_eq!(names(page), ["/configmaps/a/x", "/configmaps/a/y"]);
    let page = store.list(&one, Some(&key("a", "x")), 1, None).await.unwrap();
    assert_eq!(names(page), ["/configmaps/a/y"]);
}

pub(super) async fn pages_of_one_list_read_one_state_while_writes_go_on(store: Shared) {
    for place in 0..100 {
        create(&*store, &key("a", &format!("{place:03}")), "old").await;
    }
    let first = store.list(&all(), None, 30, None).await.unwrap();
    assert_eq!((first.items.len(), first.more, first.total), (30, true, 100));
    for record in store.list(&all(), None, 0, None).await.unwrap().items {
        store.commit(vec![put(record.key, Expect::Revision(record.revision), "new")]).await.unwrap();
    }
    create(&*store, &key("a", "050a"), "new").await;
    let mut items = first.items.clone();
    loop {
        let after = items.last().unwrap().key.clone();
        let page = store.list(&all(), Some(&after), 30, Some(first.revision)).await.unwrap();
        assert_eq!(page.revision, first.revision);
        items.extend(page.items);
        assert_eq!((page.more, page.total), (items.len() < 100, 100));
        if !page.more {
            break;
        }
    }
    assert_eq!(items.len(), 100);
    assert!(items.iter().all(|record| record.value.ends_with(br#""data":"old"}"#)));
}

pub(super) async fn a_list_at_a_forgotten_or_future_revision_is_refused(store: Shared) {
    let first = create(&*store, &key("a", "x"), "one").await;
    let second = create(&*store, &key("a", "y"), "one").await;
    let gone = store.list(&all(), None, 1, Some(first)).await.unwrap_err();
    assert!(matches!(gone, StoreError::Compacted { asked, .. } if asked == first));
    let ahead = store.list(&all(), None, 1, Some(second + 1)).await.unwrap_err();
    assert!(matches!(ahead, StoreError::Future { current, .. } if current == second));
    assert!(store.list(&all(), None, 1, Some(second)).await.unwrap().more);
    create(&*store, &key("a", "z"), "one").await;
    assert!(store.list(&all(), None, 0, Some(second)).await.is_ok());
    store.compact(second + 1).await.unwrap();
    assert!(store.list(&all(), None, 0, Some(second)).await.is_err());
}

pub(super) async fn a_watch_from_a_revision_sees_each_later_change_once(store: Shared) {
    let base = store.revision();
    let x = key("a", "x");
    let first = create(&*store, &x, "one").await;
    let mut early = store.watch(&all(), base).unwrap();
    let mut late = store.watch(&all(), first).unwrap();
    let second = store.commit(vec![put(x.clone(), Expect::Revision(first), "two")]).await.unwrap();
    let events = take(&mut *early, 2).await;
    assert_eq!(revisions(&events), [first, second]);
    assert!(events[0].previous.is_none() && !events[0].deleted);
    let previous = events[1].previous.as_ref().unwrap();
    assert_eq!((previous.revision, &previous.value), (first, &events[0].record.value));
    assert_eq!(revisions(&take(&mut *late, 1).await), [second]);
    assert!(early.try_next().is_none() && late.try_next().is_none());
    assert_eq!(early.progress(), second);
}

pub(super) async fn watchers_under_concurrent_writers_see_one_order_without_gap_or_double(store: Shared) {
    const WRITERS: usize = 8;
    const WRITES: usize = 100;
    let base = store.revision();
    let mut watchers = JoinSet::new();
    for resume_every in 1..=8 {
        watchers.spawn(collect(store.clone(), base, WRITERS * WRITES, resume_every * 10));
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for place in 0..WRITES {
                create(&*store, &key(&format!("n{writer}"), &place.to_string()), "one").await;
            }
        });
    }
    soon(writers.join_all()).await;
    let expected: Vec<_> = (base + 1..=base + (WRITERS * WRITES) as u64).collect();
    for seen in soon(watchers.join_all()).await {
        assert_eq!(seen, expected);
    }
}

/// Watches until `count` changes were seen, starting anew from the last one every so often.
async fn collect(store: Shared, after: Revision, count: usize, resume_every: usize) -> Vec<Revision> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let mut watch = store.watch(&all(), seen.last().copied().unwrap_or(after)).unwrap();
        for _ in 0..resume_every.min(count - seen.len()) {
            let event = soon(watch.next()).await.unwrap();
            assert!(watch.progress() >= event.record.revision);
            seen.push(event.record.revision);
        }
    }
    seen
}

pub(super) async fn a_deletion_is_seen_with_the_record_before(store: Shared) {
    let x = key("a", "x");
    let first = create(&*store, &x, "one").await;
    let mut watch = store.watch(&all(), first).unwrap();
    let second = store.commit(vec![delete(x.clone(), first, "last")]).await.unwrap();
    assert!(store.get(&x).await.unwrap().is_none());
    assert!(store.list(&all(), None, 0, None).await.unwrap().items.is_empty());
    let events = take(&mut *watch, 1).await;
    assert!(events[0].deleted);
    assert_eq!(events[0].record.value, draft("last").at(second));
    assert_eq!(events[0].previous.as_ref().unwrap().value, draft("one").at(first));
}

pub(super) async fn a_watch_of_a_prefix_sees_nothing_else_but_makes_progress(store: Shared) {
    let base = store.revision();
    let mut watch = store.watch(&Key::collection("", "configmaps", Some("a")), base).unwrap();
    create(&*store, &key("a-b", "x"), "one").await;
    create(&*store, &Key::object("", "secrets", "a", "x"), "one").await;
    let wanted = create(&*store, &key("a", "x"), "one").await;
    let other = create(&*store, &Key::object("", "secrets", "a", "y"), "one").await;
    assert_eq!(revisions(&take(&mut *watch, 1).await), [wanted]);
    assert!(watch.try_next().is_none());
    assert_eq!(watch.progress(), other);
}

pub(super) async fn a_watch_ahead_of_the_store_stays_silent_until_it_is_passed(store: Shared) {
    let base = store.revision();
    let mut watch = store.watch(&all(), base + 2).unwrap();
    for name in ["x", "y"] {
        create(&*store, &key("a", name), "one").await;
        assert!(watch.try_next().is_none());
    }
    let third = create(&*store, &key("a", "z"), "one").await;
    assert_eq!(revisions(&take(&mut *watch, 1).await), [third]);
}

pub(super) async fn a_compacted_revision_cannot_be_watched_and_cuts_who_is_behind(store: Shared) {
    let base = store.revision();
    let first = create(&*store, &key("a", "x"), "one").await;
    let mut behind = store.watch(&all(), base).unwrap();
    let mut ahead = store.watch(&all(), first).unwrap();
    let second = create(&*store, &key("a", "y"), "one").await;
    let future = store.compact(second + 1).await.unwrap_err();
    assert!(matches!(future, StoreError::Future { .. }));
    store.compact(first).await.unwrap();
    let gone = store.watch(&all(), base).err().unwrap();
    assert!(matches!(gone, StoreError::Compacted { asked, oldest } if asked == base && oldest == first));
    let unborn = store.watch(&Key::collection("", "secrets", None), base).err().unwrap();
    assert!(matches!(unborn, StoreError::Compacted { .. }));
    assert!(soon(behind.next()).await.is_none());
    assert_eq!(revisions(&take(&mut *ahead, 1).await), [second]);
}

pub(super) async fn a_deletion_right_after_what_was_compacted_is_told(store: Shared) {
    let x = key("a", "x");
    let first = create(&*store, &x, "one").await;
    let mut open = store.watch(&all(), first).unwrap();
    let second = store.commit(vec![delete(x.clone(), first, "last")]).await.unwrap();
    store.compact(first).await.unwrap();
    let mut later = store.watch(&all(), first).unwrap();
    for watch in [&mut open, &mut later] {
        let events = take(&mut **watch, 1).await;
        assert_eq!((revisions(&events), events[0].deleted), (vec![second], true));
        assert_eq!(events[0].previous.as_ref().unwrap().revision, first);
    }
    store.compact(second).await.unwrap();
    assert!(matches!(store.watch(&all(), first), Err(StoreError::Compacted { .. })));
    let mut last = store.watch(&all(), second).unwrap();
    let third = create(&*store, &x, "two").await;
    let events = take(&mut *last, 1).await;
    assert_eq!((revisions(&events), events[0].previous.is_none()), (vec![third], true));
}

pub(super) async fn a_watcher_that_falls_behind_is_cut_and_nobody_else(store: Shared) {
    let x = key("a", "x");
    let mut revision = create(&*store, &x, "one").await;
    let mut slow = store.watch(&all(), revision).unwrap();
    let mut quick = store.watch(&all(), revision).unwrap();
    // 64 values of 1 MiB are more than a ring keeps alive.
    let large = "x".repeat(1 << 20);
    for _ in 0..64 {
        let write = put(x.clone(), Expect::Revision(revision), &large);
        revision = store.commit(vec![write]).await.unwrap();
        assert_eq!(soon(quick.next()).await.unwrap().record.revision, revision);
    }
    assert!(soon(slow.next()).await.is_none());
    assert!(slow.progress() < revision);
    assert!(matches!(store.watch(&all(), slow.progress()), Err(StoreError::Compacted { .. })));
}

pub(super) async fn a_dropped_wait_loses_no_change(store: Shared) {
    let base = store.revision();
    let mut watch = store.watch(&all(), base).unwrap();
    let mut seen = Vec::new();
    for place in 0..50 {
        assert!(futures::FutureExt::now_or_never(watch.next()).is_none());
        create(&*store, &key("a", &place.to_string()), "one").await;
        seen.extend(futures::FutureExt::now_or_never(watch.next()).flatten());
    }
    assert_eq!(revisions(&seen), (base + 1..=base + 50).collect::<Vec<_>>());
}

pub(super) async fn a_snapshot_opens_as_a_store(store: Shared) {
    let mut model = BTreeMap::new();
    for place in 0..50 {
        // Some larger than sled keeps in its log.
        let text = "x".repeat(if place % 10 == 0 { 100_000 } else { 10 });
        let key = key("a", &place.to_string());
        let revision = create(&*store, &key, &text).await;
        model.insert(key.as_str().to_owned(), draft(&text).at(revision));
    }
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy");
    let revision = store.snapshot(&to).await.unwrap();
    create(&*store, &key("b", "later"), "one").await;
    assert!(store.snapshot(&to).await.is_err());
    let copy = super::open_sled(&to).unwrap();
    assert_eq!(copy.revision(), revision);
    let items = copy.list(&all(), None, 0, None).await.unwrap().items;
    let found: BTreeMap<_, _> =
        items.into_iter().map(|record| (record.key.as_str().to_owned(), record.value)).collect();
    assert_eq!(found, model);
    assert_eq!(create(&*copy, &key("b", "other"), "one").await, revision + 1);
}

pub(super) async fn a_closed_store_ends_watches_and_refuses_writes_but_reads(store: Shared) {
    let revision = create(&*store, &key("a", "x"), "one").await;
    let mut watch = store.watch(&all(), revision).unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    store.close().await;
    store.close().await;
    assert!(soon(waiting).await.unwrap().is_none());
    let refused = store.commit(vec![put(key("a", "y"), Expect::Absent, "one")]).await;
    assert!(matches!(refused, Err(StoreError::Closed)));
    assert!(matches!(store.watch(&all(), revision), Err(StoreError::Closed)));
    assert_eq!(store.get(&key("a", "x")).await.unwrap().unwrap().revision, revision);
}
