//! Applies patches: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch. Server-side apply is more
//! than a patch, and lives in [`crate::fields`].
//!
//! Pure: a patch and a target give a result or an error that names the offending part.
//!
//! Must never know: what is stored, and which fields the result may not change.

mod strategic;

use claw_client::request::PatchKind;
use claw_schemas::{
    ApiError,
    schema::Schema,
    status::{Cause, Reason},
};
use json_patch::{
    PatchErrorKind, PatchOperation,
    jsonptr::{Pointer, index::Index},
};
use serde_json::Value;

/// Operations of one JSON patch; each may copy a whole object, so 10,000 bound the work of one request.
const OPERATIONS_MAX: usize = 10_000;
/// Work of one JSON patch: values that are looked at, and items of lists that are moved along for another. Either takes
/// some nanoseconds, so this is a good quarter of a second; 10,000 changes in lists of 5,000 items are as much.
const WORK_MAX: usize = 50_000_000;
/// Bytes that the copy operations of one patch may add: twice the largest object that is stored (1.5 MiB).
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Comparisons of list items that one strategic merge may take. Each item of the patch is looked for among those of the
/// target and those before it; 20 million take 0.2 s. Lists of 3,000 items merge with as many.
const COMPARISONS_MAX: usize = 20_000_000;
/// Levels of the result: as many as `serde_json` would parse again.
const DEPTH_MAX: usize = 127;

/// The media types for `PATCH` on a built-in kind, as the 415 lists them.
const BUILTIN_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
     application/strategic-merge-patch+json, application/apply-patch+yaml";
/// The same for kinds without strategic merge.
const CUSTOM_TYPES: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// Applies `patch` to `target`. `schema` is that of a built-in kind; `None` for kinds that strategic merge does not
/// know.
///
/// # Errors
/// 400 for a patch that is malformed, 415 for a kind of patch that is not served here, 422 for a JSON patch whose
/// operation does not fit the target.
pub fn apply(
    kind: PatchKind,
    target: &Value,
    patch: &[u8],
    schema: Option<&Schema>,
) -> Result<Value, ApiError> {
    match (kind, schema) {
        (PatchKind::Json, _) => json(target, patch),
        (PatchKind::Merge, _) => {
            let patch = object(patch)?;
            let mut result = target.clone();
            json_patch::merge(&mut result, &patch);
            Ok(result)
        }
        (PatchKind::Strategic, Some(schema)) => {
            let (mut result, patch) = (target.clone(), object(patch)?);
            check_comparisons(&result, &patch)?;
            strategic::merge(&mut result, patch, schema.root())?;
            Ok(result)
        }
        (PatchKind::Strategic, None) | (PatchKind::Apply, _) => Err(unsupported(schema)),
    }
}

/// Refuses the formats that a kind does not take. For before there is a target: a missing object must not hide it.
///
/// # Errors
/// `UnsupportedMediaType`, with what is accepted.
pub fn accept(kind: PatchKind, schema: Option<&Schema>) -> Result<(), ApiError> {
    match (kind, schema) {
        (PatchKind::Strategic, None) => Err(unsupported(schema)),
        _ => Ok(()),
    }
}

fn unsupported(schema: Option<&Schema>) -> ApiError {
    let accepted = if schema.is_some() { BUILTIN_TYPES } else { CUSTOM_TYPES };
    ApiError::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        ),
    )
}

/// Whether a JSON patch was refused because one of its tests did not hold.
pub fn is_failed_test(error: &ApiError) -> bool {
    let failed = PatchErrorKind::TestFailed.to_string();
    error.details.causes.iter().any(|cause| cause.message == failed)
}

/// Whether a value has more levels than could be read back.
pub fn is_too_deep(value: &Value) -> bool {
    depth(value) > DEPTH_MAX
}

/// A patch that must be a JSON object. `serde_json` bounds its depth, the request limits bound its size.
fn object(patch: &[u8]) -> Result<Value, ApiError> {
    let value: Value = parse(patch)?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(ApiError::bad_request("a merge patch must be a JSON object"))
    }
}

fn parse<T: serde::de::DeserializeOwned>(patch: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(patch)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
}

fn json(target: &Value, patch: &[u8]) -> Result<Value, ApiError> {
    let operations: json_patch::Patch = parse(patch)?;
    if operations.0.len() > OPERATIONS_MAX {
        let count = operations.0.len();
        return Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}"),
        ));
    }
    let mut result = target.clone();
    let mut spent = Spent::default();
    for operation in &operations.0 {
        bound(&result, operation, &mut spent)?;
        if finds_absent(&result, operation) {
            continue;
        }
        json_patch::patch(&mut result, std::slice::from_ref(operation)).map_err(|error| {
            let mut refusal = ApiError::new(
                Reason::Invalid,
                format!("the server rejected our request due to an error in our request: {error}"),
            );
            refusal.details.causes.push(Cause {
                reason: "FieldValueInvalid".to_owned(),
                message: error.kind.to_string(),
                field: error.path.to_string(),
            });
            refusal
        })?;
    }
    Ok(result)
}

/// A test for null holds where there is nothing: not RFC 6902, but how upstream reads it, and how kube-rs makes sure that
/// an object has no finalizers.
fn finds_absent(target: &Value, operation: &PatchOperation) -> bool {
    matches!(operation, PatchOperation::Test(test) if test.value.is_null() && test.path.resolve(target).is_err())
}

/// What a JSON patch has cost so far.
#[derive(Default)]
struct Spent {
    copied_bytes: usize,
    work: usize,
}

impl Spent {
    fn work(&mut self, units: usize) -> Result<(), ApiError> {
        self.work = self.work.saturating_add(units);
        if self.work <= WORK_MAX {
            return Ok(());
        }
        Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            "the JSON patch moves and reads too many values: its operations insert into and remove from long lists, or copy \
             and move large values, again and again; send fewer operations at a time, or replace the whole list in one",
        ))
    }
}

/// Refuses an operation that would let a small patch make a huge value, by copying, or a bottomless one, by nesting, or keep
/// a core busy.
fn bound(target: &Value, operation: &PatchOperation, spent: &mut Spent) -> Result<(), ApiError> {
    spent.work(1 + shifted(target, operation))?;
    let value = match operation {
        PatchOperation::Add(add) => Some(&add.value),
        PatchOperation::Replace(replace) => Some(&replace.value),
        PatchOperation::Copy(copy) => copy.from.resolve(target).ok(),
        PatchOperation::Move(from) => from.from.resolve(target).ok(),
        PatchOperation::Test(test) => Some(&test.value),
        PatchOperation::Remove(_) => None,
    };
    let Some(value) = value else { return Ok(()) };
    let is_copy = matches!(operation, PatchOperation::Copy(_));
    // Its depth is found by a walk over all of it; a copy is weighed and made besides.
    spent.work(values_in(value).saturating_mul(if is_copy { 3 } else { 1 }))?;
    if matches!(operation, PatchOperation::Test(_)) {
        return Ok(());
    }
    if operation.path().count() + depth(value) > DEPTH_MAX {
        return Err(ApiError::bad_request(format!("the JSON patch nests deeper than {DEPTH_MAX} levels")));
    }
    if is_copy {
        spent.copied_bytes += weight(value);
        if spent.copied_bytes > COPIED_BYTES_MAX {
            return Err(ApiError::new(
                Reason::RequestEntityTooLarge,
                format!("the copy operations of the JSON patch add more than {COPIED_BYTES_MAX} bytes"),
            ));
        }
    }
    Ok(())
}

/// How many items an operation moves along at most: those of the lists in which it makes or takes a place.
fn shifted(target: &Value, operation: &PatchOperation) -> usize {
    let list = |path: &Pointer| -> Option<usize> {
        let (list, place) = path.split_back()?;
        let items = list.resolve(target).ok()?.as_array()?.len();
        match place.to_index().ok()? {
            Index::Num(place) => items.checked_sub(place),
            Index::Next => None,
        }
    };
    let list = |path: &Pointer| list(path).unwrap_or_default();
    match operation {
        PatchOperation::Add(_) | PatchOperation::Remove(_) | PatchOperation::Copy(_) => {
            list(operation.path())
        }
        PatchOperation::Move(moved) => list(&moved.from) + list(&moved.path),
        PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
    }
}

/// Refuses a strategic merge whose lists are so long that a small patch would keep a core busy for minutes.
fn check_comparisons(target: &Value, patch: &Value) -> Result<(), ApiError> {
    let (there, changes) = (items_in(target), items_in(patch));
    if changes.saturating_mul(there + changes) <= COMPARISONS_MAX {
        return Ok(());
    }
    Err(ApiError::new(
        Reason::RequestEntityTooLarge,
        format!(
            "the lists of the strategic merge patch have {changes} items, those of the object {there}: merging them takes \
             too long; send a merge patch, which replaces lists, or change fewer items at a time"
        ),
    ))
}

/// How many items all lists in a value have.
fn items_in(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(items_in).sum(),
        Value::Array(items) => items.len() + items.iter().map(items_in).sum::<usize>(),
        _ => 0,
    }
}

/// How many values there are in a value, itself among them.
fn values_in(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(values_in).sum::<usize>(),
        Value::Array(items) => 1 + items.iter().map(values_in).sum::<usize>(),
        _ => 1,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// About how many bytes a value takes as JSON.
fn weight(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + 4 + weight(value)).sum(),
        Value::Array(items) => items.iter().map(|item| 1 + weight(item)).sum(),
        Value::String(text) => text.len() + 2,
        _ => 8,
    }
}

#[cfg(test)]
mod tests;
