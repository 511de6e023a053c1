//! Defaults of claims on devices.

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
