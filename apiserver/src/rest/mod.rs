//! The Kubernetes REST API over the object service.
//!
//! Owns paths, query parameters, headers and content negotiation. Every rule about objects is the
//! service's; identities come from the authentication layer in front, as `Extension<Identity>`.
//!
//! Must never know: TLS, certificates, storage.

use std::sync::Arc;

use axum::Router;

use crate::service::ObjectService;

/// All paths of the API. The layer in front must put an `Extension<Identity>` on every request.
pub fn router(service: Arc<ObjectService>) -> Router {
    Router::new().with_state(service)
}
