//! Roles: the long-running processes that this binary can be.
//!
//! Each role is a composition and nothing else: parts are started, joined and stopped in order here, and do all
//! their work elsewhere.

mod backup;
mod controllers;
mod data_dir;
mod figures;
pub mod gpu;
mod image;
mod metrics_server;
mod node;
mod server;
mod signal;
mod sweep;
mod token;
mod up;

use std::process::ExitCode;

use crate::{telemetry, verbs::Global};

/// A role with its options.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start a whole cluster on this machine: server, controllers and a node, in one process
    Up(up::Options),
    /// Start the API server alone, or save and restore what one holds
    Server(server::Role),
    /// Start the controllers alone, against the server of a kubeconfig
    Controllers(controllers::Options),
    /// Join this machine to a cluster and run its containers
    Node(node::Options),
    /// Tokens that let machines join
    #[command(subcommand)]
    Token(token::Command),
    /// Show the GPUs of this machine, check or record them
    #[command(subcommand)]
    Gpu(gpu::Command),
    /// The images of this machine
    #[command(subcommand)]
    Image(image::Command),
}

impl Command {
    /// Where to send traces of the role; none for what ends by itself.
    pub fn telemetry(&self) -> Option<&telemetry::Options> {
        match self {
            Self::Up(options) => Some(options.telemetry()),
            Self::Server(role) => role.telemetry(),
            Self::Controllers(options) => Some(&options.telemetry),
            Self::Node(options) => Some(&options.telemetry),
            Self::Token(_) | Self::Gpu(_) | Self::Image(_) => None,
        }
    }

    /// How many threads it works with, if not one for each processor.
    pub fn threads(&self) -> Option<usize> {
        match self {
            Self::Node(_) => Some(node::threads()),
            _ => None,
        }
    }

    /// Goes, for what has to do with containers, to where an ordinary user is root. Call it before any thread exists.
    pub fn become_root(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Up(options) => options.become_root(),
            Self::Node(options) => options.become_root(),
            Self::Image(command) => command.become_root(),
            _ => Ok(()),
        }
    }

    /// Runs the role to its end.
    pub async fn run(self, global: Global) -> anyhow::Result<ExitCode> {
        match self {
            Self::Up(options) => up::run(options).await?,
            Self::Server(role) => server::run(role, global).await?,
            Self::Controllers(options) => controllers::run(options, global).await?,
            Self::Node(options) => node::run(options).await?,
            Self::Gpu(command) => return gpu::run(command),
            Self::Image(command) => image::run(command).await?,
            Self::Token(token::Command::Create(options)) => token::create(options, global).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
