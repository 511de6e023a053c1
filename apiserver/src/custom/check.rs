//! Judges an object by a structural schema, in the words that `kube-apiserver` uses.
//!
//! On an update, what the old object said at the same place is not judged again (Kubernetes calls it ratcheting), so that
//! a schema that became stricter never locks an object of yesterday.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Number, Value};

use super::{
    cel::{self, Budget},
    node::{Bound, Demands, Node, Type, Unique},
};
use crate::validation::faults::{Faults, Path};

/// Judges a value, and the same place of the object that it replaces.
pub(super) fn check(
    node: &Node,
    old: Option<&Value>,
    new: &Value,
    path: &Path<'_>,
    budget: &Budget,
    faults: &mut Faults,
) {
    let (unchanged, judged) = (old == Some(new), faults.count());
    if !unchanged {
        if new.is_null() && node.nullable {
            return;
        }
        if !has_type(node, new, path, faults) {
            return;
        }
        demands(&node.demands, new, path, budget, faults);
        if let Value::Array(items) = new {
            unique(&node.unique, items, path, faults);
        }
        if node.embedded {
            embedded(new, path, faults);
        }
    }
    if !unchanged || node.looks_back {
        below(node, old, new, path, budget, faults);
    }
    // Rules look only at what is otherwise sound, and compare with the past even where nothing changed below.
    if faults.count() == judged {
        cel::judge(node, old, new, path, budget, faults);
    }
}

fn below(
    node: &Node,
    old: Option<&Value>,
    new: &Value,
    path: &Path<'_>,
    budget: &Budget,
    faults: &mut Faults,
) {
    match new {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(inner) = node.field(name) {
                    let old = old.and_then(|old| old.get(name));
                    check(inner, old, value, &path.field(name), budget, faults);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = node.items.as_deref() else { return };
            let olds = by_identity(&node.unique, old);
            for (index, item) in items.iter().enumerate() {
                let old = if olds.is_empty() { None } else { identity(&node.unique, item) };
                let old = old.and_then(|identity| olds.get(&identity).copied());
                check(inner, old, item, &path.item(index), budget, faults);
            }
        }
        _ => {}
    }
}

/// The items of a list of old by what they stand for: only those of lists with keys stand for something.
fn by_identity<'v>(unique: &Unique, old: Option<&'v Value>) -> BTreeMap<String, &'v Value> {
    let keyed = old.filter(|_| matches!(unique, Unique::ByKeys(_)));
    let items = keyed.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| Some((identity(unique, item)?, item))).collect()
}

/// By what an item of a list is told from the others, as text; `None` in lists that may repeat themselves.
fn identity(unique: &Unique, item: &Value) -> Option<String> {
    match unique {
        Unique::No => None,
        Unique::ByValue => Some(item.to_string()),
        Unique::ByKeys(keys) => {
            let values = keys.iter().map(|key| (key.clone(), item.get(key).cloned().unwrap_or_default()));
            Some(Value::Object(values.collect()).to_string())
        }
    }
}

fn has_type(node: &Node, value: &Value, path: &Path<'_>, faults: &mut Faults) -> bool {
    let fits = if node.int_or_string {
        is_integer(value) || value.is_string()
    } else {
        node.ty.is_none_or(|ty| is_of(ty, value))
    };
    if !fits {
        let wanted = if node.int_or_string { "integer,string" } else { node.ty.map_or("", Type::name) };
        type_fault(wanted, value, path, faults);
    }
    fits
}

fn type_fault(wanted: &str, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    let found = name_of(value);
    faults.type_invalid(path, value, format_args!("{path} in body must be of type {wanted}: \"{found}\""));
}

fn is_of(ty: Type, value: &Value) -> bool {
    match ty {
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn demands(wanted: &Demands, value: &Value, path: &Path<'_>, budget: &Budget, faults: &mut Faults) {
    if let Some(allowed) = &wanted.allowed
        && !allowed.iter().any(|one| equal(one, value))
    {
        faults.unsupported_values(path, value, allowed);
    }
    match value {
        Value::String(text) => on_text(wanted, text, value, path, faults),
        Value::Number(number) => on_number(wanted, number, value, path, faults),
        Value::Array(items) => on_list(wanted, items.len() as u64, value, path, faults),
        Value::Object(fields) => {
            for name in wanted.required.iter().filter(|name| !fields.contains_key(*name)) {
                faults.required(&path.field(name), "");
            }
            let count = fields.len() as u64;
            if wanted.properties_min.is_some_and(|least| count < least) {
                let least = wanted.properties_min.unwrap_or_default();
                faults.invalid(
                    path,
                    value,
                    format_args!("{path} in body should have at least {least} properties"),
                );
            }
            if let Some(most) = wanted.properties_max.filter(|most| count > *most) {
                faults.too_many(path, whole(count), whole(most));
            }
        }
        _ => {}
    }
    branches(wanted, value, path, budget, faults);
}

fn on_text(wanted: &Demands, text: &str, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    let letters = text.chars().count() as u64;
    if let Some(least) = wanted.length_min.filter(|least| letters < *least) {
        faults.invalid(path, value, format_args!("{path} in body should be at least {least} chars long"));
    }
    if let Some(most) = wanted.length_max.filter(|most| letters > *most) {
        faults.too_long(path, whole(most));
    }
    if let Some(pattern) = wanted.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        faults.invalid(path, value, format_args!("{path} in body should match '{pattern}'"));
    }
    if let Some(format) = wanted.format.filter(|format| !format.accepts(text)) {
        let wanted = format.name();
        faults.type_invalid(path, value, format_args!("{path} in body must be of type {wanted}: {value}"));
    }
}

fn on_number(wanted: &Demands, number: &Number, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut bound = |bound: &Option<Bound>, than: &str, broken: fn(f64, f64) -> bool| {
        let Some(Bound { at, exclusive }) = bound else { return };
        let (found, limit) = (as_f64(number), as_f64(at));
        if broken(found, limit) || *exclusive && equal_numbers(number, at) {
            let equal = if *exclusive { "" } else { " or equal to" };
            faults.invalid(path, value, format_args!("{path} in body should be {than} than{equal} {at}"));
        }
    };
    bound(&wanted.minimum, "greater", |found, limit| found < limit);
    bound(&wanted.maximum, "less", |found, limit| found > limit);
    if let Some(step) = wanted.multiple_of.as_ref().filter(|step| !is_multiple(number, step)) {
        faults.invalid(path, value, format_args!("{path} in body should be a multiple of {step}"));
    }
}

fn on_list(wanted: &Demands, count: u64, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if let Some(least) = wanted.items_min.filter(|least| count < *least) {
        faults.invalid(path, value, format_args!("{path} in body should have at least {least} items"));
    }
    if let Some(most) = wanted.items_max.filter(|most| count > *most) {
        faults.too_many(path, whole(count), whole(most));
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`. What a branch that need not hold has against the value is nobody's concern.
fn branches(wanted: &Demands, value: &Value, path: &Path<'_>, budget: &Budget, faults: &mut Faults) {
    let holds = |branch: &&Node| {
        let mut found = Faults::default();
        check(branch, None, value, path, budget, &mut found);
        found.count() == 0
    };
    for branch in &wanted.all_of {
        check(branch, None, value, path, budget, faults);
    }
    if !wanted.any_of.is_empty() && !wanted.any_of.iter().any(|branch| holds(&branch)) {
        faults.invalid(path, value, format_args!("\"{path}\" must validate at least one schema (anyOf)"));
    }
    if !wanted.one_of.is_empty() {
        let valid = wanted.one_of.iter().filter(holds).count();
        if valid != 1 {
            let found =
                if valid == 0 { "none valid".to_owned() } else { format!("{valid} valid alternatives") };
            let why = format_args!("\"{path}\" must validate one and only one schema (oneOf). Found {found}");
            faults.invalid(path, value, why);
        }
    }
    if wanted.not.as_deref().is_some_and(|branch| holds(&branch)) {
        faults.invalid(path, value, format_args!("\"{path}\" must not validate the schema (not)"));
    }
}

fn unique(unique: &Unique, items: &[Value], path: &Path<'_>, faults: &mut Faults) {
    if *unique == Unique::No {
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(text) = identity(unique, item)
            && !seen.insert(text.clone())
        {
            let shown = serde_json::from_str(&text).unwrap_or(Value::Null);
            faults.duplicate(&path.item(index), &shown);
        }
    }
}

/// An object in the object says what it is.
fn embedded(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    for field in ["apiVersion", "kind"] {
        if value[field].as_str().unwrap_or_default().is_empty() {
            faults.required(&path.field(field), "must not be empty");
        }
    }
}

fn whole(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn as_f64(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

fn equal_numbers(a: &Number, b: &Number) -> bool {
    a == b || as_f64(a).total_cmp(&as_f64(b)).is_eq()
}

/// Equal as JSON Schema sees it: 1 is 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => equal_numbers(a, b),
        _ => a == b,
    }
}

fn is_multiple(number: &Number, step: &Number) -> bool {
    match (number.as_i64(), step.as_i64()) {
        (Some(number), Some(step)) if step != 0 => number.checked_rem(step).is_none_or(|rest| rest == 0),
        _ => {
            let ratio = as_f64(number) / as_f64(step);
            (ratio - ratio.round()).abs() < 1e-9
        }
    }
}

#[cfg(test)]
mod tests;
