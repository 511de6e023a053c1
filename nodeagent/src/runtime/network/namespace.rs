//! Namespaces that a pod's containers share. They are pinned by bind mounts, so no process needs to
//! hold them and an agent's restart does not matter.

use std::{
    fs::{self, File},
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, statfs},
};

use super::link;
use crate::Error;

/// Magic number of the file system behind `/proc/PID/ns`. Source: linux/magic.h.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Makes namespaces in a thread of their own, and pins them as files in `folder`.
pub(in crate::runtime) fn create(folder: &Path, hostname: &str, with_network: bool) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::io("creating", folder))?;
    let (folder, hostname) = (folder.to_owned(), hostname.to_owned());
    in_thread(move || {
        let mut flags = CloneFlags::CLONE_NEWIPC;
        let mut names = vec!["ipc"];
        if with_network {
            flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
            names.extend(["net", "uts"]);
        }
        unshare(flags).map_err(Error::system("making namespaces for a pod"))?;
        if with_network {
            nix::unistd::sethostname(&hostname).map_err(Error::system("setting a pod's hostname"))?;
            link::enable_loopback()?;
        }
        for name in names {
            pin(&folder.join(name), name)?;
        }
        Ok(())
    })
}

/// Makes a network for bridges, with nothing on it yet, and pins it.
pub(super) fn create_network(file: &Path) -> Result<(), Error> {
    let file = file.to_owned();
    in_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(Error::system("making a network for pods"))?;
        link::enable_loopback()?;
        pin(&file, "net")
    })
}

fn pin(file: &Path, name: &str) -> Result<(), Error> {
    File::create(file).map_err(Error::io("creating", file))?;
    let source = format!("/proc/thread-self/ns/{name}");
    mount(Some(source.as_str()), file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|errno| Error::io("pinning a namespace at", file)(errno.into()))
}

/// Whether the file still pins a namespace: after a reboot it is just a file.
pub(in crate::runtime) fn is_pinned(file: &Path) -> bool {
    statfs(file).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

/// Runs something inside a network namespace.
pub(in crate::runtime) fn run_inside<T: Send + 'static>(
    namespace: &File,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let namespace = namespace.try_clone().map_err(Error::io("duplicating", "a namespace"))?;
    in_thread(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(Error::system("entering a pod's network"))?;
        work()
    })
}

/// A thread that changes its namespaces must not be used for anything else.
fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    std::thread::Builder::new()
        .name("claw-namespace".to_owned())
        .spawn(work)
        .map_err(Error::io("starting", "a thread"))?
        .join()
        .unwrap_or_else(|_| Err(Error::Network("a thread panicked".to_owned())))
}
