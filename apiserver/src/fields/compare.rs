//! What changed between two states of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    element::Element,
    extract::everything,
    form::{self, At, Form},
    set::{Node, Set},
    subject::{self, Subject},
};

/// The difference between two states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Fields that are new or have another value.
    pub changed: Set,
    /// Fields that are gone.
    pub removed: Set,
}

#[derive(Default)]
struct Nodes {
    changed: Node,
    removed: Node,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    fn put(&mut self, element: Element, nodes: Nodes) {
        if !nodes.removed.is_empty() {
            self.removed.put(element.clone(), nodes.removed);
        }
        self.changed.put(element, nodes.changed);
    }

    fn under(self) -> Nodes {
        let node = |children| Node { member: false, children };
        Nodes { changed: node(self.changed), removed: node(self.removed) }
    }
}

/// Compares two states within what the subject reaches.
pub(super) fn compare(subject: &Subject<'_>, old: &Value, new: &Value) -> Changes {
    let root = Some(subject.schema.root());
    let mut changes = Changes::default();
    zip(old, new, |name, old, new| {
        if !subject.reaches(name) || old == new {
            return;
        }
        let at = form::field(root, name);
        let mut nodes = if name == "metadata" { metadata(old, new, at) } else { values(old, new, at) };
        if subject.is_given(name) {
            (nodes.changed.member, nodes.removed.member) = (false, false);
        }
        changes.put(Element::field(name), nodes);
    });
    changes
}

fn metadata(old: Option<&Value>, new: Option<&Value>, at: At<'_>) -> Nodes {
    let mut changes = Changes::default();
    zip(old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null), |name, old, new| {
        if subject::metadata_is_owned(name) && old != new {
            changes.put(Element::field(name), values(old, new, form::field(at, name)));
        }
    });
    changes.under()
}

/// Calls with every field of either object.
fn zip(old: &Value, new: &Value, mut call: impl FnMut(&str, Option<&Value>, Option<&Value>)) {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    for (name, value) in old {
        call(name, Some(value), new.get(name));
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        call(name, None, Some(value));
    }
}

fn values(old: Option<&Value>, new: Option<&Value>, at: At<'_>) -> Nodes {
    match (old, new) {
        (Some(old), Some(new)) if old != new => both(old, new, at),
        (None, Some(new)) => Nodes { changed: everything(new, at), removed: Node::default() },
        (Some(old), None) => Nodes { changed: Node::default(), removed: everything(old, at) },
        _ => Nodes::default(),
    }
}

/// Two values that differ.
fn both(old: &Value, new: &Value, at: At<'_>) -> Nodes {
    let form = Form::of(new, at);
    match (form, old, new) {
        (Form::Fields, Value::Object(_), Value::Object(_)) => {
            let mut changes = Changes::default();
            zip(old, new, |name, old, new| {
                changes.put(Element::field(name), values(old, new, form::field(at, name)));
            });
            changes.under()
        }
        (Form::Values | Form::Items(_), Value::Array(old), Value::Array(new)) => {
            // Items that cannot be told apart make the list one piece.
            lists(old, new, form, form::items(at)).map_or_else(replaced, Changes::under)
        }
        _ => Nodes {
            changed: everything(new, at),
            removed: Node { member: false, children: everything(old, at).children },
        },
    }
}

fn replaced() -> Nodes {
    Nodes { changed: Node::leaf(), removed: Node::default() }
}

fn lists(old: &[Value], new: &[Value], form: Form<'_>, at: At<'_>) -> Option<Changes> {
    let mut items: BTreeMap<Element, [Vec<&Value>; 2]> = BTreeMap::new();
    for (side, list) in [old, new].into_iter().enumerate() {
        for item in list {
            items.entry(form.item(item).ok()?).or_default()[side].push(item);
        }
    }
    let mut changes = Changes::default();
    for (element, [old, new]) in items {
        changes.put(element, item(&old, &new, at));
    }
    Some(changes)
}

/// Items with one key. Several that share it are one piece.
fn item(old: &[&Value], new: &[&Value], at: At<'_>) -> Nodes {
    match (old, new) {
        ([] | [_], [] | [_]) => values(old.first().copied(), new.first().copied(), at),
        ([_, _, ..], [_, _, ..]) if old == new => Nodes::default(),
        ([_, _, ..], [_, _, ..]) => replaced(),
        ([_, _, ..], _) => Nodes {
            changed: new.first().map(|new| everything(new, at)).unwrap_or_default(),
            removed: Node::leaf(),
        },
        (_, _) => Nodes {
            changed: Node::leaf(),
            removed: old.first().map(|old| everything(old, at)).unwrap_or_default(),
        },
    }
}
