//! The cluster harness: starts the real binary, drives it with real clients, and takes it down without a trace.
//!
//! Stories live in `e2e/tests/`, one file a theme. They must never mock the API server, and never reach into
//! another crate's private parts: what they see is what a user sees.

pub mod binary;
pub mod capacity;
pub mod cluster;
pub mod devices;
pub mod dice;
pub mod docker_registry;
pub mod gated;
pub mod history;
pub mod host;
pub mod http;
pub mod kubectl;
pub mod load;
pub mod mortal;
pub mod need;
pub mod netns;
pub mod node;
pub mod promises;
pub mod pty;
pub mod python;
pub mod runs;
pub mod states;
pub mod told;
pub mod unreliable;
pub mod user;
pub mod wait;
pub mod warp;
pub mod webhook;

pub use cluster::{Cluster, Options};
pub use kubectl::Kubectl;
pub use node::Node;
