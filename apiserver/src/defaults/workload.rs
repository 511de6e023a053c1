//! Defaults of the kinds in group `apps`.

use super::{Object, child, pod, text, value};

pub(super) fn deployment(object: &mut Object) {
    let spec = child(object, "spec");
    value(spec, "replicas", 1);
    value(spec, "revisionHistoryLimit", 10);
    value(spec, "progressDeadlineSeconds", 600);
    let strategy = child(spec, "strategy");
    text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        value(rolling, "maxUnavailable", "25%");
        value(rolling, "maxSurge", "25%");
    }
    template(spec);
    child(object, "status");
}

pub(super) fn replica_set(object: &mut Object) {
    let spec = child(object, "spec");
    value(spec, "replicas", 1);
    template(spec);
    value(child(object, "status"), "replicas", 0);
}

fn template(spec: &mut Object) {
    let template = child(spec, "template");
    child(template, "metadata");
    pod::spec(child(template, "spec"));
}
