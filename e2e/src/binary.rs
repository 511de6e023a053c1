//! Finds the programs of the workspace, fresh.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e/ lies in the workspace").to_owned()
}

/// The `clawbernetes` binary as the sources are now, or the one that `CLAWBERNETES_BIN` names, such as a release build.
///
/// # Panics
/// When it does not build.
pub fn clawbernetes() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("CLAWBERNETES_BIN") {
        Some(path) => PathBuf::from(path),
        None => built().join("clawbernetes"),
    })
}

/// A program of `examples/`, as the sources are now.
///
/// # Panics
/// When it does not build.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    built().join("examples").join(name)
}

/// The folder of what is built. Cargo is asked to bring it up to date, once a process: `cargo test` builds only the packages
/// it tests.
fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build)
}

fn build() -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/<test>
    let profile = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let target = profile.parent().expect("profiles lie in the target folder");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // A test target among them makes cargo count development dependencies, as `cargo test --workspace` does: features
    // unify alike and nothing is built twice.
    cargo
        .args([
            "build",
            "--quiet",
            "--locked",
            "--workspace",
            "--bins",
            "--examples",
            "--test",
            "tidy",
            "--target-dir",
        ])
        .arg(target);
    // What cargo tells a test of its package. A build script that looks at these would run again here, and again in the
    // next build by hand: ring's, and with it half of the dependencies.
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
        cargo.env_remove(name);
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(workspace()).status().expect("cargo runs");
    assert!(status.success(), "the workspace does not build");
    profile.to_owned()
}
