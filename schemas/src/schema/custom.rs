//! From the structural schema of a custom kind to the compact form, and to a whole JSON schema document.
//!
//! The root of every object, and of every embedded resource, has `apiVersion`, `kind` and `metadata` whether its schema
//! names them or not; metadata is the built-in structure.

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::{
    Field, NodeId, Ownership, Scalar, Schema, Shape, Struct,
    compile::{Compiler, leaf},
    ownership,
};

const REFERENCE: &str = "#/$defs/";
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The schema of object metadata, with what it refers to.
static METADATA_SCHEMA: LazyLock<Value> = LazyLock::new(crate::kinds::schema_of::<ObjectMeta>);

/// Compiles a structural schema.
pub(super) fn compile(structural: &Value) -> Schema {
    let mut custom = Custom { compiler: Compiler::new(&METADATA_SCHEMA), metadata: 0 };
    let root = custom.compiler.reserve();
    custom.metadata = custom.compiler.reserve();
    let metadata = custom.compiler.shape(&METADATA_SCHEMA, METADATA);
    custom.compiler.set(custom.metadata, metadata, Ownership::Granular);
    let shape = custom.structure(structural, true);
    custom.compiler.set(root, shape, Ownership::Granular);
    custom.compiler.finish(true)
}

/// The structural schema as a document that says everything about the object, for OpenAPI.
pub(crate) fn document(structural: &Value) -> Value {
    let mut document = structural.clone();
    complete(&mut document);
    let (mut metadata, mut definitions) = (METADATA_SCHEMA.clone(), Map::new());
    if let Some(Value::Object(own)) = metadata.as_object_mut().and_then(|schema| schema.remove("$defs")) {
        definitions = own;
    }
    definitions.insert(METADATA.to_owned(), metadata);
    document["$defs"] = definitions.into();
    if let Some(document) = document.as_object_mut() {
        document.remove("title");
    }
    document
}

/// Names what every object has.
fn complete(object: &mut Value) {
    let text = |description: &str| json!({"type": "string", "description": description});
    object["type"] = "object".into();
    let properties = &mut object["properties"];
    properties["apiVersion"] = text("Group and version of the schema that the object follows.");
    properties["kind"] = text("What the object is.");
    properties["metadata"] = json!({
        "description": "Standard object metadata.",
        "$ref": format!("{REFERENCE}{METADATA}"),
    });
}

struct Custom {
    compiler: Compiler<'static>,
    metadata: NodeId,
}

impl Custom {
    fn node(&mut self, schema: &Value) -> NodeId {
        if let Some(leaf) = leaf(schema) {
            let (key, scalar) = plain(leaf);
            return self.compiler.leaf(key, scalar);
        }
        let node = self.compiler.reserve();
        let shape = self.shape(schema);
        self.compiler.set(node, shape, ownership::of_source(schema));
        node
    }

    fn shape(&mut self, schema: &Value) -> Shape {
        if let Some(leaf) = leaf(schema) {
            return Shape::Scalar(plain(leaf).1);
        }
        match schema["type"].as_str() {
            Some("array") if schema["items"].is_object() => Shape::List(self.node(&schema["items"])),
            Some("object") => match &schema["additionalProperties"] {
                values @ Value::Object(_) => Shape::Map(self.node(values)),
                Value::Bool(true) => Shape::Any,
                _ => self.structure(schema, schema["x-kubernetes-embedded-resource"] == true),
            },
            _ => Shape::Any,
        }
    }

    fn structure(&mut self, schema: &Value, is_resource: bool) -> Shape {
        let mut fields: Vec<Field> = Vec::new();
        let mut add = |name: &str, node: NodeId| fields.push(Field { name: name.into(), node, rule: None });
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            if !(is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")) {
                add(name, self.node(field));
            }
        }
        if is_resource {
            let text = self.compiler.leaf("string", Scalar::String);
            add("apiVersion", text);
            add("kind", text);
            add("metadata", self.metadata);
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        Shape::Struct(Struct { name: Box::default(), fields: fields.into(), open })
    }
}

/// A custom kind checks formats itself, and does not know quantities.
fn plain((key, scalar): (&'static str, Scalar)) -> (&'static str, Scalar) {
    match scalar {
        Scalar::Bytes | Scalar::Time | Scalar::MicroTime => ("string", Scalar::String),
        Scalar::Int32 => ("int64", Scalar::Int64),
        other => (key, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Key;

    fn structural() -> Value {
        json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "format": "int32"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "empty": {"type": "object"},
                "ports": {"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {"type": "object", "x-kubernetes-map-type": "atomic",
                        "properties": {"port": {"type": "integer"}, "protocol": {"type": "string"}}}},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                    "x-kubernetes-preserve-unknown-fields": true},
            }},
        }})
    }

    #[test]
    fn unknown_fields_are_named_and_pruned_except_where_they_are_kept() {
        let schema = Schema::compile_custom(&structural());
        let mut object = json!({
            "apiVersion": "example.com/v1", "kind": "Thing", "bogus": 1,
            "metadata": {"name": "x", "labels": {"a": null}, "creationTimestamp": null},
            "spec": {
                "size": null, "siez": 1, "labels": {"any": "thing"}, "empty": {"x": 1},
                "free": {"any": {"thing": 1}, "known": {"a": "b", "c": "d"}},
                "ports": [{"port": 80, "prot": "TCP"}],
                "template": {"kind": "Pod", "metadata": {"name": "p", "nmae": "q"}, "spec": {"x": 1}},
            },
        });
        let mut unknown = schema.check(&object).unknown;
        unknown.sort();
        assert_eq!(
            unknown,
            [
                "bogus",
                "spec.empty.x",
                "spec.free.known.c",
                "spec.ports[0].prot",
                "spec.siez",
                "spec.template.metadata.nmae"
            ]
        );
        schema.normalize(&mut object);
        assert_eq!(
            object,
            json!({
                "apiVersion": "example.com/v1", "kind": "Thing",
                "metadata": {"name": "x", "labels": {"a": ""}},
                "spec": {
                    "size": null, "labels": {"any": "thing"}, "empty": {},
                    "free": {"any": {"thing": 1}, "known": {"a": "b"}},
                    "ports": [{"port": 80}],
                    "template": {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"x": 1}},
                },
            })
        );
    }

    #[test]
    fn places_of_custom_kinds_know_how_they_are_owned() {
        let schema = Schema::compile_custom(&structural());
        let spec = schema.root().field("spec").unwrap();
        let key = |name: &str| Key { name: name.into(), default: None };
        let ports = spec.field("ports").unwrap();
        assert_eq!(*ports.ownership(), Ownership::Items([key("port"), key("protocol")].into()));
        assert_eq!(*ports.items().unwrap().ownership(), Ownership::Atomic);
        assert_eq!(*spec.field("tags").unwrap().ownership(), Ownership::Set);
        assert_eq!(*spec.field("labels").unwrap().ownership(), Ownership::Granular);
        let owners = schema.root().field("metadata").and_then(|place| place.field("ownerReferences"));
        assert_eq!(*owners.unwrap().ownership(), Ownership::Items([key("uid")].into()));
    }

    #[test]
    fn the_document_describes_what_every_object_has() {
        let document = document(&structural());
        assert_eq!(document["properties"]["metadata"]["$ref"], format!("{REFERENCE}{METADATA}"));
        assert!(document["$defs"][METADATA]["properties"]["name"].is_object());
        assert!(document["properties"]["spec"]["properties"]["size"].is_object());
    }
}
