//! Old states that lists are still paging through.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Revision, state::State};

/// Lists that can page at a time, each from a revision of its own: twice as many as the server works on at a time, so that
/// none loses its state under way. What they cost is bounded below, not by their number.
const STATES_MAX: usize = 1024;

/// How long after a page a list can go on. kube-apiserver forgets after 5 minutes too.
const KEEP: Duration = Duration::from_secs(300);

/// How many writes a kept state may be behind. An old state pins the values superseded since, each once however
/// many states pin it: at 1.5 KiB a value, 75 MiB.
const WRITES_BEHIND_MAX: u64 = 50_000;

/// The kept states, lowest revision first.
#[derive(Default)]
pub(super) struct Pages {
    kept: VecDeque<(Instant, Arc<State>)>,
}

impl Pages {
    /// Keeps a state for the list that goes on on it.
    pub fn keep(&mut self, now: Instant, state: &Arc<State>) {
        match self.kept.binary_search_by_key(&state.revision, |(_, kept)| kept.revision) {
            Ok(place) => self.kept[place].0 = now,
            Err(place) => self.kept.insert(place, (now, state.clone())),
        }
    }

    /// The state at a revision, if it is kept.
    pub fn find(&self, revision: Revision) -> Option<Arc<State>> {
        let place = self.kept.binary_search_by_key(&revision, |(_, state)| state.revision).ok()?;
        Some(self.kept[place].1.clone())
    }

    /// The oldest revision kept.
    pub fn oldest(&self) -> Option<Revision> {
        self.kept.front().map(|(_, state)| state.revision)
    }

    /// Drops what is over the limits.
    pub fn sweep(&mut self, now: Instant, current: Revision) {
        self.kept.retain(|(at, state)| {
            let behind = current.saturating_sub(state.revision);
            now.duration_since(*at) <= KEEP && behind <= WRITES_BEHIND_MAX
        });
        let over = self.kept.len().saturating_sub(STATES_MAX);
        self.kept.drain(..over);
    }

    /// Drops the states before a revision.
    pub fn forget(&mut self, revision: Revision) {
        self.kept.retain(|(_, state)| state.revision >= revision);
    }
}
