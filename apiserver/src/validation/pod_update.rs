//! What may change in a pod once it exists: next to nothing, since its containers are already what they are.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    faults::{Faults, Path},
    text,
};

const WHY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
/// Changed fields that the refusal names at most.
const NAMED_MAX: usize = 5;

pub(super) fn spec(old: &Value, new: &Value, path: &Path<'_>, faults: &mut Faults) {
    for list in ["containers", "initContainers"] {
        if len(&old[list]) != len(&new[list]) {
            faults.forbidden(&path.field(list), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(&old["activeDeadlineSeconds"], &new["activeDeadlineSeconds"], path, faults);
    tolerations(&old["tolerations"], &new["tolerations"], &path.field("tolerations"), faults);
    gates(&old["schedulingGates"], &new["schedulingGates"], &path.field("schedulingGates"), faults);
    let mut rest = new.clone();
    take_over(old, &mut rest);
    if rest != *old {
        faults.forbidden(path, format_args!("{WHY}\nchanged: {}", changes(old, &rest)));
    }
}

/// Puts the old values of fields that may change into the new object, so that what differs then may not.
fn take_over(old: &Value, new: &mut Value) {
    for list in ["containers", "initContainers"] {
        let old_items = old[list].as_array().into_iter().flatten();
        // Indexing would leave a null where there is no such list.
        let new_items = new.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (old, new) in old_items.zip(new_items) {
            copy(old, new, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        copy(old, new, field);
    }
    if old["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0)
        && new["terminationGracePeriodSeconds"] == 1
    {
        copy(old, new, "terminationGracePeriodSeconds");
    }
    // While gates hold a pod back, where it may run can still be narrowed, and nothing else.
    if len(&old["schedulingGates"]) > 0 {
        if contains(&new["nodeSelector"], &old["nodeSelector"]) {
            copy(old, new, "nodeSelector");
        }
        if narrows(&old["affinity"], &new["affinity"]) {
            copy(old, new, "affinity");
        }
    }
}

/// Whether a map has all entries of another.
fn contains(whole: &Value, part: &Value) -> bool {
    part.as_object().into_iter().flatten().all(|(key, value)| whole[key] == *value)
}

/// Whether an affinity admits no node that the old one did not: each required term has kept what it demands. Preferences
/// are free, and what is asked of other pods stays.
fn narrows(old: &Value, new: &Value) -> bool {
    let terms = |affinity: &Value| -> Vec<Value> {
        let required = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        items(&required["nodeSelectorTerms"]).cloned().collect()
    };
    let demands = |old: &Value, new: &Value| {
        let kept = |field: &str| {
            let has: HashSet<String> = items(&new[field]).map(Value::to_string).collect();
            items(&old[field]).all(|one| has.contains(&one.to_string()))
        };
        kept("matchExpressions") && kept("matchFields")
    };
    let (before, after) = (terms(old), terms(new));
    let same_pods = ["podAffinity", "podAntiAffinity"].iter().all(|field| old[*field] == new[*field]);
    let narrower =
        before.len() == after.len() && before.iter().zip(&after).all(|(old, new)| demands(old, new));
    same_pods && (before.is_empty() || narrower)
}

fn copy(old: &Value, new: &mut Value, field: &str) {
    let Some(new) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => drop(new.insert(field.to_owned(), value.clone())),
        None => drop(new.remove(field)),
    }
}

fn deadline(old: &Value, new: &Value, path: &Path<'_>, faults: &mut Faults) {
    let path = &path.field("activeDeadlineSeconds");
    match (old.as_i64(), new.as_i64()) {
        (Some(old), Some(seconds)) if seconds > old => {
            faults.invalid(path, new, "must be less than or equal to previous value");
        }
        (Some(_), None) => {
            faults.invalid_text(path, "", "must not update from a positive integer to nil value");
        }
        _ => {}
    }
}

fn tolerations(old: &Value, new: &Value, path: &Path<'_>, faults: &mut Faults) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration.to_string()
    };
    let new: HashSet<String> = items(new).map(without_seconds).collect();
    if items(old).map(without_seconds).any(|toleration| !new.contains(&toleration)) {
        faults.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn gates(old: &Value, new: &Value, path: &Path<'_>, faults: &mut Faults) {
    let known: HashSet<&str> = items(old).map(|gate| text(&gate["name"])).collect();
    for (index, gate) in items(new).enumerate() {
        if !known.contains(text(&gate["name"])) {
            faults.forbidden(&path.item(index), "only deletion is allowed, but found new scheduling gate");
        }
    }
}

/// The paths below which two values differ, a few of them.
fn changes(old: &Value, new: &Value) -> String {
    let mut found = Vec::new();
    differences(old, new, &Path::Root, &mut found);
    let more = if found.len() >= NAMED_MAX { ", ..." } else { "" };
    format!("{}{more}", found.join(", "))
}

fn differences(old: &Value, new: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    if old == new || found.len() >= NAMED_MAX {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|name| !a.contains_key(*name));
            for name in a.keys().chain(added) {
                differences(&old[name], &new[name], &path.field(name), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (old, new)) in a.iter().zip(b).enumerate() {
                differences(old, new, &path.item(index), found);
            }
        }
        _ => found.push(format!("spec.{path}")),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn len(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}
