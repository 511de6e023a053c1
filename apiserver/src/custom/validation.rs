//! What is wrong with a `CustomResourceDefinition`, field by field.
//!
//! Source: the API reference of `apiextensions.k8s.io/v1`; words and paths are Kubernetes' own where people search for
//! them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    cel::Budget,
    check, columns,
    definition::Definition,
    fill,
    node::{Node, Unique},
    path::FieldPath,
    structural,
};
use crate::validation::{
    faults::{Faults, Path},
    names,
};

/// Groups whose definitions need somebody's approval, so that nobody takes a name that Kubernetes will want.
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];
const APPROVAL: &str = "api-approved.kubernetes.io";

/// The most selectable fields of a version.
const SELECTABLE_FIELDS_MAX: usize = 8;

/// Judges a definition, and what it changes where it replaces an old one.
pub(crate) fn judge(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let root = &Path::Root;
    spec(new, &root.field("spec"), faults);
    let definition = Definition(new);
    let wanted = format!("{}.{}", definition.plural(), definition.group());
    if definition.name() != wanted {
        let metadata = root.field("metadata");
        faults.invalid_text(
            &metadata.field("name"),
            definition.name(),
            "must be spec.names.plural+\".\"+spec.group",
        );
    }
    approval(new, faults);
    match old {
        // Where the status changed, too, it is judged beside.
        Some(old) if old["status"] != new["status"] => immutable(old, new, faults),
        Some(old) => {
            immutable(old, new, faults);
            judge_status(new, faults);
        }
        None => judge_status(new, faults),
    }
}

fn immutable(old: &Value, new: &Value, faults: &mut Faults) {
    let always = ["/spec/group", "/spec/names/plural"];
    let once_established = ["/spec/scope", "/spec/names/kind"];
    let established = Definition(old).is("Established");
    let fixed = always.iter().chain(once_established.iter().filter(|_| established));
    for pointer in fixed {
        let (old, new) = (old.pointer(pointer), new.pointer(pointer));
        if old != new {
            let parts: Vec<&str> = pointer.split('/').skip(1).collect();
            let spec = Path::Root.field(parts[0]);
            let names = spec.field(parts[1]);
            let path = parts.get(2).map_or(names, |last| names.field(last));
            faults.invalid(&path, new.unwrap_or(&Value::Null), "field is immutable");
        }
    }
}

fn approval(object: &Value, faults: &mut Faults) {
    let group = Definition(object).group();
    let protected = PROTECTED.iter().any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
    let approved = object["metadata"]["annotations"][APPROVAL].as_str().unwrap_or_default();
    let sound = approved.starts_with("unapproved")
        || approved.starts_with("https://")
        || approved.starts_with("http://");
    if protected && !sound {
        let metadata = Path::Root.field("metadata");
        let annotations = metadata.field("annotations");
        let why = format!(
            "protected groups must have approval annotation \"{APPROVAL}\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        faults.required(&annotations.key(APPROVAL), &why);
    }
}

/// Judges what a status says: versions that objects may be stored in cannot go.
pub(crate) fn judge_status(object: &Value, faults: &mut Faults) {
    let definition = Definition(object);
    let (status, storage) = (Path::Root.field("status"), definition.storage_version());
    let path = status.field("storedVersions");
    let stored = object["status"]["storedVersions"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, version) in stored.iter().enumerate() {
        if !definition.versions().any(|known| known["name"] == *version) {
            faults.invalid(&path.item(index), version, "must appear in spec.versions");
        }
    }
    if !storage.is_empty() && !stored.iter().any(|version| version == storage) {
        let why = format!("must have the storage version {storage}");
        faults.invalid(&path, &object["status"]["storedVersions"], why);
    }
}

fn spec(object: &Value, path: &Path<'_>, faults: &mut Faults) {
    let spec = &object["spec"];
    let group = spec["group"].as_str().unwrap_or_default();
    if group.is_empty() {
        faults.required(&path.field("group"), "");
    } else if let Err(why) = names::dns_subdomain(group) {
        faults.invalid(&path.field("group"), &spec["group"], why);
    } else if !group.contains('.') {
        faults.invalid(&path.field("group"), &spec["group"], "should be a domain with at least one dot");
    }
    match spec["scope"].as_str().unwrap_or_default() {
        "" => faults.required(&path.field("scope"), ""),
        "Cluster" | "Namespaced" => {}
        _ => faults.unsupported(&path.field("scope"), &spec["scope"], &["Cluster", "Namespaced"]),
    }
    if spec["preserveUnknownFields"] == true {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        faults.invalid(&path.field("preserveUnknownFields"), &spec["preserveUnknownFields"], why);
    }
    kind_names(&spec["names"], &path.field("names"), faults);
    versions(object, &path.field("versions"), faults);
    conversion(&spec["conversion"], &path.field("conversion"), faults);
}

fn kind_names(wanted: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut label = |field: &str, value: &Value, path: &Path<'_>, must_be: bool| {
        let text = value.as_str().unwrap_or_default();
        // Kinds are in upper case letters, and otherwise names like the others.
        let name =
            if matches!(field, "kind" | "listKind") { text.to_ascii_lowercase() } else { text.to_owned() };
        match names::dns_label_1035(&name) {
            _ if text.is_empty() && must_be => faults.required(path, ""),
            _ if text.is_empty() => {}
            Err(why) => faults.invalid(path, value, why),
            Ok(()) => {}
        }
    };
    for (field, must_be) in [("plural", true), ("singular", false), ("kind", true), ("listKind", true)] {
        label(field, &wanted[field], &path.field(field), must_be);
    }
    for list in ["shortNames", "categories"] {
        let at = path.field(list);
        for (index, name) in wanted[list].as_array().into_iter().flatten().enumerate() {
            label(list, name, &at.item(index), true);
        }
    }
    if !wanted["kind"].is_null() && wanted["kind"] == wanted["listKind"] {
        faults.invalid(&path.field("listKind"), &wanted["listKind"], "kind and listKind may not be the same");
    }
}

fn versions(object: &Value, path: &Path<'_>, faults: &mut Faults) {
    let definition = Definition(object);
    let (mut seen, mut stored) = (BTreeSet::new(), 0);
    for (index, version) in definition.versions().enumerate() {
        let (name, path) = (version["name"].as_str().unwrap_or_default(), path.item(index));
        if let Err(why) = names::dns_label_1035(name) {
            faults.invalid_text(&path.field("name"), name, why);
        }
        if !seen.insert(name) {
            faults.invalid_text(&path.field("name"), name, "must contain unique version names");
        }
        stored += usize::from(version["storage"] == true);
        for field in ["served", "storage"] {
            if !version[field].is_boolean() {
                faults.required(&path.field(field), "");
            }
        }
        one_version(version, &path, faults);
    }
    if stored != 1 {
        let why = "must have exactly one version marked as storage version";
        faults.invalid(path, &Value::from(seen.into_iter().collect::<Vec<_>>().join(",")), why);
    }
}

fn one_version(version: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (schema, at) = (&version["schema"]["openAPIV3Schema"], path.field("schema"));
    let schema_at = at.field("openAPIV3Schema");
    if !schema.is_object() {
        faults.required(&schema_at, "schemas are required");
        return;
    }
    let before = faults.count();
    structural::check(schema, &schema_at, faults);
    if faults.count() > before {
        return;
    }
    let node = Node::compile(schema, &schema_at, faults);
    default_values(schema, &node, &schema_at, faults);
    subresources(version, path, faults);
    looks_back(&node, true, &schema_at, faults);
    columns::validate(&version["additionalPrinterColumns"], &path.field("additionalPrinterColumns"), faults);
    selectable(version, schema, &path.field("selectableFields"), faults);
}

/// A default must be what its own schema takes.
fn default_values(schema: &Value, node: &Node, path: &Path<'_>, faults: &mut Faults) {
    if let Some(default) = &node.default {
        let (mut filled, budget) = (default.clone(), Budget::of_object());
        fill::fill(node, &mut filled);
        check::check(node, None, &filled, &path.field("default"), &budget, faults);
    }
    let properties_at = path.field("properties");
    for (name, inner) in &node.properties {
        default_values(&schema["properties"][name], inner, &properties_at.key(name), faults);
    }
    for (word, inner) in [("additionalProperties", &node.values), ("items", &node.items)] {
        if let Some(inner) = inner {
            default_values(&schema[word], inner, &path.field(word), faults);
        }
    }
}

/// A rule about changes needs to know which old value is the same as a new one: in a list, only keys tell.
fn looks_back(node: &Node, comparable: bool, path: &Path<'_>, faults: &mut Faults) {
    let rules = path.field("x-kubernetes-validations");
    for (index, rule) in node.rules.iter().enumerate() {
        if rule.looks_back() && !comparable {
            let why = "oldSelf cannot be used on the uncorrelatable portion of the schema: the items of a list without keys";
            faults.invalid_text(&rules.item(index).field("rule"), rule.text(), why);
        }
    }
    let properties = path.field("properties");
    for (name, inner) in &node.properties {
        looks_back(inner, comparable, &properties.key(name), faults);
    }
    if let Some(values) = &node.values {
        looks_back(values, comparable, &path.field("additionalProperties"), faults);
    }
    if let Some(items) = &node.items {
        let keyed = matches!(node.unique, Unique::ByKeys(_));
        looks_back(items, comparable && keyed, &path.field("items"), faults);
    }
}

fn subresources(version: &Value, path: &Path<'_>, faults: &mut Faults) {
    let scale = &version["subresources"]["scale"];
    if !scale.is_object() {
        return;
    }
    let subresources = path.field("subresources");
    let at = subresources.field("scale");
    for (field, root, must_be) in [
        ("specReplicasPath", "spec", true),
        ("statusReplicasPath", "status", true),
        ("labelSelectorPath", "", false),
    ] {
        let text = scale[field].as_str().unwrap_or_default();
        let under = |path: &FieldPath| match path.first() {
            Some(first) => first == root || root.is_empty() && matches!(first, "spec" | "status"),
            None => false,
        };
        match FieldPath::parse(text) {
            _ if text.is_empty() => {
                if must_be {
                    faults.required(&at.field(field), "");
                }
            }
            Some(path) if under(&path) => {}
            Some(_) => {
                let wanted = if root.is_empty() { ".spec or .status" } else { root };
                let why =
                    format!("should be a json path under {}{wanted}", if root.is_empty() { "" } else { "." });
                faults.invalid(&at.field(field), &scale[field], why);
            }
            None => faults.invalid(&at.field(field), &scale[field], "is an invalid json path"),
        }
    }
}

/// Fields that selectors may name: plain values of the schema.
fn selectable(version: &Value, schema: &Value, path: &Path<'_>, faults: &mut Faults) {
    let fields = version["selectableFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    if fields.len() > SELECTABLE_FIELDS_MAX {
        faults.too_many(path, fields.len(), SELECTABLE_FIELDS_MAX);
    }
    let mut seen = BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let at = path.item(index);
        let at = at.field("jsonPath");
        let text = field["jsonPath"].as_str().unwrap_or_default();
        if text.is_empty() {
            faults.required(&at, "");
            continue;
        }
        if !seen.insert(text) {
            faults.duplicate(&at, &field["jsonPath"]);
        }
        let found = FieldPath::parse(text).and_then(|path| path.in_schema(schema).cloned());
        match found {
            Some(found) if matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) => {}
            Some(_) => {
                let why = "must point to a field of type string, boolean or integer";
                faults.invalid(&at, &field["jsonPath"], why);
            }
            None => {
                faults.invalid(&at, &field["jsonPath"], "is an invalid path: does not refer to a valid field")
            }
        }
    }
}

fn conversion(conversion: &Value, path: &Path<'_>, faults: &mut Faults) {
    let webhook = &conversion["webhook"];
    match conversion["strategy"].as_str().unwrap_or_default() {
        "None" => {
            if webhook.is_object() {
                faults.forbidden(
                    &path.field("webhook"),
                    "should not be set when strategy is not set to Webhook",
                );
            }
        }
        "Webhook" if !webhook.is_object() => {
            faults.required(&path.field("webhook"), "required when strategy is set to Webhook");
        }
        "Webhook" => super::webhook::validate(webhook, &path.field("webhook"), faults),
        "" => faults.required(&path.field("strategy"), ""),
        _ => faults.unsupported(&path.field("strategy"), &conversion["strategy"], &["None", "Webhook"]),
    }
}

#[cfg(test)]
mod tests;
