//! Objects as the hub reads and writes them: JSON trees, through the object service, in the hub's own name.

use std::sync::Arc;

use bytes::Bytes;
use claw_client::{
    Request, ResourceRef, Verb,
    request::{DeleteOptions, FieldValidation, View, WriteOptions},
};
use claw_schemas::{ApiError, pick::Pick, status::Reason};
use serde_json::Value;

use crate::{auth::Identity, service::ObjectService};

/// How often a write is tried again after losing a race. Each loss means that somebody else's write went
/// through, and no object here has more than a handful of writers.
pub const ATTEMPTS_MAX: usize = 8;

/// The hub's access to objects.
pub struct Objects {
    service: Arc<ObjectService>,
    identity: Identity,
}

impl Objects {
    pub fn new(service: Arc<ObjectService>) -> Self {
        Self { service, identity: Identity::loopback("node-hub") }
    }

    /// Reads these parts of one object, or `None`.
    pub async fn find(&self, resource: ResourceRef, parts: &Pick) -> Result<Option<Value>, ApiError> {
        match self.call(resource, Verb::Get).await {
            Ok(body) => parts
                .read(&body)
                .map(Some)
                .map_err(|error| ApiError::internal(format!("a stored object does not parse: {error}"))),
            Err(error) if error.reason == Reason::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds an object.
    pub async fn create(&self, collection: ResourceRef, object: Value) -> Result<(), ApiError> {
        self.service.create_document(&self.identity, collection, object, &options()).await
    }

    /// Changes the status of an object as `make` says from the object as it is; `None` leaves it. Races are run again,
    /// and who loses all of them may come back later.
    pub async fn change_status(
        &self,
        resource: ResourceRef,
        make: impl FnMut(&Value) -> Option<Value>,
    ) -> Result<(), ApiError> {
        let changed =
            self.service.change_status(&self.identity, resource.sub("status"), &options(), make).await;
        changed.map_err(|error| match error.reason {
            Reason::Conflict => ApiError::new(Reason::ServiceUnavailable, error.message),
            _ => error,
        })
    }

    /// Replaces an object; its `resourceVersion` must be current.
    pub async fn update(&self, resource: ResourceRef, object: &Value) -> Result<(), ApiError> {
        let verb = Verb::Update { body: object.to_string().into(), options: options() };
        self.call(resource, verb).await.map(drop)
    }

    /// Removes an object.
    pub async fn delete(&self, resource: ResourceRef, options: DeleteOptions) -> Result<(), ApiError> {
        self.call(resource, Verb::Delete(options)).await.map(drop)
    }

    async fn call(&self, resource: ResourceRef, verb: Verb) -> Result<Bytes, ApiError> {
        let request = Request { resource, verb, view: View::Object };
        self.service.call(&self.identity, request).await.map(|response| response.body)
    }
}

/// The Node of that name.
pub fn node(name: &str) -> ResourceRef {
    ResourceRef::collection("", "v1", "nodes").named(name)
}

/// The Pod of that name.
pub fn pod(namespace: &str, name: &str) -> ResourceRef {
    ResourceRef::collection("", "v1", "pods").in_namespace(namespace).named(name)
}

/// Agents may be newer than the server: fields it does not know are dropped, not refused.
fn options() -> WriteOptions {
    WriteOptions {
        field_manager: Some("clawbernetes-node-hub".to_owned()),
        field_validation: FieldValidation::Ignore,
        ..WriteOptions::default()
    }
}
