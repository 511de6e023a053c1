//! Python with what `make deps` installs for it; stories ask for [`Need::Python`](crate::need::Need::Python) first.

use std::process::Command;

use crate::{Cluster, binary::workspace};

/// Python, in the top folder.
#[must_use]
pub fn python() -> Command {
    let mut python = Command::new(workspace().join(".tools/venv/bin/python"));
    python.env("NO_PROXY", "*").current_dir(workspace());
    python
}

/// Python, as the administrator of a cluster.
#[must_use]
pub fn python_of(cluster: &Cluster) -> Command {
    let mut python = python();
    python.env("KUBECONFIG", cluster.kubeconfig()).env("HOME", cluster.scratch());
    python
}
