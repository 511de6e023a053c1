//! The server's end of NodeLink: sessions of node agents, and the streams they open.

use async_trait::async_trait;
use claw_client::ByteStream;
use claw_schemas::{ApiError, proto::LogsRequest};

/// Reaches into nodes, through the sessions that they dialled.
#[async_trait]
pub trait NodeStreams: Send + Sync + 'static {
    /// Reads a container's log on a node.
    ///
    /// # Errors
    /// `ServiceUnavailable` when the node has no session, or what the agent answers.
    async fn logs(&self, node: &str, request: LogsRequest) -> Result<ByteStream, ApiError>;
}
