//! The wire form of objects: one serialisation on write, and splices of the stored bytes afterwards.
//!
//! Stored bytes are always this module's own output: an object whose `metadata.resourceVersion` exists. That makes it
//! safe to address parts of them by offset.

use bytes::Bytes;
use claw_schemas::ApiError;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::owners;
use crate::store::{Draft, Record};

/// Bytes that most objects fit into: a pod takes three thousand.
const DRAFT_BYTES: usize = 4096;

const MADE_HERE: &str = "stored bytes are JSON that this module wrote";

/// Serialises an object, leaving a hole for its revision.
pub(super) fn draft(object: &Value) -> Draft {
    draft_with(object, None)
}

/// The same with `managedFields` that are JSON already, in the place of those that the object has.
pub(super) fn draft_with(object: &Value, owners: Option<&str>) -> Draft {
    let mut writer = Writer { bytes: Vec::with_capacity(DRAFT_BYTES), owners, revision_at: 0 };
    writer.object(object.as_object().unwrap_or(&Map::new()), Level::Top);
    Draft { bytes: writer.bytes, revision_at: writer.revision_at }
}

/// Serialises an object that is not stored, for the answer to a dry run.
pub(super) fn without_revision(object: &Value) -> Bytes {
    serde_json::to_vec(object).expect("a JSON value serialises into memory").into()
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Top,
    Metadata,
}

struct Writer<'a> {
    bytes: Vec<u8>,
    owners: Option<&'a str>,
    revision_at: usize,
}

impl Writer<'_> {
    fn object(&mut self, members: &Map<String, Value>, level: Level) {
        self.bytes.push(b'{');
        let mut written = false;
        for (key, value) in members {
            if level == Level::Metadata && matches!(key.as_str(), "resourceVersion" | owners::FIELD) {
                continue;
            }
            self.member(key, written);
            written = true;
            match value {
                Value::Object(metadata) if level == Level::Top && key == "metadata" => {
                    self.object(metadata, Level::Metadata);
                }
                other => self.value(other),
            }
        }
        if level == Level::Metadata {
            let has_owners = self.owners(members.get(owners::FIELD), written);
            self.member("resourceVersion", written || has_owners);
            self.bytes.extend_from_slice(b"\"\"");
            self.revision_at = self.bytes.len() - 1;
        }
        self.bytes.push(b'}');
    }

    /// Who owns what comes after the rest, so that it makes no difference to the bytes where it comes from. False if there is
    /// nothing of it.
    fn owners(&mut self, member: Option<&Value>, comma: bool) -> bool {
        if self.owners.is_none() && member.is_none() {
            return false;
        }
        self.member(owners::FIELD, comma);
        match (self.owners, member) {
            (Some(text), _) => self.bytes.extend_from_slice(text.as_bytes()),
            (None, member) => self.value(&member),
        }
        true
    }

    fn member(&mut self, key: &str, comma: bool) {
        if comma {
            self.bytes.push(b',');
        }
        self.value(key);
        self.bytes.push(b':');
    }

    fn value<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut self.bytes, value).expect("a JSON value serialises into memory");
    }
}

/// Raw parts of stored bytes.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataParts<'a> {
    #[serde(borrow)]
    resource_version: &'a RawValue,
}

/// The JSON of `metadata`, as it stands in stored bytes.
pub(super) fn metadata_of(stored: &[u8]) -> &str {
    serde_json::from_slice::<Parts<'_>>(stored).expect(MADE_HERE).metadata.get()
}

/// Stored bytes as a draft: the same object, its revision blanked.
pub(super) fn draft_of(stored: &[u8]) -> Draft {
    let metadata = metadata_of(stored);
    let quoted = serde_json::from_str::<MetadataParts<'_>>(metadata).expect(MADE_HERE).resource_version.get();
    // Raw values borrow from their source, so the difference of the addresses is the offset in it.
    let start = quoted.as_ptr() as usize - stored.as_ptr() as usize + 1;
    let end = start + quoted.len() - 2;
    let mut bytes = Vec::with_capacity(stored.len());
    bytes.extend_from_slice(&stored[..start]);
    bytes.extend_from_slice(&stored[end..]);
    Draft { bytes, revision_at: start }
}

/// Stored bytes with another revision: how a watcher sees an object leave its selector.
pub(super) fn with_revision(stored: &[u8], revision: u64) -> Bytes {
    draft_of(stored).at(revision)
}

/// A stored object as a document.
pub(super) fn value_of(record: &Record) -> Result<Value, ApiError> {
    serde_json::from_slice(&record.value).map_err(|error| unreadable(record, &error))
}

/// 500 for stored bytes that are no object.
pub(super) fn unreadable(record: &Record, error: &serde_json::Error) -> ApiError {
    ApiError::internal(format!("stored object {:?} does not parse: {error}", record.key))
}

/// The JSON of a string.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "involvedObject": {"resourceVersion": "77"},
            "metadata": {
                "annotations": {"evil": "\"resourceVersion\":\"1\""},
                "name": "x",
                "resourceVersion": "5",
                "zeta": {"resourceVersion": "6"},
            },
        })
    }

    #[test]
    fn the_revision_lands_in_metadata_and_nowhere_else() {
        let stored = draft(&sample()).at(1234);
        let mut expected = sample();
        expected["metadata"]["resourceVersion"] = json!("1234");
        assert_eq!(serde_json::from_slice::<Value>(&stored).unwrap(), expected);
    }

    #[test]
    fn stored_bytes_take_another_revision_in_place() {
        let stored = draft(&sample()).at(99);
        let changed: Value = serde_json::from_slice(&with_revision(&stored, 100_000)).unwrap();
        assert_eq!(changed["metadata"]["resourceVersion"], "100000");
        assert_eq!(changed["involvedObject"]["resourceVersion"], "77");
        assert_eq!(draft_of(&stored).at(99), stored);
    }

    #[test]
    fn an_object_without_metadata_fields_still_gets_a_revision() {
        let stored = draft(&json!({"metadata": {}})).at(7);
        assert_eq!(&stored[..], br#"{"metadata":{"resourceVersion":"7"}}"#);
    }
}
