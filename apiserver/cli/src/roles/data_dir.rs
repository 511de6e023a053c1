//! Where a role keeps its state when nobody says otherwise.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use claw_nodeagent::rootless;

/// State of the system, as root.
const SYSTEM: &str = "/var/lib/clawbernetes";

/// What a cluster of one process keeps there.
const OURS: [&str; 6] = ["admin.kubeconfig", "admin.token", "lock", "node", "pki", "store"];

/// The folder that was asked for, else `/var/lib/clawbernetes` as root and
/// `$XDG_DATA_HOME/clawbernetes` (`~/.local/share/clawbernetes`) as anybody else.
pub fn or_default(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let folder = match asked {
        Some(folder) => folder,
        None if is_root() => PathBuf::from(SYSTEM),
        None => of_user().context("no home folder is known here; say where to keep state with --data-dir")?,
    };
    // Paths are handed to containers' shims, which have another working folder.
    std::path::absolute(&folder).with_context(|| format!("--data-dir {}", folder.display()))
}

/// Whose namespaces an ordinary user becomes root of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Those of a node, which outlive this process.
    WithTheNode,
    /// Its own.
    Alone,
}

/// Makes this process root among the users whom an ordinary user has. The folder of its state is decided here: afterwards nobody
/// could tell whose default counts. Call it before any thread exists.
pub fn become_root(folder: &mut Option<PathBuf>, stay: Stay) -> anyhow::Result<()> {
    if is_root() {
        return Ok(());
    }
    let decided = or_default(folder.take())?;
    let entered = match stay {
        Stay::WithTheNode => rootless::enter(&decided.join("node")),
        Stay::Alone => rootless::enter_alone(),
    };
    entered.context("an ordinary user cannot have containers here")?;
    *folder = Some(decided);
    Ok(())
}

fn of_user() -> Option<PathBuf> {
    let data = env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    data.or_else(|| Some(env::home_dir()?.join(".local/share"))).map(|data| data.join("clawbernetes"))
}

/// Whether a folder may be deleted as a cluster's: it is not there yet, or holds nothing that others put there.
pub fn is_disposable(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return !folder.exists() };
    entries.flatten().all(|entry| entry.file_name().to_str().is_some_and(|name| OURS.contains(&name)))
}

/// Whether this process is root, if only of namespaces of its own.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_else_in_it_is_not_ours_to_delete() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("data");
        assert!(is_disposable(&folder));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("admin.kubeconfig"), "").unwrap();
        assert!(is_disposable(&folder));
        fs::write(folder.join("thesis.txt"), "").unwrap();
        assert!(!is_disposable(&folder));
        assert!(!is_disposable(&folder.join("thesis.txt")));
    }
}
