//! A whole server on a real port of this machine, and clients that come to it over TLS.

mod connections;
mod credentials;
mod grpc;
mod join;
mod lifecycle;
mod sessions;
mod streams;
mod support;
