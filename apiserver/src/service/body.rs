//! From a request body to an object of the expected kind in stored form: decode, check the type, check every field.

use claw_client::request::FieldValidation;
use claw_schemas::{ApiError, status::Reason};
use serde_json::{Map, Value};

use super::{
    decode,
    kinds::{Served, method_not_allowed},
    limits::{DOCUMENT_DEPTH_MAX, WARNING_BYTES_MAX, WARNINGS_BYTES_MAX},
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
    check_depth(&object)?;
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
    let duplicates = duplicates.iter().map(|path| format!("duplicate field \"{path}\""));
    let mut faults = told(report.warnings().into_iter().chain(duplicates).collect());
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

/// Faults as far as headers carry them: long ones are cut, and of very many the rest is counted.
pub(super) fn told(faults: Vec<String>) -> Vec<String> {
    let (count, mut bytes) = (faults.len(), 0);
    let mut told: Vec<String> = Vec::new();
    for mut fault in faults {
        if fault.len() > WARNING_BYTES_MAX {
            fault.truncate(fault.floor_char_boundary(WARNING_BYTES_MAX));
            fault.push('…');
        }
        bytes += fault.len();
        if bytes > WARNINGS_BYTES_MAX {
            told.push(format!("and {} more like these", count - told.len()));
            break;
        }
        told.push(fault);
    }
    told
}

/// Refuses an object that nests deeper than the body of a request may: a patch can add level upon level, and what is
/// stored must be read again. Who owns fields is the server's to write, and nests a few levels deeper than they do.
fn check_depth(object: &Value) -> Result<(), ApiError> {
    let fits = |members: &Map<String, Value>, levels: usize, but: &str| {
        members.iter().filter(|(name, _)| *name != but).all(|(_, value)| nests_within(value, levels))
    };
    let metadata = object["metadata"].as_object();
    let inside = DOCUMENT_DEPTH_MAX - 1;
    let shallow = object.as_object().is_none_or(|members| fits(members, inside, "metadata"))
        && metadata.is_none_or(|members| fits(members, inside - 1, "managedFields"));
    if shallow {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the object nests deeper than {DOCUMENT_DEPTH_MAX} levels: flatten it"
    )))
}

fn nests_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(members) => levels > 0 && members.values().all(|value| nests_within(value, levels - 1)),
        Value::Array(items) => levels > 0 && items.iter().all(|item| nests_within(item, levels - 1)),
        _ => true,
    }
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
