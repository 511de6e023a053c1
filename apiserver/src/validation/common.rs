//! What many rules ask of a value.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    faults::{Faults, Path},
    names::{self, Grammar},
};

/// The items of a list, with the path of each.
pub(crate) fn each<'v>(list: &'v Value, path: &Path<'_>, mut judge: impl FnMut(&'v Value, &Path<'_>)) {
    for (index, item) in list.as_array().into_iter().flatten().enumerate() {
        judge(item, &path.item(index));
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether nothing was said: absent or empty text.
pub(super) fn is_empty(value: &Value) -> bool {
    text(value).is_empty() && !value.is_number() && !value.is_boolean()
}

pub(super) fn len(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

/// Whether a field says something.
pub(super) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// A number that must not be negative, if it is there.
pub(super) fn not_negative(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    at_least(0, value, path, faults);
}

/// A number that must not be smaller, if it is there.
pub(super) fn at_least(least: i64, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if value.as_i64().is_some_and(|number| number < least) {
        faults.invalid(path, value, format_args!("must be greater than or equal to {least}"));
    }
}

/// A text that must be one of a few.
pub(super) fn one_of(value: &Value, allowed: &[&str], path: &Path<'_>, faults: &mut Faults) {
    if !allowed.contains(&text(value)) {
        faults.unsupported(path, value, allowed);
    }
}

/// As [`one_of`]; that nothing is said at all is a fault of its own.
pub(super) fn required_one_of(value: &Value, allowed: &[&str], path: &Path<'_>, faults: &mut Faults) {
    if is_empty(value) {
        faults.required(path, "");
    } else {
        one_of(value, allowed, path, faults);
    }
}

/// As [`one_of`], if anything is said.
pub(super) fn optional_one_of(value: &Value, allowed: &[&str], path: &Path<'_>, faults: &mut Faults) {
    if !is_empty(value) {
        one_of(value, allowed, path, faults);
    }
}

/// A text that must follow a grammar, if it is there.
pub(super) fn fits(grammar: Grammar, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if !is_empty(value)
        && let Err(why) = grammar(text(value))
    {
        faults.invalid(path, value, why);
    }
}

/// A text that must be there and follow a grammar.
pub(super) fn named(grammar: Grammar, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if is_empty(value) {
        faults.required(path, "");
    } else {
        fits(grammar, value, path, faults);
    }
}

/// A list of texts that may hold each only once.
pub(super) fn distinct(list: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    each(list, path, |item, path| {
        if !seen.insert(text(item)) {
            faults.duplicate(path, item);
        }
    });
}

/// A field that keeps the value it was created with.
pub(super) fn immutable(old: &Value, new: &Value, field: &str, path: &Path<'_>, faults: &mut Faults) {
    if old[field] != new[field] {
        faults.invalid(&path.field(field), &new[field], "field is immutable");
    }
}

/// A number between two others, if it is given.
pub(super) fn between(
    field: &str,
    (least, most): (i64, i64),
    spec: &Value,
    path: &Path<'_>,
    faults: &mut Faults,
) {
    if spec[field].as_i64().is_some_and(|number| !(least..=most).contains(&number)) {
        let why = format_args!("must be between {least} and {most}, inclusive");
        faults.invalid(&path.field(field), &spec[field], why);
    }
}

/// What a controller may say in conditions that all kinds of one make write alike.
pub(super) fn conditions(conditions: &Value, path: &Path<'_>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    each(conditions, path, |condition, path| {
        named(names::qualified, &condition["type"], &path.field("type"), faults);
        if !seen.insert(text(&condition["type"])) {
            faults.duplicate(&path.field("type"), &condition["type"]);
        }
        required_one_of(&condition["status"], &["False", "True", "Unknown"], &path.field("status"), faults);
        not_negative(&condition["observedGeneration"], &path.field("observedGeneration"), faults);
        for field in ["lastTransitionTime", "reason"] {
            if is_empty(&condition[field]) {
                faults.required(&path.field(field), "");
            }
        }
    });
}

/// A number of pods, or a share of them.
pub(super) fn amount(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if value.is_string() && percent(value).is_none() {
        let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
        faults.invalid(path, value, why);
    }
    not_negative(value, path, faults);
}

/// As [`amount`]; more than all is too much.
pub(super) fn share(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    amount(value, path, faults);
    if percent(value).is_some_and(|percent| percent > 100) {
        faults.invalid(path, value, "must not be greater than 100%");
    }
}

pub(super) fn percent(value: &Value) -> Option<u32> {
    let digits = value.as_str()?.strip_suffix('%')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

pub(super) fn is_zero(value: &Value) -> bool {
    value.as_i64() == Some(0) || percent(value) == Some(0)
}

/// A port by number or by name.
pub(super) fn port(port: &Value, path: &Path<'_>, faults: &mut Faults) {
    let verdict = match port.as_i64() {
        Some(number) => names::port_number(number),
        None => names::port(text(port)),
    };
    if let Err(why) = verdict {
        faults.invalid(path, port, why);
    }
}

/// The number of a port.
pub(super) fn port_number(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if let Err(why) = names::port_number(value.as_i64().unwrap_or(0)) {
        faults.invalid(path, value, why);
    }
}
