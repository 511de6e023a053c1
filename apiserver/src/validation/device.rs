//! Claims on devices, classes of devices, and pods that use claims.

pub(super) mod pod;
pub(super) mod slice;
pub(super) mod taints;

use std::collections::HashSet;

use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    immutable, is_empty, len, named, names, required_one_of, text,
};
use crate::custom::cel::{Gives, Names, Program};

/// Requests, constraints, configurations and selectors of one claim or class.
const PARTS_MAX: usize = 32;
/// Longest expression, Kubernetes' figure.
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
/// Alternatives of one request.
const ALTERNATIVES_MAX: usize = 8;

pub(super) fn claim(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let path = &Path::Root.field("spec");
    devices(&new["spec"]["devices"], &path.field("devices"), faults);
    if let Some(old) = old {
        immutable(old, new, "spec", &Path::Root, faults);
    }
}

pub(super) fn claim_template(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let outer = &Path::Root.field("spec");
    let path = &outer.field("spec");
    devices(&new["spec"]["spec"]["devices"], &path.field("devices"), faults);
    if let Some(old) = old {
        immutable(old, new, "spec", &Path::Root, faults);
    }
}

pub(super) fn class(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    if old.is_none_or(|old| old["spec"]["selectors"] != spec["selectors"]) {
        selectors(&spec["selectors"], &path.field("selectors"), faults);
    }
    each(&spec["config"], &path.field("config"), |one, path| configuration(one, path, faults));
}

fn devices(devices: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut known = HashSet::new();
    few(&devices["requests"], &path.field("requests"), faults);
    each(&devices["requests"], &path.field("requests"), |one, path| {
        name(&one["name"], &path.field("name"), faults);
        if !known.insert(text(&one["name"]).to_owned()) {
            faults.duplicate(&path.field("name"), &one["name"]);
        }
        for sub in one["firstAvailable"].as_array().into_iter().flatten() {
            known.insert(format!("{}/{}", text(&one["name"]), text(&sub["name"])));
        }
        request(one, path, faults);
    });
    few(&devices["constraints"], &path.field("constraints"), faults);
    each(&devices["constraints"], &path.field("constraints"), |one, path| {
        requests(&one["requests"], &known, &path.field("requests"), faults);
        if is_empty(&one["matchAttribute"]) && is_empty(&one["distinctAttribute"]) {
            faults.required(&path.field("matchAttribute"), "");
        }
    });
    few(&devices["config"], &path.field("config"), faults);
    each(&devices["config"], &path.field("config"), |one, path| {
        requests(&one["requests"], &known, &path.field("requests"), faults);
        configuration(one, path, faults);
    });
}

pub(super) fn few(list: &Value, path: &Path<'_>, faults: &mut Faults) {
    if len(list) > PARTS_MAX {
        faults.too_many(path, len(list), PARTS_MAX);
    }
}

fn name(name: &Value, path: &Path<'_>, faults: &mut Faults) {
    named(names::dns_label, name, path, faults);
}

/// Requests that something refers to.
fn requests(list: &Value, known: &HashSet<String>, path: &Path<'_>, faults: &mut Faults) {
    each(list, path, |request, path| {
        if !known.contains(text(request)) {
            let why = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
            faults.invalid(path, request, why);
        }
    });
}

fn request(request: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (exactly, alternatives) = (&request["exactly"], &request["firstAvailable"]);
    match (exactly.is_object(), len(alternatives)) {
        (false, 0) => {
            faults.required(path, "exactly one of `exactly` or `firstAvailable` is required");
        }
        (true, 1..) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            faults.invalid(path, request, why);
        }
        (true, 0) => wanted(exactly, &path.field("exactly"), faults),
        (false, count) => {
            let path = &path.field("firstAvailable");
            if count > ALTERNATIVES_MAX {
                faults.too_many(path, count, ALTERNATIVES_MAX);
            }
            each(alternatives, path, |one, path| {
                name(&one["name"], &path.field("name"), faults);
                wanted(one, path, faults);
            });
        }
    }
}

/// Which devices, and how many of them.
fn wanted(wanted: &Value, path: &Path<'_>, faults: &mut Faults) {
    named(names::dns_subdomain, &wanted["deviceClassName"], &path.field("deviceClassName"), faults);
    selectors(&wanted["selectors"], &path.field("selectors"), faults);
    let (mode, count, count_path) = (&wanted["allocationMode"], &wanted["count"], &path.field("count"));
    required_one_of(mode, &["All", "ExactCount"], &path.field("allocationMode"), faults);
    if mode == "All" && count.as_i64().unwrap_or(0) != 0 {
        faults.invalid(count_path, count, "must not be specified when allocationMode is 'All'");
    } else if mode == "ExactCount" && count.as_i64().unwrap_or(0) <= 0 {
        faults.invalid(count_path, count, "must be greater than zero");
    }
    each(&wanted["tolerations"], &path.field("tolerations"), |one, path| {
        taints::toleration(one, path, faults);
    });
}

fn selectors(selectors: &Value, path: &Path<'_>, faults: &mut Faults) {
    few(selectors, path, faults);
    each(selectors, path, |selector, path| {
        let cel = &path.field("cel");
        if selector["cel"].is_null() {
            faults.required(cel, "");
        } else if is_empty(&selector["cel"]["expression"]) {
            faults.required(&cel.field("expression"), "");
        } else {
            expression(&selector["cel"]["expression"], &cel.field("expression"), faults);
        }
    });
}

/// What a device must be, in CEL.
pub(super) fn expression(expression: &Value, path: &Path<'_>, faults: &mut Faults) {
    if text(expression).len() > EXPRESSION_BYTES_MAX {
        faults.too_long(path, EXPRESSION_BYTES_MAX);
    } else if let Err(why) = Program::compile(text(expression), &Names::of_devices(), Gives::Bool) {
        faults.invalid(path, expression, format_args!("compilation failed: {why}"));
    }
}

fn configuration(config: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (opaque, path) = (&config["opaque"], &path.field("opaque"));
    if opaque.is_null() {
        faults.required(path, "");
        return;
    }
    named(names::dns_subdomain, &opaque["driver"], &path.field("driver"), faults);
    if !opaque["parameters"].is_object() {
        faults.required(&path.field("parameters"), "");
    }
}
