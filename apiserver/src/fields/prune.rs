//! Takes fields out of an object: those that an applier owned, no longer names, and nobody else owns.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    element::Element,
    extract,
    form::{self, At, Form},
    set::{Node, Set},
    subject::Subject,
    versions::{Lack, Versions},
};

/// What an applier owned before, and the version it said so in.
pub(super) struct Last {
    pub set: Set,
    pub version: String,
}

/// The object without what its applier has given up. `owned` is what is asked for now and what all managers own, by the
/// version in which they say so; `own` is the version of the object.
///
/// A field goes if it was owned, and neither it nor, for a structure, anything in it is owned any more. What nobody
/// ever owned goes only with the item, entry or structure that it is in.
pub(super) fn prune(
    versions: &Versions<'_>,
    own: &str,
    object: &Value,
    last: &Last,
    mut owned: BTreeMap<String, Set>,
) -> Result<Value, Box<Lack>> {
    // Of a version that is no more, nobody knows what its fields are now.
    let Some(subject) = versions.subject(own, &last.version) else { return Ok(object.clone()) };
    let whole = versions.convert(object, &last.version)?;
    let gone = with_structures(&last.set, root(subject));
    // What is owned in the same version comes back first: a conversion may need it.
    let owned_there = owned.remove(&last.version).unwrap_or_default();
    let mut rest = kept(subject, whole, &without(whole, &gone, root(subject)), &owned_there);
    for (version, owned) in &owned {
        let Some(subject) = versions.subject(own, version) else { continue };
        rest = kept(subject, versions.convert(whole, version)?, versions.convert(&rest, version)?, owned);
    }
    let rest = fields_of(versions.convert(&rest, &last.version)?, root(subject));
    let gone = fields_of(whole, root(subject)).difference(&rest).intersection(&gone);
    if gone.is_empty() {
        return Ok(object.clone());
    }
    versions.convert(&without(whole, &gone, root(subject)), own).cloned()
}

fn root<'a>(subject: &Subject<'a>) -> At<'a> {
    Some(subject.schema.root())
}

fn fields_of(object: &Value, at: At<'_>) -> Set {
    with_structures(&extract::children(object, at), at)
}

/// The whole object but for what is neither in the rest nor owned.
fn kept(subject: &Subject<'_>, whole: &Value, rest: &Value, owned: &Set) -> Value {
    let at = root(subject);
    let mut stays = fields_of(rest, at);
    stays.add(with_structures(owned, at));
    without(whole, &fields_of(whole, at).difference(&stays), at)
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
