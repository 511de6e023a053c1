//! Which server, which user, which namespace.

use std::{path::PathBuf, process::ExitCode};

/// Options that every verb takes; `main` flattens them into the top-level command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Global {
    /// File that says how to reach the server (default: $KUBECONFIG, then ~/.kube/config)
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of that file to use instead of its current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace to work in (default: the context's, then "default")
    #[arg(short = 'n', long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
}

/// Where verbs get their client and namespace from.
#[derive(Clone, Debug)]
pub struct Context {
    global: Global,
}

impl Context {
    /// From the options of the command line.
    pub fn new(global: Global) -> Self {
        Self { global }
    }

    pub(super) fn whereami(&self) -> anyhow::Result<ExitCode> {
        println!("{}", self.global.namespace.as_deref().unwrap_or("default"));
        Ok(ExitCode::SUCCESS)
    }
}
