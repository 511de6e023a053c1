//! Objects as clients hold them when the kind is not known at compile time, and what a cache must
//! know of any object.
//!
//! Must never know: any one kind.

use std::borrow::Cow;

use k8s_openapi::{Metadata, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

/// An object that a [`Store`](crate::cache::Store) can hold: typed, dynamic, or metadata alone.
pub trait Cached: DeserializeOwned + Send + Sync + 'static {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
}

impl<K> Cached for K
where
    K: Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
{
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
}

/// Any object, whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DynamicObject {
    /// `apps/v1`; items of a typed list may leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `Deployment`; items of a typed list may leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// What every object has.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Everything else: `spec`, `status`, `data`, ...
    #[serde(flatten)]
    pub data: Map<String, Value>,
}

impl Cached for DynamicObject {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// Any object, of which only the metadata is kept; pairs with [`View::Metadata`](crate::request::View).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialObject {
    /// `meta.k8s.io/v1` on the wire, or the object's own when the server was not asked for metadata.
    #[serde(default)]
    pub api_version: String,
    /// `PartialObjectMetadata` on the wire, or the object's own.
    #[serde(default)]
    pub kind: String,
    /// What every object has.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

impl Cached for PartialObject {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// The revision an object was last written at; 0 when it carries none that can be compared.
pub fn revision_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The same object, its `metadata.managedFields` null. Passing over them costs a tenth of reading them, and nobody plans
/// by them: they can be larger than all the rest, and a server keeps them when an update does not name them. What does
/// not parse comes back as it is.
pub fn without_managed_fields(object: &[u8]) -> Cow<'_, [u8]> {
    let managed =
        serde_json::from_slice::<Whole<'_>>(object).ok().and_then(|whole| whole.metadata?.managed_fields);
    let Some(managed) = managed.map(RawValue::get) else { return Cow::Borrowed(object) };
    // The text is borrowed from the object.
    let start = managed.as_ptr().addr() - object.as_ptr().addr();
    Cow::Owned([&object[..start], b"null", &object[start + managed.len()..]].concat())
}

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow)]
    metadata: Option<Managed<'a>>,
}

#[derive(Deserialize)]
struct Managed<'a> {
    #[serde(borrow, rename = "managedFields")]
    managed_fields: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_object_loses_nothing() {
        let json = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "labels": {"x": "y"}},
            "data": {"k": "v"}, "immutable": true,
        });
        let object: DynamicObject = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(object.meta().name.as_deref(), Some("a"));
        assert_eq!(serde_json::to_value(&object).unwrap(), json);
    }

    #[test]
    fn only_the_managed_fields_of_the_metadata_are_left_out() {
        let whole = br#"{"spec":{"managedFields":[1]},"metadata":{"annotations":{"managedFields":"\"managedFields\":[2]"},"managedFields":[{"manager":"a"}],"name":"b"}}"#;
        let cut: Value = serde_json::from_slice(&without_managed_fields(whole)).unwrap();
        let mut expected: Value = serde_json::from_slice(whole).unwrap();
        expected["metadata"]["managedFields"] = Value::Null;
        assert_eq!(cut, expected);
        for other in [&br#"{"metadata":{"name":"a"}}"#[..], b"{\"metadata\":null}", b"[", b"7"] {
            assert_eq!(without_managed_fields(other), other);
        }
    }

    #[test]
    fn a_partial_object_forgets_the_rest() {
        let object: PartialObject =
            serde_json::from_str(r#"{"kind":"Pod","metadata":{"name":"a","resourceVersion":"7"},"spec":{}}"#)
                .unwrap();
        assert_eq!(revision_of(object.meta()), 7);
        assert!(!serde_json::to_string(&object).unwrap().contains("spec"));
    }
}
