//! The process that becomes a daemon. Daemons and their clients share memory by names below `/dev/shm`; that must not be the machine's, which
//! containers would see then. So it looks at a folder of its own there, in a mount namespace of its own, which a process can
//! only enter before it has threads: this very program, once more.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, exit},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// What the program is called with for it; the folder and a program with its arguments follow.
const ARGUMENT: &str = "__clawbernetes-mps-daemon";

/// What starts it.
pub fn command() -> Vec<OsString> {
    ["/proc/self/exe", ARGUMENT].map(OsString::from).to_vec()
}

/// Becomes a daemon, and does not return, if this process was started as one.
pub fn run_if_asked(mut arguments: impl Iterator<Item = OsString>) {
    if arguments.next().is_none_or(|first| first != ARGUMENT) {
        return;
    }
    let (Some(memory), Some(program)) = (arguments.next(), arguments.next()) else { exit(2) };
    // Or whoever ends the agent from a terminal ends it, too.
    let _ = nix::unistd::setsid();
    if enter(Path::new(&memory)).is_err() {
        exit(3);
    }
    let _ = Command::new(program).args(arguments).exec();
    exit(127);
}

fn enter(memory: &Path) -> nix::Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What the machine mounts later is seen, what is mounted here is not.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    mount(Some(memory), "/dev/shm", none, MsFlags::MS_BIND, none)
}
