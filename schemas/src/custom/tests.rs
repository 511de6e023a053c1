//! What Rust types become on the wire and in definitions.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use serde_json::{Value, json};

use super::*;

/// What to keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ShelfSpec {
    /// How many books.
    #[schemars(range(min = 1))]
    books: u32,
    #[serde(default)]
    order: Order,
    /// Left out, it may stand anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<Room>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    shelf_marks: Vec<Mark>,
}

/// By what books are ordered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Order {
    /// By their titles.
    #[default]
    Title,
    /// By who wrote them.
    Author,
    Colour,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Room {
    /// With a window.
    Hall,
    Attic,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Mark {
    text: String,
    since: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct ShelfStatus {
    full: bool,
}

impl Spec for ShelfSpec {
    const API_VERSION: &'static str = "library.example.com/v1beta1";
    const KIND: &'static str = "Shelf";
    const PLURAL: &'static str = "shelves";
    const SHORT: &'static [&'static str] = &["sh"];
    type Scope = NamespaceResourceScope;
    type Status = ShelfStatus;
}

type Shelf = CustomResource<ShelfSpec>;

fn shelf() -> Value {
    json!({
        "apiVersion": "library.example.com/v1beta1", "kind": "Shelf",
        "metadata": {"name": "a", "generation": 3},
        "spec": {"books": 2, "order": "Colour", "labels": {}, "shelfMarks": [{"text": "x", "since": null}]},
        "status": {"full": true},
    })
}

#[test]
fn an_object_is_on_the_wire_what_it_is_in_rust() {
    let parsed: Shelf = serde_json::from_value(shelf()).unwrap();
    assert_eq!((parsed.spec.books, parsed.status.as_ref().map(|status| status.full)), (2, Some(true)));
    assert_eq!(serde_json::to_value(&parsed).unwrap(), shelf());
    assert_eq!((Shelf::GROUP, Shelf::VERSION), ("library.example.com", "v1beta1"));
}

#[test]
fn an_object_that_nobody_looked_at_has_no_status() {
    let fresh = Shelf::new("a", serde_json::from_value(json!({"books": 1})).unwrap());
    let written = serde_json::to_value(&fresh).unwrap();
    assert_eq!(written["status"], Value::Null);
    assert!(written.as_object().unwrap().get("status").is_none());
    let read: Shelf =
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"books": 1}})).unwrap();
    assert_eq!(read.status, None);
}

#[test]
fn a_schema_says_one_type_for_each_value_and_keeps_what_people_wrote() {
    let definition = serde_json::to_value(definition::<ShelfSpec>()).unwrap();
    assert_eq!(definition["metadata"]["name"], "shelves.library.example.com");
    assert_eq!(definition["spec"]["scope"], "Namespaced");
    let names = json!({"kind": "Shelf", "plural": "shelves", "singular": "shelf", "shortNames": ["sh"]});
    assert_eq!(definition["spec"]["names"], names);
    let version = &definition["spec"]["versions"][0];
    assert_eq!(version["subresources"], json!({"status": {}}));
    let schema = &version["schema"]["openAPIV3Schema"];
    assert_eq!(schema["required"], json!(["spec"]));
    assert_eq!(
        schema["properties"]["spec"],
        json!({
            "type": "object",
            "description": "What to keep.",
            "required": ["books"],
            "properties": {
                "books": {"type": "integer", "minimum": 1.0, "description": "How many books."},
                "order": {
                    "type": "string", "enum": ["Colour", "Title", "Author"], "default": "Title",
                    "description": "By what books are ordered.",
                },
                "room": {
                    "type": "string", "enum": ["Attic", "Hall"], "nullable": true,
                    "description": "Left out, it may stand anywhere.",
                },
                "labels": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
                "shelfMarks": {"type": "array", "default": [], "items": {
                    "type": "object",
                    "required": ["text"],
                    "properties": {
                        "text": {"type": "string"},
                        "since": {"type": "integer", "format": "int64", "nullable": true},
                    },
                }},
            },
        })
    );
}
