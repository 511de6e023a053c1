//! Objects in protobuf, written by an encoder that shares nothing with the reader but the table of field numbers.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use claw_schemas::{Descriptor, Registry, protobuf};
use serde_json::{Value, json};

use crate::{json, tape::Tape};

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

static KINDS: LazyLock<Vec<(Arc<Descriptor>, Value)>> = LazyLock::new(|| {
    let without = ["apiextensions.k8s.io", "clawbernetes.io"];
    let with_numbers = REGISTRY.iter().filter(|kind| !without.contains(&&*kind.group));
    with_numbers.map(|kind| (kind.clone(), kind.schema.document())).collect()
});

/// Type, then number and name of each field; a name with a star is a message whose fields stand in the object itself.
type Numbers = HashMap<&'static str, Vec<(u32, &'static str)>>;

static NUMBERS: LazyLock<Numbers> = LazyLock::new(|| {
    let line = |line: &'static str| {
        let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
        let field = |field: &'static str| {
            let (name, number) = field.split_once('=').expect("field=number");
            (number.trim_end_matches('?').parse().expect("a number"), name)
        };
        (name, fields.split(' ').filter(|field| !field.is_empty()).map(field).collect())
    };
    include_str!("../../../../schemas/src/protobuf/numbers.txt").lines().map(line).collect()
});

/// An object that is written and read, then bytes that may be one.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let (kind, document) = &KINDS[tape.below(KINDS.len())];
    let mut object = json::of_schema(&mut tape, document, document, 7);
    object["metadata"] = json!({"name": "x", "labels": {"a": "b"}, "finalizers": ["f"]});
    plain(kind, &mut object);
    let raw = message(document, document, &object);
    let mut sent = envelope(kind, &raw);
    let mut read = protobuf::to_json(&REGISTRY, &sent)
        .unwrap_or_else(|error| panic!("{}: {error}: {object}", kind.kind));
    kind.compiled().normalize(&mut read);
    assert_eq!(drop_zeros(read), drop_zeros(object), "{}", kind.kind);
    while !tape.is_spent() {
        let at = tape.below(sent.len());
        sent[at] = tape.byte();
        if tape.below(8) == 7 {
            sent.truncate(at + 4);
        }
    }
    if let Err(error) = protobuf::to_json(&REGISTRY, &sent) {
        assert!(!error.to_string().is_empty());
    }
}

/// Makes an object one that can be sent: well typed, in canonical form.
fn plain(kind: &Descriptor, object: &mut Value) {
    let schema = kind.compiled();
    for _ in 0..200 {
        let report = schema.check(object);
        let Some(wrong) = report.errors.first() else { break };
        if !remove(object, &wrong.field) {
            *object = json!({"metadata": object["metadata"]});
            break;
        }
    }
    schema.normalize(object);
    // An object inside another says its type in JSON alone.
    let inner = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
    for inner in inner.into_iter().flatten() {
        if let Some(fields) = inner.as_object_mut() {
            fields.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind"));
        }
    }
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = (&*kind.kind).into();
}

/// Takes away what stands at a path such as `spec.list[0].field`, with the field of the object it is in.
fn remove(object: &mut Value, path: &str) -> bool {
    let first = path.split(['.', '[']).next().unwrap_or_default();
    let Some(inner) = object.get_mut(first) else { return false };
    let second =
        path.strip_prefix(first).unwrap_or_default().trim_start_matches('.').split(['.', '[']).next();
    match (inner, second) {
        (Value::Object(fields), Some(name)) if fields.contains_key(name) => fields.remove(name).is_some(),
        _ => object.as_object_mut().is_some_and(|fields| fields.remove(first).is_some()),
    }
}

/// Without what is never told apart from absent: empty texts and containers, zeros, false.
fn drop_zeros(mut value: Value) -> Value {
    fn clean(value: &mut Value) {
        let is_zero = |value: &Value| match value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty() || text == "0",
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(clean);
                fields.retain(|_, value| !is_zero(value));
            }
            Value::Array(items) => items.iter_mut().for_each(clean),
            _ => {}
        }
    }
    clean(&mut value);
    value
}

fn envelope(kind: &Descriptor, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, kind.api_version().as_bytes()), bytes(2, kind.kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn integer(number: u32, value: i64) -> Vec<u8> {
    [varint(u64::from(number << 3)), varint(value.cast_unsigned())].concat()
}

fn bytes(number: u32, content: &[u8]) -> Vec<u8> {
    [varint(u64::from(number << 3 | 2)), varint(content.len() as u64), content.to_vec()].concat()
}

fn resolved<'s>(root: &'s Value, schema: &'s Value) -> (&'s Value, &'s str) {
    match schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        Some(name) => (&root["$defs"][name], name),
        None => (schema, schema["title"].as_str().unwrap_or_default()),
    }
}

/// The numbers of a type's fields: by its last name, or by group and version where that would mean two.
fn numbers(full: &str) -> Option<&'static Vec<(u32, &'static str)>> {
    let parts: Vec<&str> = full.rsplit('.').take(3).collect();
    let qualified = parts.iter().rev().copied().collect::<Vec<_>>().join(".");
    NUMBERS.get(&*qualified).or_else(|| NUMBERS.get(parts.first().copied().unwrap_or_default()))
}

fn message(root: &Value, schema: &Value, object: &Value) -> Vec<u8> {
    let (schema, name) = resolved(root, schema);
    named_message(root, schema, numbers(name).unwrap_or_else(|| panic!("{name} has no numbers")), object)
}

fn named_message(root: &Value, schema: &Value, numbers: &[(u32, &'static str)], object: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, name) in numbers {
        if let Some(inner) = name.strip_prefix('*') {
            out.extend(bytes(*number, &named_message(root, schema, &NUMBERS[inner], object)));
        } else if let Some(value) = object.get(*name) {
            out.extend(field(root, &schema["properties"][*name], *number, value));
        }
    }
    out
}

fn field(root: &Value, schema: &Value, number: u32, value: &Value) -> Vec<u8> {
    let (inner, _) = resolved(root, schema);
    match value {
        Value::Array(items) if inner["type"] == "array" || inner["type"][0] == "array" => {
            items.iter().flat_map(|item| leaf(root, &inner["items"], number, item)).collect()
        }
        Value::Object(entries)
            if inner["properties"].is_null() && inner["additionalProperties"].is_object() =>
        {
            entries
                .iter()
                .flat_map(|(key, value)| {
                    let entry =
                        [bytes(1, key.as_bytes()), map_value(root, &inner["additionalProperties"], value)]
                            .concat();
                    bytes(number, &entry)
                })
                .collect()
        }
        value => leaf(root, schema, number, value),
    }
}

/// A list in a map is a message of its items.
fn map_value(root: &Value, schema: &Value, value: &Value) -> Vec<u8> {
    match value {
        Value::Array(items) => {
            let items: Vec<u8> =
                items.iter().flat_map(|item| leaf(root, &schema["items"], 1, item)).collect();
            bytes(2, &items)
        }
        value => leaf(root, schema, 2, value),
    }
}

fn leaf(root: &Value, schema: &Value, number: u32, value: &Value) -> Vec<u8> {
    let (inner, name) = resolved(root, schema);
    let last = name.rsplit('.').next().unwrap_or_default();
    match (last, value) {
        ("Quantity", value) => bytes(number, &bytes(1, text_of(value).as_bytes())),
        ("IntOrString", Value::Number(found)) => {
            bytes(number, &[integer(1, 0), integer(2, found.as_i64().unwrap_or_default())].concat())
        }
        ("IntOrString", value) => {
            bytes(number, &[integer(1, 1), bytes(3, text_of(value).as_bytes())].concat())
        }
        ("Time" | "MicroTime", value) => bytes(number, &time(value)),
        ("RawExtension" | "FieldsV1" | "JSON", value) => {
            bytes(number, &bytes(1, value.to_string().as_bytes()))
        }
        ("ByteString", value) => bytes(number, &BASE64_STANDARD.decode(text_of(value)).unwrap_or_default()),
        _ if inner["properties"].is_object() => bytes(number, &message(root, schema, value)),
        (_, Value::Number(found)) if found.is_f64() => {
            [varint(u64::from(number << 3 | 1)), found.as_f64().unwrap_or_default().to_le_bytes().to_vec()]
                .concat()
        }
        (_, Value::Number(found)) => integer(number, found.as_i64().unwrap_or_default()),
        (_, Value::Bool(found)) => integer(number, i64::from(*found)),
        (_, Value::String(text)) if inner["format"] == "byte" => {
            bytes(number, &BASE64_STANDARD.decode(text).unwrap_or_default())
        }
        (_, Value::String(text)) if inner["format"] == "date-time" => bytes(number, &time(&json!(text))),
        (_, Value::String(text)) => bytes(number, text.as_bytes()),
        (_, value) => bytes(number, &bytes(1, value.to_string().as_bytes())),
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn time(value: &Value) -> Vec<u8> {
    let time: k8s_openapi::jiff::Timestamp = text_of(value).parse().unwrap_or_default();
    [integer(1, time.as_second()), integer(2, i64::from(time.subsec_nanosecond()))].concat()
}
