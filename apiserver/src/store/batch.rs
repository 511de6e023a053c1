//! Turns transactions into the next state: checks expectations, gives out revisions, makes the final bytes.
//!
//! Pure: no locks, no disk, nobody sees a batch before it is published. Several transactions may share a batch; each
//! sees the ones before it.

use std::sync::Arc;

use super::{Change, Event, Expect, Record, Revision, StoreError, Write, state::State};

/// A state to be, and the changes that lead to it.
pub(super) struct Batch {
    pub state: State,
    pub events: Vec<Arc<Event>>,
}

impl Batch {
    /// An empty batch after a state.
    pub fn after(state: &State) -> Self {
        Self { state: state.clone(), events: Vec::new() }
    }

    /// Bytes of the objects in it.
    pub fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.record.value.len()).sum()
    }

    /// Adds a transaction, whole or not at all. Gives the revision of its last write.
    pub fn add(&mut self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        for (place, write) in writes.iter().enumerate() {
            self.check(write, &writes[..place])?;
        }
        for Write { key, change, .. } in writes {
            let revision = self.state.revision + 1;
            let (value, deleted) = match change {
                Change::Put(draft) => (draft.at(revision), false),
                Change::Delete(draft) => (draft.at(revision), true),
                Change::Check => continue,
            };
            self.push(Record { key, revision, value }, deleted);
        }
        Ok(self.state.revision)
    }

    /// Adds a change whose revision is known to be the next one. Also the way in for replayed changes.
    pub fn push(&mut self, mut record: Record, deleted: bool) {
        // One copy of a key's text, however often the record is written.
        if let Some(known) = self.state.get(&record.key) {
            record.key = known.key.clone();
        }
        let record = Arc::new(record);
        let previous = if deleted { self.state.remove(&record.key) } else { self.state.put(record.clone()) };
        self.state.revision = record.revision;
        self.events.push(Arc::new(Event { record, previous, deleted }));
    }

    /// Whether a write may happen after the writes before it in its own transaction.
    fn check(&self, write: &Write, before: &[Write]) -> Result<(), StoreError> {
        let mut revision = self.state.revision;
        let mut actual = self.state.get(&write.key).map(|record| record.revision);
        for earlier in before {
            let after = match earlier.change {
                Change::Put(_) => Some(revision + 1),
                Change::Delete(_) => None,
                Change::Check => continue,
            };
            revision += 1;
            if earlier.key == write.key {
                actual = after;
            }
        }
        let holds = match (write.expect, &write.change) {
            (Expect::Absent, Change::Put(_) | Change::Check) => actual.is_none(),
            (Expect::Absent, Change::Delete(_)) => false,
            (Expect::Revision(revision), _) => actual == Some(revision),
        };
        if holds {
            return Ok(());
        }
        Err(StoreError::Conflict { key: write.key.clone(), expected: write.expect, actual })
    }
}
