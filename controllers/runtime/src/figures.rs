//! How much controllers have to do, and how they get on: numbers for whoever shows them.
//!
//! Must never know: who that is, or in which form.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

/// Figures of all controllers of a process, by their names. They outlive the terms of a leader.
#[derive(Clone, Debug, Default)]
pub struct Figures(Arc<Mutex<BTreeMap<&'static str, Arc<Work>>>>);

/// What one controller's queue has seen.
#[derive(Debug, Default)]
pub struct Work {
    depth: AtomicU64,
    adds: AtomicU64,
    retries: AtomicU64,
    runs: AtomicU64,
    nanoseconds: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Keys that wait for a run now.
    pub depth: u64,
    /// Keys that were added, those that waited already left out.
    pub adds: u64,
    /// Runs that failed, and are to be repeated.
    pub retries: u64,
    /// Runs that came to an end.
    pub runs: u64,
    /// How long they took together.
    pub took: Duration,
}

impl Figures {
    /// Those of a controller.
    pub fn of(&self, controller: &'static str) -> Arc<Work> {
        self.0.lock().entry(controller).or_default().clone()
    }

    /// All of them, now.
    pub fn seen(&self) -> BTreeMap<&'static str, Seen> {
        self.0.lock().iter().map(|(name, work)| (*name, work.seen())).collect()
    }
}

impl Work {
    pub(crate) fn added(&self) {
        self.adds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn waiting(&self, keys: usize) {
        self.depth.store(keys as u64, Ordering::Relaxed);
    }

    pub(crate) fn ran(&self, took: Duration) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
    }

    fn seen(&self) -> Seen {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Seen {
            depth: get(&self.depth),
            adds: get(&self.adds),
            retries: get(&self.retries),
            runs: get(&self.runs),
            took: Duration::from_nanos(get(&self.nanoseconds)),
        }
    }
}
