//! The process that makes an agent's namespaces and keeps them.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{AccessFlags, access, pause, setsid},
};

use crate::{Error, shim::sys};

/// Where control groups are looked for.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What the holder tells who started it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    /// It has a namespace of users that nobody is in yet.
    Apart,
    /// Everything is there.
    Ready,
}

impl Said {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::Ready => "ready",
        }
    }
}

/// Makes the namespaces, and stays until it is killed; without a lock to be found by, for as long as who started it.
pub(super) fn hold(lock: Option<&Path>) -> ! {
    // A name of its own in `ps`; the kernel keeps 15 bytes.
    let _ = fs::write("/proc/self/comm", "claw-holder");
    // The agent may be stopped from a terminal; what it leaves must not be.
    let _ = setsid();
    if let Err(error) = make(lock) {
        let _ = writeln!(io::stdout(), "{}", error.full().replace('\n', " "));
        std::process::exit(1);
    }
    say(Said::Ready);
    if lock.is_none() {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    }
    let _ = sys::detach_standard_streams();
    loop {
        pause();
    }
}

fn say(what: Said) {
    // Who started it may be gone; the next one finds it by its lock.
    let mut out = io::stdout();
    let _ = writeln!(out, "{}", what.word()).and_then(|()| out.flush());
}

fn make(lock: Option<&Path>) -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| {
        Error::Unsupported(format!(
            "this machine lets only root make namespaces ({errno}): run it with sudo, or have root allow it (the sysctls \
             user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns)"
        ))
    })?;
    say(Said::Apart);
    io::stdin().read_exact(&mut [0]).map_err(Error::io("waiting for", "ids"))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(Error::system("leaving the machine's mount namespace"))?;
    // What the machine mounts arrives here, what is mounted here stays here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .map_err(Error::system("making mounts private"))?;
    show_own_cgroups()?;
    std::env::set_current_dir("/").map_err(Error::io("going to", "/"))?;
    // From now on it is found.
    lock.map_or(Ok(()), |lock| sys::lock_for_life(lock).map_err(Error::io("locking", lock)))
}

/// Has the control groups that this user may change, if there are such, take the place of the machine's; else those of version 2
/// as they are, which can be looked at.
fn show_own_cgroups() -> Result<(), Error> {
    let Some(root) = version_2() else { return mount_version_2() };
    let delegated = delegated(&root, &own_group());
    delegated.iter().for_each(|group| make_way(group));
    let shown = delegated.unwrap_or(root);
    if shown == Path::new(CGROUPS) {
        return Ok(());
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&shown), CGROUPS, None::<&str>, flags, None::<&str>)
        .map_err(|errno| Error::io("showing the user's control groups of", &shown)(errno.into()))
}

/// Where version 2 of control groups is mounted: alone, or beside version 1.
fn version_2() -> Option<PathBuf> {
    [CGROUPS, "/sys/fs/cgroup/unified"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.join("cgroup.controllers").exists())
}

/// A mount of it can be had by whoever is root of a namespace of groups.
fn mount_version_2() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(Error::system("making a namespace of control groups"))?;
    mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), MsFlags::empty(), None::<&str>)
        .map_err(|errno| Error::io("mounting control groups (version 2) at", CGROUPS)(errno.into()))
}

/// The group of version 2 that this process is in.
fn own_group() -> PathBuf {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().into()
}

/// The topmost of the groups around `own` that this user may change: moving a process takes the right to change what is above both
/// its groups.
fn delegated(root: &Path, own: &Path) -> Option<PathBuf> {
    let groups = own.ancestors().map(|group| root.join(group));
    groups.take_while(|group| access(&group.join("cgroup.procs"), AccessFlags::W_OK).is_ok()).last()
}

/// A group that limits those below it must have no processes itself: whoever is in it, this one and the agent, goes below. Where
/// that cannot be, limits cannot either, which the Node says.
fn make_way(group: &Path) {
    let below = group.join("clawbernetes-agent");
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    if members.is_empty() || fs::create_dir_all(&below).is_err() {
        return;
    }
    for member in members.lines() {
        let _ = fs::write(below.join("cgroup.procs"), member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_group_that_can_be_changed_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for group in ["", "a", "a/b", "a/b/c"] {
            fs::create_dir_all(root.path().join(group)).unwrap();
        }
        for group in ["a/b", "a/b/c"] {
            fs::write(root.path().join(group).join("cgroup.procs"), "").unwrap();
        }
        let found = |own: &str| delegated(root.path(), Path::new(own));
        assert_eq!(found("a/b/c"), Some(root.path().join("a/b")));
        assert_eq!(found("a"), None, "nothing of it is ours");
    }
}
