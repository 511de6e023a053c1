//! NodeLink for an agent in the same process: the hub itself, without a wire.

use std::sync::Arc;

use async_trait::async_trait;
use claw_client::node::{NodeLink, ServerMessages, StreamFrames};
use claw_schemas::{
    ApiError,
    proto::{AgentMessage, StreamFrame},
};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{hub::Hub, session, streams};
use crate::auth::Identity;

/// Speaks for one node.
pub struct LocalLink {
    hub: Arc<Hub>,
    identity: Identity,
}

impl LocalLink {
    /// The link of a node.
    pub fn new(hub: Arc<Hub>, node: &str) -> Self {
        Self { hub, identity: Identity::of_node(node) }
    }
}

#[async_trait]
impl NodeLink for LocalLink {
    async fn session(&self, outgoing: mpsc::Receiver<AgentMessage>) -> Result<ServerMessages, ApiError> {
        let incoming = ReceiverStream::new(outgoing).map(Ok).boxed();
        session::open(&self.hub, &self.identity, incoming)
    }

    async fn stream(&self, outgoing: mpsc::Receiver<StreamFrame>) -> Result<StreamFrames, ApiError> {
        let incoming = ReceiverStream::new(outgoing).map(Ok).boxed();
        streams::accept(&self.hub, &self.identity, incoming)
    }
}
