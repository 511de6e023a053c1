//! Limit ranges: what one container, pod or claim may ask for, and what it gets when it does not ask.

use std::collections::{BTreeSet, HashSet};

use claw_schemas::quantity::Quantity;
use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    is_empty, names, text,
};

const AMOUNTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// Pairs of amounts of which the first may not exceed the second, and how the two are called.
const ORDER: [(&str, &str, &str, &str); 6] = [
    ("min", "max", "min value", "max value"),
    ("min", "defaultRequest", "min value", "default request value"),
    ("defaultRequest", "max", "default request value", "max value"),
    ("defaultRequest", "default", "default request value", "default limit value"),
    ("min", "default", "min value", "default value"),
    ("default", "max", "default value", "max value"),
];

pub(super) fn limit_range(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let spec = &Path::Root.field("spec");
    let mut seen = HashSet::new();
    each(&new["spec"]["limits"], &spec.field("limits"), |limit, path| {
        kind(&limit["type"], &path.field("type"), faults);
        if !seen.insert(text(&limit["type"])) {
            faults.duplicate(&path.field("type"), &limit["type"]);
        }
        forbidden(limit, path, faults);
        amounts(limit, path, faults);
    });
}

fn kind(kind: &Value, path: &Path<'_>, faults: &mut Faults) {
    if let Err(why) = names::qualified(text(kind)) {
        faults.invalid(path, kind, why);
    } else if !text(kind).contains('/')
        && !matches!(text(kind), "Pod" | "Container" | "PersistentVolumeClaim")
    {
        faults.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
}

fn forbidden(limit: &Value, path: &Path<'_>, faults: &mut Faults) {
    if limit["type"] == "Pod" {
        for field in ["default", "defaultRequest"].into_iter().filter(|field| has_some(&limit[*field])) {
            faults.forbidden(&path.field(field), "may not be specified when `type` is 'Pod'");
        }
    }
    let storage = |field: &str| !is_empty(&limit[field]["storage"]);
    if limit["type"] == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        faults
            .required(path, "either minimum or maximum storage value is required, but neither was provided");
    }
}

fn has_some(map: &Value) -> bool {
    map.as_object().is_some_and(|map| !map.is_empty())
}

fn amounts(limit: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut resources = BTreeSet::new();
    for field in AMOUNTS {
        resources.extend(limit[field].as_object().into_iter().flatten().map(|(name, _)| name.as_str()));
    }
    for resource in resources {
        let amount = |field: &str| text(&limit[field][resource]).parse::<Quantity>().ok();
        for (lower, upper, lower_name, upper_name) in ORDER {
            if let (Some(low), Some(high)) = (amount(lower), amount(upper))
                && low > high
            {
                let (low, high) = (&limit[lower][resource], text(&limit[upper][resource]));
                let why = format_args!("{lower_name} {} is greater than {upper_name} {high}", text(low));
                let field = &path.field(lower);
                faults.invalid(&field.key(resource), low, why);
            }
        }
        if amount("maxLimitRequestRatio").is_some_and(|ratio| ratio < Quantity::from_units(1)) {
            let ratio = &limit["maxLimitRequestRatio"][resource];
            let field = &path.field("maxLimitRequestRatio");
            let why = format_args!("ratio {} is less than 1", text(ratio));
            faults.invalid(&field.key(resource), ratio, why);
        }
    }
}
