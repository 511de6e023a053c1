//! Metadata: names, labels, annotations, owners, finalizers.

use claw_schemas::Descriptor;
use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    is_empty, names, text,
};

/// Keys and values of all annotations together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

pub(super) fn metadata(kind: &Descriptor, meta: &Value, faults: &mut Faults) {
    let path = &Path::Root.field("metadata");
    name(kind, meta, path, faults);
    namespace(kind, meta, path, faults);
    labels(&meta["labels"], &path.field("labels"), faults);
    annotations(&meta["annotations"], &path.field("annotations"), faults);
    each(&meta["finalizers"], &path.field("finalizers"), |finalizer, path| {
        if let Err(why) = names::qualified(text(finalizer)) {
            faults.invalid(path, finalizer, why);
        }
    });
    owners(&meta["ownerReferences"], &path.field("ownerReferences"), faults);
}

/// How objects of a kind may be called.
fn grammar_of(kind: &Descriptor) -> names::Grammar {
    match (&*kind.group, &*kind.kind) {
        ("", "Namespace") | ("apps", "StatefulSet") => names::dns_label,
        ("", "Service") => names::dns_label_1035,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        ("networking.k8s.io", "IPAddress") => names::canonical_ip,
        _ => names::dns_subdomain,
    }
}

fn name(kind: &Descriptor, meta: &Value, path: &Path<'_>, faults: &mut Faults) {
    let grammar = grammar_of(kind);
    let (name, generated) = (text(&meta["name"]), text(&meta["generateName"]));
    if name.is_empty() && generated.is_empty() {
        faults.required(&path.field("name"), "name or generateName is required");
    } else if !name.is_empty() {
        if let Err(why) = grammar(name) {
            faults.invalid_text(&path.field("name"), name, why);
        }
    } else if let Err(why) = grammar(&format!("{generated}x")) {
        faults.invalid_text(&path.field("generateName"), generated, why);
    }
}

fn namespace(kind: &Descriptor, meta: &Value, path: &Path<'_>, faults: &mut Faults) {
    let namespace = text(&meta["namespace"]);
    let path = &path.field("namespace");
    if !kind.namespaced() {
        if !namespace.is_empty() {
            faults.forbidden(path, "not allowed on this type");
        }
    } else if namespace.is_empty() {
        faults.required(path, "");
    } else if let Err(why) = names::dns_label(namespace) {
        faults.invalid_text(path, namespace, why);
    }
}

/// Labels of an object or a template.
pub(super) fn labels(labels: &Value, path: &Path<'_>, faults: &mut Faults) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Err(why) = names::qualified(key) {
            faults.invalid_text(path, key, why);
        }
        if let Err(why) = names::label_value(text(value)) {
            faults.invalid(path, value, why);
        }
    }
}

pub(super) fn annotations(annotations: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut bytes = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        bytes += key.len() + text(value).len();
        // Upper case is allowed in the prefix of an annotation, for old times' sake.
        if let Err(why) = names::qualified(&key.to_ascii_lowercase()) {
            faults.invalid_text(path, key, why);
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        faults.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

fn owners(owners: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut controllers = 0;
    each(owners, path, |owner, path| {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if is_empty(&owner[field]) {
                faults.invalid_text(&path.field(field), "", format_args!("{field} must not be empty"));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    });
    if controllers > 1 {
        faults.invalid(path, owners, "Only one reference can have Controller set to true");
    }
}
