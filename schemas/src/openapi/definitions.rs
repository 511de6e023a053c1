//! The types of a document: from the JSON schemas of the kinds to OpenAPI's two dialects.

use serde_json::{Map, Value, json};

use super::Dialect;
use crate::{
    kinds::{self, Carried},
    registry::Descriptor,
    schema::{ListType, MergeRule, is_atomic_structure, rule},
};

const SOURCE_REFERENCE: &str = "#/$defs/";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
/// Types of `apiextensions.k8s.io` that hold any JSON, or a choice; clients that validate know no way to say so but to say
/// nothing.
const UNTYPED: [&str; 4] =
    ["JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"];
const UNTYPED_IN: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";
const GVK: &str = "x-kubernetes-group-version-kind";

/// The types of some kinds, by name.
pub(super) struct Definitions {
    dialect: Dialect,
    types: Map<String, Value>,
}

impl Definitions {
    /// With the types that every document needs.
    pub fn new(dialect: Dialect) -> Self {
        let mut definitions = Self { dialect, types: Map::new() };
        for wrapper in kinds::wrappers() {
            definitions.add(
                (wrapper.schema)(),
                &meta(wrapper.kind),
                (wrapper.kind != "ListMeta").then_some(wrapper),
            );
        }
        definitions
    }

    /// Adds a kind, its list, and the documents of its subresources. Gives the name of the kind's type.
    pub fn add_kind(&mut self, kind: &Descriptor) -> String {
        let source = kind.schema.document();
        let name = name_of(kind, &source);
        let required = source["required"].clone();
        self.collect(source, &name);
        // The built-in schemas demand metadata, which manifests may leave to the server; a custom one means what it says.
        if !kind.builtin && required.is_array() {
            self.types[&name]["required"] = required;
        }
        self.name_kind(&name, &kind.group, &kind.version, &kind.kind);
        let list = format!("{name}List");
        self.types.insert(list.clone(), self.list(kind, &name));
        self.name_kind(&list, &kind.group, &kind.version, &kind.list_kind());
        for carried in kind.subresources.iter().filter_map(carried_by) {
            let source = (carried.schema)();
            let title = source["title"].as_str().unwrap_or(carried.kind).to_owned();
            self.add(source, &title, Some(carried));
        }
        name
    }

    /// The finished types.
    pub fn into_types(self) -> Map<String, Value> {
        self.types
    }

    /// `{"$ref": ...}` to a type.
    fn reference(&self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.dialect.reference_prefix())})
    }

    fn add(&mut self, source: Value, name: &str, kind: Option<Carried>) {
        self.collect(source, name);
        if let Some(kind) = kind {
            self.name_kind(name, kind.group, kind.version, kind.kind);
        }
    }

    fn name_kind(&mut self, name: &str, group: &str, version: &str, kind: &str) {
        self.types[name][GVK] = json!([{"group": group, "version": version, "kind": kind}]);
    }

    /// Takes over a root schema and what it refers to.
    fn collect(&mut self, mut source: Value, name: &str) {
        let definitions = source["$defs"].take();
        if let Value::Object(definitions) = definitions {
            for (name, schema) in definitions {
                if !self.types.contains_key(&name) {
                    let schema = self.named(&name, &schema);
                    self.types.insert(name, schema);
                }
            }
        }
        if let Some(source) = source.as_object_mut() {
            for key in ["$defs", "$schema", "title", "required"] {
                source.remove(key);
            }
        }
        let schema = self.named(name, &source);
        self.types.insert(name.to_owned(), schema);
    }

    /// A type of that name.
    fn named(&self, name: &str, source: &Value) -> Value {
        if name.strip_prefix(UNTYPED_IN).is_some_and(|bare| UNTYPED.contains(&bare)) {
            return json!({"description": source["description"]});
        }
        let mut schema = self.convert(name, source);
        if name == QUANTITY {
            self.dialect.quantity(&mut schema);
        } else if is_atomic_structure(name) {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        schema
    }

    fn convert(&self, owner: &str, source: &Value) -> Value {
        let mut schema = source.clone();
        if let Some(name) = source["$ref"].as_str().and_then(|path| path.strip_prefix(SOURCE_REFERENCE)) {
            return self.dialect.referring(self.reference(name), source.get("description"));
        }
        if source["x-kubernetes-int-or-string"] == true {
            self.dialect.int_or_string(&mut schema);
        }
        if let Some(properties) = source["properties"].as_object() {
            let converted = properties.iter().map(|(field, source)| {
                let mut schema = self.convert("", source);
                if let Some(rule) = rule(owner, field) {
                    add_rule(&mut schema, rule);
                }
                (field.clone(), schema)
            });
            schema["properties"] = converted.collect::<Map<_, _>>().into();
        }
        for key in ["items", "additionalProperties"] {
            if source[key].is_object() {
                schema[key] = self.convert("", &source[key]);
            }
        }
        self.dialect.restrict(&mut schema);
        schema
    }

    fn list(&self, kind: &Descriptor, item: &str) -> Value {
        let text = |description: &str| json!({"type": "string", "description": description});
        json!({
            "description": format!("{} is a list of {}.", kind.list_kind(), kind.plural),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": text("Version of the schema of this list."),
                "kind": text("What this list is."),
                "items": {
                    "type": "array",
                    "description": "The objects.",
                    "items": self.dialect.referring(self.reference(item), None),
                },
                "metadata": self.dialect.referring(
                    self.reference(&meta("ListMeta")),
                    Some(&"Revision of the list, and where it continues.".into()),
                ),
            },
        })
    }
}

/// The name of a kind's type: what its schema says, else its group backwards, as custom kinds have it.
fn name_of(kind: &Descriptor, source: &Value) -> String {
    source["title"].as_str().map_or_else(
        || {
            let group: Vec<&str> = kind.group.split('.').rev().collect();
            format!("{}.{}.{}", group.join("."), kind.version, kind.kind)
        },
        str::to_owned,
    )
}

/// A type of `meta/v1`.
pub(super) fn meta(kind: &str) -> String {
    format!("{META}.{kind}")
}

/// The document of another kind that a subresource carries.
pub(super) fn carried_by(sub: &crate::registry::Subresource) -> Option<Carried> {
    let wanted = sub.carries?;
    kinds::carried().into_iter().find(|carried| (carried.group, carried.version, carried.kind) == wanted)
}

fn add_rule(schema: &mut Value, rule: &MergeRule) {
    let strategy = match (rule.merge, rule.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => "",
    };
    if !strategy.is_empty() {
        schema["x-kubernetes-patch-strategy"] = strategy.into();
    }
    if let Some(key) = rule.merge_key {
        schema["x-kubernetes-patch-merge-key"] = key.into();
    }
    if let Some(list) = rule.list {
        schema["x-kubernetes-list-type"] = match list {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map(_) => "map",
        }
        .into();
        if let ListType::Map(keys) = list {
            schema["x-kubernetes-list-map-keys"] = json!(keys);
        }
    }
    if rule.atomic_map {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
}
