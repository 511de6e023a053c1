//! A set of fields, as a tree of steps.
//!
//! A field and what is below it are members each on their own: `spec.template` may be in a set without
//! `spec.template.metadata`, and the other way round. Invariant: no branch is without members.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use super::element::{Element, Path};

/// How a node says in `FieldsV1` that it is a member although it has branches.
pub(super) const SELF: &str = ".";

/// Deepest set that is read: as deep as `serde_json` reads.
const DEPTH_MAX: usize = 127;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(BTreeMap<Element, Node>);

/// One field: whether it is a member, and what below it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Whether the field itself is in the set.
    pub member: bool,
    /// Members below it.
    pub children: Set,
}

impl Node {
    /// A field alone.
    pub fn leaf() -> Self {
        Self { member: true, children: Set::default() }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    fn and(&self, other: &Self) -> Self {
        Self { member: self.member && other.member, children: self.children.intersection(&other.children) }
    }

    fn without(&self, other: &Self) -> Self {
        Self { member: self.member && !other.member, children: self.children.difference(&other.children) }
    }

    fn add(&mut self, other: Self) {
        self.member |= other.member;
        self.children.add(other.children);
    }
}

impl Set {
    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is under a step.
    pub fn get(&self, element: &Element) -> Option<&Node> {
        self.0.get(element)
    }

    /// Steps and what is under each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Element, &Node)> {
        self.0.iter()
    }

    /// Adds a node; an empty one leaves no trace.
    pub fn put(&mut self, element: Element, node: Node) {
        if node.is_empty() {
            return;
        }
        match self.0.entry(element) {
            Entry::Vacant(place) => drop(place.insert(node)),
            Entry::Occupied(place) => place.into_mut().add(node),
        }
    }

    /// Adds one field, without the ones above it.
    pub fn insert(&mut self, path: &[Element]) {
        let [first, rest @ ..] = path else { return };
        let node = self.0.entry(first.clone()).or_default();
        match rest {
            [] => node.member = true,
            rest => node.children.insert(rest),
        }
    }

    /// Whether a field is a member.
    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.0.get(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.0.get(first).is_some_and(|node| node.children.contains(rest)),
        }
    }

    /// Adds another set's members.
    pub fn add(&mut self, other: Self) {
        for (element, node) in other.0 {
            self.put(element, node);
        }
    }

    /// Members of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.add(other.clone());
        union
    }

    /// Members of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.map_nodes(|element, node| {
            other.0.get(element).map_or_else(Node::default, |other| node.and(other))
        })
    }

    /// Members of this one that the other lacks. What is below a field does not go with it.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.map_nodes(|element, node| {
            other.0.get(element).map_or_else(|| node.clone(), |other| node.without(other))
        })
    }

    fn map_nodes(&self, change: impl Fn(&Element, &Node) -> Node) -> Self {
        let changed = self.0.iter().map(|(element, node)| (element.clone(), change(element, node)));
        Self(changed.filter(|(_, node)| !node.is_empty()).collect())
    }

    /// Every member: those of a level before what is below them.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, at: &mut Path, paths: &mut Vec<Path>) {
        for (element, _) in self.0.iter().filter(|(_, node)| node.member) {
            paths.push(at.iter().chain([element]).cloned().collect());
        }
        for (element, node) in &self.0 {
            at.push(element.clone());
            node.children.collect(at, paths);
            at.pop();
        }
    }

    /// Reads `FieldsV1`.
    ///
    /// # Errors
    /// Says what is malformed.
    pub fn from_text(fields: &str) -> Result<Self, String> {
        let fields: Value = serde_json::from_str(fields).map_err(|error| error.to_string())?;
        Ok(read(&fields, 0)?.children)
    }

    /// `FieldsV1`.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    /// `FieldsV1` as a document.
    #[cfg(test)]
    pub fn to_json(&self) -> Value {
        serde_json::from_str(&self.to_text()).expect("what is written is JSON")
    }

    /// Appends `FieldsV1`.
    pub(super) fn write(&self, out: &mut String) {
        self.write_with(out, false);
    }

    fn write_with(&self, out: &mut String, is_member: bool) {
        out.push('{');
        if is_member && !self.is_empty() {
            out.push_str(r#"".":{},"#);
        }
        for (at, (element, node)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            element.write_key(out);
            out.push(':');
            node.children.write_with(out, node.member);
        }
        out.push('}');
    }

    /// Whether any member of this set is in `fields`, which is `FieldsV1` as [`Self::to_text`] writes it.
    pub fn touches(&self, fields: &str) -> bool {
        Seen::of(self, fields).touched
    }

    /// Whether every member of this set is in `fields`.
    pub fn is_within(&self, fields: &str) -> bool {
        Seen::of(self, fields).within
    }

    /// What is under the step that a key of `FieldsV1` spells.
    fn at_key(&self, key: &str) -> Option<&Node> {
        if let Some(field) = key.strip_prefix("f:") {
            return self.0.get(&Element::field(field));
        }
        // Fields come first.
        let has_items = self.0.last_key_value().is_some_and(|(last, _)| !matches!(last, Element::Field(_)));
        let element = has_items.then(|| Element::parse(key).ok().flatten()).flatten()?;
        self.0.get(&element)
    }
}

/// What a walk through `FieldsV1` found of a set; the rest is passed over.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The field itself is a member.
    member: bool,
    /// A member of the set is there.
    touched: bool,
    /// All members of the set are.
    within: bool,
}

impl Seen {
    fn of(set: &Set, fields: &str) -> Self {
        // What is stored was written here, so that nothing is ever wrong with it.
        Walk(set).deserialize(&mut serde_json::Deserializer::from_str(fields)).unwrap_or_default()
    }
}

/// Walks through `FieldsV1` along a set.
struct Walk<'a>(&'a Set);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, fields: D) -> Result<Seen, D::Error> {
        fields.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of steps")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Seen, A::Error> {
        let (mut keys, mut found, mut seen) = (0, 0, Seen::default());
        while let Some(Key(key)) = fields.next_key()? {
            keys += 1;
            seen.member |= key == SELF;
            let Some(node) = self.0.at_key(&key) else {
                fields.next_value::<IgnoredAny>()?;
                continue;
            };
            let below = fields.next_value_seed(Walk(&node.children))?;
            seen.touched |= (node.member && below.member) || below.touched;
            found += usize::from((!node.member || below.member) && below.within);
        }
        // It has no branches, or says so.
        seen.member |= keys == 0;
        seen.within = found == self.0.0.len();
        Ok(seen)
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

fn read(value: &Value, depth: usize) -> Result<Node, String> {
    let fields = match value {
        Value::Object(fields) => fields,
        other => return Err(format!("expected an object of steps, found {other}")),
    };
    if depth > DEPTH_MAX {
        return Err(format!("it nests deeper than {DEPTH_MAX} levels"));
    }
    let mut children = Set::default();
    for (key, below) in fields.iter().filter(|(key, _)| *key != SELF) {
        if let Some(element) = Element::parse(key)? {
            children.put(element, read(below, depth + 1)?);
        }
    }
    Ok(Node { member: children.is_empty() || fields.contains_key(SELF), children })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(fields: &Value) -> Set {
        Set::from_text(&fields.to_string()).unwrap()
    }

    fn shown(set: &Set) -> Vec<String> {
        set.paths().iter().map(|path| super::super::element::display(path)).collect()
    }

    #[test]
    fn a_set_is_read_and_written_in_the_form_of_managed_fields() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {}}}},
                "f:finalizers": {"v:\"a/b\"": {}},
            },
        });
        let read = set(&fields);
        assert_eq!(read.to_json(), fields);
        assert_eq!(
            shown(&read),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.containers[name=\"web\"]",
                ".spec.containers[name=\"web\"].image",
                ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.finalizers[=\"a/b\"]",
            ]
        );
    }

    #[test]
    fn nothing_is_an_empty_object_and_garbage_is_refused() {
        assert!(set(&json!({})).is_empty());
        assert!(set(&json!({"q:unknown": {}})).is_empty());
        for garbage in [json!([]), json!({"spec": {}}), json!({"f:a": 1}), json!({"f:a": {"v:{": {}}})] {
            assert!(Set::from_text(&garbage.to_string()).is_err(), "{garbage}");
        }
        let deep = (0..200).fold(json!({}), |below, _| json!({"f:a": below}));
        assert!(Set::from_text(&deep.to_string()).is_err());
    }

    #[test]
    fn a_field_and_what_is_below_it_are_members_each_on_their_own() {
        let parent = set(&json!({"f:a": {}}));
        let child = set(&json!({"f:a": {"f:b": {}}}));
        assert_eq!(parent.difference(&child), parent);
        assert_eq!(child.difference(&parent), child);
        assert!(parent.intersection(&child).is_empty());
        assert_eq!(parent.union(&child), set(&json!({"f:a": {".": {}, "f:b": {}}})));
    }
}
