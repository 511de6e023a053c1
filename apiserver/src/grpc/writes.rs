//! Messages that write, as what the service is asked for.
//!
//! Must never know: who asks, or how the answer travels.

use bytes::Bytes;
use claw_client::{
    Verb,
    request::{DeleteOptions, FieldValidation, PatchKind, Propagation, WriteOptions},
};
use claw_schemas::{ApiError, proto, status::Reason};
use tonic::Status;

use super::{
    objects::{Asked, JSON, invalid, resource, set},
    status::status,
};
use crate::service::limits::REQUEST_BYTES_MAX;

pub fn create(message: proto::CreateRequest, agent: Option<String>) -> Result<Asked, Status> {
    let options = write_options(message.options, agent)?;
    let verb = Verb::Create { body: body(message.object)?, options };
    Ok((resource(message.resource)?, verb))
}

pub fn update(message: proto::UpdateRequest, agent: Option<String>) -> Result<Asked, Status> {
    let options = write_options(message.options, agent)?;
    let verb = Verb::Update { body: body(message.object)?, options };
    Ok((resource(message.resource)?, verb))
}

pub fn patch(message: proto::PatchRequest, agent: Option<String>) -> Result<Asked, Status> {
    let options = write_options(message.options, agent)?;
    let kind = patch_kind(&message.patch_type)?;
    let verb = Verb::Patch { kind, body: fitting(message.patch)?, options, force: message.force };
    Ok((resource(message.resource)?, verb))
}

pub fn delete(mut message: proto::DeleteRequest) -> Result<Asked, Status> {
    let resource = resource(message.resource.take())?;
    Ok((resource, Verb::Delete(delete_options(message)?)))
}

fn patch_kind(name: &str) -> Result<PatchKind, Status> {
    Ok(match name {
        "application/json-patch+json" => PatchKind::Json,
        "application/merge-patch+json" => PatchKind::Merge,
        "application/strategic-merge-patch+json" => PatchKind::Strategic,
        "application/apply-patch+yaml" => PatchKind::Apply,
        other => {
            return Err(invalid(&format!(
                "patch_type \"{other}\" is not one of application/json-patch+json, \
                 application/merge-patch+json, application/strategic-merge-patch+json, \
                 application/apply-patch+yaml"
            )));
        }
    })
}

fn body(object: Option<proto::Object>) -> Result<Bytes, Status> {
    let object = object.ok_or_else(|| invalid("object is required"))?;
    match object.content_type.as_str() {
        "" | JSON | "application/yaml" => fitting(object.body),
        other => Err(status(&ApiError::new(
            Reason::UnsupportedMediaType,
            format!("content_type \"{other}\" is not supported; send {JSON} or application/yaml"),
        ))),
    }
}

/// The same limit as REST's, though the envelope of a message would let a little more pass.
fn fitting(body: Bytes) -> Result<Bytes, Status> {
    if body.len() <= REQUEST_BYTES_MAX {
        return Ok(body);
    }
    let why = format!("the request body is larger than the limit of {REQUEST_BYTES_MAX} bytes");
    Err(status(&ApiError::new(Reason::RequestEntityTooLarge, why)))
}

fn write_options(
    options: Option<proto::WriteOptions>,
    user_agent: Option<String>,
) -> Result<WriteOptions, Status> {
    let options = options.unwrap_or_default();
    let field_validation = match options.field_validation.as_str() {
        "" => FieldValidation::default(),
        "Ignore" => FieldValidation::Ignore,
        "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        other => {
            return Err(invalid(&format!("field_validation \"{other}\" is not one of Ignore, Warn, Strict")));
        }
    };
    Ok(WriteOptions {
        field_manager: set(options.field_manager),
        user_agent,
        field_validation,
        dry_run: options.dry_run,
    })
}

pub fn delete_options(message: proto::DeleteRequest) -> Result<DeleteOptions, Status> {
    let propagation = match message.propagation_policy.as_str() {
        "" => None,
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        other => {
            return Err(invalid(&format!(
                "propagation_policy \"{other}\" is not one of Background, Foreground, Orphan"
            )));
        }
    };
    Ok(DeleteOptions {
        grace_period_seconds: message.grace_period_seconds,
        propagation,
        precondition_uid: set(message.precondition_uid),
        precondition_resource_version: set(message.precondition_resource_version),
        dry_run: message.dry_run,
    })
}
