//! The backend without a disk. It commits in the caller's thread and spawns nothing, so that a simulation owns its time.

use std::{path::Path, sync::Arc, time::Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Figures, Key, Page, Record, Revision, Store, StoreError, Watch, Write, batch::Batch, index::Index,
    state::State,
};

/// A store that lives as long as the process.
pub(super) struct MemoryStore {
    index: Arc<Index>,
    /// Held by the one writer.
    writer: Mutex<()>,
    figures: Figures,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self {
            index: Arc::new(Index::new(State::default())),
            writer: Mutex::new(()),
            figures: Figures::default(),
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        Ok(self.index.get(key))
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.index.list(prefix, after, limit, at)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let _writer = self.writer.lock();
        if self.index.is_closed() {
            return Err(StoreError::Closed);
        }
        let started = Instant::now();
        let mut batch = Batch::after(&self.index.state());
        let revision = batch.add(writes)?;
        let (writes, bytes) = (batch.events.len(), batch.bytes());
        self.index.publish(batch);
        if writes > 0 {
            self.figures.committed_alone(writes, bytes, started);
        }
        Ok(revision)
    }

    fn watch(&self, prefix: &Key, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.index.watch(prefix, after)
    }

    fn revision(&self) -> Revision {
        self.index.revision()
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.index.compact(revision)
    }

    async fn snapshot(&self, to: &Path) -> Result<Revision, StoreError> {
        super::sled::write_snapshot(&self.index.state(), to)
    }

    fn figures(&self) -> Option<&Figures> {
        Some(&self.figures)
    }

    async fn close(&self) {
        let _writer = self.writer.lock();
        self.index.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::Store, MemoryStore};

    fn open() -> ((), Arc<dyn Store>) {
        ((), Arc::new(MemoryStore::new()))
    }

    super::super::conformance::conformance!(open());
}
