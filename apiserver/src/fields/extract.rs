//! The fields that an object names.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::{
    element::{self, Element, Path},
    form::{self, At, Form},
    set::{Node, Set},
    subject::{self, Subject},
};

/// What makes a configuration impossible to own, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From the root of the object.
    pub path: Path,
    /// `duplicate entries for key [name="a"]`
    pub why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", element::display(&self.path), self.why)
    }
}

/// The fields that a configuration names: leaves, items of lists, entries of maps.
pub(super) fn named(subject: &Subject<'_>, object: &Value) -> Set {
    let root = Some(subject.schema.root());
    let mut set = Set::default();
    for (name, value) in object.as_object().into_iter().flatten().filter(|(name, _)| subject.reaches(name)) {
        let at = form::field(root, name);
        let node = if name == "metadata" {
            Node { member: false, children: metadata(value, at) }
        } else {
            node(value, at, form::declares(root, name))
        };
        set.put(Element::field(name), node);
    }
    set
}

/// Some of the metadata has no owners.
fn metadata(value: &Value, at: At<'_>) -> Set {
    let mut set = Set::default();
    let owned = |(name, _): &(&String, &Value)| subject::metadata_is_owned(name);
    for (name, value) in value.as_object().into_iter().flatten().filter(owned) {
        set.put(Element::field(name), node(value, form::field(at, name), form::declares(at, name)));
    }
    set
}

/// A field as a configuration names it. A structure that it fills is not named by itself, an entry always is.
fn node(value: &Value, at: At<'_>, declared: bool) -> Node {
    let children = children(value, at);
    let member = match Form::of(value, at) {
        Form::Leaf => true,
        Form::Fields => !declared || value.as_object().is_some_and(serde_json::Map::is_empty),
        Form::Values | Form::Items(_) => !declared,
    };
    Node { member, children }
}

/// What is named below a value, whoever may own it.
pub(super) fn children(value: &Value, at: At<'_>) -> Set {
    let mut set = Set::default();
    match (Form::of(value, at), value) {
        (Form::Fields, Value::Object(fields)) => {
            for (name, value) in fields {
                let node = node(value, form::field(at, name), form::declares(at, name));
                set.put(Element::field(name), node);
            }
        }
        (form @ (Form::Values | Form::Items(_)), Value::Array(items)) => {
            each_item(items, form, |element, item| {
                let children = item.map(|item| children(item, form::items(at))).unwrap_or_default();
                set.put(element, Node { member: true, children });
            });
        }
        _ => {}
    }
    set
}

/// A value with all that is in it.
pub(super) fn everything(value: &Value, at: At<'_>) -> Node {
    let mut set = Set::default();
    match (Form::of(value, at), value) {
        (Form::Fields, Value::Object(fields)) => {
            for (name, value) in fields {
                set.put(Element::field(name), everything(value, form::field(at, name)));
            }
        }
        (form @ (Form::Values | Form::Items(_)), Value::Array(items)) => {
            each_item(items, form, |element, item| {
                let node = item.map(|item| everything(item, form::items(at)));
                set.put(element, node.unwrap_or_else(Node::leaf));
            });
        }
        _ => {}
    }
    Node { member: true, children: set }
}

/// Calls with each item of a list once. Items that share a key are one piece, given as `None`; those without a key
/// have no owner.
fn each_item(items: &[Value], form: Form<'_>, mut call: impl FnMut(Element, Option<&Value>)) {
    let mut keyed: Vec<(Element, &Value)> =
        items.iter().filter_map(|item| Some((form.item(item).ok()?, item))).collect();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    for alike in keyed.chunk_by(|(a, _), (b, _)| a == b) {
        let item = if let [(_, item)] = alike { Some(*item) } else { None };
        call(alike[0].0.clone(), item);
    }
}

/// Refuses a configuration that cannot be owned: lists with items that cannot be told apart.
pub(super) fn check(value: &Value, at: At<'_>) -> Result<(), Fault> {
    match (Form::of(value, at), value) {
        (Form::Fields, Value::Object(fields)) => fields.iter().try_for_each(|(name, value)| {
            check(value, form::field(at, name)).map_err(|fault| fault.under(Element::field(name)))
        }),
        (form @ (Form::Values | Form::Items(_)), Value::Array(items)) => check_items(items, form, at),
        _ => Ok(()),
    }
}

fn check_items(items: &[Value], form: Form<'_>, at: At<'_>) -> Result<(), Fault> {
    let here = |why| Fault { path: Vec::new(), why };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let element = form.item(item).map_err(|why| here(format!("element {index}: {why}")))?;
        check(item, form::items(at)).map_err(|fault| fault.under(element.clone()))?;
        if !seen.insert(element.clone()) {
            return Err(here(format!("duplicate entries for key {element}")));
        }
    }
    Ok(())
}

impl Fault {
    fn under(mut self, element: Element) -> Self {
        self.path.insert(0, element);
        self
    }
}
