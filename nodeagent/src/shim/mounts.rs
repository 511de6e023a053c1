//! The container's root folder: the image read-only below, a writable layer above.
//!
//! The mount lives in the shim's own mount namespace. When the shim and the container are gone, so
//! is the namespace and the mount with it: nothing can leak, however they ended.

use std::{fs, path::Path};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::{RunJob, copy, files};
use crate::{Error, overlay, tree};

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
    if stack(job, &rootfs).is_err() {
        // Overlays do not stack on every file system (overlay in a container, some network disks).
        copy::layers(&job.layers, &rootfs)?;
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

fn stack(job: &RunJob, rootfs: &Path) -> nix::Result<()> {
    // What is said to mount has to fit into a page, and an image has hundreds of layers: they are named from their own
    // folder, where their names are short.
    let shared = job.layers.first().and_then(|layer| layer.parent()).ok_or(Errno::EINVAL)?;
    let names = job.layers.iter().map(|layer| layer.strip_prefix(shared).ok()?.to_str());
    let names: Option<Vec<&str>> = names.collect();
    let names = names.ok_or(Errno::EINVAL)?;
    let (upper, work) = (job.bundle.join(files::UPPER), job.bundle.join(files::WORK));
    let paths = [upper.display().to_string(), work.display().to_string()];
    // Colons and commas separate options, so paths that hold them cannot be named: copy instead.
    if names
        .iter()
        .copied()
        .chain(paths.iter().map(String::as_str))
        .any(|path| path.contains([',', ':', '\\']))
    {
        return Err(Errno::EINVAL);
    }
    let marks = overlay::option();
    let options = format!("lowerdir={},upperdir={},workdir={}{marks}", names.join(":"), paths[0], paths[1]);
    // Nobody reads the upper layer once the container is over, so nothing need be on the disk by then:
    // without "volatile" every unmount waits for everything that anybody wrote to that disk.
    let volatile = format!("{options},volatile");
    let before = nix::unistd::getcwd()?;
    nix::unistd::chdir(shared)?;
    let mounted = mount_overlay(rootfs, &volatile).or_else(|_| mount_overlay(rootfs, &options));
    nix::unistd::chdir(&before)?;
    mounted
}

fn mount_overlay(rootfs: &Path, options: &str) -> nix::Result<()> {
    mount(Some("overlay"), rootfs, Some("overlay"), MsFlags::empty(), Some(options))
}
