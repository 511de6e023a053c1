//! Finds the product's binary, fresh.

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

/// The `clawbernetes` binary as the sources are now.
///
/// `CLAWBERNETES_BIN` names another one, such as a release build. Else cargo is asked to bring the one beside
/// the running test up to date, once a process: `cargo test` builds only the packages it tests.
///
/// # Panics
/// When it does not build.
pub fn clawbernetes() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("CLAWBERNETES_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
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
        .args(["build", "--quiet", "--locked", "--workspace", "--bins", "--test", "tidy", "--target-dir"])
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
    assert!(status.success(), "clawbernetes does not build");
    profile.join("clawbernetes")
}
