//! Sets that were written when a list or a map was taken apart in another way than it is now: the definition of a custom kind
//! may change that without a new version. (That of a built-in kind does not.)
//!
//! What has become one piece belongs, whole, to everybody who owned a part of it. Of what is not one piece any more, nobody
//! knows who owns the parts; it stays owned itself.

use claw_schemas::schema::{Ownership, Place};
use serde_json::Value;

use super::{
    element::Element,
    form::{self, At},
    set::{Node, SELF, Set},
};

/// Whether a set, in its stored form, names parts of what is one piece now.
pub(super) fn is_outdated(fields: &Value, at: At<'_>) -> bool {
    let steps = fields.as_object().into_iter().flatten().filter(|(key, _)| *key != SELF);
    steps.into_iter().any(|(key, below)| {
        let place = key.strip_prefix("f:").map_or_else(|| form::items(at), |name| form::field(at, name));
        let has_parts = below.as_object().is_some_and(|below| below.keys().any(|key| key != SELF));
        has_parts && place.is_some_and(|place| is_one_piece(place) || is_outdated(below, Some(place)))
    })
}

/// The set in today's pieces.
pub(super) fn reconciled(set: &Set, at: At<'_>) -> Set {
    let mut today = Set::default();
    for (element, node) in set.iter() {
        let place = match element {
            Element::Field(name) => form::field(at, name),
            _ => form::items(at),
        };
        let node = match place {
            Some(place) if is_one_piece(place) && !node.children.is_empty() => Node::leaf(),
            Some(place) => Node { member: node.member, children: reconciled(&node.children, Some(place)) },
            None => node.clone(),
        };
        today.put(element.clone(), node);
    }
    today
}

fn is_one_piece(place: Place<'_>) -> bool {
    *place.ownership() == Ownership::Atomic
}
