//! What a reflector has learned: a cache of one kind, read without locks and without I/O.
//!
//! A [`Store`] is the reading end, cheap to clone. Its [`Snapshot`] is a consistent picture at one
//! revision; taking one costs a reference count, so a planner can hold it as long as it likes. A
//! [`Writer`] is the one writing end; it works synchronously and tells handlers each [`Delta`].
//!
//! Must never know: where objects come from.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use claw_schemas::selector::LabelSelector;
use imbl::{HashMap, OrdMap, OrdSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::object::{Cached, revision_of};

/// Where an object lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Unique in the namespace.
    pub name: String,
}

impl ObjectKey {
    /// A key from its parts; the namespace is empty for cluster-scoped kinds.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One change of the cache. Handlers learn what changed, never what to do about it.
#[derive(Debug)]
pub enum Delta<K> {
    /// An object is new or different.
    Applied {
        /// As it is now.
        new: Arc<K>,
        /// As the cache last had it.
        old: Option<Arc<K>>,
    },
    /// An object is gone.
    Deleted {
        /// As it last was.
        last: Arc<K>,
    },
    /// A whole list has been taken in: the cache is complete as of its revision.
    Synced,
}

impl<K> Clone for Delta<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied { new, old } => Self::Applied { new: Arc::clone(new), old: old.clone() },
            Self::Deleted { last } => Self::Deleted { last: Arc::clone(last) },
            Self::Synced => Self::Synced,
        }
    }
}

/// Called with every delta, in revision order, after the snapshot shows it. Must be quick: it runs
/// on the reflector's task.
pub type Handler<K> = Box<dyn Fn(&Delta<K>) + Send + Sync>;

/// Names the values under which an object is found.
pub type Indexer<K> = fn(&K) -> Vec<String>;

/// The index every store has: uids of the owners.
pub const BY_OWNER: &str = "owner";

fn owners<K: Cached>(object: &K) -> Vec<String> {
    object.meta().owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
}

/// A consistent picture of all objects of a kind at one revision.
pub struct Snapshot<K> {
    objects: OrdMap<ObjectKey, Arc<K>>,
    indexes: BTreeMap<&'static str, HashMap<String, OrdSet<ObjectKey>>>,
    revision: u64,
    synced: bool,
}

impl<K> Clone for Snapshot<K> {
    fn clone(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            indexes: self.indexes.clone(),
            revision: self.revision,
            synced: self.synced,
        }
    }
}

impl<K> Default for Snapshot<K> {
    fn default() -> Self {
        Self { objects: OrdMap::new(), indexes: BTreeMap::new(), revision: 0, synced: false }
    }
}

impl<K> fmt::Debug for Snapshot<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} objects at revision {})", self.objects.len(), self.revision)
    }
}

impl<K: Cached> Snapshot<K> {
    /// The object of that name; `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.objects.get(&ObjectKey::new(namespace, name))
    }

    /// The object under a key.
    pub fn by_key(&self, key: &ObjectKey) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    /// Every object, ordered by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// The objects of one namespace, ordered by name.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        self.objects
            .range(ObjectKey::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The objects of one namespace whose labels the selector matches.
    pub fn select<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a LabelSelector,
    ) -> impl Iterator<Item = &'a Arc<K>> {
        self.in_namespace(namespace).filter(|object| {
            let labels = object.meta().labels.as_ref();
            selector.matches_with(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
        })
    }

    /// The objects with an owner reference to that uid.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Arc<K>> {
        self.indexed(BY_OWNER, uid)
    }

    /// The objects that an index, declared with [`Writer::index`], holds under a value.
    pub fn indexed(&self, index: &str, value: &str) -> impl Iterator<Item = &Arc<K>> {
        let keys = self.indexes.get(index).and_then(|index| index.get(value));
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The revision up to which this picture is complete.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn insert(&mut self, indexers: &[(&'static str, Indexer<K>)], object: Arc<K>) -> Option<Arc<K>> {
        let key = ObjectKey::of(object.meta());
        let old = self.objects.insert(key.clone(), Arc::clone(&object));
        for (name, indexer) in indexers {
            let index = self.indexes.entry(name).or_default();
            for value in old.iter().flat_map(|old| indexer(old)) {
                unindex(index, &value, &key);
            }
            for value in indexer(&object) {
                index.entry(value).or_default().insert(key.clone());
            }
        }
        old
    }

    fn remove(&mut self, indexers: &[(&'static str, Indexer<K>)], key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for (name, indexer) in indexers {
            let index = self.indexes.entry(name).or_default();
            for value in indexer(&old) {
                unindex(index, &value, key);
            }
        }
        Some(old)
    }
}

fn unindex(index: &mut HashMap<String, OrdSet<ObjectKey>>, value: &str, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

struct Shared<K> {
    snapshot: ArcSwap<Snapshot<K>>,
    /// Held while a change is made and told, so that a late handler misses nothing.
    handlers: Mutex<Vec<Handler<K>>>,
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    revision: u64,
    synced: bool,
    ended: bool,
}

/// The writer is gone: the cache will not move again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache has stopped")]
pub struct Stopped;

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

/// The writing end of a [`Store`]: a reflector's, or a test's.
pub struct Writer<K> {
    shared: Arc<Shared<K>>,
    current: Snapshot<K>,
    indexers: Vec<(&'static str, Indexer<K>)>,
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
        let shared = Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            handlers: Mutex::new(Vec::new()),
            progress: watch::Sender::new(Progress::default()),
        };
        Self {
            shared: Arc::new(shared),
            current: Snapshot::default(),
            indexers: vec![(BY_OWNER, owners::<K>)],
            keep: None,
        }
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
        self
    }

    /// The reading end.
    pub fn store(&self) -> Store<K> {
        Store { shared: Arc::clone(&self.shared) }
    }

    /// Takes a whole list in: what is not in it is deleted.
    pub fn replace(&mut self, objects: Vec<K>, revision: u64) {
        let mut next = Snapshot::default();
        let mut deltas = Vec::new();
        for object in objects {
            let key = ObjectKey::of(object.meta());
            let old = self.current.objects.get(&key);
            match old {
                // The same revision is the same object: keep the old one shared, tell nobody.
                Some(old) if same_revision(old.meta(), object.meta()) => {
                    next.insert(&self.indexers, Arc::clone(old));
                }
                _ => {
                    let new = Arc::new(object);
                    deltas.push(Delta::Applied { new: Arc::clone(&new), old: old.cloned() });
                    next.insert(&self.indexers, new);
                }
            }
        }
        for (key, last) in &self.current.objects {
            if !next.objects.contains_key(key) {
                deltas.push(Delta::Deleted { last: Arc::clone(last) });
            }
        }
        deltas.push(Delta::Synced);
        next.revision = revision;
        next.synced = true;
        self.current = next;
        self.publish(&deltas);
    }

    /// Takes one object in, as added or modified.
    pub fn apply(&mut self, object: K) {
        let new = Arc::new(object);
        let old = if self.keeps(&new) {
            self.current.insert(&self.indexers, Arc::clone(&new))
        } else {
            self.current.remove(&self.indexers, &ObjectKey::of(new.meta()))
        };
        self.current.revision = self.current.revision.max(revision_of(new.meta()));
        self.publish(&[Delta::Applied { new, old }]);
    }

    /// Takes an object out. `last` carries the revision of the deletion.
    pub fn delete(&mut self, last: K) {
        let key = ObjectKey::of(last.meta());
        self.current.revision = self.current.revision.max(revision_of(last.meta()));
        match self.current.remove(&self.indexers, &key) {
            // Whether an object that is not kept was known cannot be told.
            None if self.keep.is_some() => self.publish(&[Delta::Deleted { last: Arc::new(last) }]),
            Some(_) => self.publish(&[Delta::Deleted { last: Arc::new(last) }]),
            None => self.publish(&[]),
        }
    }

    /// Nothing changed up to this revision.
    pub fn advance(&mut self, revision: u64) {
        if revision > self.current.revision {
            self.current.revision = revision;
            self.publish(&[]);
        }
    }

    /// The revision reached.
    pub fn revision(&self) -> u64 {
        self.current.revision
    }

    fn publish(&self, deltas: &[Delta<K>]) {
        let handlers = self.shared.handlers.lock();
        self.shared.snapshot.store(Arc::new(self.current.clone()));
        for delta in deltas {
            for handler in handlers.iter() {
                handler(delta);
            }
        }
        drop(handlers);
        let (revision, synced) = (self.current.revision, self.current.synced);
        self.shared.progress.send_replace(Progress { revision, synced, ended: false });
    }
}

impl<K> Drop for Writer<K> {
    fn drop(&mut self) {
        self.shared.progress.send_modify(|progress| progress.ended = true);
    }
}

fn same_revision(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.resource_version.is_some() && a.resource_version == b.resource_version && a.uid == b.uid
}

#[cfg(test)]
mod tests;
