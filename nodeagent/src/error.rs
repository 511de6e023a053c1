//! The one error of this crate.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why something on this machine failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, folder or socket could not be used.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done: `reading`, `mounting a tmpfs on`.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call without a file failed.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pod network could not be set up.
    #[error("pod network: {0}")]
    Network(String),
    /// The shim said that it could not do what it was asked.
    #[error("{0}")]
    Shim(String),
    /// A record on disk does not parse.
    #[error("the record {} does not parse", path.display())]
    Record {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Something asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for is not supported on this node.
    #[error("{0}")]
    Unsupported(String),
    /// An image cannot be had, or must not be.
    #[error("{0}")]
    Image(String),
    /// A content is not what it should be.
    #[error("{0}")]
    Damaged(String),
    /// The API server refused something.
    #[error(transparent)]
    Api(#[from] claw_schemas::ApiError),
    /// A certificate or key could not be made or read.
    #[error("node certificate: {0}")]
    Certificate(String),
}

impl Error {
    /// For `map_err` on file operations.
    pub fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// For `map_err` on system calls that concern no file.
    pub fn system(doing: &'static str) -> impl FnOnce(nix::errno::Errno) -> Self {
        move |errno| Self::System { doing, source: errno.into() }
    }

    /// The error with everything that caused it, for events and status messages.
    pub fn full(&self) -> String {
        claw_client::with_causes(self)
    }
}
