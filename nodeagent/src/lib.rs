//! Everything that happens on a machine: containers behind shims, images, volumes, pod networks,
//! probes, logs, and the agent that reports all of it to the API server.
//!
//! Must never know: how the server stores anything, and any controller. It meets them through
//! [`claw_client::node::NodeLink`] and the API alone.

pub mod agent;
pub mod clock;
pub mod error;
pub mod gpu;
pub mod hollow;
mod ids;
pub mod image;
pub mod join;
mod logs;
mod overlay;
pub mod pod;
pub mod pressure;
pub mod rootless;
pub mod runtime;
pub mod services;
pub mod shim;
pub mod sockets;
mod tree;

pub use agent::{Agent, AgentConfig};
pub use clock::Clock;
pub use error::Error;
pub use image::ImagesConfig;
pub use runtime::{
    Runtime,
    containers::{Containers, ContainersConfig, GpuSource},
};
pub use shim::sys::let_go_of_program;
