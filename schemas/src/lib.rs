//! The vocabulary that every other crate shares: kinds, the registry, API errors, selectors,
//! quantities, and the gRPC protocols.
//!
//! Kinds that Kubernetes has are the structs of `k8s-openapi`; this crate only describes them. Others are in [`api`].
//! One [`registry::Registry`] lists a descriptor for every kind, and REST routes, gRPC, discovery,
//! OpenAPI, Table columns and CLI names all come from iterating it.
//!
//! Must never know: storage, HTTP, tokio.

#![warn(missing_docs)]

pub mod api;
pub mod columns;
pub mod custom;
pub mod discovery;
pub mod forms;
pub mod gpu;
pub mod jsonpath;
pub mod kinds;
pub mod metrics;
pub mod needs;
pub mod openapi;
pub mod pick;
pub mod proto;
pub mod protobuf;
pub mod quantity;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod status;
pub mod yaml;

pub use registry::{Descriptor, Registry, Scope};
pub use status::ApiError;
