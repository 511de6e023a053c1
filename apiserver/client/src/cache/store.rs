//! The reading end of a cache, and what it shares with the writing end.
//!
//! Must never know: how the picture is made.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use claw_schemas::ApiError;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{Delta, snapshot::Snapshot};
use crate::object::Cached;

/// Called with every delta, in revision order, after the snapshot shows it (and perhaps some that follow). Must be
/// quick: it runs on the reflector's task.
pub type Handler<K> = Box<dyn Fn(&Delta<K>) + Send + Sync>;

/// The writer is gone: the cache will not move again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache has stopped")]
pub struct Stopped;

/// What both ends hold.
pub(super) struct Shared<K> {
    snapshot: ArcSwap<Snapshot<K>>,
    /// Held while a change is made and told, so that a late handler misses nothing.
    handlers: Mutex<Vec<Handler<K>>>,
    progress: watch::Sender<Progress>,
    trouble: watch::Sender<Option<Trouble>>,
}

/// Why the cache does not follow its server at present.
#[derive(Clone, Debug)]
struct Trouble {
    since: Instant,
    /// What was said last.
    error: ApiError,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    revision: u64,
    synced: bool,
    ended: bool,
}

impl<K> Shared<K> {
    pub fn new(snapshot: Snapshot<K>) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            handlers: Mutex::new(Vec::new()),
            progress: watch::Sender::new(Progress::default()),
            trouble: watch::Sender::new(None),
        }
    }

    /// Shows a new picture, then tells what makes it differ from the one before.
    pub fn publish(&self, snapshot: Snapshot<K>, deltas: &[Delta<K>]) {
        let progress = Progress { revision: snapshot.revision, synced: snapshot.synced, ended: false };
        let handlers = self.handlers.lock();
        self.snapshot.store(Arc::new(snapshot));
        for delta in deltas {
            handlers.iter().for_each(|handler| handler(delta));
        }
        drop(handlers);
        self.progress.send_replace(progress);
        self.recovered();
    }

    pub fn failed(&self, error: &ApiError) {
        self.trouble.send_modify(|trouble| {
            let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
            *trouble = Some(Trouble { since, error: error.clone() });
        });
    }

    pub fn recovered(&self) {
        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
    }

    /// Tells those who wait that there will be no more.
    pub fn end(&self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }
}

/// Read access to a cache. Cheap to clone.
pub struct Store<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({:?})", self.shared.snapshot.load())
    }
}

impl<K: Cached> Store<K> {
    pub(super) fn of(shared: Arc<Shared<K>>) -> Self {
        Self { shared }
    }

    /// The picture as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot<K>> {
        self.shared.snapshot.load_full()
    }

    /// The object of that name as it is now; `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared.snapshot.load().get(namespace, name).cloned()
    }

    /// Every object as it is now, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.snapshot.load().iter().cloned().collect()
    }

    /// The revision up to which the cache is complete.
    pub fn latest_revision(&self) -> u64 {
        self.shared.progress.borrow().revision
    }

    /// Whether the first list has been taken in whole.
    pub fn is_synced(&self) -> bool {
        self.shared.progress.borrow().synced
    }

    /// Waits for the first list.
    ///
    /// # Errors
    /// The reflector ended before.
    pub async fn synced(&self) -> Result<(), Stopped> {
        self.wait(|progress| progress.synced).await
    }

    /// Waits until the cache has seen everything up to a revision: after a write that answered
    /// revision `n`, a planner that waited for `n` sees its own write.
    ///
    /// A cache narrowed by a selector moves on bookmarks when the written object is not in it, which
    /// can take a minute: wait only for revisions of objects that the cache holds.
    ///
    /// # Errors
    /// The reflector ended before.
    pub async fn wait_for_revision(&self, revision: u64) -> Result<(), Stopped> {
        self.wait(|progress| progress.synced && progress.revision >= revision).await
    }

    /// Waits until the cache could not follow its server for `limit` without a break, and says why; an error that time
    /// does not mend (not allowed, no such kind) is told at once. The reflector goes on trying, for those who wait longer.
    pub async fn stuck(&self, limit: Duration) -> ApiError {
        let mut trouble = self.shared.trouble.subscribe();
        loop {
            let now = trouble.borrow_and_update().clone();
            // The sender lives in what we hold, so that this ends with a change only.
            let changed = trouble.changed();
            match now {
                Some(Trouble { error, .. }) if !error.is_retryable() => return error,
                Some(Trouble { since, error }) => {
                    if timeout(limit.saturating_sub(since.elapsed()), changed).await.is_err() {
                        return error;
                    }
                }
                None => drop(changed.await),
            }
        }
    }

    /// Calls `handler` with every delta from now on, after telling it what the cache already holds.
    ///
    /// Handlers must not subscribe from within a call.
    pub fn subscribe(&self, handler: impl Fn(&Delta<K>) + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.lock();
        let snapshot = self.snapshot();
        for object in snapshot.iter() {
            handler(&Delta::Applied { new: Arc::clone(object), old: None });
        }
        if snapshot.synced {
            handler(&Delta::Synced);
        }
        handlers.push(Box::new(handler));
    }

    async fn wait(&self, reached: impl Fn(&Progress) -> bool) -> Result<(), Stopped> {
        let mut progress = self.shared.progress.subscribe();
        let seen = *progress.wait_for(|p| reached(p) || p.ended).await.map_err(|_| Stopped)?;
        if reached(&seen) { Ok(()) } else { Err(Stopped) }
    }
}
