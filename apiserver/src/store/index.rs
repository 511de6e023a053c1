//! The state in memory, shared by all backends: what gets, lists and watches read.
//!
//! Readers load the current state without a lock. There is one writer at a time, which is the backend's to see to; it
//! publishes a batch when, and only when, the batch is durable.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::{
    Event, Key, Page, Record, Revision, StoreError, Watch, batch::Batch, pages::Pages, ring::Kind,
    state::State, watch::RingWatch,
};

/// How often old changes and old list states are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(15);

/// The state and its recent past.
pub(super) struct Index {
    state: ArcSwap<State>,
    /// The state's revision, for those who need nothing else of it.
    revision: AtomicU64,
    kinds: RwLock<HashMap<Box<str>, Arc<Kind>>>,
    /// Changes up to here are known to no ring.
    floor: AtomicU64,
    pages: Mutex<Pages>,
    swept: Mutex<Instant>,
    closed: AtomicBool,
}

impl Index {
    /// An index that knows a state, but nothing of how it came to be.
    pub fn new(state: State) -> Self {
        let revision = state.revision;
        Self {
            state: ArcSwap::from_pointee(state),
            revision: AtomicU64::new(revision),
            kinds: RwLock::default(),
            floor: AtomicU64::new(revision),
            pages: Mutex::default(),
            swept: Mutex::new(Instant::now()),
            closed: AtomicBool::new(false),
        }
    }

    /// The revision of the last published write.
    pub fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    /// The whole current state.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Reads one record.
    pub fn get(&self, key: &Key) -> Option<Record> {
        self.state.load().get(key).map(|record| Record::clone(record))
    }

    /// Reads a page.
    pub fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let state = self.state_at(at)?;
        let page = state.page(prefix, after, limit);
        if page.more {
            let (now, current) = (Instant::now(), self.revision());
            let mut pages = self.pages.lock();
            pages.keep(now, &state);
            pages.sweep(now, current);
        }
        Ok(page)
    }

    fn state_at(&self, at: Option<Revision>) -> Result<Arc<State>, StoreError> {
        let current = self.state();
        let Some(asked) = at else { return Ok(current) };
        if asked == current.revision {
            return Ok(current);
        }
        if asked > current.revision {
            return Err(StoreError::Future { asked, current: current.revision });
        }
        let mut pages = self.pages.lock();
        pages.sweep(Instant::now(), current.revision);
        let oldest = pages.oldest().unwrap_or(current.revision);
        pages.find(asked).ok_or(StoreError::Compacted { asked, oldest })
    }

    /// Watches a range of one kind.
    pub fn watch(self: &Arc<Self>, prefix: &Key, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        debug_assert!(prefix.kind().ends_with('/'), "watched ranges lie within one kind: {prefix:?}");
        if self.is_closed() {
            return Err(StoreError::Closed);
        }
        let kind = self.kind(prefix.kind());
        let cursor = {
            let ring = kind.ring.read();
            let behind = StoreError::Compacted { asked: after, oldest: ring.floor() };
            ring.cursor_after(after).ok_or(behind)?
        };
        Ok(Box::new(RingWatch::new(self.clone(), kind, prefix.clone(), after, cursor)))
    }

    /// The ring of a kind. A kind without one has had no change since `floor`.
    fn kind(&self, name: &str) -> Arc<Kind> {
        if let Some(kind) = self.kinds.read().get(name) {
            return kind.clone();
        }
        let mut kinds = self.kinds.write();
        let floor = self.floor.load(Ordering::Acquire);
        kinds.entry(name.into()).or_insert_with(|| Arc::new(Kind::new(name, floor))).clone()
    }

    /// Makes a durable batch the current state, and wakes those who watch. One caller at a time.
    pub fn publish(&self, batch: Batch) {
        if batch.events.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut touched: Vec<(Arc<Kind>, Vec<Arc<Event>>)> = Vec::new();
        for event in batch.events {
            let name = event.record.key.kind();
            match touched.iter_mut().rfind(|(kind, _)| kind.name() == name) {
                Some((_, events)) => events.push(event),
                None => touched.push((self.kind(name), vec![event])),
            }
        }
        self.swap_in(batch.state, now, &mut touched);
        for (kind, _) in &touched {
            kind.bell.send_replace(());
        }
        self.sweep(now);
    }

    /// Changes rings and state as one step for watchers: they look at both under the ring's lock.
    fn swap_in(&self, state: State, now: Instant, touched: &mut [(Arc<Kind>, Vec<Arc<Event>>)]) {
        let mut rings = Vec::with_capacity(touched.len());
        for (kind, events) in touched {
            let mut ring = kind.ring.write();
            events.drain(..).for_each(|event| ring.push(now, event));
            rings.push(ring);
        }
        let revision = state.revision;
        self.state.store(Arc::new(state));
        self.revision.store(revision, Ordering::Release);
    }

    /// Forgets history up to and including a revision.
    pub fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let current = self.revision();
        if revision > current {
            return Err(StoreError::Future { asked: revision, current });
        }
        // Under the lock, so that no kind is born with the old floor.
        let kinds = self.kinds.write();
        self.floor.fetch_max(revision, Ordering::AcqRel);
        for kind in kinds.values() {
            kind.ring.write().forget(revision);
        }
        self.pages.lock().forget(revision);
        Ok(())
    }

    /// Forgets what has grown old, now and then.
    pub fn sweep(&self, now: Instant) {
        {
            let mut swept = self.swept.lock();
            if now.duration_since(*swept) < SWEEP_EVERY {
                return;
            }
            *swept = now;
        }
        for kind in self.kinds.read().values() {
            kind.ring.write().sweep(now);
        }
        self.pages.lock().sweep(now, self.revision());
    }

    /// Whether the store has been closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends all watches.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for kind in self.kinds.read().values() {
            kind.bell.send_replace(());
        }
    }
}
