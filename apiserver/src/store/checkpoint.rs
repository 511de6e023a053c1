//! A whole state in a folder of its own.
//!
//! sled writes it, once, into a folder that gets its name only when every file in it is durable; nothing is ever
//! changed in place. That is on purpose: sled moves pages into segments that it takes up again before what it moved
//! is safe from a power cut, so a database that goes on being written to can lose even what was synced before. A
//! folder written once cannot. It is also why sled is open only for the seconds of writing and reading:
//! its caches cost nothing while the server runs.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use imbl::OrdMap;
use sled::{Config, Db, Mode};

use super::{
    Key, Record, Revision, StoreError,
    batch::State,
    folder::{Folder, failed, sync_folder, sync_tree},
};

/// Bytes that go to sled at a time.
const BATCH_BYTES: usize = 1 << 20;

/// What sled may cache. Everything is written and read once, in order, so that a cache is of no use.
const CACHE_BYTES: u64 = 4 << 20;

/// sled lets go of its file lock a moment after its last handle is gone.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The key of [`Summary`], in a tree of its own.
const SUMMARY: &str = "summary";

/// What a state folder says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub revision: Revision,
    /// The journal segment that goes on after this state.
    pub segment: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    records: u64,
    crc: u32,
}

impl Summary {
    /// Of the state before the first write.
    pub fn of_nothing() -> Self {
        Self { segment: 1, ..Self::default() }
    }

    fn encode(&self) -> [u8; 36] {
        let mut out = [0; 36];
        out[..8].copy_from_slice(&self.revision.to_le_bytes());
        out[8..16].copy_from_slice(&self.segment.to_le_bytes());
        out[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        out[24..32].copy_from_slice(&self.records.to_le_bytes());
        out[32..].copy_from_slice(&self.crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, crc) = bytes.split_at_checked(32)?;
        let word = |at: usize| Some(u64::from_le_bytes(words.get(at..at + 8)?.try_into().ok()?));
        let crc = u32::from_le_bytes(crc.try_into().ok()?);
        Some(Self { revision: word(0)?, segment: word(8)?, bytes: word(16)?, records: word(24)?, crc })
    }
}

/// Counts what goes into, or comes out of, a folder.
#[derive(Default)]
struct Tally {
    bytes: u64,
    records: u64,
    crc: crc32fast::Hasher,
}

impl Tally {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.bytes += (key.len() + value.len()) as u64;
        self.records += 1;
        self.crc.update(&(key.len() as u32).to_le_bytes());
        self.crc.update(key);
        self.crc.update(value);
    }

    fn summary(self, revision: Revision, segment: u64) -> Summary {
        Summary { revision, segment, bytes: self.bytes, records: self.records, crc: self.crc.finalize() }
    }
}

/// Writes a state. `None` when `stop` was raised before it was whole.
pub(super) fn write(
    folder: &Folder,
    state: &State,
    segment: u64,
    stop: &AtomicBool,
) -> Result<Option<Summary>, StoreError> {
    let (whole, partial) = folder.state(state.revision);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(failed("remove", &partial))?;
    }
    let written = guarded(&partial, || write_records(&partial, state, segment, stop))?;
    if written.is_some() {
        sync_tree(&partial)?;
        fs::rename(&partial, &whole).map_err(failed("rename", &partial))?;
        sync_folder(folder.path())?;
    }
    Ok(written)
}

fn write_records(
    path: &Path,
    state: &State,
    segment: u64,
    stop: &AtomicBool,
) -> Result<Option<Summary>, StoreError> {
    let failed = |error: sled::Error| StoreError::Disk(format!("cannot write {}: {error}", path.display()));
    let db = open_db(path).map_err(failed)?;
    let mut tally = Tally::default();
    let mut batch = sled::Batch::default();
    let mut filled = 0;
    for (key, record) in &state.records {
        let mut value = Vec::with_capacity(8 + record.value.len());
        value.extend_from_slice(&record.revision.to_le_bytes());
        value.extend_from_slice(&record.value);
        tally.add(key.as_str().as_bytes(), &value);
        filled += value.len();
        batch.insert(key.as_str(), value);
        if filled >= BATCH_BYTES {
            db.apply_batch(std::mem::take(&mut batch)).map_err(failed)?;
            filled = 0;
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
    }
    db.apply_batch(batch).map_err(failed)?;
    let summary = tally.summary(state.revision, segment);
    let tree = db.open_tree(SUMMARY).map_err(failed)?;
    tree.insert(SUMMARY, summary.encode().as_slice()).map_err(failed)?;
    db.flush().map_err(failed)?;
    Ok(Some(summary))
}

/// Reads the state at a revision, and checks that it is whole.
pub(super) fn read(folder: &Folder, revision: Revision) -> Result<(State, Summary), StoreError> {
    let (path, _) = folder.state(revision);
    let (state, summary) = guarded(&path, || read_records(&path))?;
    if summary.revision != revision {
        return Err(damaged(&path, &format!("it is of revision {}", summary.revision)));
    }
    Ok((state, summary))
}

fn read_records(path: &Path) -> Result<(State, Summary), StoreError> {
    let failed = |error: sled::Error| damaged(path, &error.to_string());
    let db = open_db(path).map_err(failed)?;
    let summary = db.open_tree(SUMMARY).and_then(|tree| tree.get(SUMMARY)).map_err(failed)?;
    let summary = summary.as_deref().and_then(Summary::decode);
    let summary = summary.ok_or_else(|| damaged(path, "it has no summary"))?;
    let mut tally = Tally::default();
    let mut records = OrdMap::new();
    for entry in db.iter() {
        let (key, value) = entry.map_err(failed)?;
        tally.add(&key, &value);
        let (key, record) = decode(&key, &value).ok_or_else(|| damaged(path, "a record is malformed"))?;
        records.insert(key, Arc::new(record));
    }
    let (found, said) = (tally.records, summary.records);
    if tally.summary(summary.revision, summary.segment) != summary {
        return Err(damaged(path, &format!("{found} of {said} records are there, or some are altered")));
    }
    Ok((State { revision: summary.revision, records }, summary))
}

fn decode(key: &[u8], value: &[u8]) -> Option<(Key, Record)> {
    let key = Key::from_text(std::str::from_utf8(key).ok()?);
    let (revision, value) = value.split_first_chunk::<8>()?;
    let revision = Revision::from_le_bytes(*revision);
    let value = Bytes::copy_from_slice(value);
    Some((key.clone(), Record { key, revision, value }))
}

fn open_db(path: &Path) -> sled::Result<Db> {
    let config = Config::new().path(path).mode(Mode::HighThroughput).cache_capacity(CACHE_BYTES);
    let config = config.flush_every_ms(None);
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("lock") && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// sled panics on some kinds of damage.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(path, "sled cannot make sense of it")))
}

fn damaged(path: &Path, how: &str) -> StoreError {
    StoreError::Unusable(format!(
        "the state in {} is damaged: {how}; restore the data folder from a snapshot",
        path.display()
    ))
}
