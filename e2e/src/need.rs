//! What a story needs from the machine, and saying loudly when it is not there.
//!
//! A story that cannot run prints `SKIPPED` with the reason and how to get what is missing. With
//! `CLAW_TEST_NEEDS=all`, which `make ci` sets, a missing need is a failure: nothing is skipped in silence.

use std::{
    env, fmt,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use crate::{kubectl::Kubectl, user::UID};

/// Something that not every machine has.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// Containers need root and cgroups.
    Root,
    /// Any kubectl.
    Kubectl,
    /// The Python client and kopf in `.tools/venv`.
    Python,
    /// What makes a network of its own for a machine: `ip`, `nft`, `nsenter`, `unshare`.
    Networks,
    /// A registry for images, Debian's.
    DockerRegistry,
    /// What makes somebody an ordinary user who has subordinate ids.
    Users,
    /// What carries the packets of an ordinary user's pods out of their network.
    WayOut,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root and writable cgroups (run the tests as root)",
            Self::Kubectl => "kubectl (run `make deps`)",
            Self::Python => "the Python client and kopf (run `make deps`)",
            Self::Networks => "ip, nft, nsenter and unshare (run `make deps`)",
            Self::DockerRegistry => "docker-registry (run `make deps`)",
            Self::WayOut => "slirp4netns and /dev/net/tun (run `make deps`)",
            Self::Users => "newuidmap, setpriv, unshare and namespaces that users may make (run `make deps`)",
        })
    }
}

impl Need {
    fn is_there(self) -> bool {
        match self {
            Self::Root => nix::unistd::geteuid().is_root() && cgroups_are_writable(),
            Self::Kubectl => !Kubectl::installed().is_empty(),
            Self::Python => crate::binary::workspace().join(".tools/venv/bin/python").exists(),
            Self::Networks => ["ip", "nft", "nsenter", "unshare"].iter().all(|program| is_on_path(program)),
            Self::DockerRegistry => is_on_path("docker-registry"),
            Self::WayOut => is_on_path("slirp4netns") && Path::new("/dev/net/tun").exists(),
            Self::Users => {
                ["newuidmap", "setpriv", "unshare"].iter().all(|program| is_on_path(program))
                    && users_may_make_namespaces()
            }
        }
    }
}

/// Whether the story may run; says so when not.
///
/// # Panics
/// When something is missing and `CLAW_TEST_NEEDS=all` forbids skipping.
#[must_use]
pub fn all(story: &str, needs: &[Need]) -> bool {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_there()).collect();
    if missing.is_empty() {
        return true;
    }
    let text = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    assert!(
        env::var_os("CLAW_TEST_NEEDS").is_none_or(|value| value != "all"),
        "{story} must run here, but lacks {text}"
    );
    skipped(story, &text);
    false
}

/// Says that a story did not run, for want of what a machine may well do without.
pub fn skipped(story: &str, lacks: &str) {
    // Not `eprintln!`: the test harness keeps to itself what a passing test prints.
    let _ = writeln!(io::stderr(), "SKIPPED {story}: lacks {lacks}");
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).exists())
}

fn users_may_make_namespaces() -> bool {
    let id = UID.to_string();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "--",
        "unshare",
        "--user",
        "--net",
        "true",
    ]);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn cgroups_are_writable() -> bool {
    ["/sys/fs/cgroup/cgroup.subtree_control", "/sys/fs/cgroup/memory/cgroup.procs"]
        .iter()
        .any(|file| Path::new(file).exists() && std::fs::OpenOptions::new().write(true).open(file).is_ok())
}
