//! The durable store against a model: whatever is done to it, and however often it is opened again, it holds what a
//! plain map would, and tells watchers what happened.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod store;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use claw_apiserver::store::{self as api, Change, Expect, Key, Revision, Store, StoreError, Write};
use proptest::{collection::vec, prelude::*};

use crate::store::{SMALL, draft};

#[derive(Clone, Debug)]
enum Step {
    /// Writes of one transaction: which key, and what to do to it.
    Commit(Vec<(u8, Deed)>),
    List {
        namespace: u8,
        limit: usize,
    },
    Reopen,
    Snapshot,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Put { size: usize },
    Delete,
    Check,
    Stale,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 0..500usize, 2 => 3_000..6_000usize, 1 => 20_000..150_000usize];
    let deed = prop_oneof![
        6 => size.prop_map(|size| Deed::Put { size }),
        3 => Just(Deed::Delete),
        2 => Just(Deed::Check),
        1 => Just(Deed::Stale),
    ];
    let step = prop_oneof![
        20 => vec((0..12u8, deed), 1..4).prop_map(Step::Commit),
        4 => (0..4u8, 0..5usize).prop_map(|(namespace, limit)| Step::List { namespace, limit }),
        3 => Just(Step::Reopen),
        1 => Just(Step::Snapshot),
    ];
    vec(step, 1..80)
}

fn key(number: u8) -> Key {
    Key::object("", "configmaps", &format!("n{}", number % 3), &number.to_string())
}

/// What happened, by revision: key, value, whether the key is free now.
type History = BTreeMap<Revision, (Key, Bytes, bool)>;

#[derive(Default)]
struct Model {
    records: BTreeMap<Key, (Revision, Bytes)>,
    history: History,
    revision: Revision,
}

impl Model {
    /// The transaction for some deeds, and whether it must succeed.
    fn transaction(&self, deeds: &[(u8, Deed)]) -> (Vec<Write>, bool) {
        let mut known: BTreeMap<Key, Option<Revision>> = BTreeMap::new();
        let mut good = true;
        let mut writes = Vec::new();
        let mut next = self.revision + 1;
        for (number, deed) in deeds {
            let key = key(*number);
            let stored = || self.records.get(&key).map(|(revision, _)| *revision);
            let current = *known.entry(key.clone()).or_insert_with(stored);
            let expect = current.map_or(Expect::Absent, Expect::Revision);
            let (expect, change, after) = match deed {
                Deed::Put { size } => (expect, Change::Put(draft(&next.to_string(), *size)), Some(next)),
                Deed::Delete => (expect, Change::Delete(draft("gone", 1)), None),
                Deed::Check => (expect, Change::Check, current),
                Deed::Stale => (Expect::Revision(next), Change::Put(draft("stale", 1)), Some(next)),
            };
            good &= match deed {
                Deed::Put { .. } | Deed::Check => true,
                Deed::Delete => current.is_some(),
                Deed::Stale => false,
            };
            next += u64::from(!matches!(change, Change::Check));
            known.insert(key.clone(), after);
            writes.push(Write { key, expect, change });
        }
        (writes, good)
    }

    fn apply(&mut self, writes: Vec<Write>) {
        for Write { key, change, .. } in writes {
            let revision = self.revision + 1;
            let (value, deleted) = match change {
                Change::Put(draft) => (draft.at(revision), false),
                Change::Delete(draft) => (draft.at(revision), true),
                Change::Check => continue,
            };
            self.revision = revision;
            match deleted {
                true => self.records.remove(&key),
                false => self.records.insert(key.clone(), (self.revision, value.clone())),
            };
            self.history.insert(self.revision, (key, value, deleted));
        }
    }
}

async fn run(steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut store = api::open_sled_with(&data, SMALL).unwrap();
    let mut model = Model::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Commit(deeds) => {
                let (writes, good) = model.transaction(&deeds);
                match store.commit(writes.clone()).await {
                    Ok(revision) => {
                        assert!(good, "{deeds:?} went through");
                        model.apply(writes);
                        assert_eq!(revision, model.revision);
                    }
                    Err(StoreError::Conflict { .. }) => assert!(!good, "{deeds:?} was refused"),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::List { namespace, limit } => check_pages(&*store, &model, namespace, limit).await,
            Step::Reopen => {
                // Closed or just dropped: both must do.
                if number % 2 == 0 {
                    store.close().await;
                }
                drop(store);
                store = api::open_sled_with(&data, SMALL).unwrap();
                check_history(&*store, &model).await;
            }
            Step::Snapshot => {
                let to = folder.path().join(number.to_string());
                assert_eq!(store.snapshot(&to).await.unwrap(), model.revision);
                check_pages(&*api::open_sled(&to).unwrap(), &model, 3, 0).await;
            }
        }
    }
    check_pages(&*store, &model, 3, 7).await;
    check_history(&*store, &model).await;
}

/// Namespace 3 stands for all.
async fn check_pages(store: &dyn Store, model: &Model, namespace: u8, limit: usize) {
    assert_eq!(store.revision(), model.revision);
    let namespace = (namespace < 3).then(|| format!("n{namespace}"));
    let prefix = Key::collection("", "configmaps", namespace.as_deref());
    let mut found = Vec::new();
    let mut at = None;
    loop {
        let after = found.last().map(|(key, ..): &(Key, Revision, Bytes)| key.clone());
        let page = store.list(&prefix, after.as_ref(), limit, at).await.unwrap();
        at = Some(page.revision);
        found.extend(page.items.into_iter().map(|record| (record.key, record.revision, record.value)));
        let all = model.records.keys().filter(|key| key.is_in(&prefix)).count();
        assert_eq!((page.total, page.more), (all, found.len() < all));
        if !page.more {
            break;
        }
    }
    let expected = model.records.iter().filter(|(key, _)| key.is_in(&prefix));
    let expected: Vec<_> = expected.map(|(key, (at, value))| (key.clone(), *at, value.clone())).collect();
    assert_eq!(found, expected);
}

/// Watches from each revision that can still be watched.
async fn check_history(store: &dyn Store, model: &Model) {
    let all = Key::collection("", "configmaps", None);
    let mut watchable = 0;
    for after in (0..=model.revision).rev() {
        let mut watch = match store.watch(&all, after) {
            Ok(watch) => watch,
            Err(StoreError::Compacted { oldest, .. }) => {
                assert_eq!(oldest, after + 1);
                break;
            }
            Err(error) => panic!("{error}"),
        };
        watchable += 1;
        for (revision, (key, value, deleted)) in model.history.range(after + 1..) {
            let event = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap();
            let seen = (event.record.revision, &event.record.key, &event.record.value, event.deleted);
            assert_eq!(seen, (*revision, key, value, *deleted));
            let before = model.history.range(..revision).rev().find(|(_, (other, ..))| other == key);
            let before = before.filter(|(_, (.., deleted))| !deleted).map(|(_, (_, value, _))| value);
            assert_eq!(event.previous.as_ref().map(|record| &record.value), before);
        }
        assert!(watch.try_next().is_none());
        assert_eq!(watch.progress(), model.revision);
    }
    assert!(watchable > 0, "the current revision can always be watched");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_a_map_would_however_often_it_is_opened_again(steps in steps()) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(steps));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_are_written_while_many_write_and_all_is_there_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let store = api::open_sled_with(folder.path(), SMALL).unwrap();
    let writers = (0..16).map(|writer| tokio::spawn(fill(store.clone(), writer)));
    let written: u64 = futures::future::join_all(writers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(store.revision(), written);
    let all = Key::collection("", "configmaps", None);
    let before = store.list(&all, None, 0, None).await.unwrap();
    drop(store);
    let after = api::open_sled_with(folder.path(), SMALL).unwrap().list(&all, None, 0, None).await.unwrap();
    let text = |page: api::Page| page.items.into_iter().map(|record| record.value).collect::<Vec<_>>();
    assert_eq!((before.revision, text(before)), (after.revision, text(after)));
    let journal: u64 = files(&folder.path().join("journal")).iter().sum();
    // 16 × 600 writes of 1.1 KiB are 10 MiB; the 800 records are 0.9 MiB, and the journal may be four times that.
    assert!(journal <= 5 << 20, "the journal was not cut: {journal} bytes");
}

async fn fill(store: Arc<dyn Store>, writer: usize) -> u64 {
    for place in 0..600 {
        let key = Key::object("", "configmaps", &writer.to_string(), &(place % 50).to_string());
        let found = store.get(&key).await.unwrap();
        let expect = found.map_or(Expect::Absent, |record| Expect::Revision(record.revision));
        let write = Write { key, expect, change: Change::Put(draft(&place.to_string(), 1000)) };
        store.commit(vec![write]).await.unwrap();
    }
    600
}

fn files(folder: &std::path::Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| entry.metadata().unwrap().len()).collect()
}
