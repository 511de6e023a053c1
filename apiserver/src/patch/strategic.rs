//! Strategic merge patch: a merge patch that knows which lists merge item by item, and by which field.
//!
//! Source: "Strategic merge patch" in the Kubernetes API conventions (`sig-api-machinery/strategic-merge-patch.md`).
//! Directives: `$patch` (`replace`, `delete`, `merge`), `$retainKeys`, `$setElementOrder/x`,
//! `$deleteFromPrimitiveList/x`.
//!
//! Recursion is bounded by the 128 levels that `serde_json` parses.

use std::collections::{BTreeMap, HashSet};

use claw_schemas::{
    ApiError,
    schema::{ListType, MergeRule, Place},
    status::Reason,
};
use serde_json::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_VALUES: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// Merges an object into the object at `place`.
pub(super) fn merge(target: &mut Value, patch: Value, place: Place<'_>) -> Result<(), ApiError> {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => merge_object(target, patch, Some(place)),
        (target, patch) => {
            *target = plain(patch);
            Ok(())
        }
    }
}

/// `place` is `None` below fields that the schema does not know: maps merge, lists are replaced.
fn merge_object(target: &mut Object, mut patch: Object, place: Option<Place<'_>>) -> Result<(), ApiError> {
    match directive(&mut patch)? {
        Directive::Merge => {}
        Directive::Delete => {
            target.clear();
            return Ok(());
        }
        Directive::Replace => {
            *target = plain_object(patch);
            return Ok(());
        }
    }
    retain_keys(target, &mut patch)?;
    let (fields, orders, deletions) = split(patch)?;
    for (name, change) in fields {
        let place = place.and_then(|place| place.field(&name));
        let order = orders.get(&name).map(Vec::as_slice);
        merge_field(target, name, change, place, order)?;
    }
    // An order may also come alone, to sort what is there.
    for (name, order) in &orders {
        let rule = place.and_then(|place| place.field(name)).and_then(Place::rule);
        if let (Some(Value::Array(items)), Some(rule)) = (target.get_mut(name), rule) {
            let server = items.clone();
            reorder(items, order, &server, rule);
        }
    }
    for (name, gone) in deletions {
        if let Some(Value::Array(items)) = target.get_mut(&name) {
            items.retain(|item| !gone.contains(item));
        }
    }
    Ok(())
}

fn merge_field(
    target: &mut Object,
    name: String,
    change: Value,
    place: Option<Place<'_>>,
    order: Option<&[Value]>,
) -> Result<(), ApiError> {
    let rule = place.and_then(Place::rule);
    match (target.get_mut(&name), change) {
        (_, Value::Null) => {
            target.remove(&name);
        }
        (Some(Value::Object(target)), Value::Object(patch)) if !rule.is_some_and(|rule| rule.replace) => {
            merge_object(target, patch, place)?;
        }
        (Some(Value::Array(items)), Value::Array(patch)) if rule.is_some_and(|rule| rule.merge) => {
            let rule = rule.expect("the guard saw a rule");
            if let Some(order) = order {
                agrees_with(order, &patch, rule, &name)?;
            }
            merge_list(items, patch, place.and_then(Place::items), rule, &name)?;
        }
        (None, Value::Array(patch)) if rule.is_some_and(|rule| rule.merge) => {
            let mut items = Vec::new();
            let rule = rule.expect("the guard saw a rule");
            merge_list(&mut items, patch, place.and_then(Place::items), rule, &name)?;
            target.insert(name, Value::Array(items));
        }
        (None, Value::Object(patch)) => {
            let mut created = Object::new();
            merge_object(&mut created, patch, place)?;
            target.insert(name, Value::Object(created));
        }
        (Some(value), change) => *value = plain(change),
        (None, change) => {
            target.insert(name, plain(change));
        }
    }
    Ok(())
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

/// Takes `$patch` out of a patch object.
fn directive(patch: &mut Object) -> Result<Directive, ApiError> {
    match patch.remove(PATCH) {
        None => Ok(Directive::Merge),
        Some(Value::String(word)) if word == "merge" => Ok(Directive::Merge),
        Some(Value::String(word)) if word == "replace" => Ok(Directive::Replace),
        Some(Value::String(word)) if word == "delete" => Ok(Directive::Delete),
        Some(other) => {
            Err(bad(format!("unknown patch type found: $patch is {other}, use replace, delete or merge")))
        }
    }
}

/// Obeys `$retainKeys`: fields that it does not name leave the target.
fn retain_keys(target: &mut Object, patch: &mut Object) -> Result<(), ApiError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys = keys.as_array().ok_or_else(|| bad("$retainKeys must be a list of field names"))?;
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let kept = |name: &str| keys.contains(name);
    let stray =
        patch.iter().find(|(name, value)| !value.is_null() && !name.starts_with('$') && !kept(name.as_str()));
    if let Some((name, _)) = stray {
        let why = format!("patch content doesn't match retainKeys list: it sets \"{name}\"");
        return Err(ApiError::new(Reason::Invalid, why));
    }
    target.retain(|name, _| kept(name));
    Ok(())
}

/// Lists by the field they belong to.
type Lists = BTreeMap<String, Vec<Value>>;

/// Tells fields from parallel lists: (fields, orders, deletions).
fn split(patch: Object) -> Result<(Object, Lists, Lists), ApiError> {
    let (mut fields, mut orders, mut deletions) = (Object::new(), Lists::new(), Lists::new());
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix(SET_ORDER) {
            orders.insert(field.to_owned(), list(&name, value)?);
        } else if let Some(field) = name.strip_prefix(DELETE_VALUES) {
            deletions.insert(field.to_owned(), list(&name, value)?);
        } else {
            fields.insert(name, value);
        }
    }
    Ok((fields, orders, deletions))
}

fn list(name: &str, value: Value) -> Result<Vec<Value>, ApiError> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(bad(format!("{name} must be a list"))),
    }
}

/// Merges the items of a list whose rule says so, then orders it: items of the patch as the patch has them, others
/// where the server had them.
fn merge_list(
    items: &mut Vec<Value>,
    patch: Vec<Value>,
    place: Option<Place<'_>>,
    rule: &MergeRule,
    name: &str,
) -> Result<(), ApiError> {
    let server = items.clone();
    let (patch, replaces) = obey_item_directives(items, patch, rule, name)?;
    if replaces {
        *items = patch.into_iter().map(plain).collect();
        return Ok(());
    }
    let order = patch.clone();
    for change in patch {
        let found = match key_of(&change, rule, name)? {
            None => items.iter().position(|item| *item == change),
            Some(key) => find(items, &change, key, rule),
        };
        match (found, change) {
            (Some(index), Value::Object(change)) => match &mut items[index] {
                Value::Object(item) => merge_object(item, change, place)?,
                item => *item = plain(Value::Object(change)),
            },
            (Some(_), _) => {}
            (None, Value::Object(change)) => {
                let mut item = Object::new();
                merge_object(&mut item, change, place)?;
                items.push(Value::Object(item));
            }
            (None, value) => items.push(value),
        }
    }
    reorder(items, &order, &server, rule);
    Ok(())
}

/// Carries out `$patch: delete` items, and says whether a `$patch: replace` item replaces the whole list. Gives back
/// the items without a directive.
fn obey_item_directives(
    items: &mut Vec<Value>,
    patch: Vec<Value>,
    rule: &MergeRule,
    name: &str,
) -> Result<(Vec<Value>, bool), ApiError> {
    let (mut rest, mut replaces) = (Vec::with_capacity(patch.len()), false);
    for mut item in patch {
        let word = match &mut item {
            Value::Object(fields) if fields.contains_key(PATCH) => directive(fields)?,
            _ => Directive::Merge,
        };
        match word {
            Directive::Merge => rest.push(item),
            Directive::Delete => {
                let key = key_of(&item, rule, name)?.cloned();
                items.retain(|other| rule.merge_key.and_then(|field| other.get(field)) != key.as_ref());
            }
            // The item is the directive; a list that is to be replaced names its items beside it.
            Directive::Replace => replaces = true,
        }
    }
    Ok((rest, replaces))
}

/// The value by which an item is recognised; `None` for plain values.
fn key_of<'v>(item: &'v Value, rule: &MergeRule, name: &str) -> Result<Option<&'v Value>, ApiError> {
    match (rule.merge_key, item) {
        (Some(field), Value::Object(fields)) => {
            fields.get(field).filter(|key| !key.is_null()).map(Some).ok_or_else(|| {
                bad(format!("an item of \"{name}\" does not contain its merge key \"{field}\""))
            })
        }
        (Some(field), _) => {
            Err(bad(format!("items of \"{name}\" must be objects with the merge key \"{field}\"")))
        }
        (None, Value::Object(_) | Value::Array(_)) => {
            Err(bad(format!("items of \"{name}\" must be plain values")))
        }
        (None, _) => Ok(None),
    }
}

/// The item that a change is about. Where several share the merge key (a port over TCP and UDP), the other fields
/// that tell items of the list apart decide.
fn find(items: &[Value], change: &Value, key: &Value, rule: &MergeRule) -> Option<usize> {
    let field = rule.merge_key?;
    let candidates =
        || items.iter().enumerate().filter(|(_, item)| item.get(field) == Some(key)).map(|(index, _)| index);
    let agrees = |index: &usize| match rule.list {
        Some(ListType::Map(keys)) => {
            keys.iter().all(|key| change.get(key).is_none_or(|value| items[*index].get(key) == Some(value)))
        }
        _ => true,
    };
    candidates().find(agrees).or_else(|| candidates().next())
}

/// Whether two items are the same one, or two plain values equal.
fn same(a: &Value, b: &Value, rule: &MergeRule) -> bool {
    match rule.merge_key {
        Some(field) => a.get(field).is_some() && a.get(field) == b.get(field),
        None => a == b,
    }
}

/// Sorts `items`: those in `order` as it has them; the others stay where `server` had them relative to these.
fn reorder(items: &mut Vec<Value>, order: &[Value], server: &[Value], rule: &MergeRule) {
    let mut listed = Vec::with_capacity(items.len());
    let mut rest = std::mem::take(items);
    for wanted in order {
        let (mut found, others) = rest.into_iter().partition(|item| same(item, wanted, rule));
        listed.append(&mut found);
        rest = others;
    }
    let rank = |item: &Value| server.iter().position(|other| same(other, item, rule));
    let (mut listed, mut rest) = (listed.into_iter().peekable(), rest.into_iter().peekable());
    while let (Some(left), Some(right)) = (listed.peek(), rest.peek()) {
        let right_first = matches!((rank(left), rank(right)), (Some(left), Some(right)) if right < left);
        items.extend(if right_first { rest.next() } else { listed.next() });
    }
    items.extend(listed);
    items.extend(rest);
}

/// The patch list must not contradict the order that the patch asks for.
fn agrees_with(order: &[Value], patch: &[Value], rule: &MergeRule, name: &str) -> Result<(), ApiError> {
    let mut wanted = order.iter();
    for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
        if !wanted.any(|other| same(other, item, rule)) {
            return Err(bad(format!(
                "the order in patch list \"{name}\" doesn't match its $setElementOrder list"
            )));
        }
    }
    Ok(())
}

/// A value of a patch as it is stored where there is nothing to merge with: no nulls, no directives.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(plain_object(fields)),
        Value::Array(items) => Value::Array(
            items
                .into_iter()
                .filter(|item| !matches!(item.get(PATCH).and_then(Value::as_str), Some("delete" | "replace")))
                .map(plain)
                .collect(),
        ),
        leaf => leaf,
    }
}

fn plain_object(fields: Object) -> Object {
    fields
        .into_iter()
        .filter(|(name, value)| !value.is_null() && !is_directive(name))
        .map(|(name, value)| (name, plain(value)))
        .collect()
}

fn is_directive(name: &str) -> bool {
    name == PATCH || name == RETAIN_KEYS || name.starts_with(SET_ORDER) || name.starts_with(DELETE_VALUES)
}

fn bad(why: impl Into<String>) -> ApiError {
    ApiError::bad_request(why)
}
