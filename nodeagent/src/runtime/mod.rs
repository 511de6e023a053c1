//! What the agent needs from a machine.

pub mod containers;

/// Runs containers.
pub trait Runtime: Send + Sync + 'static {}
