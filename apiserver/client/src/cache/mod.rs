//! What a reflector has learned: a cache of one kind, read without locks and without I/O.
//!
//! A [`Store`] is the reading end, cheap to clone. Its [`Snapshot`] is a consistent picture at one
//! revision; taking one costs a reference count, so a planner can hold it as long as it likes. A
//! [`Writer`] is the one writing end; it works synchronously and tells handlers each [`Delta`].
//!
//! Must never know: where objects come from.

mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use self::{
    snapshot::{BY_OWNER, Indexer, Snapshot},
    store::{Handler, Stopped, Store},
    writer::{Change, Writer},
};

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
