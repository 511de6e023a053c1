//! Damaged, foreign and full data folders: a store opens with an exact earlier state or says what is wrong; it
//! never makes things up, and never panics.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod store;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use claw_apiserver::store::{self as api, Expect, Key, Revision, Sizes, Store, StoreError};
use proptest::prelude::*;

use crate::store::{SMALL, power::Disk, put};

/// The records after each revision.
type History = BTreeMap<Revision, BTreeMap<Key, Bytes>>;

fn all() -> Key {
    Key::collection("", "configmaps", None)
}

async fn records(store: &dyn Store) -> BTreeMap<Key, Bytes> {
    let page = store.list(&all(), None, 0, None).await.unwrap();
    page.items.into_iter().map(|record| (record.key, record.value)).collect()
}

/// Fills a folder, one batch a write.
async fn fill(folder: &Path, sizes: Sizes, writes: u64) -> History {
    let store = api::open_sled_with(folder, sizes).unwrap();
    let mut history = History::from([(0, BTreeMap::new())]);
    for turn in 0..writes {
        let key = Key::object("", "configmaps", "a", &(turn % 20).to_string());
        let found = store.get(&key).await.unwrap();
        let expect = found.map_or(Expect::Absent, |record| Expect::Revision(record.revision));
        let size = [40, 700, 2_000, 9_000][turn as usize % 4];
        let revision = store.commit(vec![put(&key, expect, &turn.to_string(), size)]).await.unwrap();
        history.insert(revision, records(&*store).await);
    }
    store.close().await;
    history
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// All files below a folder whose path contains `part`, in order.
fn files(folder: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(files(&entry, part)),
            false if entry.display().to_string().contains(part) => found.push(entry),
            false => {}
        }
    }
    found.sort();
    found
}

#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip { file: usize, place: u64, bit: u8 },
    Zero { file: usize, place: u64, length: u64 },
    Truncate { file: usize, place: u64 },
}

impl Harm {
    /// Harms one of the files. Says whether anything is different now.
    fn inflict(self, files: &[PathBuf]) -> bool {
        let (Self::Flip { file, place, .. }
        | Self::Zero { file, place, .. }
        | Self::Truncate { file, place }) = self;
        let name = &files[file % files.len()];
        let before = fs::read(name).unwrap();
        if before.is_empty() {
            return false;
        }
        let length = before.len() as u64;
        let place = place % length;
        let file = File::options().write(true).open(name).unwrap();
        match self {
            Self::Flip { bit, .. } => {
                file.write_all_at(&[before[place as usize] ^ (1 << (bit % 8))], place).unwrap();
            }
            Self::Zero { length: count, .. } => {
                file.write_all_at(&vec![0; count.min(length - place) as usize], place).unwrap();
            }
            Self::Truncate { .. } => file.set_len(place).unwrap(),
        }
        fs::read(name).unwrap() != before
    }
}

fn harms() -> impl Strategy<Value = Harm> {
    let at = || (any::<usize>(), any::<u64>());
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|((file, place), bit)| Harm::Flip { file, place, bit }),
        1 => (at(), 1..5000u64).prop_map(|((file, place), length)| Harm::Zero { file, place, length }),
        1 => at().prop_map(|(file, place)| Harm::Truncate { file, place }),
    ]
}

/// Opens a harmed copy: an exact state of the past, or an error with a sentence.
fn open_harmed(origin: &Path, history: &History, harm: Harm, part: &str, sizes: Sizes) -> Option<Revision> {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    copy(origin, &data);
    harm.inflict(&files(&data, part));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match api::open_sled_with(&data, sizes) {
            Ok(store) => {
                let revision = store.revision();
                assert_eq!(Some(&records(&*store).await), history.get(&revision), "{harm:?}");
                let key = Key::object("", "configmaps", "b", "new");
                let next = store.commit(vec![put(&key, Expect::Absent, "x", 1)]).await.unwrap();
                assert_eq!(next, revision + 1);
                Some(revision)
            }
            Err(StoreError::Unusable(why)) => {
                assert!(why.contains("snapshot"), "{harm:?}: it does not say what to do: {why}");
                None
            }
            Err(other) => panic!("{harm:?}: {other}"),
        }
    })
}

/// Runs many harms against one filled folder.
fn harm_often(writes: u64, sizes: Sizes, part: &'static str, cases: u32) -> Vec<Option<Revision>> {
    let folder = tempfile::tempdir().unwrap();
    let origin = folder.path().join("origin");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let history = runtime.block_on(fill(&origin, sizes, writes));
    let outcomes = std::cell::RefCell::new(Vec::new());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(harm in harms())| {
        outcomes.borrow_mut().push(open_harmed(&origin, &history, harm, part, sizes));
    });
    outcomes.into_inner()
}

#[test]
fn a_harmed_journal_gives_an_exact_earlier_state_or_a_clear_error() {
    // A journal of several segments and no state, so that every byte of it matters.
    let sizes = Sizes { segment: 64 << 10, ..Sizes::default() };
    let outcomes = harm_often(60, sizes, "journal", 400);
    let opened = outcomes.iter().flatten().count();
    assert!(opened > 0 && opened < outcomes.len(), "{opened} of {}", outcomes.len());
}

#[test]
fn a_harmed_state_gives_the_exact_state_or_a_clear_error() {
    let outcomes = harm_often(250, SMALL, "state-", 60);
    let opened = outcomes.iter().flatten().count();
    assert!(opened < outcomes.len(), "no harm was noticed");
}

#[test]
fn any_bytes_in_the_place_of_a_journal_are_refused_or_cut() {
    proptest!(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() },
        |(bytes in proptest::collection::vec(any::<u8>(), 0..10_000), after_header in any::<bool>())| {
        let folder = tempfile::tempdir().unwrap();
        drop(api::open_sled_with(folder.path(), SMALL).unwrap());
        let segment = &files(folder.path(), "journal")[0];
        match after_header {
            true => File::options().write(true).open(segment).unwrap().write_all_at(&bytes, 4096).unwrap(),
            false => fs::write(segment, &bytes).unwrap(),
        }
        match api::open_sled_with(folder.path(), SMALL) {
            Ok(store) => assert_eq!((after_header, store.revision()), (true, 0)),
            Err(error) => assert!(!after_header && error.to_string().contains("snapshot"), "{error}"),
        }
    });
}

#[tokio::test]
async fn a_missing_segment_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { segment: 64 << 10, ..Sizes::default() };
    fill(folder.path(), sizes, 60).await;
    fs::remove_file(&files(folder.path(), "journal")[1]).unwrap();
    let error = api::open_sled_with(folder.path(), sizes).err().unwrap();
    assert!(error.to_string().contains("follows where"), "{error}");
}

#[tokio::test]
async fn opening_a_state_changes_nothing_in_it() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), SMALL, 250).await;
    let read =
        || files(folder.path(), "state-").iter().map(|name| fs::read(name).unwrap()).collect::<Vec<_>>();
    let before = read();
    assert!(!before.is_empty(), "no state was written");
    let store = api::open_sled_with(folder.path(), Sizes::default()).unwrap();
    assert_eq!(records(&*store).await.len(), 20);
    store.close().await;
    assert!(read() == before);
}

#[tokio::test]
async fn another_format_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), SMALL, 3).await;
    fs::write(folder.path().join("FORMAT"), "clawbernetes-store 2\n").unwrap();
    let error = api::open_sled(folder.path()).err().unwrap().to_string();
    assert!(error.contains("clawbernetes-store 2") && error.contains("start the version"), "{error}");
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("letters.txt"), "dear").unwrap();
    let error = api::open_sled(foreign.path()).err().unwrap().to_string();
    assert!(error.contains("letters.txt") && error.contains("empty one"), "{error}");
    assert!(!foreign.path().join("FORMAT").exists());
}

#[tokio::test]
async fn a_folder_is_open_once_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = api::open_sled(folder.path()).unwrap();
    let second = api::open_sled(folder.path()).err().unwrap();
    assert!(second.to_string().contains("in use by another server"), "{second}");
    first.close().await;
    // The closed store still serves reads; the folder is another's now.
    let second = api::open_sled(folder.path()).unwrap();
    assert_eq!((first.revision(), second.revision()), (0, 0));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_keeps_reads_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let disk = match Disk::format(folder.path()) {
        Ok(disk) => disk,
        Err(why) => return store::skip("full disk", &why),
    };
    let data = disk.mount().join("data");
    let store = api::open_sled_with(&data, SMALL).unwrap();
    let filler = disk.mount().join("filler");
    let zeros = vec![0; 1 << 20];
    let file = File::create(&filler).unwrap();
    let full = (0..).map(|at| file.write_all_at(&zeros, at << 20)).find_map(Result::err).unwrap();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let mut written = BTreeMap::new();
    let error = loop {
        let key = Key::object("", "configmaps", "a", &written.len().to_string());
        match store.commit(vec![put(&key, Expect::Absent, "x", 5_000)]).await {
            Ok(revision) => written.insert(key, revision),
            Err(error) => break error,
        };
        assert!(written.len() < 10_000, "the disk does not fill up");
    };
    assert!(matches!(&error, StoreError::Disk(why) if why.contains("No space left")), "{error}");
    assert_eq!(records(&*store).await.len(), written.len());
    drop(file);
    fs::remove_file(&filler).unwrap();
    // The file system gives the blocks back when the removal is on the disk.
    assert!(std::process::Command::new("sync").arg("-f").arg(disk.mount()).status().unwrap().success());
    let late = Key::object("", "configmaps", "b", "late");
    store.commit(vec![put(&late, Expect::Absent, "x", 5_000)]).await.unwrap();
    store.close().await;
    let store = api::open_sled_with(&data, SMALL).unwrap();
    assert_eq!(records(&*store).await.len(), written.len() + 1);
    store.close().await;
}

#[tokio::test]
async fn a_missing_or_emptied_journal_is_noticed() {
    for (sizes, writes) in [(Sizes::default(), 3), (SMALL, 250)] {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), sizes, writes).await;
        let journal = folder.path().join("journal");
        files(folder.path(), "journal").iter().for_each(|segment| fs::remove_file(segment).unwrap());
        let error = api::open_sled_with(folder.path(), sizes).err().unwrap().to_string();
        assert!(error.contains("journal is empty") && error.contains("snapshot"), "{error}");
        fs::remove_dir_all(&journal).unwrap();
        let error = api::open_sled_with(folder.path(), sizes).err().unwrap().to_string();
        assert!(error.contains("journal is missing") && error.contains("snapshot"), "{error}");
        assert!(!journal.exists(), "it is not made as if it were new");
    }
}

#[tokio::test]
async fn a_beginning_that_was_interrupted_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("journal.partial")).unwrap();
    fs::write(at("journal.partial/next.partial"), "half").unwrap();
    fs::write(at("FORMAT.partial"), "claw").unwrap();
    let history = fill(folder.path(), Sizes::default(), 3).await;
    // The last step is the name.
    fs::rename(at("journal"), at("journal.partial")).unwrap();
    let store = api::open_sled(folder.path()).unwrap();
    assert_eq!(Some(&records(&*store).await), history.get(&store.revision()));
    store.close().await;
}
