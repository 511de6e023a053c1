//! Everything that happens in a simulation, in order: a fingerprint of all of it, and the last of it in words.

use std::{
    collections::VecDeque,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Mutex,
};

/// How much of the end is kept for whoever looks for a fault.
const TAIL: usize = 400;

/// What can happen.
#[derive(Clone, Debug, Hash)]
pub enum What {
    /// Bytes went over a connection, as the server sees it.
    Bytes { peer: String, sent: bool, length: usize, hash: u64 },
    /// The store took a change.
    Commit { revision: u64, key: String, hash: u64 },
    /// Somebody broke or mended something.
    Fault(String),
    /// What a client did, and how it went.
    Deed(String, String),
}

/// The record of one run.
#[derive(Default)]
pub struct Trace(Mutex<Record>);

#[derive(Default)]
struct Record {
    at_ms: u64,
    events: u64,
    fingerprint: u64,
    tail: VecDeque<(u64, What)>,
}

impl Trace {
    /// Moves the clock that events are stamped with.
    pub fn set_time(&self, at_ms: u64) {
        self.0.lock().expect("no panic while tracing").at_ms = at_ms;
    }

    /// Adds an event.
    pub fn add(&self, what: What) {
        let mut record = self.0.lock().expect("no panic while tracing");
        let mut hasher = DefaultHasher::new();
        (record.fingerprint, record.at_ms, &what).hash(&mut hasher);
        record.fingerprint = hasher.finish();
        record.events += 1;
        if record.tail.len() == TAIL {
            record.tail.pop_front();
        }
        let at_ms = record.at_ms;
        record.tail.push_back((at_ms, what));
    }

    /// How many events there were, and the fingerprint of all of them.
    pub fn sum(&self) -> (u64, u64) {
        let record = self.0.lock().expect("no panic while tracing");
        (record.events, record.fingerprint)
    }

    /// The last events but plain bytes, in words.
    pub fn tail(&self) -> String {
        let record = self.0.lock().expect("no panic while tracing");
        let told = record.tail.iter().filter(|(_, what)| !matches!(what, What::Bytes { .. }));
        told.map(|(at, what)| format!("  {at:>7} ms  {what}\n")).collect()
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { peer, sent: true, length, .. } => write!(f, "{length} bytes to {peer}"),
            Self::Bytes { peer, length, .. } => write!(f, "{length} bytes from {peer}"),
            Self::Commit { revision, key, .. } => write!(f, "commit {revision} {key}"),
            Self::Fault(text) => write!(f, "FAULT {text}"),
            Self::Deed(who, text) => write!(f, "{who}: {text}"),
        }
    }
}

/// A fingerprint of bytes, the same everywhere.
pub fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
