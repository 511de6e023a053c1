//! Clients of the API: typed and dynamic access, watches, reflectors and caches, over one
//! [`Transport`] with three implementations (in process, HTTP, gRPC).
//!
//! The API server takes the same [`Request`] from all three, so a controller cannot tell whether
//! it runs inside the server or across a network.
//!
//! Must never know: how the server works.

#![warn(missing_docs)]

pub mod api;
pub mod backoff;
pub mod cache;
mod credentials;
pub mod endpoint;
pub mod error;
mod failure;
pub mod grpc;
mod http_transport;
pub mod kubeconfig;
pub mod node;
pub mod object;
pub mod reflector;
pub mod request;
mod rest;
mod tls;
pub mod transport;
mod watch_lines;

pub use api::{Api, Client};
pub use cache::{Delta, ObjectKey, Snapshot, Store};
pub use claw_schemas::ApiError;
pub use endpoint::{CertificateFiles, ClientCertificate, Endpoint, Token, Trust};
pub use error::ConfigError;
pub use grpc::{GrpcNodeLink, GrpcTransport};
pub use http_transport::HttpTransport;
pub use kubeconfig::Kubeconfig;
pub use object::{Cached, DynamicObject, PartialObject, without_managed_fields};
pub use reflector::Reflector;
pub use request::{Request, ResourceRef, Response, Verb};
pub use transport::{ByteStream, Transport, WatchEvent, WatchStream};
