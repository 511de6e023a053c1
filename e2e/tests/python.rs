//! The Kubernetes client that Python users install from PyPI lists, watches, patches and deletes.

use std::process::Command;

use claw_e2e::{
    Cluster, Options,
    binary::workspace,
    kubectl::Outcome,
    need::{self, Need},
};

#[test]
fn the_python_client_lists_watches_and_patches() {
    if !need::all("the_python_client_lists_watches_and_patches", &[Need::Python]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let mut python = Command::new(workspace().join(".tools/venv/bin/python"));
    python
        .arg(workspace().join("e2e/tests/python_client.py"))
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("HOME", cluster.scratch())
        .env("NO_PROXY", "*");
    let said = Outcome::of(&mut python, "").success().unwrap_or_else(|text| panic!("{text}"));
    assert_eq!(said.lines().last(), Some("all of it works"), "{said}");
}
