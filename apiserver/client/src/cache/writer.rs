//! The writing end of a cache: takes changes in, publishes the picture, tells handlers.
//!
//! Must never know: where objects come from.

use std::sync::Arc;

use claw_schemas::ApiError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    Delta, ObjectKey,
    snapshot::{BY_OWNER, Indexer, Indexers, Snapshot, owners},
    store::{Shared, Store},
};
use crate::object::{Cached, revision_of};

/// One change, as a watch brings it.
#[derive(Debug)]
pub enum Change<K> {
    /// An object was added or modified.
    Applied(K),
    /// An object is gone. It carries the revision of the deletion.
    Deleted(K),
    /// An object is gone that does not parse; its metadata does.
    Gone(Box<ObjectMeta>),
    /// Nothing changed up to this revision.
    Advanced(u64),
}

/// The writing end of a [`Store`]: a reflector's, or a test's.
pub struct Writer<K> {
    shared: Arc<Shared<K>>,
    current: Snapshot<K>,
    indexers: Indexers<K>,
    keep: Option<fn(&K) -> bool>,
}

impl<K: Cached> Default for Writer<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Cached> Writer<K> {
    /// An empty cache that is not synced.
    pub fn new() -> Self {
        let indexers: Indexers<K> = vec![(BY_OWNER, owners::<K>)];
        let current = Snapshot::indexed_by(&indexers);
        Self { shared: Arc::new(Shared::new(current.clone())), current, indexers, keep: None }
    }

    /// Keeps only some of the objects, for readers to whom the others are worth no memory. While watching, handlers
    /// still hear of every change and deletion; after a list, what is not kept counts as deleted.
    #[must_use]
    pub fn keep_only(mut self, keep: fn(&K) -> bool) -> Self {
        self.keep = Some(keep);
        self
    }

    /// Whether it would keep this object.
    pub fn keeps(&self, object: &K) -> bool {
        self.keep.is_none_or(|keep| keep(object))
    }

    /// Adds an index, read with [`Snapshot::indexed`]. Must precede the first object.
    #[must_use]
    pub fn index(mut self, name: &'static str, indexer: Indexer<K>) -> Self {
        debug_assert!(self.current.is_empty(), "index \"{name}\" would miss objects already in the cache");
        self.indexers.push((name, indexer));
        self.current = Snapshot::indexed_by(&self.indexers);
        self
    }

    /// The reading end.
    pub fn store(&self) -> Store<K> {
        Store::of(Arc::clone(&self.shared))
    }

    /// Takes a whole list in: what is not in it is deleted.
    pub fn replace(&mut self, objects: Vec<K>, revision: u64) {
        self.replace_readable(objects, &[], revision);
    }

    /// The same for a list in which some objects could not be read: what is known of them stays.
    pub fn replace_readable(&mut self, objects: Vec<K>, unreadable: &[ObjectMeta], revision: u64) {
        let mut next = Snapshot::indexed_by(&self.indexers);
        let mut deltas = Vec::new();
        for object in objects {
            match self.current.by_key(&ObjectKey::of(object.meta())) {
                // The same revision is the same object: keep the old one shared, tell nobody.
                Some(old) if same_revision(old.meta(), object.meta()) => {
                    next.insert(&self.indexers, Arc::clone(old));
                }
                old => {
                    let new = Arc::new(object);
                    deltas.push(Delta::Applied { new: Arc::clone(&new), old: old.cloned() });
                    next.insert(&self.indexers, new);
                }
            }
        }
        for meta in unreadable {
            let known = self.current.by_key(&ObjectKey::of(meta));
            if let Some(known) = known.filter(|known| known.meta().uid == meta.uid) {
                next.insert(&self.indexers, Arc::clone(known));
            }
        }
        let gone = self.current.missing_in(&next).map(|last| Delta::Deleted { last: Arc::clone(last) });
        deltas.extend(gone);
        deltas.push(Delta::Synced);
        next.revision = revision;
        next.synced = true;
        self.current = next;
        self.publish(&deltas);
    }

    /// Takes changes in, in their order. They are published together: whoever takes a snapshot sees all of them or
    /// none, and handlers are told one by one.
    pub fn change(&mut self, changes: impl IntoIterator<Item = Change<K>>) {
        let before = self.current.revision;
        let deltas: Vec<_> = changes.into_iter().filter_map(|change| self.take(change)).collect();
        if !deltas.is_empty() || self.current.revision > before {
            self.publish(&deltas);
        }
    }

    fn take(&mut self, change: Change<K>) -> Option<Delta<K>> {
        match change {
            Change::Applied(object) => {
                self.reach(revision_of(object.meta()));
                let new = Arc::new(object);
                let old = if self.keeps(&new) {
                    self.current.insert(&self.indexers, Arc::clone(&new))
                } else {
                    self.current.remove(&self.indexers, &ObjectKey::of(new.meta()))
                };
                Some(Delta::Applied { new, old })
            }
            Change::Deleted(last) => {
                self.reach(revision_of(last.meta()));
                let known = self.current.remove(&self.indexers, &ObjectKey::of(last.meta()));
                // Whether an object that is not kept was known cannot be told.
                let is_news = known.is_some() || self.keep.is_some();
                is_news.then(|| Delta::Deleted { last: Arc::new(last) })
            }
            Change::Gone(meta) => {
                self.reach(revision_of(&meta));
                let last = self.current.remove(&self.indexers, &ObjectKey::of(&meta))?;
                Some(Delta::Deleted { last })
            }
            Change::Advanced(revision) => {
                self.reach(revision);
                None
            }
        }
    }

    fn reach(&mut self, revision: u64) {
        self.current.revision = self.current.revision.max(revision);
    }

    /// Takes one object in, as added or modified.
    pub fn apply(&mut self, object: K) {
        self.change([Change::Applied(object)]);
    }

    /// Takes an object out. `last` carries the revision of the deletion.
    pub fn delete(&mut self, last: K) {
        self.change([Change::Deleted(last)]);
    }

    /// Nothing changed up to this revision.
    pub fn advance(&mut self, revision: u64) {
        self.change([Change::Advanced(revision)]);
    }

    /// The revision reached.
    pub fn revision(&self) -> u64 {
        self.current.revision
    }

    /// The server could not be followed: see [`Store::stuck`].
    pub fn failed(&self, error: &ApiError) {
        self.shared.failed(error);
    }

    /// The server is followed again. A change or a list says so by itself.
    pub fn recovered(&self) {
        self.shared.recovered();
    }

    fn publish(&self, deltas: &[Delta<K>]) {
        self.shared.publish(self.current.clone(), deltas);
    }
}

impl<K> Drop for Writer<K> {
    fn drop(&mut self) {
        self.shared.end();
    }
}

fn same_revision(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.resource_version.is_some() && a.resource_version == b.resource_version && a.uid == b.uid
}
