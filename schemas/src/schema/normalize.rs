//! Brings a well-typed object into the form that is stored.

use jiff::Timestamp;
use serde_json::Value;

use super::{Place, Scalar, Shape, time};
use crate::quantity;

pub(super) fn normalize(place: Place<'_>, value: &mut Value) {
    match (place.shape(), value) {
        (Shape::Struct(_), Value::Object(fields)) => fields.retain(|name, value| {
            let Some(place) = place.field(name) else { return false };
            if value.is_null() {
                return false;
            }
            normalize(place, value);
            true
        }),
        (Shape::Map(values), Value::Object(entries)) => {
            entries.values_mut().for_each(|value| element(place.at(*values), value));
        }
        (Shape::List(items), Value::Array(values)) => {
            values.iter_mut().for_each(|value| element(place.at(*items), value));
        }
        (Shape::Scalar(Scalar::Quantity), value) => {
            let text = match &*value {
                Value::String(text) => quantity::canonical(text),
                Value::Number(number) => quantity::canonical(&number.to_string()),
                _ => None,
            };
            if let Some(text) = text {
                *value = Value::String(text);
            }
        }
        (Shape::Scalar(Scalar::Number), value) => {
            if let Some(whole) = value.as_f64().filter(|_| value.is_f64()).and_then(whole) {
                *value = whole.into();
            }
        }
        (Shape::Scalar(Scalar::Time), Value::String(text)) => rewrite(text, time::in_seconds),
        (Shape::Scalar(Scalar::MicroTime), Value::String(text)) => rewrite(text, time::in_micros),
        _ => {}
    }
}

/// `1.0` is written `1`, as clients in Go do, so that nobody changes an object by writing back what was read. Up to 2^53 all whole
/// numbers are told apart.
#[expect(clippy::cast_possible_truncation, reason = "a whole number in the range of i64")]
fn whole(value: f64) -> Option<i64> {
    let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
    (exact && !(value == 0.0 && value.is_sign_negative())).then_some(value as i64)
}

fn rewrite(text: &mut String, write: impl FnOnce(Timestamp) -> String) {
    if let Some(time) = time::read(text) {
        *text = write(time);
    }
}

/// Drops the unknown fields of a custom object. Its metadata, and that of objects in it, are built-in structures: they
/// have a name.
pub(super) fn prune(place: Place<'_>, value: &mut Value) {
    match (place.shape(), value) {
        (Shape::Struct(shape), value) if !shape.name.is_empty() => normalize(place, value),
        (Shape::Struct(_), Value::Object(fields)) => fields.retain(|name, value| {
            let Some(place) = place.field(name) else { return place.keeps_unknown() };
            prune(place, value);
            true
        }),
        (Shape::Map(values), Value::Object(entries)) => {
            entries.values_mut().for_each(|value| prune(place.at(*values), value));
        }
        (Shape::List(items), Value::Array(values)) => {
            values.iter_mut().for_each(|value| prune(place.at(*items), value));
        }
        _ => {}
    }
}

/// A null in a map or a list holds its place, as the zero value.
fn element(place: Place<'_>, value: &mut Value) {
    if value.is_null() {
        *value = match place.shape() {
            Shape::Any => Value::Null,
            Shape::Struct(_) | Shape::Map(_) => Value::Object(serde_json::Map::new()),
            Shape::List(_) => Value::Array(Vec::new()),
            Shape::Scalar(scalar) => zero(*scalar),
        };
    }
    normalize(place, value);
}

fn zero(scalar: Scalar) -> Value {
    match scalar {
        Scalar::String | Scalar::Bytes => Value::from(""),
        // Go's zero time: what a client in Go reads back as a time that was never set.
        Scalar::Time => Value::from("0001-01-01T00:00:00Z"),
        Scalar::MicroTime => Value::from("0001-01-01T00:00:00.000000Z"),
        Scalar::Int32 | Scalar::Int64 | Scalar::Number | Scalar::IntOrString => Value::from(0),
        Scalar::Boolean => Value::from(false),
        Scalar::Quantity => Value::from("0"),
    }
}
