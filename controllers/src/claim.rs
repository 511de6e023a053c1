//! Claiming: which objects an owner controls by its selector.
//!
//! An owner keeps what it controls and still selects, adopts what it selects and nobody controls, and releases what
//! it controls but no longer selects. Each change is guarded by the uid of the object it changes, and adoptions by a look
//! at the owner: one that is being deleted without its dependents would take them with it.
//!
//! Must never know: what owners do with what they claim.

use std::sync::Arc;

use claw_client::{ObjectKey, Store, api::Object};
use claw_runtime::{Action, World, caches::ORPHANS, owner};
use claw_schemas::selector::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as Selector, ObjectMeta};
use serde_json::json;

/// What an owner controls, or is about to.
pub struct Claimed<K> {
    /// Kept and adopted objects.
    pub objects: Vec<Arc<K>>,
    /// Adoptions and releases.
    pub actions: Vec<Action>,
}

/// Claims objects of kind `K` in the namespace of `owner`.
pub fn claim<O: Object, K: Object>(owner: &O, selector: &LabelSelector, world: &World) -> Claimed<K> {
    let meta = owner.metadata();
    let (namespace, uid) = (meta.namespace.as_deref().unwrap_or_default(), meta.uid.as_deref());
    let alive = meta.deletion_timestamp.is_none();
    let all = world.kind::<K>();
    let mut claimed = Claimed { objects: Vec::new(), actions: Vec::new() };
    let owned = all.owned_by(uid.unwrap_or_default());
    for object in owned.filter(|object| owner::is_controlled_by(object.metadata(), owner)) {
        if selects(selector, object.metadata()) {
            claimed.objects.push(Arc::clone(object));
        } else if alive {
            claimed.actions.push(release(&**object, uid.unwrap_or_default()));
        }
    }
    if !alive || selector.is_empty() {
        return claimed;
    }
    let free = |object: &&Arc<K>| object.metadata().deletion_timestamp.is_none();
    let wanted = all.indexed(ORPHANS, namespace).filter(free);
    let adopted: Vec<_> = wanted.filter(|object| selects(selector, object.metadata())).cloned().collect();
    if !adopted.is_empty() {
        claimed.actions.push(Action::confirm(owner));
    }
    claimed.actions.extend(adopted.iter().map(|object| adopt(&**object, owner)));
    claimed.objects.extend(adopted);
    claimed
}

/// Whether the labels of an object match.
pub fn selects(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    selector.matches_with(|key| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str))
}

/// Keys of the owners that would adopt an object nobody controls.
pub fn adopters<O: Object>(
    meta: &ObjectMeta,
    owners: &Store<O>,
    selector: impl Fn(&O) -> Option<&Selector>,
) -> Vec<ObjectKey> {
    if owner::controller_of(meta).is_some() {
        return Vec::new();
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let matches = |owner: &O| {
        let parsed = selector(owner).and_then(|selector| LabelSelector::from_meta(selector).ok());
        parsed.is_some_and(|parsed| !parsed.is_empty() && selects(&parsed, meta))
    };
    let snapshot = owners.snapshot();
    let found = snapshot.in_namespace(namespace).filter(|owner| matches(owner));
    found.map(|owner| ObjectKey::of(owner.metadata())).collect()
}

fn adopt<O: Object, K: Object>(object: &K, by: &O) -> Action {
    let reference = owner::reference_to(by);
    Action::strategic(object, json!({"metadata": {"ownerReferences": [reference]}}))
}

fn release<K: Object>(object: &K, owner_uid: &str) -> Action {
    let patch = json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}});
    Action::strategic(object, patch)
}
