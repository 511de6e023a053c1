//! What ownership means for one object. Pure.
//!
//! * All owners gone: the object goes.
//! * Some owners there: the references to those that are gone, or are only waiting for their dependents, go.
//! * All that is left are owners that wait for their dependents: the object goes, and if it owns something itself it
//!   goes after that, because its owner asked for everything below it to go first.
//! * An owner about which nothing can be found out counts as there: deleting on a guess is worse than a leftover.
//!
//! Must never know: I/O.

use claw_client::request::Propagation;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::graph::{Deletion, FOREGROUND, Node, ORPHAN};

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// It is there, or may be.
    Present,
    /// It is there, and is being deleted once its dependents are gone.
    Waiting,
    /// It is gone, or its name belongs to another object now.
    Absent,
}

/// What to do about an object that has owners.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Leave it.
    Keep,
    /// Replace its owner references by these.
    Rewrite(Vec<OwnerReference>),
    /// Delete it, in that way; first, with `unblock`, stop it from holding its owners up.
    Delete {
        /// What happens to its own dependents.
        propagation: Propagation,
        /// Whether it is part of a circle of owners that wait for each other.
        unblock: bool,
    },
}

/// Decides about one object from its current metadata, the states of its owners (in the order of its references) and
/// what depends on it.
pub fn decide(item: &ObjectMeta, owners: &[OwnerState], dependents: &[Node]) -> Decision {
    let references = item.owner_references.as_deref().unwrap_or_default();
    if references.is_empty() || item.deletion_timestamp.is_some() {
        return Decision::Keep;
    }
    let state = |index: usize| owners.get(index).copied().unwrap_or(OwnerState::Present);
    let present = |index: &usize| state(*index) == OwnerState::Present;
    let kept: Vec<_> = (0..references.len()).filter(present).map(|index| references[index].clone()).collect();
    if kept.len() == references.len() {
        return Decision::Keep;
    }
    if !kept.is_empty() {
        return Decision::Rewrite(kept);
    }
    let awaited = (0..references.len()).any(|index| state(index) == OwnerState::Waiting);
    if awaited && !dependents.is_empty() {
        let unblock = dependents.iter().any(|dependent| dependent.deletion == Deletion::Foreground);
        return Decision::Delete { propagation: Propagation::Foreground, unblock };
    }
    Decision::Delete { propagation: own_wish(item), unblock: false }
}

/// An object may say by its finalizers what is to happen to its dependents.
fn own_wish(item: &ObjectMeta) -> Propagation {
    let has = |finalizer: &str| item.finalizers.iter().flatten().any(|name| name == finalizer);
    if has(ORPHAN) {
        Propagation::Orphan
    } else if has(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    }
}

/// References that no longer hold any owner up.
pub fn unblocked(references: &[OwnerReference]) -> Vec<OwnerReference> {
    let unblock =
        |owner: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() };
    references.iter().map(unblock).collect()
}

#[cfg(test)]
mod tests {
    use OwnerState::{Absent, Present, Waiting};

    use super::*;

    fn item(owners: &[&str]) -> ObjectMeta {
        let owners = owners
            .iter()
            .map(|uid| OwnerReference {
                uid: (*uid).to_owned(),
                block_owner_deletion: Some(true),
                ..Default::default()
            })
            .collect();
        ObjectMeta { owner_references: Some(owners), ..Default::default() }
    }

    fn dependent(deletion: Deletion) -> Node {
        Node { kind: 0, namespace: None, name: "d".into(), owners: vec![], deletion }
    }

    fn delete(propagation: Propagation) -> Decision {
        Decision::Delete { propagation, unblock: false }
    }

    #[test]
    fn an_object_goes_when_all_its_owners_are_gone() {
        assert_eq!(decide(&item(&["a"]), &[Absent], &[]), delete(Propagation::Background));
        assert_eq!(decide(&item(&["a", "b"]), &[Absent, Absent], &[]), delete(Propagation::Background));
    }

    #[test]
    fn one_of_two_owners_keeps_it_and_the_dead_reference_goes() {
        let Decision::Rewrite(kept) = decide(&item(&["a", "b"]), &[Absent, Present], &[]) else { panic!() };
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].uid, "b");
        assert_eq!(decide(&item(&["a", "b"]), &[Present, Present], &[]), Decision::Keep);
        let Decision::Rewrite(kept) = decide(&item(&["a", "b"]), &[Waiting, Present], &[]) else { panic!() };
        assert_eq!(kept[0].uid, "b");
    }

    #[test]
    fn foreground_deletion_reaches_down_and_a_leaf_goes_at_once() {
        let branch = decide(&item(&["a"]), &[Waiting], &[dependent(Deletion::No)]);
        assert_eq!(branch, delete(Propagation::Foreground));
        assert_eq!(decide(&item(&["a"]), &[Waiting], &[]), delete(Propagation::Background));
    }

    #[test]
    fn a_circle_of_waiting_owners_is_broken() {
        let circle = decide(&item(&["a"]), &[Waiting], &[dependent(Deletion::Foreground)]);
        assert_eq!(circle, Decision::Delete { propagation: Propagation::Foreground, unblock: true });
        let references = unblocked(item(&["a"]).owner_references.as_deref().unwrap());
        assert_eq!(references[0].block_owner_deletion, Some(false));
    }

    #[test]
    fn what_is_free_or_already_going_is_left_alone() {
        assert_eq!(decide(&item(&[]), &[], &[]), Decision::Keep);
        let mut going = item(&["a"]);
        going.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(decide(&going, &[Absent], &[]), Decision::Keep);
    }

    #[test]
    fn an_orphan_finalizer_spares_the_dependents_of_a_collected_object() {
        let mut item = item(&["a"]);
        item.finalizers = Some(vec![ORPHAN.into()]);
        assert_eq!(decide(&item, &[Absent], &[]), delete(Propagation::Orphan));
    }
}
