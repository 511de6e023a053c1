//! Takes fields out of an object: those that an applier owned, no longer names, and nobody else owns.

use serde_json::{Map, Value};

use super::{
    element::Element,
    extract,
    form::{self, At, Form},
    set::{Node, Set},
    subject::Subject,
};

/// The object without what its applier has given up. `last` is what it owned before, `owned` what is asked for now and
/// what all managers own.
///
/// A field goes if it was owned, and neither it nor, for a structure, anything in it is owned any more. What nobody
/// ever owned goes only with the item, entry or structure that it is in.
pub(super) fn prune(subject: &Subject<'_>, object: Value, last: &Set, owned: &Set) -> Value {
    let at = Some(subject.schema.root());
    let fields = |object: &Value| with_structures(&extract::children(object, at), at);
    let last = with_structures(last, at);
    let all = fields(&object);
    let mut kept = fields(&without(&object, &last, at));
    kept.add(with_structures(owned, at));
    let kept = fields(&without(&object, &all.difference(&kept), at));
    let gone = all.difference(&kept).intersection(&last);
    if gone.is_empty() { object } else { without(&object, &gone, at) }
}

/// The set with the structures on the way to its members: they are named by what is in them.
fn with_structures(set: &Set, at: At<'_>) -> Set {
    let mut whole = Set::default();
    for (element, node) in set.iter() {
        let (named, below) = match element {
            Element::Field(name) => (form::declares(at, name), form::field(at, name)),
            _ => (false, form::items(at)),
        };
        let children = with_structures(&node.children, below);
        whole.put(element.clone(), Node { member: node.member || named, children });
    }
    whole
}

/// The value without the members of a set. A container that this empties leaves its parent.
fn without(value: &Value, gone: &Set, at: At<'_>) -> Value {
    take(value, gone, at).unwrap_or_else(|| Value::Object(Map::new()))
}

fn take(value: &Value, gone: &Set, at: At<'_>) -> Option<Value> {
    match (Form::of(value, at), value) {
        (Form::Fields, Value::Object(fields)) => take_fields(fields, gone, at),
        (form @ (Form::Values | Form::Items(_)), Value::Array(items)) => take_items(items, gone, form, at),
        _ => Some(value.clone()),
    }
}

fn take_fields(fields: &Map<String, Value>, gone: &Set, at: At<'_>) -> Option<Value> {
    let mut rest = Map::new();
    let mut stay = fields.is_empty();
    for (name, value) in fields {
        let node = gone.get(&Element::field(name));
        if node.is_some_and(|node| node.member) {
            continue;
        }
        // A field that is emptied leaves, but does not make its parent leave too.
        stay = true;
        let value = match node {
            Some(node) => take(value, &node.children, form::field(at, name)),
            None => Some(value.clone()),
        };
        if let Some(value) = value {
            rest.insert(name.clone(), value);
        }
    }
    stay.then_some(Value::Object(rest))
}

fn take_items(items: &[Value], gone: &Set, form: Form<'_>, at: At<'_>) -> Option<Value> {
    let mut rest = Vec::with_capacity(items.len());
    for item in items {
        let node = form.item(item).ok().and_then(|element| gone.get(&element));
        match node {
            Some(node) if node.member => {}
            Some(node) => rest.extend(take(item, &node.children, form::items(at))),
            None => rest.push(item.clone()),
        }
    }
    (items.is_empty() || !rest.is_empty()).then_some(Value::Array(rest))
}
