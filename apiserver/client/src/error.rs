//! What can be wrong with the way to a server, before anything was sent.
//!
//! Failures of requests are [`ApiError`](claw_schemas::ApiError)s, whatever the wire.

use std::path::PathBuf;

/// A client cannot be made from what it was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file is missing or unreadable.
    #[error("cannot read {what} {path}", path = path.display())]
    Read {
        /// What the file holds.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not a kubeconfig.
    #[error("{path} is not a kubeconfig: {why}", path = path.display())]
    NotAKubeconfig {
        /// Which file.
        path: PathBuf,
        /// What the parser says.
        why: String,
    },
    /// No kubeconfig says where the server is.
    #[error(
        "no kubeconfig found (looked at {looked}): start a cluster with `clawbernetes up` and pass \
         --kubeconfig DATA_DIR/admin.kubeconfig, or set KUBECONFIG"
    )]
    NoKubeconfig {
        /// The places tried.
        looked: String,
    },
    /// A name in the kubeconfig leads nowhere.
    #[error("the kubeconfig has no {what} \"{name}\"; it has: {known}")]
    NoSuch {
        /// `context`, `cluster` or `user`.
        what: &'static str,
        /// The name looked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A field has a value that cannot be used.
    #[error("{field}: {why}")]
    Field {
        /// Full name of the field.
        field: String,
        /// What is wrong and what would be right.
        why: String,
    },
}

impl ConfigError {
    /// A field with a value that cannot be used.
    pub fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { field: field.into(), why: why.into() }
    }
}
