//! Probes and lifecycle hooks: exactly one way to ask, and sensible numbers.

use serde_json::Value;

use super::{
    faults::{Faults, Path},
    is_empty, not_negative, one_of, port,
};

pub(super) fn probe(kind: &str, probe: &Value, path: &Path<'_>, faults: &mut Faults) {
    if probe.is_null() {
        return;
    }
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], path, faults);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(&probe[field], &path.field(field), faults);
    }
    if kind != "readinessProbe" && probe["successThreshold"] != 1 {
        faults.invalid(&path.field("successThreshold"), &probe["successThreshold"], "must be 1");
    }
    let grace = &probe["terminationGracePeriodSeconds"];
    if !grace.is_null() {
        let path = &path.field("terminationGracePeriodSeconds");
        if kind == "readinessProbe" {
            faults.invalid(path, grace, "must not be set for readinessProbes");
        } else if grace.as_i64().is_some_and(|seconds| seconds < 1) {
            faults.invalid(path, grace, "must be greater than 0");
        }
    }
}

pub(super) fn lifecycle(lifecycle: &Value, path: &Path<'_>, faults: &mut Faults) {
    for hook in ["postStart", "preStop"].into_iter().filter(|hook| lifecycle[*hook].is_object()) {
        let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
        handler(&lifecycle[hook], &kinds, &path.field(hook), faults);
    }
}

fn handler(handler: &Value, kinds: &[&str], path: &Path<'_>, faults: &mut Faults) {
    let mut given = kinds.iter().filter(|kind| handler[**kind].is_object());
    let Some(first) = given.next() else {
        faults.required(path, "must specify a handler type");
        return;
    };
    for more in given {
        faults.forbidden(&path.field(more), "may not specify more than 1 handler type");
    }
    let (action, path) = (&handler[*first], &path.field(first));
    match *first {
        "exec" if action["command"].as_array().is_none_or(Vec::is_empty) => {
            faults.required(&path.field("command"), "");
        }
        "httpGet" => {
            if is_empty(&action["path"]) {
                faults.required(&path.field("path"), "");
            }
            port(&action["port"], &path.field("port"), faults);
            one_of(&action["scheme"], &["HTTP", "HTTPS"], &path.field("scheme"), faults);
        }
        "tcpSocket" | "grpc" => port(&action["port"], &path.field("port"), faults),
        "sleep" => not_negative(&action["seconds"], &path.field("seconds"), faults),
        _ => {}
    }
}
