//! The container's root folder: the image read-only below, a writable layer above.
//!
//! The mount lives in the shim's own mount namespace. When the shim and the container are gone, so
//! is the namespace and the mount with it: nothing can leak, however they ended.

use std::{fs, path::Path};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::{RunJob, files};
use crate::{Error, tree};

/// Leaves the host's mount namespace and mounts the container's root.
pub(super) fn enter_own_namespace(job: &RunJob) -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(Error::system("leaving the host's mount namespace"))?;
    // Slave: the agent's unmounts arrive here, ours stay here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .map_err(Error::system("making the mounts private to the shim"))?;
    let rootfs = job.bundle.join(files::ROOTFS);
    for folder in [files::ROOTFS, files::UPPER, files::WORK] {
        let path = job.bundle.join(folder);
        fs::create_dir_all(&path).map_err(Error::io("creating", &path))?;
    }
    if overlay(job, &rootfs).is_err() {
        // Overlays do not stack on every file system (overlay in a container, some network disks).
        copy_tree(&job.image_root, &rootfs)?;
    }
    Ok(())
}

/// Frees what a container that is over wrote to its root; its log stays.
pub(super) fn remove_root(job: &RunJob) {
    let rootfs = job.bundle.join(files::ROOTFS);
    let _ = umount2(&rootfs, MntFlags::MNT_DETACH);
    // Nothing may be removed through a mount: it could be a folder of the host.
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if table.is_empty() || table.contains(&*rootfs.to_string_lossy()) {
        return;
    }
    for folder in [files::ROOTFS, files::UPPER, files::WORK] {
        let _ = tree::remove(&job.bundle.join(folder));
    }
}

fn overlay(job: &RunJob, rootfs: &Path) -> nix::Result<()> {
    // Colons and commas separate options, so paths that hold them cannot be named: copy instead.
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        job.image_root.display(),
        job.bundle.join(files::UPPER).display(),
        job.bundle.join(files::WORK).display()
    );
    if options.matches(',').count() != 2 || options.contains(':') {
        return Err(nix::errno::Errno::EINVAL);
    }
    // Nobody reads the upper layer once the container is over, so nothing need be on the disk by then:
    // without "volatile" every unmount waits for everything that anybody wrote to that disk.
    let volatile = format!("{options},volatile");
    mount_overlay(rootfs, &volatile).or_else(|_| mount_overlay(rootfs, &options))
}

fn mount_overlay(rootfs: &Path, options: &str) -> nix::Result<()> {
    mount(Some("overlay"), rootfs, Some("overlay"), MsFlags::empty(), Some(options))
}

/// Copies folders, files with their modes, and links.
fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(from).map_err(Error::io("reading", from))? {
        let entry = entry.map_err(Error::io("reading", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(Error::io("reading", &source))?;
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(Error::io("creating", &target))?;
            let mode = fs::metadata(&source).map_err(Error::io("reading", &source))?.permissions();
            fs::set_permissions(&target, mode).map_err(Error::io("creating", &target))?;
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(Error::io("reading", &source))?;
            std::os::unix::fs::symlink(link, &target).map_err(Error::io("linking", &target))?;
        } else {
            fs::copy(&source, &target).map_err(Error::io("copying to", &target))?;
        }
    }
    Ok(())
}
