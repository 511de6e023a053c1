//! How server-side apply takes a place apart: into which pieces its managers can share it.
//!
//! For built-in types the facts stand in [`super::rules`]; other schemas bring them along, as
//! `x-kubernetes-list-type`, `x-kubernetes-list-map-keys` and `x-kubernetes-map-type`.

use serde_json::Value;

use super::rules::{self, ListType, MergeRule};

/// The pieces of a place that can have owners of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// A structure field by field, a map entry by entry.
    #[default]
    Granular,
    /// As a whole.
    Atomic,
    /// A list value by value.
    Set,
    /// A list item by item, told apart by these fields.
    Items(Box<[Key]>),
}

/// A field by which the items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `containerPort`
    pub name: Box<str>,
    /// What an item that leaves the field out means.
    pub default: Option<Value>,
}

/// What a schema says about itself.
pub(super) fn of_source(schema: &Value) -> Ownership {
    let is_list = schema["type"] == "array";
    match (schema["x-kubernetes-list-type"].as_str(), schema["x-kubernetes-map-type"].as_str()) {
        (Some("set"), _) => Ownership::Set,
        (Some("map"), _) => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            items(keys.filter_map(Value::as_str), &schema["items"])
        }
        (_, Some("atomic")) => Ownership::Atomic,
        _ if is_list => Ownership::Atomic,
        _ => Ownership::Granular,
    }
}

/// What is known of a field of a built-in type. `item` is the schema of the items, if it is a list.
pub(super) fn of_rule(rule: &MergeRule, item_type: &str, item: &Value) -> Option<Ownership> {
    match rule.list {
        Some(ListType::Atomic) => Some(Ownership::Atomic),
        Some(ListType::Set) => Some(Ownership::Set),
        Some(ListType::Map(names)) => {
            let Ownership::Items(mut keys) = items(names.iter().copied(), item) else { return None };
            for key in &mut keys {
                key.default = rules::key_default(item_type, &key.name).map(Value::from);
            }
            Some(Ownership::Items(keys))
        }
        None => rule.atomic_map.then_some(Ownership::Atomic),
    }
}

fn items<'a>(names: impl Iterator<Item = &'a str>, item: &Value) -> Ownership {
    let default = |name: &str| item["properties"][name].get("default").cloned();
    let keys: Box<[Key]> = names.map(|name| Key { name: name.into(), default: default(name) }).collect();
    // Nothing to tell items apart by: the list is one piece.
    if keys.is_empty() { Ownership::Atomic } else { Ownership::Items(keys) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Registry,
        schema::{Place, Schema},
    };

    fn step<'a>(place: Place<'a>, name: &str) -> Option<Place<'a>> {
        if name == "*" { place.items() } else { place.field(name) }
    }

    #[test]
    fn built_in_types_are_taken_apart_by_their_rules() {
        let registry = Registry::builtin();
        let at = |path: &str| {
            let root = registry.kind("v1", "Pod").unwrap().compiled().root();
            path.split('.').try_fold(root, step).unwrap().ownership().clone()
        };
        let key = |name: &str, default: Option<Value>| Key { name: name.into(), default };
        assert_eq!(at("spec"), Ownership::Granular);
        assert_eq!(at("metadata.labels"), Ownership::Granular);
        assert_eq!(at("metadata.finalizers"), Ownership::Set);
        assert_eq!(at("spec.nodeSelector"), Ownership::Atomic);
        assert_eq!(at("spec.tolerations"), Ownership::Atomic);
        assert_eq!(at("spec.containers"), Ownership::Items([key("name", None)].into()));
        assert_eq!(at("spec.containers.*.args"), Ownership::Atomic);
        assert_eq!(at("spec.containers.*.env.*.valueFrom.secretKeyRef"), Ownership::Atomic);
        assert_eq!(
            at("spec.containers.*.ports"),
            Ownership::Items([key("containerPort", None), key("protocol", Some(json!("TCP")))].into())
        );
    }

    #[test]
    fn other_schemas_say_themselves_how() {
        let schema = Schema::compile(&json!({"type": "object", "properties": {
            "plain": {"type": "array", "items": {"type": "string"}},
            "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "whole": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"},
            "map": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {
                    "port": {"type": "integer"},
                    "protocol": {"type": "string", "default": "TCP"},
                }},
            },
        }}));
        let at = |name: &str| schema.root().field(name).unwrap().ownership().clone();
        assert_eq!(at("plain"), Ownership::Atomic);
        assert_eq!(at("set"), Ownership::Set);
        assert_eq!(at("whole"), Ownership::Atomic);
        let Ownership::Items(keys) = at("map") else { panic!("a list of items") };
        assert_eq!((&*keys[0].name, &keys[0].default), ("port", &None));
        assert_eq!((&*keys[1].name, &keys[1].default), ("protocol", &Some(json!("TCP"))));
    }
}
