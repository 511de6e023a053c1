//! Questions and changes to an object's metadata, on the document form.

use claw_schemas::{ApiError, schema::time_text};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::kinds::Target;

/// Letters of generated names: no vowels, so that they spell nothing, and no look-alikes. Kubernetes' own.
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Letters that are appended to `generateName`.
const NAME_SUFFIX_LEN: usize = 5;

/// Longest generated name: that of a DNS label, whatever the kind would allow.
const GENERATED_NAME_MAX: usize = 63;

/// Metadata that only the server writes. Of these, `selfLink` is never kept: Kubernetes itself has given it up.
const SYSTEM_FIELDS: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

pub(super) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().expect("it was just made an object")
}

/// A metadata field that is text, empty when absent.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

pub(super) fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    texts(&object["metadata"]["finalizers"])
}

pub(super) fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Sets `metadata.finalizers`, which is absent when empty.
pub(super) fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    if finalizers.is_empty() {
        metadata_mut(object).remove("finalizers");
    } else {
        metadata_mut(object).insert("finalizers".to_owned(), finalizers.into());
    }
}

/// Counts a change of what is wanted.
pub(super) fn bump_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    metadata_mut(object).insert("generation".to_owned(), generation.into());
}

/// Makes a new object the server's: a uid and a time of its own, nothing that it claims to have been.
pub(super) fn stamp_new(object: &mut Value, has_generation: bool) {
    let metadata = metadata_mut(object);
    for field in SYSTEM_FIELDS {
        metadata.remove(field);
    }
    metadata.remove("resourceVersion");
    metadata.remove("managedFields");
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), time_text(Timestamp::now()).into());
    if has_generation {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// Carries what only the server writes over from the object that is replaced.
pub(super) fn keep_system_fields(old: &Value, new: &mut Value) {
    let metadata = metadata_mut(new);
    for field in SYSTEM_FIELDS {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
}

/// Sets a top-level field as another object has it.
pub(super) fn take_field(from: &Value, to: &mut Value, field: &str) {
    let Some(members) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => members.insert(field.to_owned(), value.clone()),
        None => members.remove(field),
    };
}

/// A copy of an object that lacks a top-level field.
pub(super) fn without(object: &Value, field: &str) -> Value {
    let members = object.as_object().into_iter().flatten().filter(|(name, _)| *name != field);
    Value::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Puts an object into the namespace of its path, or refuses one that says another.
pub(super) fn place(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let said = text(object, "namespace");
    if !said.is_empty() && said != target.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object ({said}) does not match the namespace sent on the request ({})",
            target.namespace
        )));
    }
    if target.namespace.is_empty() {
        metadata_mut(object).remove("namespace");
    } else {
        metadata_mut(object).insert("namespace".to_owned(), target.namespace.as_str().into());
    }
    Ok(())
}

/// Refuses an object whose name is not that of its path.
pub(super) fn check_name(target: &Target, object: &Value) -> Result<(), ApiError> {
    match text(object, "name") {
        name if name == target.name => Ok(()),
        name => Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        ))),
    }
}

/// A name from a prefix.
pub(super) fn generate_name(prefix: &str) -> Result<String, ApiError> {
    let mut random = [0_u8; NAME_SUFFIX_LEN];
    getrandom::fill(&mut random)
        .map_err(|error| ApiError::internal(format!("the machine gives no random numbers: {error}")))?;
    let mut name: String = prefix.chars().take(GENERATED_NAME_MAX - NAME_SUFFIX_LEN).collect();
    // 256 is not a multiple of 27: some letters come up a tenth more often, which is of no consequence here.
    name.extend(random.iter().map(|byte| char::from(NAME_LETTERS[usize::from(*byte) % NAME_LETTERS.len()])));
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_generated_name_keeps_to_the_length_of_a_label() {
        let name = generate_name("web-").unwrap();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generate_name(&"x".repeat(200)).unwrap().len(), 63);
    }

    #[test]
    fn times_have_no_fraction() {
        let text = time_text(Timestamp::now());
        assert!(text.len() == 20 && text.ends_with('Z'), "{text}");
    }

    #[test]
    fn a_new_object_cannot_claim_a_past() {
        let mut object = json!({"metadata": {
            "name": "x", "uid": "mine", "deletionTimestamp": "2020-01-01T00:00:00Z", "generation": 9,
            "managedFields": [], "selfLink": "/x",
        }});
        stamp_new(&mut object, true);
        assert_eq!(object["metadata"]["generation"], 1);
        assert_ne!(object["metadata"]["uid"], "mine");
        assert!(!is_deleting(&object));
        assert!(object["metadata"].get("managedFields").is_none());
    }
}
