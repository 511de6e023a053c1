//! NodeLink over gRPC: streams in, streams out, errors as statuses.

use std::{pin::Pin, sync::Arc};

use claw_schemas::proto::{self, node_link_server::NodeLink};
use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::{hub::Hub, join::Join, session, streams};
use crate::{
    auth::Identity,
    grpc::{error, status},
};

/// Serves `clawbernetes.v1.NodeLink`.
pub struct Wire {
    hub: Arc<Hub>,
    join: Join,
}

impl Wire {
    /// Serves this hub.
    pub fn new(hub: Arc<Hub>, join: Join) -> Self {
        Self { hub, join }
    }
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl NodeLink for Wire {
    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinResponse>, Status> {
        let who = identity(&request)?;
        let joined = self.join.join(&who, request.into_inner()).await;
        joined.map(Response::new).map_err(|error| status(&error))
    }

    async fn renew(
        &self,
        request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::JoinResponse>, Status> {
        let who = identity(&request)?;
        self.join.renew(&who, request.get_ref()).map(Response::new).map_err(|error| status(&error))
    }

    type SessionStream = Answers<proto::ServerMessage>;

    async fn session(
        &self,
        request: Request<Streaming<proto::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let who = identity(&request)?;
        let incoming = request.into_inner().map(|message| message.map_err(|broken| error(&broken))).boxed();
        let messages = session::open(&self.hub, &who, incoming).map_err(|error| status(&error))?;
        Ok(Response::new(messages.map(|message| message.map_err(|error| status(&error))).boxed()))
    }

    type StreamStream = Answers<proto::StreamFrame>;

    async fn stream(
        &self,
        request: Request<Streaming<proto::StreamFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let who = identity(&request)?;
        let incoming = request.into_inner().map(|frame| frame.map_err(|broken| error(&broken))).boxed();
        let frames = streams::accept(&self.hub, &who, incoming).map_err(|error| status(&error))?;
        Ok(Response::new(frames.map(|frame| frame.map_err(|error| status(&error))).boxed()))
    }
}

/// The identity that the gate put on the request.
fn identity<T>(request: &Request<T>) -> Result<Identity, Status> {
    let found = request.extensions().get::<Identity>().cloned();
    found.ok_or_else(|| Status::unauthenticated("the request reached its service without an identity"))
}
