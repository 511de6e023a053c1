//! Finds unknown fields and wrong types, with the path of each.

use std::fmt;

use serde_json::Value;

use super::{Place, Scalar, Shape, time};
use crate::{
    ApiError,
    quantity::Quantity,
    registry::Descriptor,
    status::{Cause, Reason},
};

/// Faults reported for one object at most; whoever sends more learns of the rest after fixing these.
const FAULTS_MAX: usize = 50;

/// What [`super::Schema::check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Paths of fields that the kind does not have: `spec.template.spec.containers[0].imagee`.
    pub unknown: Vec<String>,
    /// Values of a wrong type.
    pub errors: Vec<Cause>,
}

impl Report {
    /// The 400 that refuses an object with wrongly typed values, if there are any.
    pub fn type_error(&self, kind: &Descriptor) -> Option<ApiError> {
        if self.errors.is_empty() {
            return None;
        }
        let faults: Vec<String> =
            self.errors.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let mut error = Self::refusal(kind, &faults.join(", "));
        error.details.causes.clone_from(&self.errors);
        Some(error)
    }

    /// The 400 that `fieldValidation=Strict` answers to unknown fields, if there are any.
    pub fn strict_error(&self, kind: &Descriptor) -> Option<ApiError> {
        let warnings = self.warnings();
        (!warnings.is_empty())
            .then(|| Self::refusal(kind, &format!("strict decoding error: {}", warnings.join(", "))))
    }

    /// The texts that `fieldValidation=Warn` sends for unknown fields.
    pub fn warnings(&self) -> Vec<String> {
        self.unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect()
    }

    fn refusal(kind: &Descriptor, why: &str) -> ApiError {
        let (name, version) = (&kind.kind, &kind.version);
        ApiError::new(
            Reason::BadRequest,
            format!("{name} in version \"{version}\" cannot be handled as a {name}: {why}"),
        )
    }
}

/// The way to a value, kept on the stack so that a sound object costs no allocation.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

pub(super) fn check(place: Place<'_>, value: &Value) -> Report {
    let mut report = Report::default();
    walk(place, value, &Path::Root, &mut report);
    report
}

fn walk(place: Place<'_>, value: &Value, path: &Path<'_>, report: &mut Report) {
    match (place.shape(), value) {
        (_, Value::Null) | (Shape::Any, _) => {}
        (Shape::Struct(_), Value::Object(fields)) => {
            for (name, value) in fields {
                let path = Path::Field(path, name);
                match place.field(name) {
                    Some(place) => walk(place, value, &path, report),
                    None if place.keeps_unknown() => {}
                    None if report.unknown.len() < FAULTS_MAX => report.unknown.push(path.to_string()),
                    None => {}
                }
            }
        }
        (Shape::Map(values), Value::Object(entries)) => {
            for (key, value) in entries {
                walk(place.at(*values), value, &Path::Field(path, key), report);
            }
        }
        (Shape::List(items), Value::Array(values)) => {
            for (index, value) in values.iter().enumerate() {
                walk(place.at(*items), value, &Path::Item(path, index), report);
            }
        }
        (Shape::Struct(_) | Shape::Map(_), _) => fault(path, value, "must be an object", report),
        (Shape::List(_), _) => fault(path, value, "must be a list", report),
        (Shape::Scalar(scalar), _) => {
            if let Err(why) = scalar.accepts(value) {
                fault(path, value, why, report);
            }
        }
    }
}

fn fault(path: &Path<'_>, value: &Value, why: &str, report: &mut Report) {
    if report.errors.len() >= FAULTS_MAX {
        return;
    }
    let shown = match value {
        Value::Object(_) => "object".to_owned(),
        Value::Array(_) => "list".to_owned(),
        leaf => leaf.to_string(),
    };
    report.errors.push(Cause {
        reason: "FieldValueTypeInvalid".to_owned(),
        ..Cause::invalid(path.to_string(), shown, why)
    });
}

impl Scalar {
    /// Whether a value is of this type, and otherwise what it must be.
    ///
    /// # Errors
    /// The rest of the sentence "this value ...".
    pub fn accepts(self, value: &Value) -> Result<(), &'static str> {
        let text = value.as_str();
        let ok = match self {
            Self::String => text.is_some(),
            Self::Bytes => text.is_some_and(is_base64),
            Self::Time | Self::MicroTime => text.is_some_and(|text| time::read(text).is_some()),
            Self::Int32 => value.as_i64().is_some_and(fits_32_bits),
            Self::Int64 => value.is_i64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::IntOrString => text.is_some() || value.as_i64().is_some_and(fits_32_bits),
            Self::Quantity => match value {
                Value::String(text) => text.parse::<Quantity>().is_ok(),
                Value::Number(number) => number.to_string().parse::<Quantity>().is_ok(),
                _ => false,
            },
        };
        if ok { Ok(()) } else { Err(self.demand()) }
    }

    const fn demand(self) -> &'static str {
        match self {
            Self::String => "must be a string",
            Self::Bytes => "must be a string in standard base64",
            Self::Time | Self::MicroTime => "must be a time as in RFC 3339, such as 2006-01-02T15:04:05Z",
            Self::Int32 => "must be an integer of 32 bits",
            Self::Int64 => "must be an integer of 64 bits",
            Self::Number => "must be a number",
            Self::Boolean => "must be true or false",
            Self::IntOrString => "must be an integer of 32 bits or a string",
            Self::Quantity => {
                "must be a quantity: a number with an optional suffix, such as 500m, 2, 1.5Gi or 128M"
            }
        }
    }
}

fn fits_32_bits(number: i64) -> bool {
    i32::try_from(number).is_ok()
}

/// Standard alphabet with padding, as Go's `encoding/base64` demands of it.
fn is_base64(text: &str) -> bool {
    let text = text.as_bytes();
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    text.len().is_multiple_of(4)
        && padding <= 2
        && text[..text.len() - padding]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
