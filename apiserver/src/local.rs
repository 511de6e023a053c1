//! The in-process transport: a client's requests as plain function calls into the object service.
//!
//! Controllers inside the server use it, and most tests: the same authorization, validation and
//! watches as over a wire, without the wire.

use std::sync::Arc;

use async_trait::async_trait;
use claw_client::{
    ByteStream, Request, ResourceRef, Response, Transport, WatchStream,
    request::{View, WatchOptions},
};
use claw_schemas::ApiError;

use crate::{auth::Identity, service::ObjectService};

/// Calls the object service in the name of one identity.
#[derive(Clone)]
pub struct LocalTransport {
    /// Who answers.
    pub service: Arc<ObjectService>,
    /// Who asks.
    pub identity: Identity,
}

impl LocalTransport {
    /// A transport that acts as `identity`.
    pub fn new(service: Arc<ObjectService>, identity: Identity) -> Self {
        Self { service, identity }
    }
}

#[async_trait]
impl Transport for LocalTransport {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        self.service.call(&self.identity, request).await
    }

    async fn watch(
        &self,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError> {
        self.service.watch(&self.identity, resource, options, view).await
    }

    async fn stream(
        &self,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        self.service.stream(&self.identity, resource, query).await
    }
}
