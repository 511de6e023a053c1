//! Finalizers: cleaning up before an object goes.
//!
//! Expected flow: [`step`] first says [`Step::Add`]; once the finalizer is stored it says [`Step::Present`], and only
//! then may the controller touch anything outside; when the object is being deleted it says [`Step::CleanUp`] until
//! the controller, having cleaned up, emits [`remove`].
//!
//! Guarantee: whatever was begun while the finalizer was present is seen once more, by `CleanUp`, before the object
//! disappears. Assumption: cleaning up is idempotent; it may run again after a crash. Caveat: somebody with the right
//! to edit the object can take the finalizer away.
//!
//! Must never know: what is cleaned up.

use claw_client::api::Object;
use serde_json::json;

use crate::action::Action;

/// Where an object stands with a finalizer.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Carry this out, and nothing outside, in this run.
    Add(Box<Action>),
    /// The object lives and is protected.
    Present,
    /// The object is being deleted: clean up, then [`remove`].
    CleanUp,
    /// The object is being deleted and is nothing of ours any more.
    Released,
}

/// What to do about `finalizer` on an object.
pub fn step<K: Object>(object: &K, finalizer: &str) -> Step {
    let meta = object.metadata();
    let present = meta.finalizers.iter().flatten().any(|name| name == finalizer);
    match (meta.deletion_timestamp.is_some(), present) {
        (false, true) => Step::Present,
        (true, true) => Step::CleanUp,
        (true, false) => Step::Released,
        (false, false) => {
            let names: Vec<&str> =
                meta.finalizers.iter().flatten().map(String::as_str).chain([finalizer]).collect();
            let patch = json!({"metadata": {"finalizers": names}});
            Step::Add(Box::new(Action::merge_unchanged(object, patch)))
        }
    }
}

/// Takes a finalizer off an object, if nobody wrote the object since it was read.
pub fn remove<K: Object>(object: &K, finalizer: &str) -> Action {
    let names: Vec<&String> =
        object.metadata().finalizers.iter().flatten().filter(|name| *name != finalizer).collect();
    Action::merge_unchanged(object, json!({"metadata": {"finalizers": names}}))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::ConfigMap,
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    };

    use super::*;

    const OURS: &str = "example.com/ours";

    fn object(finalizers: &[&str], deleting: bool) -> ConfigMap {
        let metadata = ObjectMeta {
            name: Some("a".into()),
            finalizers: Some(finalizers.iter().map(|name| (*name).to_owned()).collect()),
            deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
            ..Default::default()
        };
        ConfigMap { metadata, ..Default::default() }
    }

    #[test]
    fn an_object_is_protected_before_anything_is_done_for_it_and_released_after() {
        let Step::Add(action) = step(&object(&["other"], false), OURS) else { panic!("not added") };
        assert_eq!(
            action.to_string(),
            r#"patch configmaps a {"metadata":{"finalizers":["other","example.com/ours"]}}"#
        );
        assert_eq!(step(&object(&[OURS], false), OURS), Step::Present);
        assert_eq!(step(&object(&[OURS], true), OURS), Step::CleanUp);
        assert_eq!(step(&object(&["other"], true), OURS), Step::Released);
        let gone = remove(&object(&["other", OURS], true), OURS);
        assert_eq!(gone.to_string(), r#"patch configmaps a {"metadata":{"finalizers":["other"]}}"#);
    }
}
