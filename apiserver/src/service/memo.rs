//! What many watchers, or many writes, would each work out about the same object state, worked out once.
//!
//! A state is named by its revision, which is unique in the whole store, and by the kind that shows it, since several
//! versions of a kind may. The memo is a fixed table indexed by the revision's low bits: newer states push older ones
//! out, and a miss only costs the work again.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use claw_client::request::View;
use claw_schemas::ApiError;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{
    facts::Facts,
    kinds::Served,
    limits::{MEMO_BYTES_MAX, MEMO_SLOTS},
    view,
};
use crate::store::{Event, Revision};

/// How long a remembered row is shown: its ages are rounded to seconds.
const ROW_FRESH: Duration = Duration::from_secs(1);

/// Distance between the slots in which two kinds remember the same revision.
const KIND_STRIDE: u64 = 127;

pub(super) struct Memo {
    slots: Box<[Mutex<Option<Arc<State>>>]>,
}

/// One object at one revision.
pub(super) struct State {
    kind: u64,
    revision: Revision,
    /// The change that led here, where it is served in another form than the stored one.
    shown: OnceCell<Arc<Event>>,
    facts: OnceLock<Facts>,
    /// Metadata, then rows by what they include.
    views: [OnceLock<(Instant, Bytes)>; 4],
}

impl Memo {
    pub fn new() -> Self {
        Self { slots: (0..MEMO_SLOTS).map(|_| Mutex::default()).collect() }
    }

    /// The state of that revision, remembered or fresh.
    pub fn state(&self, kind: &Served, revision: Revision) -> Arc<State> {
        // Kinds are few and begin to share slots only when a thousand changes are between them.
        let slot = (revision + kind.id * KIND_STRIDE) % MEMO_SLOTS as u64;
        let slot = usize::try_from(slot).expect("the remainder is below the slot count");
        let mut slot = self.slots[slot].lock();
        match &*slot {
            Some(state) if (state.kind, state.revision) == (kind.id, revision) => state.clone(),
            _ => slot.insert(Arc::new(State::new(kind.id, revision))).clone(),
        }
    }
}

impl State {
    fn new(kind: u64, revision: Revision) -> Self {
        Self {
            kind,
            revision,
            shown: OnceCell::new(),
            facts: OnceLock::new(),
            views: [const { OnceLock::new() }; 4],
        }
    }

    /// The change as the kind shows it.
    pub async fn shown(&self, kind: &Served, event: &Arc<Event>) -> Result<Arc<Event>, ApiError> {
        self.shown.get_or_try_init(|| kind.shown_event(event)).await.cloned()
    }

    /// Labels and fields of the state, whose bytes are `stored`.
    pub fn facts(&self, kind: &Served, stored: &[u8]) -> &Facts {
        self.facts.get_or_init(|| kind.plan.facts(stored))
    }

    /// The state as one item of a view other than the plain object.
    pub fn item(&self, kind: &Served, view: View, stored: &Bytes) -> Bytes {
        let Some(place) = place(view) else { return stored.clone() };
        if let Some((made, bytes)) = self.views[place].get()
            && (view == View::Metadata || made.elapsed() < ROW_FRESH)
        {
            return bytes.clone();
        }
        let bytes = Bytes::from(view::item(kind, view, stored));
        if bytes.len() <= MEMO_BYTES_MAX {
            let _ = self.views[place].set((Instant::now(), bytes.clone()));
        }
        bytes
    }
}

/// Where the state remembers a view; plain objects need no remembering.
fn place(view: View) -> Option<usize> {
    use claw_client::request::IncludeObject;
    match view {
        View::Object => None,
        View::Metadata => Some(0),
        View::Table(IncludeObject::None) => Some(1),
        View::Table(IncludeObject::Metadata) => Some(2),
        View::Table(IncludeObject::Object) => Some(3),
    }
}
