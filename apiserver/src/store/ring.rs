//! Recent changes of one kind, and the bell that wakes its watchers.
//!
//! A ring forgets from its old end; `floor` says up to which revision it may have. Readers hold a cursor (a count
//! of all changes the ring ever had), so that any number of them costs the ring nothing.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::{sync::watch, time::Instant};

use super::{Event, Revision};

/// Changes that a ring keeps whatever their age, so that a quiet kind can be resumed after any pause.
const EVENTS_MIN: usize = 100;

/// Changes that a ring keeps at most: 30 s of a full-speed writer (3,500 a second), at about 90 bytes each
/// beside the records: 9 MiB.
const EVENTS_MAX: usize = 100_000;

/// Bytes of values that a ring alone keeps alive (see [`cost`]): 16,000 superseded values of 1.5 KiB, or 16 of the
/// largest objects. Two or three kinds are ever busy at once, so this is well below what the objects take.
const BYTES_MAX: usize = 24 << 20;

/// How long a change beyond [`EVENTS_MIN`] is kept: clients that lost their connection are back by then (they wait
/// 30 s at most between tries), and kube-apiserver promises 75 s.
const KEEP: Duration = Duration::from_secs(150);

/// A kind's changes.
pub(super) struct Kind {
    name: Box<str>,
    pub ring: RwLock<Ring>,
    /// Rung after every publication; the value is of no meaning.
    pub bell: watch::Sender<()>,
}

impl Kind {
    /// A kind without changes since `floor`.
    pub fn new(name: &str, floor: Revision) -> Self {
        Self { name: name.into(), ring: RwLock::new(Ring::new(floor)), bell: watch::Sender::new(()) }
    }

    /// The prefix that all its keys share.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The changes, oldest first.
pub(super) struct Ring {
    slots: VecDeque<(Instant, Arc<Event>)>,
    /// Cursor of the oldest slot.
    start: u64,
    /// Revision up to which changes may be gone.
    floor: Revision,
    /// Sum of [`cost`].
    bytes: usize,
}

impl Ring {
    fn new(floor: Revision) -> Self {
        Self { slots: VecDeque::new(), start: 0, floor, bytes: 0 }
    }

    /// Revision up to which changes may be gone.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// The cursor after the newest change.
    pub fn end(&self) -> u64 {
        self.start + self.slots.len() as u64
    }

    /// The cursor of the first change after a revision, or `None` if such a change may be gone.
    pub fn cursor_after(&self, revision: Revision) -> Option<u64> {
        if revision < self.floor {
            return None;
        }
        let place = self.slots.partition_point(|(_, event)| event.record.revision <= revision);
        Some(self.start + place as u64)
    }

    /// Changes from a cursor on, or `None` if it points before the oldest.
    pub fn from(&self, cursor: u64) -> Option<impl Iterator<Item = &Arc<Event>>> {
        let skip = cursor.checked_sub(self.start)?;
        Some(self.slots.range(skip as usize..).map(|(_, event)| event))
    }

    /// Adds the newest change, and forgets what is over the limits.
    pub fn push(&mut self, now: Instant, event: Arc<Event>) {
        self.bytes += cost(&event);
        self.slots.push_back((now, event));
        self.sweep(now);
    }

    /// Forgets what is over the limits.
    pub fn sweep(&mut self, now: Instant) {
        while let Some((at, _)) = self.slots.front() {
            let many = self.slots.len() > EVENTS_MAX || self.bytes > BYTES_MAX;
            let old = self.slots.len() > EVENTS_MIN && now.duration_since(*at) > KEEP;
            if !(many || old) {
                break;
            }
            self.forget_oldest();
        }
        // A burst's memory goes back when the burst is forgotten.
        if self.slots.capacity() > 4 * self.slots.len().max(EVENTS_MIN) {
            self.slots.shrink_to(2 * self.slots.len());
        }
    }

    /// Forgets all changes up to and including a revision.
    pub fn forget(&mut self, revision: Revision) {
        while self.slots.front().is_some_and(|(_, event)| event.record.revision <= revision) {
            self.forget_oldest();
        }
        self.floor = self.floor.max(revision);
    }

    fn forget_oldest(&mut self) {
        if let Some((_, event)) = self.slots.pop_front() {
            self.bytes -= cost(&event);
            self.start += 1;
            self.floor = event.record.revision;
        }
    }
}

/// Bytes that only the ring keeps alive: the value before, and the last state of what is gone. A put's own value is
/// the index's until a later change of the ring supersedes it, and is counted there.
fn cost(event: &Event) -> usize {
    let before = event.previous.as_ref().map_or(0, |record| record.value.len());
    before + if event.deleted { event.record.value.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, Record};

    fn change(revision: Revision) -> Arc<Event> {
        let key = Key::object("", "configmaps", "default", "x");
        let record = Arc::new(Record { key, revision, value: "{}".into() });
        Arc::new(Event { record, previous: None, deleted: false })
    }

    fn kept(ring: &Ring) -> usize {
        ring.slots.len()
    }

    #[test]
    fn changes_are_kept_for_75_seconds_at_least_and_100_of_them_for_ever() {
        let (mut ring, start) = (Ring::new(0), Instant::now());
        for tick in 0..5_000 {
            ring.push(start + Duration::from_millis(100 * tick), change(tick + 1));
            let seen_75_s_ago = tick.saturating_sub(750);
            assert!(ring.cursor_after(seen_75_s_ago).is_some(), "after {tick} ticks");
        }
        assert!(kept(&ring) < 2_000, "older ones are not kept: {}", kept(&ring));
        ring.sweep(start + Duration::from_secs(100_000));
        assert_eq!(kept(&ring), EVENTS_MIN);
        assert!(ring.cursor_after(4_900).is_some() && ring.cursor_after(4_899).is_none());
    }

    #[test]
    fn a_burst_is_kept_up_to_100_000_changes() {
        let (mut ring, now) = (Ring::new(0), Instant::now());
        for revision in 1..=EVENTS_MAX as u64 + 10 {
            ring.push(now, change(revision));
        }
        assert_eq!(kept(&ring), EVENTS_MAX);
        assert!(ring.cursor_after(10).is_some() && ring.cursor_after(9).is_none());
    }
}
