//! Where OpenAPI 2 and 3 differ in how they write a type.

use serde_json::{Value, json};

/// A version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub const fn reference_prefix(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    /// A field of a named type. Version 3 ignores whatever stands beside a `$ref`, so it goes into an `allOf`.
    pub fn referring(self, reference: Value, description: Option<&Value>) -> Value {
        let mut schema = match self {
            Self::V2 => reference,
            Self::V3 => json!({"allOf": [reference]}),
        };
        if let Some(description) = description {
            schema["description"] = description.clone();
        }
        schema
    }

    pub fn int_or_string(self, schema: &mut Value) {
        replace_marker(schema);
        schema["format"] = "int-or-string".into();
        match self {
            Self::V2 => schema["type"] = "string".into(),
            Self::V3 => schema["oneOf"] = json!([{"type": "integer"}, {"type": "string"}]),
        }
    }

    /// Leaves out what a dialect has no words for. Clients of version 2 validate by what is left, so a place that keeps
    /// unknown fields must not describe any.
    pub fn restrict(self, schema: &mut Value) {
        let (Self::V2, Some(schema)) = (self, schema.as_object_mut()) else { return };
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
            for key in ["type", "properties", "items", "additionalProperties", "required"] {
                schema.remove(key);
            }
        }
        for key in ["oneOf", "anyOf", "allOf", "not", "nullable", "default"] {
            schema.remove(key);
        }
    }

    /// A quantity, which the source writes as one more int-or-string.
    pub fn quantity(self, schema: &mut Value) {
        replace_marker(schema);
        match self {
            Self::V2 => schema["type"] = "string".into(),
            Self::V3 => schema["oneOf"] = json!([{"type": "string"}, {"type": "number"}]),
        }
    }
}

fn replace_marker(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("x-kubernetes-int-or-string");
        schema.remove("format");
    }
}
