//! A consistent picture of all objects of a kind, with its indexes.
//!
//! Built on persistent maps: a copy costs a few reference counts, and a change copies only the nodes it touches that
//! somebody else still holds. Keys are shared between the map and the indexes, so that copying a node clones no text.
//!
//! Must never know: who reads it, or when it changes.

use std::{fmt, sync::Arc};

use claw_schemas::selector::LabelSelector;
use imbl::{HashMap, OrdMap, OrdSet};

use super::ObjectKey;
use crate::object::Cached;

/// Names the values under which an object is found.
pub type Indexer<K> = fn(&K) -> Vec<String>;

/// The index every store has: uids of the owners.
pub const BY_OWNER: &str = "owner";

/// What a snapshot's indexes are made with, by name.
pub(super) type Indexers<K> = Vec<(&'static str, Indexer<K>)>;

/// Keys by value.
type Index = HashMap<String, OrdSet<Arc<ObjectKey>>>;

pub(super) fn owners<K: Cached>(object: &K) -> Vec<String> {
    object.meta().owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
}

/// A consistent picture of all objects of a kind at one revision.
pub struct Snapshot<K> {
    objects: OrdMap<Arc<ObjectKey>, Arc<K>>,
    indexes: Vec<(&'static str, Index)>,
    pub(super) revision: u64,
    pub(super) synced: bool,
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
        Self { objects: OrdMap::new(), indexes: Vec::new(), revision: 0, synced: false }
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
        self.by_key(&ObjectKey::new(namespace, name))
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

    /// The objects that an index, declared with [`Writer::index`](super::Writer::index), holds under a value.
    pub fn indexed(&self, index: &str, value: &str) -> impl Iterator<Item = &Arc<K>> {
        let index = self.indexes.iter().find(|(name, _)| *name == index);
        let keys = index.and_then(|(_, index)| index.get(value));
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

    /// An empty picture with these indexes.
    pub(super) fn indexed_by(indexers: &Indexers<K>) -> Self {
        let indexes = indexers.iter().map(|(name, _)| (*name, Index::new())).collect();
        Self { indexes, ..Self::default() }
    }

    /// Puts an object in; gives the one it replaces. `indexers` are those the picture was made with.
    pub(super) fn insert(&mut self, indexers: &Indexers<K>, object: Arc<K>) -> Option<Arc<K>> {
        let key = ObjectKey::of(object.meta());
        let key = self.objects.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| known.clone());
        let old = self.objects.insert(key.clone(), object.clone());
        for ((_, index), (_, indexer)) in self.indexes.iter_mut().zip(indexers) {
            let (before, now) = (old.as_deref().map(indexer).unwrap_or_default(), indexer(&object));
            // The usual change touches no index; finding that out is cheaper than taking out and putting in.
            if before != now {
                before.iter().for_each(|value| unindex(index, value, &key));
                now.into_iter().for_each(|value| drop(index.entry(value).or_default().insert(key.clone())));
            }
        }
        old
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, indexers: &Indexers<K>, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for ((_, index), (_, indexer)) in self.indexes.iter_mut().zip(indexers) {
            indexer(&old).iter().for_each(|value| unindex(index, value, key));
        }
        Some(old)
    }

    /// The objects that another picture does not have, by name.
    pub(super) fn missing_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Arc<K>> {
        let missing = |(key, _): &(&Arc<ObjectKey>, _)| !other.objects.contains_key(&***key);
        self.objects.iter().filter(missing).map(|(_, object)| object)
    }
}

fn unindex(index: &mut Index, value: &str, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}
