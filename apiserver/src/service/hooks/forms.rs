//! The objects of a request in the form in which somebody wants to see them, and back.

use std::{borrow::Cow, sync::Arc};

use claw_client::{ResourceRef, request::FieldValidation};
use claw_schemas::ApiError;
use serde_json::Value;

use super::{Asked, Hooks, request::kind_of};
use crate::{
    admission::{Operation, Resource},
    service::{
        body,
        kinds::{Served, Sub, Target},
        object::{self, metadata_mut, text},
        scale,
    },
};

/// Metadata that an object has only once it is about to be stored.
const GIVEN_LATER: [&str; 3] = ["uid", "creationTimestamp", "generation"];

impl Hooks<'_> {
    /// The objects as somebody knows them who asked for them as `resource`.
    pub(super) async fn presented(
        &self,
        resource: Resource,
        old: &Value,
        new: &Value,
        may_change: bool,
    ) -> Result<Asked, ApiError> {
        let mut new = self.shown(new, &resource).await?.into_owned();
        if may_change && self.attributes.operation == Operation::Create && new.is_object() {
            let metadata = metadata_mut(&mut new);
            GIVEN_LATER.iter().for_each(|field| drop(metadata.remove(*field)));
        }
        let old = self.shown(old, &resource).await?.into_owned();
        let kind = match self.other(&resource)? {
            Some(other) => kind_of(&other.descriptor),
            None => self.attributes.kind.clone(),
        };
        let request = self.attributes.request(&kind, &resource);
        Ok(Asked { resource, request, old, new })
    }

    /// Whether the request is about an object of its kind, and not about another document.
    pub(super) fn is_about_object(&self) -> bool {
        self.target.sub != Some(Sub::Scale) && !is_document(self.target.sub)
    }

    /// The kind as which somebody sees the objects, where it is not the request's own. What is no object of a kind is always
    /// the same.
    pub(super) fn other(&self, resource: &Resource) -> Result<Option<Arc<Served>>, ApiError> {
        if *resource == self.attributes.resource || !self.is_about_object() {
            return Ok(None);
        }
        let path = ResourceRef::collection(&resource.group, &resource.version, &resource.plural);
        Ok(Some(self.service.kinds.resolve(path)?.kind))
    }

    async fn shown<'v>(&self, object: &'v Value, resource: &Resource) -> Result<Cow<'v, Value>, ApiError> {
        if object.is_null() {
            return Ok(Cow::Borrowed(object));
        }
        if self.target.sub == Some(Sub::Scale) {
            return scale::scale_of(self.target, object).map(Cow::Owned);
        }
        match self.other(resource)? {
            Some(other) => self.target.kind.shown_as(&other, object).await.map(Cow::Owned),
            None => Ok(Cow::Borrowed(object)),
        }
    }

    /// Takes over what a webhook or a policy made of an object.
    pub(super) async fn accept(
        &self,
        object: &mut Value,
        patched: Value,
        resource: &Resource,
    ) -> Result<(), ApiError> {
        let target = self.target;
        if !patched.is_object() {
            return Err(ApiError::bad_request("its patch leaves no object"));
        }
        match target.sub {
            Some(Sub::Scale) => *object = scale::scaled(target, object, &patched)?,
            sub if is_document(sub) => *object = patched,
            _ => {
                let patched = match self.other(resource)? {
                    Some(other) => other.shown_as(&target.kind, &patched).await?,
                    None => patched,
                };
                *object = checked(target, object, patched, self.attributes.operation)?;
            }
        }
        Ok(())
    }
}

/// Whether what is sent there is a document of its own, and no object of the kind.
fn is_document(sub: Option<Sub>) -> bool {
    use Sub::{Attach, Binding, Eviction, Exec, PortForward, Token};
    matches!(sub, Some(Attach | Binding | Eviction | Exec | PortForward | Token))
}

/// The object that a webhook made, with all that is not for it to say.
fn checked(target: &Target, before: &Value, patched: Value, operation: Operation) -> Result<Value, ApiError> {
    let mut new = body::check_fields(&target.kind, patched, &[], FieldValidation::Ignore)?.object;
    let (was, is) = (text(before, "name"), text(&new, "name"));
    if !was.is_empty() && was != is {
        return Err(ApiError::bad_request(format!("it changed metadata.name from \"{was}\" to \"{is}\"")));
    }
    object::place(target, &mut new)?;
    object::keep_system_fields(before, &mut new);
    let metadata = metadata_mut(&mut new);
    for field in ["resourceVersion", "managedFields"] {
        match before["metadata"].get(field) {
            Some(value) => drop(metadata.insert(field.to_owned(), value.clone())),
            None => drop(metadata.remove(field)),
        }
    }
    if operation == Operation::Create && target.kind.has_status() && !target.kind.is_core("nodes") {
        target.kind.take_status(before, &mut new);
    }
    Ok(new)
}
