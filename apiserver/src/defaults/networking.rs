//! Defaults of group `networking.k8s.io`.

use serde_json::json;

use super::{Object, child, existing, is_unset, items, text};

/// A policy is about what comes in, and about what goes out if it says anything about that.
pub(super) fn network_policy(object: &mut Object) {
    let spec = child(object, "spec");
    child(spec, "podSelector");
    for rules in ["ingress", "egress"] {
        for rule in items(spec, rules) {
            items(rule, "ports").for_each(|port| text(port, "protocol", "TCP"));
        }
    }
    if is_unset(spec.get("policyTypes")) {
        let types =
            if is_unset(spec.get("egress")) { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}

pub(super) fn ingress(object: &mut Object) {
    child(object, "spec");
    child(child(object, "status"), "loadBalancer");
}

pub(super) fn ingress_class(object: &mut Object) {
    if let Some(parameters) = existing(child(object, "spec"), "parameters") {
        text(parameters, "scope", "Cluster");
    }
}
