//! What selectors look at, picked from stored bytes without building a document.
//!
//! A kind's plan is a small tree of the wanted paths; the rest of the object is skipped by the parser.

use std::fmt;

use claw_schemas::Descriptor;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Labels and selectable fields of one object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    labels: Vec<(Box<str>, Box<str>)>,
    /// In the order of the kind's declared fields.
    fields: Vec<Box<str>>,
}

impl Facts {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(found, _)| &**found == key).map(|(_, value)| &**value)
    }

    pub fn field(&self, index: usize) -> &str {
        &self.fields[index]
    }
}

/// Where the selectable fields of a kind are found.
#[derive(Debug)]
pub(super) struct Plan {
    root: Branch,
    slots: usize,
    fields: Vec<Field>,
}

/// One declared field: the first slot that holds text, else a default.
#[derive(Debug)]
struct Field {
    name: String,
    slots: Vec<usize>,
    default: &'static str,
}

#[derive(Debug, Default)]
struct Branch {
    children: Vec<(Box<str>, Node)>,
}

#[derive(Debug)]
enum Node {
    Branch(Branch),
    Slots(Vec<usize>),
    Labels,
}

impl Plan {
    pub fn new(descriptor: &Descriptor) -> Self {
        let mut plan = Self { root: Branch::default(), slots: 0, fields: Vec::new() };
        let metadata = Branch { children: vec![("labels".into(), Node::Labels)] };
        plan.root.children.push(("metadata".into(), Node::Branch(metadata)));
        for name in &descriptor.selectable_fields {
            let (paths, default) = places_of(&descriptor.kind, name);
            let slots = paths.iter().map(|path| plan.add(path)).collect();
            plan.fields.push(Field { name: name.to_string(), slots, default });
        }
        plan
    }

    fn add(&mut self, path: &str) -> usize {
        let slot = self.slots;
        self.slots += 1;
        self.root.add(path, slot);
        slot
    }

    /// The index of a declared field.
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Reads an object. Bytes that do not parse have no labels and no fields.
    pub fn facts(&self, stored: &[u8]) -> Facts {
        let mut found = Found { labels: Vec::new(), slots: vec![Box::default(); self.slots] };
        let mut reader = serde_json::Deserializer::from_slice(stored);
        if let Err(error) = (Walk { branch: &self.root, found: &mut found }).deserialize(&mut reader) {
            tracing::error!(%error, "a stored object does not parse");
        }
        let fields = self.fields.iter().map(|field| {
            let text = field.slots.iter().map(|slot| &found.slots[*slot]).find(|text| !text.is_empty());
            text.cloned().unwrap_or_else(|| field.default.into())
        });
        Facts { fields: fields.collect(), labels: found.labels }
    }
}

/// JSON paths behind a declared field, and what an absent one reads as. Most fields are their own path; the exceptions
/// are those of Kubernetes' own conversion functions.
fn places_of<'a>(kind: &str, field: &'a str) -> (Vec<&'a str>, &'static str) {
    match (kind, field) {
        ("Event", "source") => (vec!["source.component", "reportingComponent"], ""),
        ("Node", "spec.unschedulable") => (vec![field], "false"),
        ("ReplicaSet" | "ReplicationController", "status.replicas") => (vec![field], "0"),
        ("Job", "status.successful") => (vec!["status.succeeded"], "0"),
        _ => (vec![field], ""),
    }
}

impl Branch {
    fn add(&mut self, path: &str, slot: usize) {
        let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
        let at = match self.children.iter().position(|(key, _)| &**key == head) {
            Some(at) => at,
            None => {
                let fresh = if rest.is_some() { Node::Branch(Self::default()) } else { Node::Slots(vec![]) };
                self.children.push((head.into(), fresh));
                self.children.len() - 1
            }
        };
        match (&mut self.children[at].1, rest) {
            (Node::Branch(branch), Some(rest)) => branch.add(rest, slot),
            (Node::Slots(slots), None) => slots.push(slot),
            // A path that ends where another goes on, or inside the labels, is no scalar: it reads as empty.
            _ => {}
        }
    }

    fn child(&self, key: &str) -> Option<&Node> {
        self.children.iter().find(|(found, _)| &**found == key).map(|(_, node)| node)
    }
}

struct Found {
    labels: Vec<(Box<str>, Box<str>)>,
    slots: Vec<Box<str>>,
}

/// Walks one object along a branch.
struct Walk<'a> {
    branch: &'a Branch,
    found: &'a mut Found,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Visits of anything that is not what was looked for: it counts as absent.
macro_rules! absent_otherwise {
    ($($visit:ident: $type:ty),*) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any JSON")
        }

        $(fn $visit<E>(self, _: $type) -> Result<(), E> {
            Ok(())
        })*

        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    };
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    absent_otherwise!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(node) = map.next_key_seed(Pick(self.branch))? {
            match node {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(Node::Branch(branch)) => map.next_value_seed(Walk { branch, found: self.found })?,
                Some(Node::Labels) => map.next_value_seed(Labels(&mut self.found.labels))?,
                Some(Node::Slots(slots)) => {
                    let text = map.next_value_seed(Text)?;
                    slots.iter().for_each(|slot| self.found.slots[*slot].clone_from(&text));
                }
            }
        }
        Ok(())
    }
}

/// Reads a key as the child it names, without copying it.
struct Pick<'a>(&'a Branch);

impl<'de, 'a> DeserializeSeed<'de> for Pick<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Pick<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(key))
    }
}

struct Labels<'a>(&'a mut Vec<(Box<str>, Box<str>)>);

impl<'de> DeserializeSeed<'de> for Labels<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Labels<'_> {
    type Value = ();

    absent_otherwise!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Box<str>>()? {
            let value = map.next_value_seed(Text)?;
            self.0.push((key, value));
        }
        Ok(())
    }
}

/// Reads a scalar as selectors compare it.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Box<str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Box<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Box<str>, E> {
        Ok(value.to_string().into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Box<str>, E> {
        Ok(value.to_string().into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Box<str>, E> {
        Ok(value.to_string().into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Box<str>, E> {
        Ok(value.to_string().into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Box<str>, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Box<str>, E> {
        Ok(Box::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Box<str>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Box::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Box<str>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Box::default())
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::Registry;
    use serde_json::json;

    use super::*;

    fn facts(plural: &str, object: &serde_json::Value) -> (Plan, Facts) {
        let registry = Registry::builtin();
        let plan = Plan::new(registry.named(plural).unwrap());
        let facts = plan.facts(object.to_string().as_bytes());
        (plan, facts)
    }

    #[test]
    fn labels_and_declared_fields_are_picked_from_bytes() {
        let pod = json!({
            "metadata": {"labels": {"app": "web", "n": "1"}, "annotations": {"labels": "no"}},
            "spec": {"nodeName": "n1", "containers": [{"nodeName": "decoy"}]},
            "status": {"phase": "Running"},
        });
        let (plan, facts) = facts("pods", &pod);
        assert_eq!(facts.label("app"), Some("web"));
        assert_eq!(facts.label("labels"), None);
        assert_eq!(facts.field(plan.field("spec.nodeName").unwrap()), "n1");
        assert_eq!(facts.field(plan.field("status.phase").unwrap()), "Running");
        assert_eq!(facts.field(plan.field("status.podIP").unwrap()), "");
        assert_eq!(plan.field("spec.hostname"), None);
    }

    #[test]
    fn absent_fields_read_as_kubernetes_reads_them() {
        let (plan, node) = facts("nodes", &json!({"metadata": {}, "spec": {}}));
        assert_eq!(node.field(plan.field("spec.unschedulable").unwrap()), "false");
        let (plan, node) = facts("nodes", &json!({"spec": {"unschedulable": true}}));
        assert_eq!(node.field(plan.field("spec.unschedulable").unwrap()), "true");
    }

    #[test]
    fn the_source_of_an_event_has_two_places() {
        let (plan, old) =
            facts("events", &json!({"source": {"component": "kubelet"}, "reportingComponent": "r"}));
        assert_eq!(old.field(plan.field("source").unwrap()), "kubelet");
        assert_eq!(old.field(plan.field("reportingComponent").unwrap()), "r");
        let (plan, new) = facts("events", &json!({"source": {}, "reportingComponent": "agent"}));
        assert_eq!(new.field(plan.field("source").unwrap()), "agent");
    }

    #[test]
    fn odd_shapes_count_as_absent() {
        let (plan, odd) = facts("pods", &json!({"metadata": [], "spec": 5, "status": {"phase": {"a": [1]}}}));
        assert_eq!(odd.field(plan.field("status.phase").unwrap()), "");
        assert_eq!(odd.label("x"), None);
    }
}
