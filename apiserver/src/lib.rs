//! The API server: authn → limits → authz → decode → default → admit → validate → store → watch.
//!
//! REST and gRPC call the same object service; only this crate touches storage.
//!
//! Must never know: controllers, nodes' insides.

mod admission;
pub mod auth;
pub mod backup;
mod custom;
pub mod defaults;
pub mod error;
pub mod fields;
mod file_lock;
#[doc(hidden)]
pub mod fuzzing;
pub mod grpc;
mod https;
pub mod local;
pub mod metrics;
pub mod nodes;
pub mod patch;
pub mod pki;
mod private;
mod quota;
mod ranges;
mod reach;
pub mod rest;
pub mod server;
pub mod service;
pub mod store;
mod trace;
pub mod validation;

pub use error::Error;
pub use file_lock::FileLock;
pub use server::{Config, Core, Server, StoreKind};
