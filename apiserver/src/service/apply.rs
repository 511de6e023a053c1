//! Server-side apply: a manager sends in full what it wants of an object, which is made if it is not there.

use claw_client::{
    Response,
    request::{FieldValidation, View, WriteOptions},
};
use claw_schemas::{
    ApiError,
    status::{Cause, Reason},
};
use serde_json::{Map, Value};

use super::{
    ObjectService,
    body::{self, Incoming},
    create::prepare,
    decode,
    hooks::How,
    kinds::Target,
    limits::CONFLICT_RETRIES_MAX,
    object::{check_name, metadata_mut, text},
    owners::{self, Claims},
    sealed::Sealed,
    unattended,
    update::{Part, Proposal},
    view,
};
use crate::fields::{self, Conflict, Halt, Manager, Operation, Refusal, Subject, Versions};

/// What `apply` is asked for.
pub(super) struct Asked<'a> {
    pub part: Part,
    pub body: &'a [u8],
    pub options: &'a WriteOptions,
    /// Take fields that others own.
    pub force: bool,
    pub view: View,
}

impl ObjectService {
    pub(super) async fn apply(&self, target: &Target, asked: Asked<'_>) -> Result<Response, ApiError> {
        body::require_name(target)?;
        let manager = applier(target, asked.part.subresource(), asked.options)?;
        let Incoming { object: mut config, mut warnings } =
            config(target, asked.body, asked.options.field_validation)?;
        if text(&config, "name").is_empty() {
            metadata_mut(&mut config).insert("name".to_owned(), target.name.as_str().into());
        }
        check_name(target, &config)?;
        let config = within(&owners::subject(&target.kind, asked.part), config);
        for _ in 0..CONFLICT_RETRIES_MAX {
            let applied = match self.apply_over(target, &asked, &config, &manager).await {
                Err(error) if error.reason == Reason::NotFound && asked.part == Part::Main => {
                    self.apply_new(target, &asked, config.clone(), &manager).await?
                }
                result => Some((200, result?)),
            };
            if let Some((code, stored)) = applied {
                if code == 201 {
                    warnings.extend(unattended::warning(&target.kind.descriptor));
                }
                return Ok(Response {
                    code,
                    body: view::single(&target.kind, asked.view, &stored),
                    warnings,
                });
            }
        }
        Err(target.modified())
    }

    async fn apply_over(
        &self,
        target: &Target,
        asked: &Asked<'_>,
        config: &Value,
        manager: &Manager,
    ) -> Result<bytes::Bytes, ApiError> {
        let make = |_: &Sealed| {
            let claims = Claims::Wanted { manager: manager.clone(), force: asked.force };
            Ok(Proposal { object: config.clone(), claims, warnings: Vec::new() })
        };
        Ok(self.change(target, asked.part, asked.options, make).await?.stored)
    }

    /// Makes the object. `None` when somebody else did in between.
    async fn apply_new(
        &self,
        target: &Target,
        asked: &Asked<'_>,
        config: Value,
        manager: &Manager,
    ) -> Result<Option<(u16, bytes::Bytes)>, ApiError> {
        let kind = &target.kind;
        let uid = text(&config, "uid");
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(kind.conflict(&target.name, &why));
        }
        if let Some(who) = &target.by {
            self.authorize(who, "create", &target.resource(), "")?;
        }
        let versions = Versions::alone(owners::subject(kind, Part::Main));
        let (nothing, now) = (Value::Null, owners::now());
        let applied =
            fields::apply_over_last(&versions, &nothing, &config, Vec::new(), manager, asked.force, &now);
        let applied = applied.map_err(|halt| halted(target, halt))?;
        let mut object = applied.object;
        prepare(target, &mut object)?;
        self.admit_into_namespace(target, &target.name).await?;
        let claims = Claims::Applied(applied.entries);
        let hooks = self.hooks(target, &target.name, How::Create(asked.options)).await?;
        let object = self.complete(target, object, claims, hooks.as_ref()).await?;
        let stored = self.insert(target, object, hooks.as_ref(), asked.options.dry_run).await?;
        Ok(stored.map(|stored| (201, stored)))
    }
}

/// The manager of an apply, which has to say who it is.
pub(super) fn applier(
    target: &Target,
    subresource: &str,
    options: &WriteOptions,
) -> Result<Manager, ApiError> {
    if options.field_manager.as_deref().unwrap_or_default().is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
    }
    owners::manager(target, subresource, options, "PatchOptions", Operation::Apply)
}

/// Puts refusals into the words of the API.
pub(super) fn halted(target: &Target, halt: Halt) -> ApiError {
    match halt {
        Halt::Refused(Refusal::Fault(fault)) => untypable(target, Reason::Invalid, &fault.to_string()),
        Halt::Refused(Refusal::Conflicts(conflicts)) => in_conflict(&conflicts),
        Halt::Lacks(lack) => {
            ApiError::internal(format!("the object is not there in version {}", lack.version))
        }
    }
}

/// Reads a configuration. It must say its type, and nothing about owners.
fn config(target: &Target, sent: &[u8], validation: FieldValidation) -> Result<Incoming, ApiError> {
    let document = decode::document(sent)?;
    expect_type(&document.value, &target.kind.api_version, &target.kind.descriptor.kind)?;
    if document.value["metadata"]["managedFields"].as_array().is_some_and(|entries| !entries.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    if validation == FieldValidation::Strict
        && let Some(path) = target.kind.descriptor.compiled().check(&document.value).unknown.first()
    {
        let why = format!(".{path}: field not declared in schema");
        return Err(untypable(target, Reason::BadRequest, &why));
    }
    body::check_fields(&target.kind, document.value, &document.duplicates, validation)
}

/// A configuration must say its own type.
pub(super) fn expect_type(config: &Value, api_version: &str, kind: &str) -> Result<(), ApiError> {
    let said = |field: &str| config[field].as_str().unwrap_or_default();
    if said("apiVersion") == api_version && said("kind") == kind {
        return Ok(());
    }
    let (api_version, kind) = (said("apiVersion"), said("kind"));
    Err(ApiError::bad_request(format!("invalid object type: {api_version}, Kind={kind}")))
}

/// The part of a configuration that its path reaches, with what names the object.
fn within(subject: &Subject<'_>, config: Value) -> Value {
    let Value::Object(fields) = config else { return config };
    let named = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata");
    let mut fields: Map<String, Value> =
        fields.into_iter().filter(|(name, _)| named(name) || subject.reaches(name)).collect();
    if !subject.reaches("metadata")
        && let Some(Value::Object(metadata)) = fields.get_mut("metadata")
    {
        metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
    }
    Value::Object(fields)
}

fn untypable(target: &Target, reason: Reason, why: &str) -> ApiError {
    let (kind, descriptor) = (&target.kind, &target.kind.descriptor);
    let place =
        format!("{}/{}; {}, Kind={}", target.namespace, target.name, kind.api_version, descriptor.kind);
    ApiError::new(reason, format!("failed to create typed patch object ({place}): {why}")).about(
        &descriptor.group,
        &descriptor.kind,
        &target.name,
    )
}

/// 409 with a cause for each field, in the words that kubectl prints.
fn in_conflict(conflicts: &[Conflict]) -> ApiError {
    let path = |conflict: &Conflict| fields::display(&conflict.path);
    let message = match conflicts {
        [one] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", shown(&one.manager), path(one))
        }
        many => {
            let mut lines = Vec::new();
            for alike in many.chunk_by(|a, b| a.manager == b.manager) {
                lines.push(format!("conflicts with {}:", shown(&alike[0].manager)));
                lines.extend(alike.iter().map(|conflict| format!("- {}", path(conflict))));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let mut error = ApiError::new(Reason::Conflict, message);
    error.details.causes = conflicts
        .iter()
        .map(|conflict| Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", shown(&conflict.manager)),
            field: path(conflict),
        })
        .collect();
    error
}

fn shown(manager: &Manager) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        text += &format!(" with subresource {:?}", manager.subresource);
    }
    if manager.operation == Operation::Update {
        text += &format!(" using {}", manager.api_version);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Element;

    fn conflict(name: &str, operation: Operation, subresource: &str, field: &str) -> Conflict {
        let (name, subresource) = (name.to_owned(), subresource.to_owned());
        let manager = Manager { name, operation, api_version: "apps/v1".to_owned(), subresource };
        Conflict { manager, path: vec![Element::field("spec"), Element::field(field)] }
    }

    #[test]
    fn one_conflict_is_told_in_one_line() {
        let error = in_conflict(&[conflict("hpa", Operation::Update, "scale", "replicas")]);
        let said = "conflict with \"hpa\" with subresource \"scale\" using apps/v1";
        assert_eq!(error.code, 409);
        assert_eq!(error.message, format!("Apply failed with 1 conflict: {said}: .spec.replicas"));
        let cause = &error.details.causes[0];
        assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".spec.replicas"));
        assert_eq!(cause.message, said);
    }

    #[test]
    fn several_conflicts_are_told_by_manager() {
        let error = in_conflict(&[
            conflict("a", Operation::Apply, "", "paused"),
            conflict("a", Operation::Apply, "", "replicas"),
            conflict("b", Operation::Update, "", "selector"),
        ]);
        assert_eq!(
            error.message,
            "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.paused\n- .spec.replicas\nconflicts with \"b\" using apps/v1:\n- .spec.selector"
        );
        assert_eq!(error.details.causes.len(), 3);
    }
}
