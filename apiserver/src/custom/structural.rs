//! What makes a schema structural: every place has one type, and what a value must be beyond it stands beside.
//!
//! Source: the documentation "Specifying a structural schema", with the paths and words of Kubernetes' own refusals.
//!
//! Must never know: what a rule in CEL means ([`super::cel`]).

use serde_json::{Map, Value};

use super::node::Type;
use crate::validation::faults::{Faults, Path};

/// Levels of a schema. Objects nest at most 100 deep, so a deeper schema describes nothing.
const DEPTH_MAX: usize = 100;

/// Words of JSON Schema that no structural schema may use.
const UNSUPPORTED: [&str; 7] =
    ["$ref", "$schema", "id", "definitions", "dependencies", "patternProperties", "additionalItems"];

/// Words that only the structure itself may use, not the branches of `anyOf` and its kin.
const STRUCTURE_ONLY: [&str; 11] = [
    "default",
    "description",
    "nullable",
    "title",
    "type",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
];

/// Judges the schema of a version, whose place is `path`.
pub(super) fn check(schema: &Value, path: &Path<'_>, faults: &mut Faults) {
    match schema["type"].as_str() {
        None | Some("") => faults.required(&path.field("type"), "must not be empty at the root"),
        Some("object") => {}
        Some(_) => faults.invalid(&path.field("type"), &schema["type"], "must be object at the root"),
    }
    if schema.get("additionalProperties").is_some() {
        let why = "additionalProperties must not be used at the root";
        faults.forbidden(&path.field("additionalProperties"), why);
    }
    if schema["nullable"] == true {
        faults.forbidden(&path.field("nullable"), "nullable cannot be true at the root");
    }
    metadata(schema, path, faults);
    structure(schema, path, 0, faults);
}

/// Of metadata, a schema may restrict the name alone.
fn metadata(schema: &Value, path: &Path<'_>, faults: &mut Faults) {
    let Some(metadata) = schema["properties"].get("metadata") else { return };
    let (properties, place) = (path.field("properties"), "metadata");
    let path = properties.key(place);
    if metadata["type"] != "object" {
        faults.invalid(&path.field("type"), &metadata["type"], "must be object");
    }
    let fields = metadata["properties"].as_object();
    let restricts_more = fields
        .is_some_and(|fields| fields.keys().any(|field| !matches!(field.as_str(), "name" | "generateName")));
    let says_more = metadata.as_object().is_some_and(|words| {
        words.keys().any(|word| !matches!(word.as_str(), "type" | "properties" | "description"))
    });
    if restricts_more || says_more {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        faults.forbidden(&path, why);
    }
}

/// A place of the structure.
fn structure(schema: &Value, path: &Path<'_>, depth: usize, faults: &mut Faults) {
    let Some(words) = schema.as_object() else { return };
    if depth > DEPTH_MAX {
        faults.forbidden(path, format_args!("the schema nests deeper than {DEPTH_MAX} levels"));
        return;
    }
    vocabulary(words, path, faults);
    types(schema, words, path, depth, faults);
    lists(schema, path, faults);
    branches(schema, schema, path, depth, faults);
    if words.contains_key("properties")
        && words.get("additionalProperties").is_some_and(|more| *more != false)
    {
        let why = "additionalProperties and properties are mutual exclusive";
        faults.forbidden(&path.field("additionalProperties"), why);
    }
    children(
        schema,
        path,
        |inner, path, faults, what| {
            if is_untyped(inner) {
                faults.required(&path.field("type"), &format!("must not be empty for specified {what}"));
            }
            structure(inner, path, depth + 1, faults);
        },
        faults,
    );
}

/// Visits the places below one.
fn children(
    schema: &Value,
    path: &Path<'_>,
    mut visit: impl FnMut(&Value, &Path<'_>, &mut Faults, &str),
    faults: &mut Faults,
) {
    let properties = path.field("properties");
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        visit(inner, &properties.key(name), faults, "object fields");
    }
    if schema["additionalProperties"].is_object() {
        visit(&schema["additionalProperties"], &path.field("additionalProperties"), faults, "object fields");
    }
    if schema["items"].is_object() {
        visit(&schema["items"], &path.field("items"), faults, "array items");
    }
}

/// Where a type is missing that must be there.
fn is_untyped(schema: &Value) -> bool {
    schema["type"].as_str().unwrap_or_default().is_empty()
        && schema["x-kubernetes-int-or-string"] != true
        && schema["x-kubernetes-preserve-unknown-fields"] != true
}

fn vocabulary(words: &Map<String, Value>, path: &Path<'_>, faults: &mut Faults) {
    for word in UNSUPPORTED.into_iter().filter(|word| words.contains_key(*word)) {
        faults.forbidden(&path.field(word), format_args!("{word} is not supported"));
    }
    if words.get("uniqueItems") == Some(&Value::Bool(true)) {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        faults.forbidden(&path.field("uniqueItems"), why);
    }
    if words.get("additionalProperties") == Some(&Value::Bool(false)) {
        let why = "additionalProperties cannot be set to false";
        faults.forbidden(&path.field("additionalProperties"), why);
    }
    if words.get("items").is_some_and(Value::is_array) {
        faults.forbidden(&path.field("items"), "items must be a schema object and not an array");
    }
    if words.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let path = path.field("x-kubernetes-preserve-unknown-fields");
        faults.invalid(&path, &Value::Bool(false), "must be true or undefined");
    }
}

fn types(schema: &Value, words: &Map<String, Value>, path: &Path<'_>, depth: usize, faults: &mut Faults) {
    let ty = schema["type"].as_str().unwrap_or_default();
    if !ty.is_empty() && Type::of(ty).is_none() {
        let known = ["array", "boolean", "integer", "number", "object", "string"];
        faults.unsupported(&path.field("type"), &schema["type"], &known);
    }
    if schema["x-kubernetes-int-or-string"] == true && !ty.is_empty() {
        let why = "must be empty if x-kubernetes-int-or-string is true";
        faults.invalid(&path.field("type"), &schema["type"], why);
    }
    let about = [("properties", "object"), ("additionalProperties", "object"), ("items", "array")];
    for (word, wanted) in about {
        if words.contains_key(word) && !ty.is_empty() && ty != wanted {
            faults
                .forbidden(&path.field(word), format_args!("must not be specified if type is not {wanted}"));
        }
    }
    if ty == "array" && !words.contains_key("items") {
        faults.required(&path.field("items"), "must be specified");
    }
    if schema["x-kubernetes-embedded-resource"] == true {
        let described = words.contains_key("properties")
            || schema["x-kubernetes-preserve-unknown-fields"] == true
            || depth > DEPTH_MAX;
        if ty != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            faults.invalid(&path.field("type"), &schema["type"], why);
        }
        if !described {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            faults.required(&path.field("properties"), why);
        }
    }
}

/// `x-kubernetes-list-type`, its keys, and `x-kubernetes-map-type`.
fn lists(schema: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (list, map) = (&schema["x-kubernetes-list-type"], &schema["x-kubernetes-map-type"]);
    let at = path.field("x-kubernetes-list-type");
    if !list.is_null() && schema["type"] != "array" {
        faults.invalid(
            &path.field("type"),
            &schema["type"],
            "must be array if x-kubernetes-list-type is specified",
        );
    }
    let keys_at = path.field("x-kubernetes-list-map-keys");
    let keys: Vec<&Value> = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().collect();
    match list.as_str() {
        None if list.is_null() => {}
        Some("atomic") => {}
        Some("set") => {
            let items = &schema["items"];
            let plain = !matches!(items["type"].as_str(), Some("object" | "array"));
            let whole = items["x-kubernetes-map-type"] == "atomic"
                || items["type"] == "array"
                    && matches!(items["x-kubernetes-list-type"].as_str(), None | Some("atomic"));
            if !plain && !whole {
                let why = "items must be scalar or atomic if x-kubernetes-list-type is set";
                faults.invalid(&at, list, why);
            }
            if items["nullable"] == true {
                let why = "cannot be nullable when x-kubernetes-list-type is set";
                faults.forbidden(&path.field("items").field("nullable"), why);
            }
        }
        Some("map") => map_keys(schema, &keys, path, faults),
        _ => faults.unsupported(&at, list, &["atomic", "map", "set"]),
    }
    if !keys.is_empty() && list != "map" {
        faults.forbidden(&keys_at, "must not be specified if x-kubernetes-list-type is not map");
    }
    if !map.is_null() {
        if !matches!(map.as_str(), Some("atomic" | "granular")) {
            faults.unsupported(&path.field("x-kubernetes-map-type"), map, &["atomic", "granular"]);
        }
        if schema["type"] != "object" {
            let why = "must be object if x-kubernetes-map-type is specified";
            faults.invalid(&path.field("type"), &schema["type"], why);
        }
    }
}

fn map_keys(schema: &Value, keys: &[&Value], path: &Path<'_>, faults: &mut Faults) {
    let at = path.field("x-kubernetes-list-map-keys");
    let (items, items_at) = (&schema["items"], path.field("items"));
    if keys.is_empty() {
        faults.required(&at, "must not be empty if x-kubernetes-list-type is map");
    }
    if items["type"] != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        faults.invalid(&items_at.field("type"), &items["type"], why);
    }
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let properties = items_at.field("properties");
        let field = &items["properties"][name];
        if keys[..index].contains(key) {
            faults.duplicate(&at.item(index), key);
        }
        if !field.is_object() {
            faults.invalid(&at.item(index), key, "entries must all be names of item properties");
            continue;
        }
        if matches!(field["type"].as_str(), Some("object" | "array")) {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            faults.invalid(&properties.key(name).field("type"), &field["type"], why);
        }
        let required = items["required"].as_array().is_some_and(|all| all.contains(key));
        if !required && field["default"].is_null() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            faults.required(&properties.key(name).field("default"), why);
        }
    }
}

/// Branches say only what values must be, about places that the structure has.
fn branches(structure: &Value, schema: &Value, path: &Path<'_>, depth: usize, faults: &mut Faults) {
    for word in ["allOf", "anyOf", "oneOf"] {
        let at = path.field(word);
        for (index, branch) in schema[word].as_array().into_iter().flatten().enumerate() {
            branch_of(structure, branch, &at.item(index), depth, faults);
        }
    }
    if schema["not"].is_object() {
        branch_of(structure, &schema["not"], &path.field("not"), depth, faults);
    }
}

fn branch_of(place: &Value, branch: &Value, path: &Path<'_>, depth: usize, faults: &mut Faults) {
    if depth > DEPTH_MAX {
        faults.forbidden(path, format_args!("the schema nests deeper than {DEPTH_MAX} levels"));
        return;
    }
    // The two types of an int-or-string may be spelled out.
    let spelled = place["x-kubernetes-int-or-string"] == true
        && matches!(branch["type"].as_str(), Some("integer" | "string"));
    for word in STRUCTURE_ONLY {
        if branch.get(word).is_some() && !(word == "type" && spelled) {
            faults.forbidden(&path.field(word), "must be empty to be structural");
        }
    }
    if branch["additionalProperties"] == true {
        faults.forbidden(&path.field("additionalProperties"), "must be empty to be structural");
    }
    branches(place, branch, path, depth + 1, faults);
    children(
        branch,
        path,
        |inner, path, faults, _| {
            let same = corresponding(place, branch, inner);
            match same {
            Some(place) => branch_of(place, inner, path, depth + 1, faults),
            None => faults.required(path, "because it is defined in a value validation, it must be defined in the structural part, too"),
        }
        },
        faults,
    );
}

/// The place of the structure that a child of a branch is about.
fn corresponding<'s>(place: &'s Value, branch: &Value, inner: &Value) -> Option<&'s Value> {
    let is = |child: &Value| std::ptr::eq(child, inner);
    let found = if is(&branch["items"]) {
        &place["items"]
    } else if is(&branch["additionalProperties"]) {
        &place["additionalProperties"]
    } else {
        let (name, _) = branch["properties"].as_object()?.iter().find(|(_, child)| is(child))?;
        place["properties"].get(name).unwrap_or(&place["additionalProperties"])
    };
    (found.is_object() || place["x-kubernetes-preserve-unknown-fields"] == true).then_some(found)
}
