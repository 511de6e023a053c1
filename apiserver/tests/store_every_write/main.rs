//! The store against a model, with a crash at every call that changes its files, and with every such call failing once.
//!
//! What was acknowledged is there, what was not is there whole or not at all, and nothing else is. The crashes are not
//! waited for: the calls of one run are logged, and what a crash after each of them could leave is made from the log.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod calls;
mod disk;
#[path = "../store/mod.rs"]
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
    sync::Mutex,
};

use bytes::Bytes;
use claw_apiserver::store::{self as api, Change, Expect, Key, Revision, Sizes, Store, StoreError, Write};
use tempfile::TempDir;

use crate::{
    calls::Call,
    disk::{Crash, Disk},
    store::draft,
};

/// The calls of a whole process are watched, so one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Segments and states change every few writes.
const TINY: Sizes = Sizes { segment: 8 << 10, journal: 16 << 10, part: 4 << 10 };

/// So many turns fill more journal than twice the largest state, 7 objects of 3 KiB, so that a state must follow.
const TURNS_A_STATE: u64 = 20;

/// A folder in memory, where there is one: these crashes are made up, so nothing depends on a disk but how long its syncs take.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

type Records = BTreeMap<Key, Bytes>;

/// What the records are at each revision at which a transaction ended.
#[derive(Clone)]
struct Model {
    history: BTreeMap<Revision, Records>,
}

impl Model {
    fn new() -> Self {
        Self { history: BTreeMap::from([(0, Records::new())]) }
    }

    fn last(&self) -> (Revision, &Records) {
        self.history.last_key_value().map(|(revision, records)| (*revision, records)).expect("never empty")
    }

    /// A transaction that can only succeed: puts, and a delete now and then.
    fn transaction(&self, turn: u64) -> Vec<Write> {
        let (revision, records) = self.last();
        let mut used = BTreeSet::new();
        let mut writes = Vec::new();
        for part in 0..1 + turn % 3 {
            let key = Key::object("", "configmaps", "a", &((turn * 5 + part * 3) % 7).to_string());
            if !used.insert(key.clone()) {
                continue;
            }
            let size = [30, 700, 1500, 3_000][(turn + part) as usize % 4];
            let (expect, taken) = match records.get(&key) {
                Some(value) => (Expect::Revision(revision_in(value)), true),
                None => (Expect::Absent, false),
            };
            let text = (revision + 1 + writes.len() as u64).to_string();
            let change = match taken && turn % 4 == 3 {
                true => Change::Delete(draft(&text, 1)),
                false => Change::Put(draft(&text, size)),
            };
            writes.push(Write { key, expect, change });
        }
        writes
    }

    /// The records after a transaction, and their revision.
    fn after(&self, writes: &[Write]) -> (Revision, Records) {
        let (mut revision, records) = self.last();
        let mut records = records.clone();
        for write in writes {
            revision += 1;
            match &write.change {
                Change::Put(draft) => drop(records.insert(write.key.clone(), draft.clone().at(revision))),
                Change::Delete(_) | Change::Check => drop(records.remove(&write.key)),
            }
        }
        (revision, records)
    }
}

/// The revision that a value of [`draft`] carries.
fn revision_in(value: &[u8]) -> Revision {
    let value: serde_json::Value = serde_json::from_slice(value).unwrap();
    value["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

async fn records(store: &dyn Store) -> Records {
    let all = Key::collection("", "configmaps", None);
    let page = store.list(&all, None, 0, None).await.unwrap();
    page.items.into_iter().map(|record| (record.key, record.value)).collect()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Writes, closes and opens again; the log of it, and the model it must obey.
async fn logged_run(folder: &Path, turns: u64) -> (Vec<Call>, Model) {
    let mut model = Model::new();
    calls::watch(folder, None);
    let data = folder.join("data");
    let mut store = api::open_sled_with(&data, TINY).unwrap();
    let mut state = None;
    for turn in 0..turns {
        let writes = model.transaction(turn);
        let (revision, records) = model.after(&writes);
        assert_eq!(store.commit(writes).await.unwrap(), revision);
        model.history.insert(revision, records);
        calls::told(revision);
        if turn == turns / 2 {
            store.close().await;
            store = api::open_sled_with(&data, TINY).unwrap();
        }
        if turn % TURNS_A_STATE == TURNS_A_STATE - 1 {
            store::wait_until("another state is written", || newest_state(&data) > state);
            state = newest_state(&data);
        }
    }
    store.close().await;
    (calls::end().0, model)
}

#[test]
fn a_crash_at_any_call_loses_nothing_acknowledged_and_leaves_nothing_half_done() {
    let _alone = ONE_AT_A_TIME.lock();
    let scratch = scratch();
    let turns = 2 * TURNS_A_STATE;
    let (log, model) = block_on(logged_run(scratch.path(), turns));
    let states = log.iter().filter(|call| matches!(call, Call::Rename { to, .. } if is_state(to))).count();
    assert!(states > 1, "no states were written: {states}");
    let (mut disk, mut told, mut seen, mut opened) = (Disk::new(), 0, BTreeSet::new(), 0);
    for (number, call) in log.iter().enumerate() {
        disk.play(call);
        if let Call::Told(revision) = call {
            told = *revision;
        }
        let some = if number % 3 == 0 { Crash::NamesOnly } else { Crash::Some(number as u64) };
        for crash in [Crash::Kill, Crash::NothingElse, some] {
            let left = disk.leave(crash);
            let mut hasher = DefaultHasher::new();
            (told, &left).hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                let folder = scratch.path().join("left");
                disk::write(&left, &folder);
                let when = format!("{crash:?} after call {number} of {}, {call:?}", log.len());
                block_on(check(&folder.join("data"), &model, told, &short(&when), number % 5 == 0));
                fs::remove_dir_all(&folder).unwrap();
                opened += 1;
            }
        }
    }
    eprintln!("{} calls, {states} states, {opened} different crashes", log.len());
}

fn newest_state(data: &Path) -> Option<Revision> {
    let names = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix("state-")?.parse().ok()).max()
}

fn is_state(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.starts_with("state-") && !name.ends_with(".partial")
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

/// Opens what a crash has left. One transaction may have been on its way beyond what was told.
async fn check(data: &Path, model: &Model, told: Revision, when: &str, goes_on: bool) {
    let store = api::open_sled_with(data, TINY).unwrap_or_else(|error| panic!("{when}: {error}"));
    let revision = store.revision();
    let mut allowed = model.history.range(told..).take(2).map(|(revision, _)| *revision);
    assert!(allowed.any(|one| one == revision), "{when}: opened at {revision}, told was {told}");
    assert!(records(&*store).await == model.history[&revision], "{when}: at {revision} the records differ");
    if goes_on {
        let key = Key::object("", "configmaps", "b", "new");
        let write = Write { key, expect: Expect::Absent, change: Change::Put(draft("new", 10)) };
        assert_eq!(store.commit(vec![write]).await.unwrap(), revision + 1, "{when}");
        drop(store);
        let store = api::open_sled_with(data, TINY).unwrap_or_else(|error| panic!("{when}, again: {error}"));
        assert_eq!(
            (store.revision(), records(&*store).await.len()),
            (revision + 1, model.history[&revision].len() + 1)
        );
    }
}

#[test]
fn a_call_that_fails_costs_no_acknowledged_write_and_is_never_passed_over() {
    let _alone = ONE_AT_A_TIME.lock();
    let mut faults = 0;
    for until_fault in 0.. {
        let scratch = scratch();
        if !block_on(run_with_fault(scratch.path(), until_fault)) {
            faults = until_fault;
            break;
        }
    }
    eprintln!("{faults} calls failed in turn");
    assert!(faults > 50, "only {faults} calls could fail");
}

/// Whether there were so many calls that one failed.
async fn run_with_fault(folder: &Path, until_fault: usize) -> bool {
    let when = format!("call {until_fault} failed");
    let data = folder.join("data");
    calls::watch(folder, Some(until_fault));
    let mut model = Model::new();
    let mut unsure = None;
    let opened = api::open_sled_with(&data, TINY);
    if let Ok(store) = &opened {
        for turn in 0..12 {
            let writes = model.transaction(turn);
            let after = model.after(&writes);
            match store.commit(writes).await {
                Ok(revision) => {
                    assert!(unsure.is_none(), "{when}: a write was taken after one that may be half done");
                    assert_eq!(revision, after.0, "{when}");
                    drop(model.history.insert(after.0, after.1));
                }
                Err(StoreError::Disk(why)) if why.contains("no write is taken any more") => {
                    unsure = unsure.or(Some(after));
                }
                // Nothing was written, and another try may go well.
                Err(StoreError::Disk(_)) => {}
                Err(other) => panic!("{when}: {other}"),
            }
        }
        store.close().await;
    }
    drop(opened);
    let (_, failed) = calls::end();
    let store = api::open_sled_with(&data, TINY).unwrap_or_else(|error| panic!("{when}: {error}"));
    let found = (store.revision(), records(&*store).await);
    let (revision, records) = model.last();
    let as_told = found.0 == revision && found.1 == *records;
    assert!(as_told || unsure.is_some_and(|unsure| unsure == found), "{when}: opened at {}", found.0);
    failed
}
