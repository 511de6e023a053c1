//! Namespaces, nodes, leases and revisions of controllers.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    is_empty, names, scheduling, text,
};

pub(super) fn namespace(_: Option<&Value>, object: &Value, faults: &mut Faults) {
    let path = &Path::Root.field("spec");
    each(&object["spec"]["finalizers"], &path.field("finalizers"), |finalizer, path| {
        if let Err(why) = names::qualified(text(finalizer)) {
            faults.invalid(path, finalizer, why);
        }
    });
}

pub(super) fn node(_: Option<&Value>, object: &Value, faults: &mut Faults) {
    let path = &Path::Root.field("spec");
    let mut seen = HashSet::new();
    each(&object["spec"]["taints"], &path.field("taints"), |taint, path| {
        if is_empty(&taint["key"]) {
            faults.required(&path.field("key"), "");
        } else if let Err(why) = names::qualified(text(&taint["key"])) {
            faults.invalid(&path.field("key"), &taint["key"], why);
        }
        if let Err(why) = names::label_value(text(&taint["value"])) {
            faults.invalid(&path.field("value"), &taint["value"], why);
        }
        if is_empty(&taint["effect"]) {
            faults.required(&path.field("effect"), "");
        } else {
            super::one_of(&taint["effect"], &scheduling::EFFECTS, &path.field("effect"), faults);
        }
        if !seen.insert((text(&taint["key"]), text(&taint["effect"]))) {
            faults.duplicate(path, taint);
        }
    });
}

pub(super) fn lease(_: Option<&Value>, object: &Value, faults: &mut Faults) {
    let spec = &object["spec"];
    let path = &Path::Root.field("spec");
    let duration = &spec["leaseDurationSeconds"];
    if duration.as_i64().is_some_and(|seconds| seconds <= 0) {
        faults.invalid(&path.field("leaseDurationSeconds"), duration, "must be greater than 0");
    }
    super::not_negative(&spec["leaseTransitions"], &path.field("leaseTransitions"), faults);
    if spec["holderIdentity"] == "" {
        faults.invalid_text(&path.field("holderIdentity"), "", "must not be empty");
    }
}

/// What a controller wrote down stays as it is.
pub(super) fn controller_revision(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    if new["data"].is_null() {
        faults.required(&Path::Root.field("data"), "data is mandatory");
    }
    super::not_negative(&new["revision"], &Path::Root.field("revision"), faults);
    if let Some(old) = old {
        super::immutable(old, new, "data", &Path::Root, faults);
    }
}
