//! A whole server on a real port of this machine, and clients that come to it over TLS.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted, it unwraps")]

mod access;
mod connections;
mod credentials;
mod grpc;
mod join;
mod lifecycle;
mod operations;
mod sessions;
mod streams;
mod support;
