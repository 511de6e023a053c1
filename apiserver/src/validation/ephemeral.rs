//! Ephemeral containers, which come to a pod after it was made and stay as they are.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    is_empty, is_set, text,
};

/// What such a container may say. The rest is for those that a pod stands for.
const ALLOWED: [&str; 17] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

/// The annotation of pods that stand for static ones of a node.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A new pod, or a template of pods, has none.
pub(super) fn none(spec: &Value, path: &Path<'_>, why: &str, faults: &mut Faults) {
    if is_set(&spec["ephemeralContainers"]) {
        faults.forbidden(&path.field("ephemeralContainers"), why);
    }
}

/// What is special about one; `targets` are the names of the pod's containers.
pub(super) fn container(container: &Value, targets: &HashSet<&str>, path: &Path<'_>, faults: &mut Faults) {
    // Defaults make empty ones.
    let says = |value: &Value| is_set(value) && value.as_object().is_none_or(|fields| !fields.is_empty());
    for (field, _) in container.as_object().into_iter().flatten().filter(|(_, value)| says(value)) {
        if !ALLOWED.contains(&field.as_str()) {
            faults.forbidden(&path.field(field), "cannot be set for an Ephemeral Container");
        }
    }
    each(&container["volumeMounts"], &path.field("volumeMounts"), |mount, path| {
        for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !is_empty(&mount[*field])) {
            faults.forbidden(&path.field(field), "cannot be set for an Ephemeral Container");
        }
    });
    let target = &container["targetContainerName"];
    if !is_empty(target) && !targets.contains(text(target)) {
        faults.not_found(&path.field("targetContainerName"), target);
    }
}

/// Those that are there stay; others may come.
pub(super) fn changes(old: &Value, new: &Value, faults: &mut Faults) {
    let root = Path::Root.field("spec");
    let path = &root.field("ephemeralContainers");
    if !old["metadata"]["annotations"][MIRROR].is_null() {
        faults.forbidden(path, "static pods do not support ephemeral containers");
        return;
    }
    let list = |pod: &Value| pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
    let after = list(new);
    for container in list(old) {
        let name = text(&container["name"]);
        match after.iter().find(|one| one["name"] == container["name"]) {
            None => {
                let why = format_args!("existing ephemeral containers \"{name}\" may not be removed\n");
                faults.forbidden(path, why);
            }
            Some(found) if *found != container => {
                let why = format_args!("existing ephemeral containers \"{name}\" may not be changed\n");
                faults.forbidden(path, why);
            }
            Some(_) => {}
        }
    }
}
