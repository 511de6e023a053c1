//! From a request body to an object of the expected kind in stored form: decode, check the type, check every field.

use claw_client::request::FieldValidation;
use claw_schemas::{ApiError, status::Reason};
use serde_json::Value;

use super::{
    decode,
    kinds::{Served, method_not_allowed},
    object::metadata_mut,
};

/// A checked object.
pub(super) struct Incoming {
    pub object: Value,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

/// Decodes an object of a kind.
pub(super) fn object(kind: &Served, body: &[u8], validation: FieldValidation) -> Result<Incoming, ApiError> {
    let document = decode::document(body)?;
    check_fields(kind, document.value, &document.duplicates, validation)
}

/// Checks an object that claims to be of a kind, and brings it into stored form.
pub(super) fn check_fields(
    kind: &Served,
    mut object: Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Incoming, ApiError> {
    let descriptor = &kind.descriptor;
    expect_type(&mut object, &kind.api_version, &descriptor.kind)?;
    let schema = descriptor.compiled();
    let mut report = schema.check(&object);
    if !descriptor.builtin {
        // The fields of custom kinds are judged by validation, beside all that is wrong with them.
        report.errors.retain(|cause| cause.field.starts_with("metadata"));
    }
    if let Some(error) = report.type_error(descriptor) {
        return Err(error);
    }
    let mut faults = report.warnings();
    faults.extend(duplicates.iter().map(|path| format!("duplicate field \"{path}\"")));
    if validation == FieldValidation::Strict && !faults.is_empty() {
        let (name, version) = (&descriptor.kind, &descriptor.version);
        return Err(ApiError::bad_request(format!(
            "{name} in version \"{version}\" cannot be handled as a {name}: strict decoding error: {}",
            faults.join(", ")
        )));
    }
    if validation == FieldValidation::Ignore {
        faults.clear();
    }
    schema.normalize(&mut object);
    metadata_mut(&mut object);
    Ok(Incoming { object, warnings: faults })
}

/// Decodes a document of a type that has no schema here: `Scale`, `Binding`, `Eviction`.
pub(super) fn document(body: &[u8], api_version: &str, kind: &str) -> Result<Value, ApiError> {
    let mut value = decode::document(body)?.value;
    expect_type(&mut value, api_version, kind)?;
    Ok(value)
}

/// Fills in `apiVersion` and `kind` where they are missing, and refuses others.
fn expect_type(object: &mut Value, api_version: &str, kind: &str) -> Result<(), ApiError> {
    for (field, expected, what) in [("apiVersion", api_version, "API version"), ("kind", kind, "kind")] {
        match object[field].as_str() {
            Some(found) if found == expected => {}
            None | Some("") => object[field] = expected.into(),
            Some(found) => {
                return Err(ApiError::bad_request(format!(
                    "the {what} in the data ({found}) does not match the expected {what} ({expected})"
                )));
            }
        }
    }
    Ok(())
}

/// Refuses an object that is too large to store.
pub(super) fn check_stored_size(bytes: usize) -> Result<(), ApiError> {
    use super::limits::OBJECT_BYTES_MAX;
    if bytes > OBJECT_BYTES_MAX {
        return Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("the object would take {bytes} bytes, the limit is {OBJECT_BYTES_MAX}: split it up"),
        ));
    }
    Ok(())
}

/// The target must name one object.
pub(super) fn require_name(target: &super::kinds::Target) -> Result<(), ApiError> {
    if target.name.is_empty() { Err(method_not_allowed()) } else { Ok(()) }
}
