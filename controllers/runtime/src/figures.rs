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

/// Bounds of durations, in nanoseconds: from 10 ns to 1,000 s by tens, which are those of Kubernetes' work queues.
pub const BOUNDS_NS: [u64; 12] = {
    let mut bounds = [10; 12];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 10;
        at += 1;
    }
    bounds
};

/// Figures of all controllers of a process, by their names. They outlive the terms of a leader.
#[derive(Clone, Debug, Default)]
pub struct Figures(Arc<Mutex<BTreeMap<&'static str, Arc<Work>>>>);

/// What one controller's queue has seen. A [`Queue`](crate::queue::Queue) tells it; a controller with a queue of its own
/// tells it the same.
#[derive(Debug, Default)]
pub struct Work {
    controller: &'static str,
    depth: AtomicU64,
    adds: AtomicU64,
    retries: AtomicU64,
    waited: Durations,
    took: Durations,
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
    /// How long keys waited for their runs.
    pub waited: Spread,
    /// How long runs took that came to an end.
    pub took: Spread,
}

/// How durations are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many were at or below each of [`BOUNDS_NS`].
    pub below: [u64; BOUNDS_NS.len()],
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
}

/// Durations, counted between bounds; the last place is for what is above all of them.
#[derive(Debug, Default)]
struct Durations {
    counts: [AtomicU64; BOUNDS_NS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Figures {
    /// Those of a controller.
    pub fn of(&self, controller: &'static str) -> Arc<Work> {
        let new = || Arc::new(Work { controller, ..Work::default() });
        self.0.lock().entry(controller).or_insert_with(new).clone()
    }

    /// All of them, now.
    pub fn seen(&self) -> BTreeMap<&'static str, Seen> {
        self.0.lock().iter().map(|(name, work)| (*name, work.seen())).collect()
    }
}

impl Work {
    /// Whose it is.
    pub fn controller(&self) -> &'static str {
        self.controller
    }

    /// A key was added that did not wait yet.
    pub fn added(&self) {
        self.adds.fetch_add(1, Ordering::Relaxed);
    }

    /// A run failed and is to be repeated.
    pub fn failed(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// So many keys wait now.
    pub fn waiting(&self, keys: usize) {
        self.depth.store(keys as u64, Ordering::Relaxed);
    }

    /// A run began for a key that waited so long.
    pub fn began(&self, waited: Duration) {
        self.waited.add(waited);
    }

    /// A run ended.
    pub fn ran(&self, took: Duration) {
        self.took.add(took);
    }

    fn seen(&self) -> Seen {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Seen {
            depth: get(&self.depth),
            adds: get(&self.adds),
            retries: get(&self.retries),
            waited: self.waited.spread(),
            took: self.took.spread(),
        }
    }
}

impl Durations {
    fn add(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let place = BOUNDS_NS.partition_point(|bound| *bound < nanoseconds);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn spread(&self) -> Spread {
        let mut count = 0;
        let mut up_to = |number: &AtomicU64| {
            count += number.load(Ordering::Relaxed);
            count
        };
        let mut below = [0; BOUNDS_NS.len()];
        below.iter_mut().zip(&self.counts).for_each(|(below, number)| *below = up_to(number));
        let count = up_to(&self.counts[BOUNDS_NS.len()]);
        Spread { below, count, sum: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_their_bounds() {
        let work = Work::default();
        for took in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(5000)] {
            work.ran(took);
        }
        let spread = work.seen().took;
        let millisecond = BOUNDS_NS.iter().position(|bound| *bound == 1_000_000).unwrap();
        assert_eq!((spread.below[0], spread.below[millisecond - 1], spread.below[millisecond]), (1, 1, 2));
        assert_eq!((spread.below[BOUNDS_NS.len() - 1], spread.count), (2, 3));
        assert_eq!(spread.sum, Duration::from_millis(5_000_001));
        assert_eq!(BOUNDS_NS.last(), Some(&1_000_000_000_000));
    }
}
