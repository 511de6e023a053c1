//! How the store does: figures that the one writer adds to.
//!
//! Must never know: who reads them.

use std::time::{Duration, Instant};

use crate::metrics::{Counter, DURATIONS_NS, Histogram, Text};

/// Buckets of the sizes of batches.
const BATCH_TRANSACTIONS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Of commits.
#[derive(Debug)]
pub struct Figures {
    /// How long batches took to become durable.
    durations: Histogram,
    /// How many transactions shared one.
    transactions: Histogram,
    /// Objects written or deleted.
    writes: Counter,
    /// Their bytes.
    bytes: Counter,
    failures: Counter,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            durations: Histogram::seconds(DURATIONS_NS),
            transactions: Histogram::counts(BATCH_TRANSACTIONS),
            writes: Counter::default(),
            bytes: Counter::default(),
            failures: Counter::default(),
        }
    }
}

impl Figures {
    /// Counts a batch that is durable.
    pub(super) fn committed(&self, transactions: usize, writes: usize, bytes: usize, took: Duration) {
        self.durations.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.transactions.observe(transactions as u64);
        self.writes.add(writes as u64);
        self.bytes.add(bytes as u64);
    }

    /// Counts a batch that could not be made durable.
    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    /// Counts a batch of one transaction, begun then.
    pub(super) fn committed_alone(&self, writes: usize, bytes: usize, then: Instant) {
        self.committed(1, writes, bytes, then.elapsed());
    }

    /// Puts them into words.
    pub fn write(&self, text: &mut Text) {
        let name = "clawbernetes_store_commit_duration_seconds";
        text.family(name, "histogram", "How long batches of writes took to become durable.");
        text.histogram(name, &[], &self.durations);
        let name = "clawbernetes_store_batch_transactions";
        text.family(name, "histogram", "Transactions that became durable together.");
        text.histogram(name, &[], &self.transactions);
        let (name, help) = ("clawbernetes_store_writes_total", "Objects written or deleted.");
        text.counter(name, help, self.writes.get());
        let (name, help) = ("clawbernetes_store_written_bytes_total", "Bytes of the objects written.");
        text.counter(name, help, self.bytes.get());
        let (name, help) = ("clawbernetes_store_commit_failures_total", "Batches the disk did not take.");
        text.counter(name, help, self.failures.get());
    }
}
