//! Desired state: keys, revisions, transactions and watches, over interchangeable backends.
//!
//! One global revision counts every write. It is monotonic and durable: an acknowledged write survives
//! `kill -9` and a power cut, and no revision is ever given twice.
//!
//! All backends share one shape. The whole state is an immutable ordered map in memory ([`index`]), replaced as a
//! whole by every batch of writes, so that gets and lists take no lock and every page of one list reads one
//! state. Recent changes sit in one bounded ring a kind ([`ring`]), which all its watchers read with a cursor
//! each ([`watch`]): a thousand watchers share one copy. A backend adds only how a batch becomes durable before it
//! is published; so nobody ever sees what a power cut could undo.
//!
//! Must never know: HTTP, kinds, what the bytes mean (but for the place of the revision in them).

mod batch;
mod checkpoint;
#[cfg(test)]
mod conformance;
mod figures;
mod folder;
mod index;
mod journal;
mod memory;
mod pages;
mod ring;
mod sled;
mod state;
mod watch;

use std::{borrow::Borrow, fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::figures::Figures;

/// Counts writes; 0 is "before the first".
pub type Revision = u64;

/// Opens the embedded durable store in a folder of its own, made first if it is not there. Reads and replays what the
/// folder holds: call it where blocking is allowed.
pub fn open_sled(folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    open_sled_with(folder, Sizes::default())
}

/// Like [`open_sled`], with sizes other than the usual.
pub fn open_sled_with(folder: &Path, sizes: Sizes) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(sled::SledStore::open(folder, sizes)?))
}

/// How the embedded store cuts its files, in bytes. May differ each time a folder is opened; tests make all of
/// it happen within a few writes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A segment of the journal.
    pub segment: u64,
    /// The journal's length at which the state is written, if the state is not larger than half of it.
    pub journal: u64,
    /// One database of a written state: what writing or reading a state takes in memory, about.
    pub part: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        // A segment lasts a single client at full speed for 1.5 s, and takes 10 ms to write full of zeros.
        Self { segment: 8 << 20, journal: 64 << 20, part: 16 << 20 }
    }
}

/// Makes a durable store of records, in a folder that is empty or not there yet. It is at `revision`, which is not
/// below that of any record, and knows nothing of the past.
///
/// # Errors
/// When the folder holds something, or cannot be written.
pub fn restore(
    folder: &Path,
    revision: Revision,
    records: impl IntoIterator<Item = Record>,
) -> Result<(), StoreError> {
    sled::write_snapshot(&state::State::of(revision, records), folder).map(drop)
}

/// A store without a disk: for tests, simulation and throw-away clusters.
pub fn memory() -> Arc<dyn Store> {
    Arc::new(memory::MemoryStore::new())
}

/// Where an object lives: `{group}/{plural}/{namespace}/{name}`, with an empty part for the core
/// group and for cluster scope. Ordered by its text, so one kind, and one namespace in it, is a range.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of an object.
    pub fn object(group: &str, plural: &str, namespace: &str, name: &str) -> Self {
        Self(format!("{group}/{plural}/{namespace}/{name}").into())
    }

    /// The prefix of all objects of a kind, or of those in one namespace.
    pub fn collection(group: &str, plural: &str, namespace: Option<&str>) -> Self {
        match namespace {
            Some(namespace) => Self(format!("{group}/{plural}/{namespace}/").into()),
            None => Self(format!("{group}/{plural}/").into()),
        }
    }

    /// From the text that [`Self::as_str`] gave.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Namespace and name of the object.
    pub fn place(&self) -> (&str, &str) {
        let mut parts = self.0.rsplitn(3, '/');
        let name = parts.next().unwrap_or_default();
        (parts.next().unwrap_or_default(), name)
    }

    /// The prefix of everything.
    pub fn everything() -> Self {
        Self("".into())
    }

    /// Group and plural of the kind.
    pub fn group_and_plural(&self) -> (&str, &str) {
        let mut parts = self.0.splitn(3, '/');
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    /// The collections that hold an object: its kind's, and its namespace's in it.
    fn collections(&self) -> [&str; 2] {
        let mut slashes = self.0.match_indices('/').skip(1).map(|(at, _)| &self.0[..=at]);
        [slashes.next().unwrap_or_default(), slashes.next().unwrap_or_default()]
    }

    /// The part that names the kind: the key up to its second slash.
    fn kind(&self) -> &str {
        let end = self.0.match_indices('/').nth(1).map_or(self.0.len(), |(at, _)| at + 1);
        &self.0[..end]
    }

    /// Whether `prefix` covers this key.
    pub fn is_in(&self, prefix: &Key) -> bool {
        self.0.starts_with(&*prefix.0)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's bytes before its revision is known. The store writes the decimal revision in at `revision_at`
/// when it commits, so that what it keeps is what goes on the wire.
#[derive(Clone, Debug)]
pub struct Draft {
    /// JSON with `"resourceVersion":""`.
    pub bytes: Vec<u8>,
    /// Offset between the two quotes.
    pub revision_at: usize,
}

impl Draft {
    /// The final bytes at a revision.
    pub fn at(&self, revision: Revision) -> Bytes {
        let digits = revision.to_string();
        let mut bytes = Vec::with_capacity(self.bytes.len() + digits.len());
        bytes.extend_from_slice(&self.bytes[..self.revision_at]);
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(&self.bytes[self.revision_at..]);
        bytes.into()
    }
}

/// A stored object.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it lives.
    pub key: Key,
    /// Revision of its last write.
    pub revision: Revision,
    /// Wire bytes, revision included.
    pub value: Bytes,
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key is free.
    Absent,
    /// The last write of the key had this revision.
    Revision(Revision),
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where.
    pub key: Key,
    /// Under which condition.
    pub expect: Expect,
    /// What.
    pub change: Change,
}

/// What a write does.
#[derive(Clone, Debug)]
pub enum Change {
    /// Stores the bytes.
    Put(Draft),
    /// Frees the key, which must be taken: [`Expect::Absent`] is a conflict here whatever is there. The draft is
    /// the object as watchers see it go.
    Delete(Draft),
    /// Nothing: the expectation stands for what the other writes of its transaction rely on. It gets no revision.
    Check,
}

/// One change, as watchers see it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The record after a put, or the last state (with the revision of the deletion) after a delete. Its revision is the
    /// change's place in the one order.
    pub record: Arc<Record>,
    /// The record before, if there was one.
    pub previous: Option<Arc<Record>>,
    /// Whether the key is free now.
    pub deleted: bool,
}

/// Part of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In key order.
    pub items: Vec<Record>,
    /// The state of the world it was read from; the same on all pages of one list.
    pub revision: Revision,
    /// Whether more records follow in the range.
    pub more: bool,
    /// How many records the whole range holds.
    pub total: usize,
}

/// Why the store refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A write's expectation does not hold; nothing of the transaction happened.
    #[error("{key:?} is at revision {actual:?}, expected {expected:?}")]
    Conflict {
        /// Which key.
        key: Key,
        /// What the transaction asked.
        expected: Expect,
        /// What is there.
        actual: Option<Revision>,
    },
    /// History before `oldest` is gone.
    #[error("revision {asked} is compacted; the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest that can be had.
        oldest: Revision,
    },
    /// A revision that is not yet.
    #[error("revision {asked} is ahead of the current {current}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// The data folder was written by another version of the format, or is damaged.
    #[error("{0}")]
    Unusable(String),
    /// The disk failed. The store takes no more writes, because it can no longer promise to keep them.
    #[error("the store's disk failed: {0}")]
    Disk(String),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

/// Changes of one range in revision order.
#[async_trait]
pub trait Watch: Send {
    /// The next change. `None` when the store ended the watch, because the watcher fell too far behind or the
    /// store closed; the watcher resumes from the last revision it saw. Safe to cancel: a dropped call loses nothing.
    async fn next(&mut self) -> Option<Arc<Event>>;

    /// The next change if it is already there, for those who send changes on in groups. `None` says only that
    /// there is nothing to take now.
    fn try_next(&mut self) -> Option<Arc<Event>>;

    /// A revision up to which this watch has delivered everything in its range: the source of bookmarks.
    fn progress(&self) -> Revision;
}

/// A backend. All pass the conformance suite in `store/conformance.rs`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one record, as of now.
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError>;

    /// Reads a range in key order: at most `limit` records (0: all) after the key `after`, as of now or as of
    /// `at`, which must be the revision of an earlier page or the current one.
    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError>;

    /// Applies all writes, or none. Each write but a [`Change::Check`] gets its own revision, consecutive in the order
    /// given; the answer is the last. Durable when it returns. A call dropped half-way may still have its effect.
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError>;

    /// Changes after a revision of a range that [`Key::collection`] gave. A revision that is not yet is no error:
    /// the watch stays silent until it is passed.
    fn watch(&self, prefix: &Key, after: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// The revision of the last write.
    fn revision(&self) -> Revision;

    /// Forgets history up to and including `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Writes a consistent copy that can be opened as a data folder. `to` must not exist, or be empty.
    async fn snapshot(&self, to: &Path) -> Result<Revision, StoreError>;

    /// How it does, if the backend counts.
    fn figures(&self) -> Option<&Figures> {
        None
    }

    /// Refuses writes from now on, ends all watches, and frees the data folder. Reads go on. Idempotent.
    async fn close(&self);
}
