//! Desired state: keys, revisions, transactions and watches, over interchangeable backends.
//!
//! One global revision counts every write. It is monotonic and durable: an acknowledged write survives
//! `kill -9` and a power cut, and no revision is ever given twice.
//!
//! Must never know: HTTP, kinds, what the bytes mean (but for the place of the revision in them).

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

/// Counts writes; 0 is "before the first".
pub type Revision = u64;

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

    /// Whether `prefix` covers this key.
    pub fn is_in(&self, prefix: &Key) -> bool {
        self.0.starts_with(&*prefix.0)
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
    /// Frees the key. The draft is the object as watchers see it go.
    Delete(Draft),
}

/// One change, as watchers see it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place in the one order.
    pub revision: Revision,
    /// Where.
    pub key: Key,
    /// Wire bytes after a put, or the last state (with the revision of the deletion) after a delete.
    pub value: Bytes,
    /// The record before, if there was one.
    pub previous: Option<Record>,
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
    /// How many more records follow in the range.
    pub remaining: usize,
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
    /// store closed; the watcher resumes from the last revision it saw.
    async fn next(&mut self) -> Option<Arc<Event>>;

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

    /// Applies all writes, or none. Each write gets its own revision, consecutive in the order given; the
    /// answer is the last. Durable when it returns.
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError>;

    /// Changes of a range after a revision.
    fn watch(&self, prefix: &Key, after: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// The revision of the last write.
    fn revision(&self) -> Revision;

    /// Forgets history up to and including `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Writes a consistent copy that can be opened as a data folder.
    async fn snapshot(&self, to: &Path) -> Result<Revision, StoreError>;
}
