//! Webhooks that have a say in what is stored.

pub(super) mod policy;

use std::collections::HashSet;

use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    fits, is_empty, is_set, len, named, names, one_of, optional_one_of, port_number, text,
    workload::label_selector,
};
use crate::{
    admission::judge,
    custom::cel::{Gives, Names},
};

/// Conditions that one webhook may have.
const CONDITIONS_MAX: usize = 64;

pub(super) fn webhooks(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let mut seen = HashSet::new();
    each(&new["webhooks"], &Path::Root.field("webhooks"), |one, path| {
        if !seen.insert(text(&one["name"])) {
            faults.duplicate(&path.field("name"), &one["name"]);
        }
        webhook(one, path, faults);
    });
}

fn webhook(webhook: &Value, path: &Path<'_>, faults: &mut Faults) {
    named(names::domain_of_three, &webhook["name"], &path.field("name"), faults);
    versions(&webhook["admissionReviewVersions"], &path.field("admissionReviewVersions"), faults);
    each(&webhook["rules"], &path.field("rules"), |one, path| rule(one, path, faults));
    one_of(&webhook["failurePolicy"], &["Fail", "Ignore"], &path.field("failurePolicy"), faults);
    one_of(&webhook["matchPolicy"], &["Equivalent", "Exact"], &path.field("matchPolicy"), faults);
    let effects = ["None", "NoneOnDryRun"];
    if is_empty(&webhook["sideEffects"]) {
        faults.required(&path.field("sideEffects"), "must specify one of None, NoneOnDryRun");
    } else {
        one_of(&webhook["sideEffects"], &effects, &path.field("sideEffects"), faults);
    }
    let policies = ["IfNeeded", "Never"];
    optional_one_of(&webhook["reinvocationPolicy"], &policies, &path.field("reinvocationPolicy"), faults);
    let timeout = &webhook["timeoutSeconds"];
    if timeout.as_i64().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        faults.invalid(&path.field("timeoutSeconds"), timeout, why);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        label_selector(&webhook[field], &path.field(field), faults);
    }
    client(&webhook["clientConfig"], &path.field("clientConfig"), faults);
    let names = Names::of_webhooks();
    conditions(&webhook["matchConditions"], &names, &path.field("matchConditions"), faults);
}

fn versions(versions: &Value, path: &Path<'_>, faults: &mut Faults) {
    if len(versions) == 0 {
        faults.required(path, "must specify one of v1, v1beta1");
        return;
    }
    let known = |version: &Value| version == "v1" || version == "v1beta1";
    if !versions.as_array().into_iter().flatten().any(known) {
        faults.invalid(path, versions, "must include at least one of v1, v1beta1");
    }
    super::distinct(versions, path, faults);
}

/// Which requests are asked about.
pub(super) fn rule(rule: &Value, path: &Path<'_>, faults: &mut Faults) {
    let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    for (field, what) in [
        ("operations", "operations"),
        ("apiGroups", "API groups"),
        ("apiVersions", "API versions"),
        ("resources", "resources"),
    ] {
        let (list, path) = (&rule[field], &path.field(field));
        if len(list) == 0 {
            faults.required(path, "");
        }
        let all = list.as_array().into_iter().flatten().any(|item| item == "*");
        if all && len(list) > 1 && field != "resources" {
            let why = format_args!("if '*' is present, must not specify other {what}");
            faults.invalid(path, list, why);
        }
        each(list, path, |item, path| match field {
            "operations" => one_of(item, &known, path, faults),
            "apiVersions" | "resources" if is_empty(item) => faults.required(path, ""),
            _ => {}
        });
    }
    let scopes = ["*", "Cluster", "Namespaced"];
    optional_one_of(&rule["scope"], &scopes, &path.field("scope"), faults);
}

/// Where the webhook is asked.
fn client(config: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (url, service) = (&config["url"], &config["service"]);
    if is_set(url) == service.is_object() {
        faults.required(path, "exactly one of url or service is required");
        return;
    }
    if is_set(url) {
        if !text(url).starts_with("https://") {
            let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
            faults.invalid(&path.field("url"), url, why);
        }
        for (part, what) in [('?', "query parameters"), ('#', "fragments"), ('@', "user information")] {
            if text(url).contains(part) {
                faults.invalid(&path.field("url"), url, format_args!("{what} are not permitted in the URL"));
            }
        }
        return;
    }
    let path = &path.field("service");
    for (field, why) in [("name", "service name is required"), ("namespace", "service namespace is required")]
    {
        if is_empty(&service[field]) {
            faults.required(&path.field(field), why);
        }
    }
    port_number(&service["port"], &path.field("port"), faults);
    if is_set(&service["path"]) && !text(&service["path"]).starts_with('/') {
        faults.invalid(&path.field("path"), &service["path"], "must start with a '/'");
    }
}

/// Expressions that narrow what is asked about.
pub(super) fn conditions(conditions: &Value, names: &Names, path: &Path<'_>, faults: &mut Faults) {
    if len(conditions) > CONDITIONS_MAX {
        faults.too_many(path, len(conditions), CONDITIONS_MAX);
    }
    let mut seen = HashSet::new();
    each(conditions, path, |condition, path| {
        let (name, expression) = (&condition["name"], text(&condition["expression"]));
        if is_empty(name) {
            faults.required(&path.field("name"), "");
        }
        fits(names::qualified, name, &path.field("name"), faults);
        if expression.trim().is_empty() {
            faults.required(&path.field("expression"), "");
        }
        judge(expression, names, Gives::Bool, &path.field("expression"), faults);
        if !seen.insert(text(name)) {
            faults.duplicate(&path.field("name"), name);
        }
    });
}
