//! The verbs of a client: `get`, `apply`, `logs` and their kin, one file each.
//!
//! Every verb talks to an API server through [`Context`], prints data on stdout and everything else
//! on stderr. Must never know: how the server works, or the roles beside it.

mod context;

use std::process::ExitCode;

pub use context::{Context, Global};

/// A verb with its arguments.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the namespace and server that the other verbs would use
    Whereami,
}

impl Command {
    /// Runs the verb to its end.
    pub async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        match self {
            Self::Whereami => context.whereami(),
        }
    }
}
