//! Quotas of a namespace.

use claw_schemas::quantity::Quantity;
use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    immutable, len, names, resources, text,
};

/// Countable kinds by their older names.
const COUNTED: [&str; 10] = [
    "pods",
    "services",
    "services.nodeports",
    "services.loadbalancers",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
];

/// Which pods a quota is about, and what such a quota may limit.
const SCOPES: [(&str, Limits); 7] = [
    ("Terminating", Limits::Compute),
    ("NotTerminating", Limits::Compute),
    ("NotBestEffort", Limits::Compute),
    ("BestEffort", Limits::Pods),
    ("PriorityClass", Limits::Anything),
    ("CrossNamespacePodAffinity", Limits::Compute),
    ("VolumeAttributesClass", Limits::Anything),
];

#[derive(Clone, Copy, PartialEq)]
enum Limits {
    Anything,
    Compute,
    Pods,
}

const EXCLUSIVE: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];

pub(super) fn resource_quota(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    let hard = &path.field("hard");
    for (name, amount) in spec["hard"].as_object().into_iter().flatten() {
        resource(name, &hard.key(name), faults);
        if let Ok(quantity) = text(amount).parse::<Quantity>() {
            value(name, quantity, amount, &hard.key(name), faults);
        }
    }
    scopes(spec, path, faults);
    selector(&spec["scopeSelector"]["matchExpressions"], &path.field("scopeSelector"), faults);
    if let Some(old) = old {
        for field in ["scopes", "scopeSelector"] {
            immutable(&old["spec"], spec, field, path, faults);
        }
    }
}

fn resource(name: &str, path: &Path<'_>, faults: &mut Faults) {
    if let Err(why) = names::qualified(name) {
        faults.invalid_text(path, name, why);
    } else if !name.contains('/') && !is_standard(name) {
        faults.invalid_text(path, name, "must be a standard resource for quota");
    }
}

fn value(name: &str, quantity: Quantity, amount: &Value, path: &Path<'_>, faults: &mut Faults) {
    if quantity < Quantity::default() {
        faults.invalid(path, amount, "must be greater than or equal to 0");
    }
    let whole = COUNTED.contains(&name) && name != "storage" || name.starts_with("count/");
    if whole && quantity.milli() % 1000 != 0 {
        faults.invalid(path, amount, "must be an integer");
    }
}

fn is_standard(name: &str) -> bool {
    let plain = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    COUNTED.contains(&name) || plain == "storage" || resources::is_standard(plain)
}

fn is_compute(name: &str) -> bool {
    let plain = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    name == "pods" || resources::is_standard(plain)
}

fn scopes(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (scopes, path) = (&spec["scopes"], &path.field("scopes"));
    let has = |scope: &str| scopes.as_array().is_some_and(|list| list.iter().any(|other| other == scope));
    for scope in scopes.as_array().into_iter().flatten() {
        let Some((_, limits)) = SCOPES.iter().find(|(name, _)| scope == name) else {
            faults.invalid(path, scopes, "unsupported scope");
            continue;
        };
        let fits = |name: &String| match limits {
            Limits::Anything => true,
            Limits::Compute => is_compute(name),
            Limits::Pods => name == "pods",
        };
        if !spec["hard"].as_object().is_none_or(|hard| hard.keys().all(fits)) {
            faults.invalid(path, scopes, "unsupported scope applied to resource");
        }
    }
    if EXCLUSIVE.iter().any(|(one, other)| has(one) && has(other)) {
        faults.invalid(path, scopes, "conflicting scopes");
    }
}

fn selector(expressions: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(expressions, &path.field("matchExpressions"), |expression, path| {
        if !SCOPES.iter().any(|(name, _)| expression["scopeName"] == *name) {
            faults.invalid(&path.field("scopeName"), &expression["scopeName"], "unsupported scope");
        }
        let (operator, values) = (&expression["operator"], &path.field("values"));
        match (text(operator), len(&expression["values"])) {
            ("In" | "NotIn", 0) => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                faults.required(values, why);
            }
            ("Exists" | "DoesNotExist", 1..) => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                faults.invalid(values, &expression["values"], why);
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            _ => faults.invalid(&path.field("operator"), operator, "not a valid selector operator"),
        }
    });
}
