//! Compiles the toolbox into a small static program, which the agent embeds as its one image.
//!
//! It is compiled by `rustc` alone, not as a dependency: it needs other code generation (static,
//! small, no unwinding) than the rest, and this way a clean clone needs no second build step.

use std::{env, path::PathBuf, process::Command};

fn main() {
    let source =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../examples/toolbox/src");
    let output = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("toolbox");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed=build.rs");
    let status = Command::new(env::var("RUSTC").expect("set by cargo"))
        .args(["--edition", "2024", "--crate-name", "toolbox", "--crate-type", "bin"])
        .args(["--target", &env::var("TARGET").expect("set by cargo")])
        .args(["-C", "opt-level=z", "-C", "panic=abort", "-C", "strip=symbols", "-C", "lto=fat"])
        .args(["-C", "codegen-units=1", "-C", "target-feature=+crt-static", "--cap-lints", "allow"])
        .arg("-o")
        .arg(&output)
        .arg(source.join("lib.rs"))
        .status()
        .expect("rustc, which is compiling this very script, must start");
    assert!(status.success(), "the toolbox did not compile: see rustc's message above");
}
