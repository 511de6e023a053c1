//! Schemas of Rust types, cut to what Kubernetes calls structural: one type a value, no references, and of alternatives
//! only lists of strings.
//!
//! Must never know: which kind a schema is for.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use schemars::{
    JsonSchema, Schema,
    generate::SchemaSettings,
    transform::{RecursiveTransform, Transform as _},
};
use serde_json::{Value, json};

/// What OpenAPI calls widths of numbers and kinds of strings, as far as Kubernetes knows them. `schemars` adds Rust's own
/// (`uint32`), which servers would warn of.
const FORMATS: [&str; 7] = ["int32", "int64", "float", "double", "date-time", "date", "byte"];

/// The schema of a type.
pub(super) fn schema_of<T: JsonSchema>() -> JSONSchemaProps {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    // The name of the Rust type: it says nothing to users of the kind.
    schema.remove("title");
    RecursiveTransform(cut).transform(&mut schema);
    serde_json::from_value(schema.to_value()).expect("schemars writes JSON schemas")
}

fn cut(schema: &mut Schema) {
    let format = schema.get("format").and_then(Value::as_str);
    if format.is_some_and(|format| !FORMATS.contains(&format)) {
        schema.remove("format");
    }
    // Unknown fields are pruned or refused by the server; a schema with properties must not say so too.
    if schema.get("properties").is_some() {
        schema.remove("additionalProperties");
    }
    merge_alternatives(schema, "anyOf");
    merge_alternatives(schema, "oneOf");
}

/// An option of an enum is "that or null", an enum with documented variants is "this or that": one schema each, said at
/// length.
fn merge_alternatives(schema: &mut Schema, word: &str) {
    let Some(Value::Array(mut all)) = schema.remove(word) else { return };
    let before = all.len();
    all.retain(|one| one["enum"] != json!([null]));
    if all.len() < before {
        schema.insert("nullable".to_owned(), Value::Bool(true));
    }
    let names: Option<Vec<_>> = all.iter().map(|one| one["enum"].as_array()).collect();
    if let [Value::Object(only)] = all.as_slice() {
        only.iter().for_each(|(key, value)| drop(schema.insert(key.clone(), value.clone())));
    } else if let Some(names) = names {
        schema.insert("type".to_owned(), "string".into());
        schema.insert("enum".to_owned(), names.into_iter().flatten().cloned().collect());
    } else {
        schema.insert(word.to_owned(), Value::Array(all));
    }
}
