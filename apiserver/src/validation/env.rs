//! Environment variables and where their values come from.

use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    is_empty, names, text,
};

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
/// Fields of a pod that its containers may see.
const FIELDS: [&str; 10] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "spec.hostname",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) fn variables(variables: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(variables, path, |variable, path| {
        if is_empty(&variable["name"]) {
            faults.required(&path.field("name"), "");
        } else if let Err(why) = names::env(text(&variable["name"])) {
            faults.invalid(&path.field("name"), &variable["name"], why);
        }
        if variable["valueFrom"].is_object() {
            source(variable, &path.field("valueFrom"), faults);
        }
    });
}

fn source(variable: &Value, path: &Path<'_>, faults: &mut Faults) {
    let from = &variable["valueFrom"];
    match SOURCES.iter().filter(|name| from[**name].is_object()).count() {
        0 => {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            faults.invalid_text(path, "", why);
        }
        1 if !is_empty(&variable["value"]) => {
            faults.invalid_text(path, "", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => faults.invalid_text(path, "", "may not have more than one field specified at a time"),
    }
    for name in ["configMapKeyRef", "secretKeyRef"].into_iter().filter(|name| from[*name].is_object()) {
        key_reference(&from[name], &path.field(name), faults);
    }
    if from["fieldRef"].is_object() {
        field_reference(&from["fieldRef"], &path.field("fieldRef"), faults);
    }
    let resource = &from["resourceFieldRef"];
    if resource.is_object() && is_empty(&resource["resource"]) {
        faults.required(&path.field("resourceFieldRef").field("resource"), "");
    }
}

fn key_reference(reference: &Value, path: &Path<'_>, faults: &mut Faults) {
    if is_empty(&reference["name"]) {
        faults.required(&path.field("name"), "");
    }
    if is_empty(&reference["key"]) {
        faults.required(&path.field("key"), "");
    } else if let Err(why) = names::config_key(text(&reference["key"])) {
        faults.invalid(&path.field("key"), &reference["key"], why);
    }
}

/// A field of the pod: a plain one, or one label or annotation (`metadata.labels['app']`).
pub(super) fn field_reference(reference: &Value, path: &Path<'_>, faults: &mut Faults) {
    let field = text(&reference["fieldPath"]);
    let path = &path.field("fieldPath");
    let subscripted = ["metadata.labels['", "metadata.annotations['"]
        .into_iter()
        .find_map(|prefix| field.strip_prefix(prefix)?.strip_suffix("']"));
    if field.is_empty() {
        faults.required(path, "");
    } else if let Some(key) = subscripted {
        if let Err(why) = names::qualified(&key.to_ascii_lowercase()) {
            faults.invalid_text(path, field, why);
        }
    } else if !FIELDS.contains(&field) {
        let why = format_args!("error converting fieldPath: field label not supported: {field}");
        faults.invalid_text(path, field, why);
    }
}

pub(super) fn sources(sources: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(sources, path, |source, path| {
        if !is_empty(&source["prefix"])
            && let Err(why) = names::env(text(&source["prefix"]))
        {
            faults.invalid(&path.field("prefix"), &source["prefix"], why);
        }
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|name| source[*name].is_object()).collect();
        match given.as_slice() {
            [] => faults.invalid_text(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            [name] if is_empty(&source[*name]["name"]) => {
                faults.required(&path.field(name).field("name"), "");
            }
            [_] => {}
            _ => faults.invalid_text(path, "", "may not have more than one field specified at a time"),
        }
    });
}
