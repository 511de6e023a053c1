//! Defaults of looks at devices, and of policies about which are looked at.

use claw_schemas::gpu;

use super::{Object, child, text, value};

pub(super) fn check(object: &mut Object) {
    let spec = child(object, "spec");
    text(child(spec, "device"), "driver", gpu::DRIVER);
    look(spec);
    child(object, "status");
}

pub(super) fn policy(object: &mut Object) {
    let spec = child(object, "spec");
    look(spec);
    text(spec, "effect", "NoSchedule");
    value(spec, "holdBack", true);
    value(spec, "maxParallel", 16);
    value(spec, "maxParallelPerNode", 1);
    child(object, "status");
}

fn look(spec: &mut Object) {
    text(spec, "level", "Quick");
    value(spec, "timeoutSeconds", 900);
}
