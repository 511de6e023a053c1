//! The object service: every rule about reading and writing objects, whatever wire a request came by.
//!
//! One pipeline, one module a stage: authorize → resolve → decode → default → admit → validate → commit → respond.
//!
//! Must never know: HTTP, gRPC, TLS, how the store keeps its bytes.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use claw_client::{
    ByteStream, Request, ResourceRef, Response, WatchStream,
    request::{View, WatchOptions},
};
use claw_schemas::{ApiError, Registry};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Authorizer, Identity},
    nodes::NodeStreams,
    store::Store,
};

/// Objects of every kind, over one store. Share it in an `Arc`.
pub struct ObjectService {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    authorizer: Arc<dyn Authorizer>,
    node_streams: OnceLock<Arc<dyn NodeStreams>>,
    ready: AtomicBool,
    closing: CancellationToken,
}

impl ObjectService {
    /// A service over a store. It is not ready before [`Self::set_ready`].
    pub fn new(store: Arc<dyn Store>, registry: Registry, authorizer: Arc<dyn Authorizer>) -> Self {
        Self {
            store,
            registry: Arc::new(registry),
            authorizer,
            node_streams: OnceLock::new(),
            ready: AtomicBool::new(false),
            closing: CancellationToken::new(),
        }
    }

    /// Says how to reach into nodes, for logs. The first call counts: the hub that serves the streams is itself a
    /// user of this service, so it can only be built after it.
    pub fn set_node_streams(&self, streams: Arc<dyn NodeStreams>) {
        let _ = self.node_streams.set(streams);
    }

    /// Creates what a cluster cannot be without (the system namespaces), where it is missing.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn ensure_bootstrap_objects(&self) -> Result<(), ApiError> {
        Err(ApiError::internal("the object service is under construction"))
    }

    /// Answers one request.
    ///
    /// # Errors
    /// What is wrong with the request, as a Kubernetes `Status`.
    pub async fn call(&self, who: &Identity, request: Request) -> Result<Response, ApiError> {
        self.authorizer.authorize(who, "get", &request.resource)?;
        Err(ApiError::internal("the object service is under construction"))
    }

    /// Streams changes of a collection, in revision order.
    ///
    /// # Errors
    /// What is wrong with the request. An expired revision is not an error here but the stream's only event.
    pub async fn watch(
        &self,
        who: &Identity,
        resource: ResourceRef,
        _options: WatchOptions,
        _view: View,
    ) -> Result<WatchStream, ApiError> {
        self.authorizer.authorize(who, "watch", &resource)?;
        Err(ApiError::internal("the object service is under construction"))
    }

    /// Reads a streaming subresource: `pods/x/log`.
    ///
    /// # Errors
    /// What is wrong with the request, or that the node cannot be reached.
    pub async fn stream(
        &self,
        who: &Identity,
        resource: ResourceRef,
        _query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        self.authorizer.authorize(who, "get", &resource)?;
        Err(ApiError::internal("the object service is under construction"))
    }

    /// The store, for parts of the server that keep an index of their own (the node hub).
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The kinds served.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Whether `/readyz` says ok.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Sets what `/readyz` says.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Ends all watches cleanly, and refuses new ones: the first step of a shutdown.
    pub fn close_watches(&self) {
        self.closing.cancel();
    }
}
