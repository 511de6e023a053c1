//! Collects what is wrong, each fault with the path of its field.

use std::fmt;

use claw_schemas::status::Cause;
use serde_json::Value;

/// Faults reported for one object at most; whoever sends more learns of the rest after fixing these.
const FAULTS_MAX: usize = 50;
/// Longest value that a message quotes, in bytes. Longer ones are cut, so that an error never outgrows its object.
const QUOTED_BYTES_MAX: usize = 512;

/// The way to a field, kept on the stack so that a sound object costs no allocation.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub fn field(&'a self, name: &'a str) -> Self {
        Self::Field(self, name)
    }

    pub fn item(&'a self, index: usize) -> Self {
        Self::Item(self, index)
    }

    /// An entry of a map: `data[key]`.
    pub fn key(&'a self, key: &'a str) -> Self {
        Self::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Faults(Vec<Cause>);

impl Faults {
    pub fn into_causes(self) -> Vec<Cause> {
        self.0
    }

    /// Whether something is wrong at that path already.
    pub fn has(&self, field: &str) -> bool {
        self.0.iter().any(|cause| cause.field == field)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn add(&mut self, reason: &str, path: &Path<'_>, message: String) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(Cause { reason: reason.to_owned(), message, field: path.to_string() });
        }
    }

    /// `Required value: why`; `why` may be empty.
    pub fn required(&mut self, path: &Path<'_>, why: &str) {
        let Cause { message, .. } = Cause::required("", why);
        self.add("FieldValueRequired", path, message);
    }

    /// `Invalid value: "x": why`
    pub fn invalid(&mut self, path: &Path<'_>, value: &Value, why: impl fmt::Display) {
        self.add("FieldValueInvalid", path, format!("Invalid value: {}: {why}", quoted(value)));
    }

    /// As [`Self::invalid`], for a value that is text.
    pub fn invalid_text(&mut self, path: &Path<'_>, text: &str, why: impl fmt::Display) {
        self.invalid(path, &Value::from(text), why);
    }

    /// `Unsupported value: "x": supported values: "a", "b"`
    pub fn unsupported(&mut self, path: &Path<'_>, value: &Value, allowed: &[&str]) {
        let shown = if value.is_null() { "\"\"".to_owned() } else { quoted(value) };
        let allowed: Vec<String> = allowed.iter().map(|word| format!("\"{word}\"")).collect();
        self.add(
            "FieldValueNotSupported",
            path,
            format!("Unsupported value: {shown}: supported values: {}", allowed.join(", ")),
        );
    }

    /// As [`Self::unsupported`], where the values need not be text.
    pub fn unsupported_values(&mut self, path: &Path<'_>, value: &Value, allowed: &[Value]) {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let message =
            format!("Unsupported value: {}: supported values: {}", quoted(value), allowed.join(", "));
        self.add("FieldValueNotSupported", path, message);
    }

    /// As [`Self::invalid`], for a value of a wrong type.
    pub fn type_invalid(&mut self, path: &Path<'_>, value: &Value, why: impl fmt::Display) {
        self.add("FieldValueTypeInvalid", path, format!("Invalid value: {}: {why}", quoted(value)));
    }

    /// A fault under a reason of the caller's choice.
    pub fn other(&mut self, reason: &str, path: &Path<'_>, message: String) {
        self.add(reason, path, message);
    }

    /// `Forbidden: why`
    pub fn forbidden(&mut self, path: &Path<'_>, why: impl fmt::Display) {
        self.add("FieldValueForbidden", path, format!("Forbidden: {why}"));
    }

    /// `Duplicate value: "x"`
    pub fn duplicate(&mut self, path: &Path<'_>, value: &Value) {
        self.add("FieldValueDuplicate", path, format!("Duplicate value: {}", quoted(value)));
    }

    /// `Not found: "x"`
    pub fn not_found(&mut self, path: &Path<'_>, value: &Value) {
        self.add("FieldValueNotFound", path, format!("Not found: {}", quoted(value)));
    }

    /// `Too many: N: must have at most M items`
    pub fn too_many(&mut self, path: &Path<'_>, count: usize, max: usize) {
        let message = format!("Too many: {count}: must have at most {max} items");
        self.add("FieldValueTooMany", path, message);
    }

    /// `Too long: may not be more than N bytes`
    pub fn too_long(&mut self, path: &Path<'_>, bytes_max: usize) {
        self.add("FieldValueTooLong", path, format!("Too long: may not be more than {bytes_max} bytes"));
    }
}

fn quoted(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > QUOTED_BYTES_MAX {
        text.truncate(text.floor_char_boundary(QUOTED_BYTES_MAX));
        text.push_str("...");
    }
    text
}
