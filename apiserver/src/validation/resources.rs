//! Requests and limits of a container.

use claw_schemas::quantity::Quantity;
use serde_json::Value;

use super::{
    faults::{Faults, Path},
    names, text,
};

const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";

pub(super) fn requirements(resources: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (limits, requests) = (&resources["limits"], &resources["requests"]);
    let (limits_path, requests_path) = (&path.field("limits"), &path.field("requests"));
    for (list, path) in [(limits, limits_path), (requests, requests_path)] {
        for (name, amount) in list.as_object().into_iter().flatten() {
            resource(name, amount, &path.key(name), faults);
        }
    }
    for (name, request) in requests.as_object().into_iter().flatten() {
        let (Some(limit), Some(amount)) = (quantity(&limits[name]), quantity(request)) else {
            if limits[name].is_null() && !may_overcommit(name) {
                faults.required(limits_path, "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let shown = text(&limits[name]);
        if !may_overcommit(name) && amount != limit {
            let why = format_args!("must be equal to {name} limit of {shown}");
            faults.invalid(requests_path, request, why);
        } else if amount > limit {
            let why = format_args!("must be less than or equal to {name} limit of {shown}");
            faults.invalid(requests_path, request, why);
        }
    }
}

fn resource(name: &str, amount: &Value, path: &Path<'_>, faults: &mut Faults) {
    if let Err(why) = names::qualified(name) {
        faults.invalid_text(path, name, why);
    } else if !name.contains('/') && !is_standard(name) {
        faults.invalid_text(path, name, "must be a standard resource type or fully qualified");
    }
    match quantity(amount) {
        Some(quantity) if quantity < Quantity::default() => {
            faults.invalid(path, amount, "must be greater than or equal to 0");
        }
        Some(quantity) if !is_divisible(name) && quantity.milli() % 1000 != 0 => {
            faults.invalid(path, amount, "must be an integer");
        }
        _ => {}
    }
}

pub(super) fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with(HUGE_PAGES)
}

/// Devices and huge pages are handed out whole; nobody gets less than was promised.
fn may_overcommit(name: &str) -> bool {
    STANDARD.contains(&name)
}

/// Extended resources come in whole pieces.
fn is_divisible(name: &str) -> bool {
    is_standard(name)
}

fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}
