//! What tests with real containers share: re-execution as starter, unique roots, a client that
//! reaches nobody, waiting for conditions, and a count of what a test leaves behind.
#![allow(dead_code, reason = "every test binary uses its own part of it")]
#![expect(unsafe_code, reason = "test binaries must become starters before their main runs")]

use std::{
    collections::BTreeSet,
    future::Future,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use claw_client::{
    ApiError, ByteStream, Client, Request, ResourceRef, Response, Transport, WatchStream,
    request::{View, WatchOptions},
};
use claw_nodeagent::{Containers, ContainersConfig};
use claw_schemas::status::Reason;
use nix::sys::signal::{SigHandler, Signal};

/// The binary calls this first thing in `main`; a test binary has no `main` of its own.
#[used]
#[unsafe(link_section = ".init_array")]
static BECOME_STARTER: extern "C" fn() = {
    extern "C" fn run() {
        claw_nodeagent::shim::run_if_asked();
    }
    run
};

/// Generous, because the machine is shared: passing it means that something hangs.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// As an agent that `nohup` started does. All tests of this binary then run so.
pub fn ignore_hang_ups() {
    // SAFETY: there is no handler that could do anything.
    unsafe { nix::sys::signal::signal(Signal::SIGHUP, SigHandler::SigIgn) }.unwrap();
}

/// Whether real containers can run here. Says so loudly where they cannot; with `CLAW_TEST_NEEDS=all` that is a failure.
pub fn can_run_containers(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let must = std::env::var_os("CLAW_TEST_NEEDS").is_some_and(|value| value == "all");
    assert!(root || !must, "{test} must run here, but lacks root");
    if !root {
        // Not `eprintln!`: the test harness keeps to itself what a passing test prints.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED {test}: lacks root and control groups to run real containers"
        );
    }
    root
}

/// Waits until a condition holds, and says which did not.
pub async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client whose server cannot be reached: pods without config maps and secrets need none.
pub fn unreachable_client() -> Client {
    Client::new(Arc::new(Unreachable), "test")
}

struct Unreachable;

fn unreachable_error() -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "no server in this test")
}

#[async_trait]
impl Transport for Unreachable {
    async fn call(&self, _: Request) -> Result<Response, ApiError> {
        Err(unreachable_error())
    }
    async fn watch(&self, _: ResourceRef, _: WatchOptions, _: View) -> Result<WatchStream, ApiError> {
        Err(unreachable_error())
    }
    async fn stream(&self, _: ResourceRef, _: Vec<(String, String)>) -> Result<ByteStream, ApiError> {
        Err(unreachable_error())
    }
}

/// A node of its own for one test, with a count of what the machine held before.
pub struct Machine {
    pub root: tempfile::TempDir,
    pub cgroup: String,
}

impl Machine {
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("claw-node-").tempdir().unwrap();
        let name = root.path().file_name().unwrap().to_string_lossy().replace('.', "");
        Self { root, cgroup: format!("/clawbernetes-test-{name}") }
    }

    pub fn config(&self) -> ContainersConfig {
        ContainersConfig { cgroup_parent: self.cgroup.clone(), ..ContainersConfig::new(self.root.path()) }
    }

    pub async fn open(&self) -> Arc<Containers> {
        Containers::open(self.config()).await.unwrap()
    }

    /// Waits until the kernel holds nothing of this node any more: who has been ended is there a moment longer.
    pub async fn nothing_is_left(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {left:?} is left");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything of this node that the kernel still holds.
    pub fn leftovers(&self) -> BTreeSet<String> {
        let root = self.root.path().to_string_lossy().into_owned();
        let mut found = BTreeSet::new();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(&root)).map(|line| format!("mount {line}")));
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let folder = hierarchy.path().join(self.cgroup.trim_start_matches('/'));
            if folder.exists() {
                found.insert(format!("cgroup {}", folder.display()));
            }
        }
        found.extend(processes_in(&self.cgroup).into_iter().map(|process| format!("process {process}")));
        found.extend(shims_of(self.root.path()).into_iter().map(|pid| format!("shim {pid}")));
        if let Some(bridge) = self.bridge() {
            found.insert(format!("bridge {bridge}"));
        }
        found
    }

    fn bridge(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.root.path().join("network.json")).ok()?;
        let number = serde_json::from_str::<serde_json::Value>(&text).ok()?["number"].as_u64()?;
        let name = format!("claw{number}");
        Path::new("/sys/class/net").join(&name).exists().then_some(name)
    }
}

fn processes_in(cgroup: &str) -> Vec<String> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let groups = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        if groups.contains(cgroup) {
            found.push(process.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// Shims keep their log open under the root.
pub fn shims_of(root: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(name) = std::fs::read_to_string(process.path().join("comm")) else { continue };
        if name.trim() == "claw-shim" && opens_below(&process.path(), root) {
            found.push(pid);
        }
    }
    found
}

fn opens_below(process: &Path, root: &Path) -> bool {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { return false };
    let mut targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target: PathBuf| target.starts_with(root))
}

/// The texts of a log file, without time, stream and tag.
pub fn log_texts(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(str::to_owned).collect()
}
