//! One watcher: a cursor in its kind's ring.
//!
//! A watcher holds no queue of its own beyond one handful of changes, and a slow one holds nothing back: when the
//! ring has forgotten what it would have had to read next, its watch ends.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Event, Key, Revision, Watch, index::Index, ring::Kind};

/// Changes that a watcher takes, at most, under one lock: a few microseconds.
const TAKE: usize = 64;

/// Changes that a watcher looks at, at most, under one lock, when most are outside of its range.
const LOOK: usize = 1024;

/// A watch over one kind's ring.
pub(super) struct RingWatch {
    index: Arc<Index>,
    kind: Arc<Kind>,
    bell: watch::Receiver<()>,
    prefix: Key,
    /// Whether the range is the whole kind, so that keys need no look.
    whole: bool,
    after: Revision,
    cursor: u64,
    taken: VecDeque<Arc<Event>>,
    /// Everything up to here was given out, or is outside of the range.
    delivered: Revision,
    ended: bool,
}

/// What looking into the ring brought.
enum Look {
    /// There is something to give out.
    Some,
    /// The watcher has seen everything up to the current revision.
    Nothing,
    /// There may be more further on.
    Further,
    /// The ring has forgotten what comes next.
    Behind,
}

impl RingWatch {
    /// A watch from a cursor that `kind`'s ring gave for `after`.
    pub fn new(index: Arc<Index>, kind: Arc<Kind>, prefix: Key, after: Revision, cursor: u64) -> Self {
        let bell = kind.bell.subscribe();
        let whole = prefix.as_str() == prefix.kind();
        let taken = VecDeque::new();
        Self { index, kind, bell, prefix, whole, after, cursor, taken, delivered: after, ended: false }
    }

    fn take(&mut self) -> Look {
        let ring = self.kind.ring.read();
        // Read under the ring's lock: a publication holds it from its first change to its new revision.
        let current = self.index.revision();
        let Some(events) = ring.from(self.cursor) else { return Look::Behind };
        for event in events.take(LOOK) {
            self.cursor += 1;
            let wanted =
                event.record.revision > self.after && (self.whole || event.record.key.is_in(&self.prefix));
            if wanted {
                self.taken.push_back(event.clone());
            } else if self.taken.is_empty() {
                self.delivered = self.delivered.max(event.record.revision);
            }
            if self.taken.len() == TAKE {
                break;
            }
        }
        if !self.taken.is_empty() {
            return Look::Some;
        }
        if self.cursor < ring.end() {
            return Look::Further;
        }
        self.delivered = self.delivered.max(current);
        Look::Nothing
    }

    fn pop(&mut self) -> Option<Arc<Event>> {
        let event = self.taken.pop_front()?;
        self.delivered = event.record.revision;
        Some(event)
    }
}

#[async_trait]
impl Watch for RingWatch {
    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.ended || self.index.is_closed() {
                return None;
            }
            // Rung since `try_next` looked: returns at once. The sender lives as long as `kind`.
            self.bell.changed().await.ok()?;
        }
    }

    fn try_next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.pop() {
            return Some(event);
        }
        self.bell.mark_unchanged();
        while !self.ended {
            match self.take() {
                Look::Some => return self.pop(),
                Look::Further => {}
                Look::Nothing => return None,
                Look::Behind => self.ended = true,
            }
        }
        None
    }

    fn progress(&self) -> Revision {
        if !self.taken.is_empty() || self.ended {
            return self.delivered;
        }
        let ring = self.kind.ring.read();
        match self.cursor == ring.end() {
            true => self.delivered.max(self.index.revision()),
            false => self.delivered,
        }
    }
}
