//! gRPC on the same port as REST: objects, node sessions, health and reflection.
//!
//! Must never know: TLS, credentials (the gate has put an [`Identity`](crate::auth::Identity) on every request), or
//! any rule about objects.

mod batch;
mod deadline;
mod objects;
mod status;
mod writes;

use std::sync::Arc;

use axum::Router;
use claw_schemas::proto::{DESCRIPTOR_SET, node_link_server::NodeLinkServer, objects_server::ObjectsServer};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

pub use deadline::Deadline;
pub use status::{STATUS_TRAILER, error, status};

use crate::{
    error::Error,
    nodes::{Hub, Join, Wire},
    service::ObjectService,
};

/// A message may be as large as the largest request body the REST API takes (3 MiB), and its envelope.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What `grpc.health.v1` answers.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// From now on the server is going away, and load balancers should look elsewhere.
    pub async fn stopping(&self) {
        for service in SERVICES {
            self.0.set_service_status(service, ServingStatus::NotServing).await;
        }
    }
}

/// The names health answers for; the empty one is the server as a whole.
const SERVICES: [&str; 3] = ["", "clawbernetes.v1.Objects", "clawbernetes.v1.NodeLink"];

/// All gRPC services.
///
/// # Errors
/// When the descriptors built into this binary do not parse, which a test rules out.
pub async fn routes(
    service: Arc<ObjectService>,
    hub: Arc<Hub>,
    join: Join,
) -> Result<(Router, Health), Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in SERVICES {
        reporter.set_service_status(service, ServingStatus::Serving).await;
    }
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |error| Error::Task(format!("the built-in gRPC descriptors do not parse: {error}"));
    let objects = ObjectsServer::new(objects::Objects::new(service))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let node_link = NodeLinkServer::new(Wire::new(hub, join))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let routes = Routes::new(objects)
        .add_service(node_link)
        .add_service(health)
        .add_service(descriptors().build_v1().map_err(broken)?)
        .add_service(descriptors().build_v1alpha().map_err(broken)?);
    Ok((routes.into_axum_router(), Health(reporter)))
}
