//! A whole state in a folder of its own.
//!
//! sled writes it, once, into a folder that gets its name only when every file in it is durable; nothing is ever
//! changed in place. That is on purpose: sled moves pages into segments that it takes up again before what it moved
//! is safe from a power cut, so a database that goes on being written to can lose even what was synced before. A
//! folder written once cannot. sled also writes when it opens; so it is a copy that is opened for reading.
//!
//! The records are one stream of bytes, cut into pieces of a size that sled keeps out of its blob files, and spread
//! over several databases, because sled holds all it reads in memory. None is open longer than for its
//! reading or writing: a running server pays nothing for them.
//!
//! ```text
//! state-R/0/       a sled database: pieces by number, and a summary in a tree of its own
//! state-R/1/ …     more of them; the last one's summary says so
//! ```

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

use bytes::{Buf, BufMut, Bytes};
use sled::{Config, Db, Mode};

use super::{
    Key, Record, Revision, StoreError,
    folder::{Folder, copy_tree, failed, sync_folder, sync_tree},
    state::State,
};

/// Bytes of a piece. Larger ones go to blob files from 20 KiB on; smaller ones cost more time.
const PIECE_BYTES: usize = 4 << 10;

/// Bytes that go to sled at a time.
const BATCH_BYTES: usize = 1 << 20;

/// What sled may cache; it takes that for a suggestion. Everything is written and read once, in order.
const CACHE_BYTES: u64 = 1 << 20;

/// sled lets go of its file lock a moment after its last handle is gone.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The name of a database's summary, and of the tree it is in.
const SUMMARY: &str = "summary";

/// Lengths of key and value, and the revision.
const RECORD_HEADER: usize = 16;

/// What a state folder says of itself as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    pub revision: Revision,
    /// Bytes of the records.
    pub bytes: u64,
}

impl Summary {
    /// Of the state before the first write.
    pub fn of_nothing() -> Self {
        Self { revision: 0, bytes: 0 }
    }
}

/// What one database says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    revision: Revision,
    bytes: u64,
    records: u64,
    crc: u32,
    last: bool,
}

impl Part {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [self.revision, self.bytes, self.records] {
            out.put_u64_le(word);
        }
        out.put_u32_le(self.crc);
        out.put_u32_le(self.last.into());
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        Some(Self {
            revision: bytes.try_get_u64_le().ok()?,
            bytes: bytes.try_get_u64_le().ok()?,
            records: bytes.try_get_u64_le().ok()?,
            crc: bytes.try_get_u32_le().ok()?,
            last: bytes.try_get_u32_le().ok()? == 1,
        })
    }
}

/// Writes a state, with about `part_bytes` a database. `None` when `stop` was raised before it was whole.
pub(super) fn write(
    folder: &Folder,
    state: &State,
    part_bytes: u64,
    stop: &AtomicBool,
) -> Result<Option<Summary>, StoreError> {
    let (whole, partial) = folder.state(state.revision);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(failed("remove", &partial))?;
    }
    fs::create_dir(&partial).map_err(failed("create", &partial))?;
    let mut records = state.records().peekable();
    let mut bytes = 0;
    for number in 0.. {
        let path = partial.join(number.to_string());
        let head = Part { revision: state.revision, bytes: 0, records: 0, crc: 0, last: false };
        let part = guarded(
            || {
                let part = write_part(&path, head, &mut records, part_bytes, stop)?;
                // The journal goes when this is synced: better to find out now.
                match read_part(&path, &mut |_| ()) {
                    Ok(found) if found == part => Ok(part),
                    _ => Err(unwritten(&path, "it does not hold what was written to it")),
                }
            },
            || unwritten(&path, "sled gave up on it"),
        )?;
        bytes += part.bytes;
        if stop.load(Ordering::Relaxed) {
            fs::remove_dir_all(&partial).map_err(failed("remove", &partial))?;
            return Ok(None);
        }
        if part.last {
            break;
        }
    }
    sync_tree(&partial)?;
    fs::rename(&partial, &whole).map_err(failed("rename", &partial))?;
    sync_folder(folder.path())?;
    Ok(Some(Summary { revision: state.revision, bytes }))
}

fn write_part<'a>(
    path: &Path,
    head: Part,
    records: &mut std::iter::Peekable<impl Iterator<Item = &'a Arc<Record>>>,
    part_bytes: u64,
    stop: &AtomicBool,
) -> Result<Part, StoreError> {
    let failed = |error: sled::Error| unwritten(path, &error.to_string());
    let db = open_db(path).map_err(failed)?;
    let mut pieces = Pieces::default();
    let mut part = head;
    while pieces.bytes < part_bytes && !stop.load(Ordering::Relaxed) {
        let Some(record) = records.next() else { break };
        part.records += 1;
        if let Some(batch) = pieces.push(record) {
            db.apply_batch(batch).map_err(failed)?;
        }
    }
    part.bytes = pieces.bytes;
    part.last = records.peek().is_none();
    let (batch, crc) = pieces.finish();
    part.crc = crc;
    db.apply_batch(batch).map_err(failed)?;
    let tree = db.open_tree(SUMMARY).map_err(failed)?;
    tree.insert(SUMMARY, part.encode()).map_err(failed)?;
    db.flush().map_err(failed)?;
    Ok(part)
}

/// Cuts records into pieces.
#[derive(Default)]
struct Pieces {
    batch: sled::Batch,
    filled: usize,
    number: u64,
    rest: Vec<u8>,
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl Pieces {
    /// Adds a record. Gives a batch when it is full.
    fn push(&mut self, record: &Record) -> Option<sled::Batch> {
        let key = record.key.as_str().as_bytes();
        self.bytes += (RECORD_HEADER + key.len() + record.value.len()) as u64;
        self.rest.put_u32_le(key.len() as u32);
        self.rest.put_u32_le(record.value.len() as u32);
        self.rest.put_u64_le(record.revision);
        self.rest.put_slice(key);
        self.rest.put_slice(&record.value);
        let whole = self.rest.len() / PIECE_BYTES * PIECE_BYTES;
        let rest = self.rest.split_off(whole);
        let pieces = std::mem::replace(&mut self.rest, rest);
        pieces.chunks(PIECE_BYTES).for_each(|piece| self.insert(piece));
        (self.filled >= BATCH_BYTES).then(|| {
            self.filled = 0;
            std::mem::take(&mut self.batch)
        })
    }

    fn insert(&mut self, piece: &[u8]) {
        self.crc.update(piece);
        self.batch.insert(&self.number.to_be_bytes(), piece);
        self.number += 1;
        self.filled += piece.len();
    }

    /// The last batch, and the checksum over all.
    fn finish(mut self) -> (sled::Batch, u32) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.insert(&rest);
        }
        (self.batch, self.crc.finalize())
    }
}

/// Reads the state at a revision, and checks that it is whole.
pub(super) fn read(folder: &Folder, revision: Revision) -> Result<(State, Summary), StoreError> {
    let (path, _) = folder.state(revision);
    let mut state = State::of(revision, []);
    let mut bytes = 0;
    for number in 0.. {
        let path = path.join(number.to_string());
        if !path.is_dir() {
            return Err(damaged(&path, "it is missing"));
        }
        let copy = folder.scratch();
        copy_tree(&path, &copy)?;
        let part = guarded(
            || {
                read_part(&copy, &mut |record| {
                    state.put(record.into());
                })
            },
            || damaged(&path, "sled cannot make sense of it"),
        )?;
        fs::remove_dir_all(&copy).map_err(failed("remove", &copy))?;
        if part.revision != revision {
            return Err(damaged(&path, &format!("it is of revision {}", part.revision)));
        }
        bytes += part.bytes;
        if part.last {
            return Ok((state, Summary { revision, bytes }));
        }
    }
    unreachable!("the numbers do not end")
}

fn read_part(path: &Path, sink: &mut dyn FnMut(Record)) -> Result<Part, StoreError> {
    let failed = |error: sled::Error| damaged(path, &error.to_string());
    let db = open_db(path).map_err(failed)?;
    let part = db.open_tree(SUMMARY).and_then(|tree| tree.get(SUMMARY)).map_err(failed)?;
    let part = part.as_deref().and_then(Part::decode).ok_or_else(|| damaged(path, "it has no summary"))?;
    let mut rest = Vec::new();
    let (mut bytes, mut records, mut crc) = (0, 0, crc32fast::Hasher::new());
    for entry in db.iter() {
        let (_, piece) = entry.map_err(failed)?;
        crc.update(&piece);
        bytes += piece.len() as u64;
        rest.extend_from_slice(&piece);
        let mut left = rest.as_slice();
        while let Some(record) = split_record(&mut left) {
            records += 1;
            sink(record.ok_or_else(|| damaged(path, "a key is no text"))?);
        }
        let used = rest.len() - left.len();
        rest.drain(..used);
    }
    if (bytes, records, crc.finalize()) != (part.bytes, part.records, part.crc) || !rest.is_empty() {
        let how = format!("of {} records {records} are there, or some are altered", part.records);
        return Err(damaged(path, &how));
    }
    Ok(part)
}

/// Takes a record off the head of `bytes`, if all of it is there; `Some(None)` if it makes no sense.
fn split_record(bytes: &mut &[u8]) -> Option<Option<Record>> {
    let mut rest = *bytes;
    let key = rest.try_get_u32_le().ok()? as usize;
    let value = rest.try_get_u32_le().ok()? as usize;
    let revision = rest.try_get_u64_le().ok()?;
    let (key, rest) = rest.split_at_checked(key)?;
    let (value, rest) = rest.split_at_checked(value)?;
    *bytes = rest;
    let key = std::str::from_utf8(key).ok().map(Key::from_text);
    Some(key.map(|key| Record { key, revision, value: Bytes::copy_from_slice(value) }))
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
                thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

/// sled panics on some kinds of damage, and when it cannot write.
fn guarded<T>(
    work: impl FnOnce() -> Result<T, StoreError>,
    panicked: impl FnOnce() -> StoreError,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

/// A state that is not there yet: what it would have replaced is, so nothing is lost.
fn unwritten(path: &Path, why: &str) -> StoreError {
    StoreError::Disk(format!("cannot write {}: {why}", path.display()))
}

fn damaged(path: &Path, how: &str) -> StoreError {
    StoreError::Unusable(format!(
        "the state in {} is damaged: {how}; restore the data folder from a snapshot",
        path.display()
    ))
}
