//! The node's side of the NodeLink protocol, over any wire.

use std::pin::Pin;

use async_trait::async_trait;
use claw_schemas::{
    ApiError,
    proto::{AgentMessage, ServerMessage, StreamFrame},
};
use futures::Stream;
use tokio::sync::mpsc;

/// What the server tells a node.
pub type ServerMessages = Pin<Box<dyn Stream<Item = Result<ServerMessage, ApiError>> + Send>>;

/// What the server sends into a log or exec stream.
pub type StreamFrames = Pin<Box<dyn Stream<Item = Result<StreamFrame, ApiError>> + Send>>;

/// Sessions between a node agent and the server: gRPC across machines, channels within one process.
#[async_trait]
pub trait NodeLink: Send + Sync + 'static {
    /// Opens the one long-lived session. The first message sent must be `Hello`.
    ///
    /// # Errors
    /// The server could not be reached, or does not know the node.
    async fn session(&self, outgoing: mpsc::Receiver<AgentMessage>) -> Result<ServerMessages, ApiError>;

    /// Opens one data stream in answer to `OpenStream`. The first frame sent must name its `stream_id`.
    ///
    /// # Errors
    /// The server could not be reached, or waits for no such stream.
    async fn stream(&self, outgoing: mpsc::Receiver<StreamFrame>) -> Result<StreamFrames, ApiError>;
}
