//! Clients of the Kubernetes API: reading and writing objects, watching them, and caches that keep themselves right.
//!
//! It speaks to this project's API server and to any other: REST over HTTP ([`Client::connect`]), or gRPC
//! ([`GrpcTransport`]), or plain function calls inside the server's own process. Behind [`Transport`] nothing can tell
//! which it is, so a program runs unchanged beside the server or across an ocean.
//!
//! # The smallest whole program
//!
//! ```no_run
//! use std::env;
//!
//! use claw_client::{Client, kubeconfig::Selected, request::ListOptions};
//! use k8s_openapi::api::core::v1::Pod;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let selected = Selected::find(|name| env::var_os(name), env::home_dir().as_deref())?;
//!     let client = Client::connect(&selected.endpoint, "my-program")?;
//!     let pods = client.namespaced::<Pod>(selected.namespace.as_deref().unwrap_or("default"));
//!     for pod in pods.list(ListOptions::default()).await?.items {
//!         println!("{}", pod.metadata.name.unwrap_or_default());
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Three ways to look at objects
//!
//! * [`Api`] asks: get, list, create, update, patch, server-side apply, delete, watch, typed by the structs of `k8s-openapi`.
//! * [`Reflector`] keeps a [`Store`] equal to what the server has, over lost connections, expired watches and restarts of the
//!   server. Reading it costs no request and no lock; a [`Snapshot`] of it is one consistent picture at one revision.
//! * [`DynamicObject`] and [`PartialObject`] are for kinds whose type is not known when the program is compiled, or of which
//!   only the metadata matters; [`Client::call`] sends any [`Verb`] to any [`ResourceRef`].
//!
//! Kinds of your own are Rust types too: [`custom`].
//!
//! # What to know
//!
//! * **Errors** of requests are [`ApiError`], the `Status` of Kubernetes, whatever the wire: `reason` is for programs
//!   (`NotFound`, `Conflict`, ...), `message` for people. [`ApiError::is_retryable`] says whether the same request may succeed
//!   later; after one of these a write may have happened all the same. What is wrong with a kubeconfig, before anything
//!   was sent, is a [`ConfigError`].
//! * **Conflicts**: an update carries the `resourceVersion` that it was made from, and is refused when somebody wrote
//!   meanwhile. Read again, decide again, write again.
//! * **Time**: a request ends after [`REQUEST_TIMEOUT`](endpoint::REQUEST_TIMEOUT) unless the [`Endpoint`] says otherwise; watches
//!   and logs do not.
//! * **Credentials** that are files (tokens, certificates) are read again once a minute, since such files rotate.
//! * **Cancelling** is dropping the future.
//!
//! Controllers are easier to write with `claw-runtime`, which is built on this.
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
pub mod in_cluster;
pub mod kubeconfig;
pub mod network;
pub mod node;
pub mod object;
pub mod reflector;
pub mod request;
mod rest;
mod tls;
pub mod trace;
pub mod transport;
mod watch_lines;
mod websocket;

pub use api::{Api, Client, Object, ObjectList};
pub use cache::{Delta, ObjectKey, Snapshot, Store};
pub use claw_schemas::{ApiError, custom};
pub use endpoint::{CertificateFiles, ClientCertificate, Endpoint, Token, Trust};
pub use error::ConfigError;
pub use failure::with_causes;
pub use grpc::{GrpcNodeLink, GrpcTransport};
pub use http_transport::HttpTransport;
pub use kubeconfig::Kubeconfig;
pub use network::{Duplex, Network};
pub use object::{Cached, DynamicObject, PartialObject, without_managed_fields};
pub use reflector::Reflector;
pub use request::{Request, ResourceRef, Response, Verb};
pub use tls::{system_roots, trust_anything};
pub use transport::{ByteStream, Transport, WatchEvent, WatchStream};
pub use websocket::{Hearing, Speaking};
