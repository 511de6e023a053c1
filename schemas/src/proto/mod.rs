//! gRPC code generated from `schemas/proto/`, checked in so that building needs no protobuf compiler.
//!
//! `cargo test -p claw-schemas --test generated` fails when it is stale and says how to refresh it.

#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated code")]
#[rustfmt::skip]
#[path = "gen/clawbernetes.v1.rs"]
mod generated;

pub use generated::*;

/// The compiled descriptor set, for gRPC reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptor.bin");
