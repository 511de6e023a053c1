//! What Python users install from PyPI, against a real server: the client of the Kubernetes project, and kopf.

mod informer;
mod operator;
mod yaml;

use claw_e2e::{
    Cluster, Options,
    binary::workspace,
    kubectl::Outcome,
    need::{self, Need},
    python::python_of,
};

#[test]
fn the_python_client_lists_watches_and_patches() {
    if !need::all("the_python_client_lists_watches_and_patches", &[Need::Python]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let mut python = python_of(&cluster);
    python.arg(script("client.py"));
    let said = Outcome::of(&mut python, "").success().unwrap_or_else(|text| panic!("{text}"));
    assert_eq!(said.lines().last(), Some("all of it works"), "{said}");
}

#[test]
fn the_python_client_talks_to_processes_and_ports() {
    if !need::all("the_python_client_talks_to_processes_and_ports", &[Need::Root, Need::Python]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let mut python = python_of(&cluster);
    python.arg(script("streams.py"));
    let said = Outcome::of(&mut python, "").success().unwrap_or_else(|text| panic!("{text}"));
    assert_eq!(said.lines().last(), Some("all of it works"), "{said}");
}

/// A file beside this one.
fn script(name: &str) -> std::path::PathBuf {
    workspace().join("e2e/tests/python").join(name)
}
