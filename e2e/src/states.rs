//! Every state that the objects of a kind go through, one change at a time. A cache may publish several changes at once,
//! so a look at its snapshot would miss the states between.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use claw_client::{Cached, Delta, ObjectKey, Store};

/// All objects of a kind.
pub type State<K> = BTreeMap<ObjectKey, Arc<K>>;

/// Calls `look` with the first whole state, and with every state after it.
pub fn each<K: Cached>(store: &Store<K>, look: impl Fn(&State<K>) + Send + Sync + 'static) {
    let seen = Mutex::new((State::new(), false));
    store.subscribe(move |delta| {
        let mut seen = seen.lock().expect("no look panics");
        let (state, whole) = &mut *seen;
        match delta {
            Delta::Applied { new, .. } => drop(state.insert(ObjectKey::of(new.meta()), Arc::clone(new))),
            Delta::Deleted { last } => drop(state.remove(&ObjectKey::of(last.meta()))),
            Delta::Synced => *whole = true,
        }
        if *whole {
            look(state);
        }
    });
}
