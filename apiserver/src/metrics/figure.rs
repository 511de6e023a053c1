//! Counters, gauges and histograms: numbers that many threads add to and nobody waits for.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Instant,
};

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more, until the answer is dropped.
    pub fn enter(&self) -> Entered<'_> {
        self.add(1);
        Entered(self)
    }

    /// So many more, or fewer.
    pub fn add(&self, more: i64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts in a gauge while it lives.
#[must_use]
pub struct Entered<'a>(&'a Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// How often values fell between bounds. Values are whole numbers of a small unit, so that adding takes no lock.
#[derive(Debug)]
pub struct Histogram {
    /// How many units are one, in words.
    scale: f64,
    bounds: &'static [u64],
    /// One more than bounds: what is above the last.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Of durations, with bounds in nanoseconds.
    pub fn seconds(bounds_ns: &'static [u64]) -> Self {
        Self::new(1e9, bounds_ns)
    }

    /// Of numbers of things.
    pub fn counts(bounds: &'static [u64]) -> Self {
        Self::new(1.0, bounds)
    }

    fn new(scale: f64, bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { scale, bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Adds a value.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds the time since then.
    pub fn observe_since(&self, then: Instant) {
        self.observe(u64::try_from(then.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// Whether anything was added.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.load(Ordering::Relaxed) == 0)
    }

    /// The bounds, and how many values were at or below each; last how many there are.
    pub(super) fn cumulated(&self) -> (Vec<(f64, u64)>, u64) {
        let mut below = 0;
        let mut counts = self.buckets.iter().map(|bucket| {
            below += bucket.load(Ordering::Relaxed);
            below
        });
        let bounded = self.bounds.iter().map(|bound| *bound as f64 / self.scale);
        let bounded: Vec<_> = bounded.zip(counts.by_ref()).collect();
        (bounded, counts.next().unwrap_or_default())
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_a_value_at_a_bound_as_within_it() {
        let histogram = Histogram::counts(&[1, 4]);
        assert!(histogram.is_empty());
        [1, 2, 4, 5].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.cumulated(), (vec![(1.0, 1), (4.0, 3)], 4));
        assert!(!histogram.is_empty() && (histogram.sum() - 12.0).abs() < f64::EPSILON);
    }
}
