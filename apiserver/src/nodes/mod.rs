//! The server's end of NodeLink: sessions of node agents, and the streams they open.
//!
//! Owns the `Ready` condition of Nodes (it turns `Unknown` when heartbeats stop) and is the only writer of what
//! agents report. Heartbeats stay in memory; only a change of readiness is stored. What a node should run is
//! kept in one index, fed by one watch, however many nodes there are.
//!
//! | module | owns |
//! |---|---|
//! | `bindings` | which pods are bound to which node (pure) |
//! | `roster` | which nodes have a session, when they were last heard (pure) |
//! | `session` | the conversation with one agent |
//! | `registration`, `reports` | what an agent says, written to objects |
//! | `merge` | how reported and stored status become one (pure) |
//! | `heartbeats` | the `Ready` condition |
//! | `streams` | logs, talks with processes, connections to ports: a request here, answered by a stream the agent opens |
//! | `usage` | what nodes and containers use, asked for when somebody reads it |
//! | `join` | certificates for nodes |
//! | `wire`, `local` | the two ways to the hub: gRPC, and calls within the process |
//!
//! Must never know: what agents do with pods, controllers.

mod bindings;
mod follow;
mod heartbeats;
mod hub;
mod join;
mod local;
mod merge;
mod objects;
mod registration;
mod reports;
mod roster;
mod session;
mod streams;
mod usage;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use claw_schemas::{
    ApiError,
    proto::{Usage, open_stream},
};

pub use hub::{Hub, HubConfig};
pub use join::Join;
pub use streams::NodeStream;
pub use wire::Wire;

/// Reaches into nodes, through the sessions that they dialled.
#[async_trait]
pub trait NodeStreams: Send + Sync + 'static {
    /// Opens a stream to a node. When this returns, the node has taken the request.
    ///
    /// # Errors
    /// `ServiceUnavailable` when the node has no session, or what the agent answers.
    async fn open(&self, node: &str, request: open_stream::Request) -> Result<NodeStream, ApiError>;

    /// What the node and its containers use, measured for whoever asks; `None` when it cannot be asked.
    async fn usage(&self, _node: &str) -> Option<Arc<Usage>> {
        None
    }

    /// Whether an agent serves the node right now.
    fn reaches(&self, _node: &str) -> bool {
        true
    }

    /// Whether nodes can be served.
    fn is_open(&self) -> bool {
        true
    }
}
