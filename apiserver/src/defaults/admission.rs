//! Defaults of webhooks and admission policies.

use super::{Object, child, existing, items, text, value};

pub(super) fn validating_webhooks(object: &mut Object) {
    items(object, "webhooks").for_each(webhook);
}

pub(super) fn mutating_webhooks(object: &mut Object) {
    for one in items(object, "webhooks") {
        webhook(one);
        text(one, "reinvocationPolicy", "Never");
    }
}

fn webhook(webhook: &mut Object) {
    text(webhook, "failurePolicy", "Fail");
    value(webhook, "timeoutSeconds", 10);
    matching(webhook, &["rules"]);
    if let Some(service) = existing(child(webhook, "clientConfig"), "service") {
        value(service, "port", 443);
    }
}

/// Which objects somebody is asked about: all of them, whatever version they come in.
fn matching(matched: &mut Object, rules: &[&str]) {
    text(matched, "matchPolicy", "Equivalent");
    child(matched, "namespaceSelector");
    child(matched, "objectSelector");
    for list in rules {
        items(matched, list).for_each(|rule| text(rule, "scope", "*"));
    }
}

pub(super) fn policy(object: &mut Object) {
    mutating_policy(object);
    child(object, "status");
}

pub(super) fn mutating_policy(object: &mut Object) {
    let spec = child(object, "spec");
    text(spec, "failurePolicy", "Fail");
    if let Some(constraints) = existing(spec, "matchConstraints") {
        matching(constraints, &["resourceRules", "excludeResourceRules"]);
    }
}

pub(super) fn policy_binding(object: &mut Object) {
    if let Some(matched) = existing(child(object, "spec"), "matchResources") {
        matching(matched, &["resourceRules", "excludeResourceRules"]);
    }
}
