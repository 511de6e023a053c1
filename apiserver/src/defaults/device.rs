//! Defaults of claims on devices.

use serde_json::Value;

use super::{Object, child, existing, items, positive, text};

pub(super) fn claim(object: &mut Object) {
    devices(child(object, "spec"));
    child(object, "status");
}

pub(super) fn claim_template(object: &mut Object) {
    devices(child(child(object, "spec"), "spec"));
}

fn devices(spec: &mut Object) {
    for request in items(child(spec, "devices"), "requests") {
        existing(request, "exactly").into_iter().for_each(wanted);
        items(request, "firstAvailable").for_each(wanted);
    }
}

/// One device, unless somebody says otherwise.
fn wanted(wanted: &mut Object) {
    text(wanted, "allocationMode", "ExactCount");
    if wanted["allocationMode"] == "ExactCount" {
        positive(wanted, "count", 1);
    }
    items(wanted, "tolerations").for_each(|toleration| text(toleration, "operator", "Equal"));
}

/// Tolerations count from when the effect became what it is.
pub(super) fn stamp_rule(old: Option<&Value>, new: &mut Value, now: impl Fn() -> String) {
    let Some(taint) = new.pointer_mut("/spec/taint").filter(|taint| taint.is_object()) else { return };
    let is_of_another = |old: &Value| {
        let old = &old["spec"]["taint"];
        old["effect"] != taint["effect"] && old["timeAdded"] == taint["timeAdded"]
    };
    if taint["timeAdded"].is_null() || old.is_some_and(is_of_another) {
        taint["timeAdded"] = now().into();
    }
}

pub(super) fn stamp_slice(new: &mut Value, now: impl Fn() -> String) {
    let devices = new.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten();
    let taints = devices.filter_map(|device| device.get_mut("taints")?.as_array_mut()).flatten();
    for taint in taints.filter(|taint| taint.is_object() && taint["timeAdded"].is_null()) {
        taint["timeAdded"] = now().into();
    }
}
