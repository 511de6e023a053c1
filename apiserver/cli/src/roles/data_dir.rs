//! Where a role keeps its state when nobody says otherwise.

use std::{env, path::PathBuf};

use anyhow::Context as _;

/// State of the system, as root.
const SYSTEM: &str = "/var/lib/clawbernetes";

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

fn of_user() -> Option<PathBuf> {
    let data = env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    data.or_else(|| Some(env::home_dir()?.join(".local/share"))).map(|data| data.join("clawbernetes"))
}

/// Whether this process may make containers.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
