//! Owner references: who controls an object, and how to say so.
//!
//! Must never know: what owners do with what they own.

use claw_client::api::Object;
use k8s_openapi::{
    Metadata,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

/// The one owner that controls an object, if there is one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether `owner` controls the object with that metadata.
pub fn is_controlled_by<K: Metadata<Ty = ObjectMeta>>(meta: &ObjectMeta, owner: &K) -> bool {
    let uid = owner.metadata().uid.as_deref();
    uid.is_some() && controller_of(meta).map(|reference| reference.uid.as_str()) == uid
}

/// A controlling reference to `owner` that keeps it, when deleted in the foreground, until its dependent is gone.
pub fn reference_to<K: Object>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
