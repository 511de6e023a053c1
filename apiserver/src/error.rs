//! Why the server could not start or go on. Errors of requests are [`ApiError`](claw_schemas::ApiError)s.

use std::{io, net::SocketAddr, path::PathBuf};

use claw_schemas::ApiError;

use crate::store::StoreError;

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`, `create`, ...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses the data folder.
    #[error(
        "the data folder {} is in use by another server (its lock file is held); stop that one, or choose another folder with --data-dir",
        .0.display()
    )]
    Locked(PathBuf),
    /// The port could not be bound.
    #[error(
        "cannot listen on {address}; if another program uses the port, stop it or choose another one with --listen"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key on disk cannot be used.
    #[error("{}: {problem}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A certificate could not be made.
    #[error("cannot issue a certificate for {subject}")]
    Issue {
        /// For whom.
        subject: String,
        /// Why.
        source: rcgen::Error,
    },
    /// TLS refused its own configuration.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The store could not be opened or closed.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
    /// The server's own objects could not be written.
    #[error("cannot prepare the cluster's own objects")]
    Bootstrap(#[from] ApiError),
    /// The operating system gave no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// A thread of the server failed.
    #[error("a server task failed: {0}")]
    Task(String),
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
