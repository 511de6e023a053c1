//! JSON patch (RFC 6902) and merge patch (RFC 7396), as their texts say it and without any care for time.

use serde_json::{Map, Value};

/// The target after all operations, or `None` when one of them cannot be done.
pub fn json_patch(target: &Value, operations: &Value) -> Option<Value> {
    operations.as_array()?.iter().try_fold(target.clone(), step)
}

fn step(mut document: Value, operation: &Value) -> Option<Value> {
    let path = split(operation["path"].as_str()?)?;
    let value = || operation.as_object()?.get("value").cloned();
    let from = || split(operation["from"].as_str()?);
    match operation["op"].as_str()? {
        "add" => add(&mut document, &path, value()?)?,
        "remove" => drop(remove(&mut document, &path)?),
        "replace" => *find(&mut document, &path)? = value()?,
        "copy" => {
            let value = find(&mut document, &from()?)?.clone();
            add(&mut document, &path, value)?;
        }
        "move" => {
            let from = from()?;
            if path.len() > from.len() && path.starts_with(&from) {
                return None;
            }
            let value = remove(&mut document, &from)?;
            add(&mut document, &path, value)?;
        }
        "test" => {
            let wanted = value()?;
            match find(&mut document, &path) {
                Some(found) if *found == wanted => {}
                // Upstream's reading: what is not there is null.
                None if wanted.is_null() => {}
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(document)
}

/// The steps of a pointer (RFC 6901).
fn split(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    pointer.strip_prefix('/')?.split('/').map(unescaped).collect()
}

fn unescaped(step: &str) -> Option<String> {
    let mut parts = step.split('~');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        plain.push(match part.chars().next()? {
            '0' => '~',
            '1' => '/',
            _ => return None,
        });
        plain.push_str(&part[1..]);
    }
    Some(plain)
}

fn index(step: &str) -> Option<usize> {
    let plain = step == "0" || (!step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit()));
    step.parse().ok().filter(|_| plain)
}

fn find<'v>(document: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(document, |at, step| match at {
        Value::Object(fields) => fields.get_mut(step),
        Value::Array(items) => items.get_mut(index(step)?),
        _ => None,
    })
}

fn add(document: &mut Value, path: &[String], value: Value) -> Option<()> {
    let Some((last, parent)) = path.split_last() else {
        *document = value;
        return Some(());
    };
    match find(document, parent)? {
        Value::Object(fields) => drop(fields.insert(last.clone(), value)),
        Value::Array(items) => {
            let place = if last == "-" { items.len() } else { index(last)? };
            (place <= items.len()).then(|| items.insert(place, value))?;
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &[String]) -> Option<Value> {
    // A document without a root is none: upstream refuses it.
    let (last, parent) = path.split_last()?;
    match find(document, parent)? {
        Value::Object(fields) => fields.remove(last),
        Value::Array(items) => {
            index(last).filter(|place| *place < items.len()).map(|place| items.remove(place))
        }
        _ => None,
    }
}

/// The function of RFC 7396, section 2.
pub fn merge_patch(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut merged = target.as_object().cloned().unwrap_or_else(Map::new);
    for (name, value) in patch {
        if value.is_null() {
            merged.remove(name);
        } else {
            let before = merged.get(name).cloned().unwrap_or_default();
            merged.insert(name.clone(), merge_patch(&before, value));
        }
    }
    merged.into()
}
