//! Taints of devices, rules that add one to many, and what tolerates them.

use serde_json::Value;

use crate::validation::{
    conditions,
    faults::{Faults, Path},
    fits, is_empty, len, named, names, optional_one_of, required_one_of, text,
};

use super::slice;

/// What a taint may do to pods, and `None`, which only tells.
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
/// Conditions of one rule.
const CONDITIONS_MAX: usize = 8;

pub(in crate::validation) fn rule(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    let (selector, place) = (&spec["deviceSelector"], &path.field("deviceSelector"));
    if !selector["driver"].is_null() {
        named(names::dns_subdomain, &selector["driver"], &place.field("driver"), faults);
    }
    if !selector["pool"].is_null() {
        slice::pool_name(&selector["pool"], &place.field("pool"), faults);
    }
    if !selector["device"].is_null() {
        named(names::dns_label, &selector["device"], &place.field("device"), faults);
    }
    taint(old.map(|old| &old["spec"]["taint"]), &spec["taint"], &path.field("taint"), faults);
}

/// What a controller may say of a rule.
pub(in crate::validation) fn status(status: &Value, faults: &mut Faults) {
    let (list, path) = (&status["conditions"], &Path::Root.field("status"));
    let path = &path.field("conditions");
    conditions(list, path, faults);
    if len(list) > CONDITIONS_MAX {
        faults.too_many(path, len(list), CONDITIONS_MAX);
    }
}

/// One taint. An effect that stays what it was is not judged again: there may be more of them one day.
pub(super) fn taint(old: Option<&Value>, new: &Value, path: &Path<'_>, faults: &mut Faults) {
    if let Err(why) = names::qualified(text(&new["key"])) {
        faults.invalid_text(&path.field("key"), text(&new["key"]), why);
    }
    fits(names::label_value, &new["value"], &path.field("value"), faults);
    if old.is_none_or(|old| old["effect"] != new["effect"]) {
        required_one_of(&new["effect"], &EFFECTS, &path.field("effect"), faults);
    }
}

pub(super) fn toleration(one: &Value, path: &Path<'_>, faults: &mut Faults) {
    fits(names::qualified, &one["key"], &path.field("key"), faults);
    let (operator, value) = (&one["operator"], &one["value"]);
    required_one_of(operator, &["Equal", "Exists"], &path.field("operator"), faults);
    if operator == "Exists" && !is_empty(value) {
        faults.invalid(&path.field("value"), value, "must be empty for operator `Exists`");
    } else {
        fits(names::label_value, value, &path.field("value"), faults);
    }
    optional_one_of(&one["effect"], &EFFECTS, &path.field("effect"), faults);
}
