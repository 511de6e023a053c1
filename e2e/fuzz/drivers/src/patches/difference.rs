//! The strategic merge patch between two objects, made as kubectl makes one.

use claw_schemas::schema::{MergeRule, Place};
use serde_json::{Map, Value, json};

type At<'a> = Option<Place<'a>>;

fn below<'a>(at: At<'a>, name: &str) -> At<'a> {
    at.and_then(|place| place.field(name))
}

fn rule(at: At<'_>) -> Option<&'static MergeRule> {
    at.and_then(Place::rule).filter(|rule| rule.merge)
}

/// Makes an object one that a patch can lead to: no nulls, no directives, items that can be told apart.
pub fn make_sound(value: &mut Value, at: At<'_>) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() && !name.starts_with('$'));
            for (name, value) in fields.iter_mut() {
                let at = below(at, name);
                make_sound(value, at);
                if let (Value::Array(items), Some(rule)) = (value, rule(at)) {
                    tell_apart(items, rule);
                }
            }
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(|item| make_sound(item, at.and_then(Place::items)));
        }
        _ => {}
    }
}

fn tell_apart(items: &mut Vec<Value>, rule: &MergeRule) {
    let mut seen: Vec<Value> = Vec::new();
    items.retain(|item| {
        let key = match rule.merge_key {
            Some(field) => item.get(field).cloned(),
            None => Some(item.clone()).filter(|item| !item.is_object() && !item.is_array()),
        };
        let Some(key) = key.filter(|key| !key.is_null() && !seen.contains(key)) else { return false };
        seen.push(key);
        true
    });
}

/// The patch.
pub fn between(before: &Value, after: &Value, at: At<'_>) -> Value {
    let empty = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let mut patch: Map<String, Value> = before
        .keys()
        .filter(|name| !after.contains_key(*name))
        .map(|name| (name.clone(), Value::Null))
        .collect();
    for (name, new) in after {
        match before.get(name) {
            Some(old) if old == new => {}
            Some(old) => field(&mut patch, name, old, new, below(at, name)),
            None => drop(patch.insert(name.clone(), new.clone())),
        }
    }
    patch.into()
}

fn field(patch: &mut Map<String, Value>, name: &str, old: &Value, new: &Value, at: At<'_>) {
    let replaces = at.and_then(Place::rule).is_some_and(|rule| rule.replace);
    match (old, new, rule(at)) {
        (Value::Object(_), Value::Object(_), _) if !replaces => {
            patch.insert(name.to_owned(), between(old, new, at));
        }
        (Value::Array(old), Value::Array(new), Some(rule)) => {
            let (items, order) = match rule.merge_key {
                Some(key) => keyed(old, new, key, at.and_then(Place::items)),
                None => {
                    let gone: Vec<_> = old.iter().filter(|item| !new.contains(item)).cloned().collect();
                    patch.insert(format!("$deleteFromPrimitiveList/{name}"), gone.into());
                    let added: Vec<_> = new.iter().filter(|item| !old.contains(item)).cloned().collect();
                    (added, new.clone())
                }
            };
            patch.insert(name.to_owned(), items.into());
            patch.insert(format!("$setElementOrder/{name}"), order.into());
        }
        _ => drop(patch.insert(name.to_owned(), new.clone())),
    }
}

/// Changes of items by their key, and the order they are to have.
fn keyed(old: &[Value], new: &[Value], key: &str, at: At<'_>) -> (Vec<Value>, Vec<Value>) {
    let find = |items: &'_ [Value], item: &Value| items.iter().find(|other| other[key] == item[key]).cloned();
    let mut items: Vec<Value> = new
        .iter()
        .filter_map(|item| match find(old, item) {
            Some(before) if before == *item => None,
            Some(before) => {
                let mut change = between(&before, item, at);
                change[key] = item[key].clone();
                Some(change)
            }
            None => Some(item.clone()),
        })
        .collect();
    let gone = old.iter().filter(|item| find(new, item).is_none());
    items.extend(gone.map(|item| json!({"$patch": "delete", key: item[key]})));
    (items, new.iter().map(|item| json!({key: item[key]})).collect())
}

/// Whether a directive was stored as if it were a field.
pub fn holds_directive(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            let directive = |name: &str| {
                matches!(name, "$patch" | "$retainKeys")
                    || name.starts_with("$setElementOrder/")
                    || name.starts_with("$deleteFrom")
            };
            fields.iter().any(|(name, value)| directive(name) || holds_directive(value))
        }
        Value::Array(items) => items.iter().any(holds_directive),
        _ => false,
    }
}
