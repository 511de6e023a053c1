//! The Python example over gRPC does what docs/grpc.md says, with stubs made as it says.

use claw_e2e::{
    Cluster, Options,
    binary::workspace,
    kubectl::Outcome,
    need::{self, Need},
    python::{python, python_of},
};

#[test]
fn the_python_example_applies_watches_and_deletes_over_grpc() {
    if !need::all("the_python_example_applies_watches_and_deletes_over_grpc", &[Need::Python]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    let stubs = tempfile::tempdir().expect("a folder");
    let mut protoc = python();
    protoc
        .args(["-m", "grpc_tools.protoc", "-Ischemas/proto", "objects.proto"])
        .arg(format!("--python_out={}", stubs.path().display()))
        .arg(format!("--grpc_python_out={}", stubs.path().display()));
    Outcome::of(&mut protoc, "").success().unwrap_or_else(|text| panic!("{text}"));
    let mut example = python_of(&cluster);
    example.arg("examples/grpc/apply_watch_delete.py").env("PYTHONPATH", stubs.path());
    let said = Outcome::of(&mut example, "").success().unwrap_or_else(|text| panic!("{text}"));
    let expected = "applied red\nrefused ABORTED .data.colour\nsaw MODIFIED blue\nsaw DELETED blue\n";
    assert_eq!(said, expected);
    let shown: String = expected.lines().map(|line| format!("    {line}\n")).collect();
    let guide = std::fs::read_to_string(workspace().join("docs/grpc.md")).expect("the guide");
    assert!(guide.contains(&shown), "the guide shows another output:\n{said}");
}
