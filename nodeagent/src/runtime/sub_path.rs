//! Parts of volumes: what `subPath` names is opened once, inside its volume, and mounted by what was opened.
//!
//! A container that shares the volume may change links in it at any moment. A path that was looked at and then mounted by its
//! name could lead anywhere by then (CVE-2017-1002101, CVE-2021-25741).

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, mkdirat},
};

use crate::{Error, shim::sys::own};

/// Where a pod's parts of volumes are mounted, in its folder.
pub(super) const FOLDER: &str = "subpaths";

/// A lookup is repeated when something was renamed meanwhile.
const TRIES: usize = 64;

/// A part of a volume.
pub(super) struct Part {
    opened: OwnedFd,
    is_folder: bool,
}

/// Opens what a relative path leads to. Links in the volume are followed as long as they stay in it. Missing folders are made
/// with `create`.
///
/// # Errors
/// For people to read: there is no such thing, or it is not in the volume.
pub(super) fn open(volume: &Path, path: &str, create: bool) -> Result<Part, String> {
    let root = open_folder(volume).map_err(|error| error.to_string())?;
    let names: Vec<&Path> = Path::new(path)
        .components()
        .map(|part| match part {
            Component::Normal(name) => Ok(Path::new(name)),
            Component::CurDir => Ok(Path::new(".")),
            _ => Err(format!("\"{path}\" must be relative and must not contain \"..\"")),
        })
        .collect::<Result<_, _>>()?;
    let opened = match lookup(&root, Path::new(path)) {
        Err(Errno::ENOENT) if create => make(root, &names),
        opened => opened,
    };
    let opened = opened.map_err(|errno| match errno {
        Errno::EXDEV | Errno::ELOOP => format!("\"{path}\" leads out of the volume"),
        errno => format!("\"{path}\": {}", io::Error::from(errno)),
    })?;
    let file = File::from(opened);
    let is_folder = file.metadata().map_err(|error| error.to_string())?.is_dir();
    Ok(Part { opened: file.into(), is_folder })
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let options = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open(path, options, Mode::empty())?;
    Ok(own(opened))
}

/// Never out of `root`, whatever changes while it looks.
fn lookup(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let how = || {
        OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    };
    let mut tries = 0;
    loop {
        match openat2(root.as_raw_fd(), path, how()) {
            Err(Errno::EAGAIN) if tries < TRIES => tries += 1,
            opened => return opened.map(own),
        }
    }
}

/// Goes down a folder at a time, and makes those that are missing. A name that is a link to nowhere stays one.
fn make(root: OwnedFd, names: &[&Path]) -> Result<OwnedFd, Errno> {
    let mut so_far = PathBuf::new();
    let mut parent = root.try_clone().map_err(|_| Errno::EMFILE)?;
    for name in names {
        so_far.push(name);
        parent = match lookup(&root, &so_far) {
            Err(Errno::ENOENT) => {
                match mkdirat(Some(parent.as_raw_fd()), *name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                lookup(&root, &so_far)?
            }
            opened => opened?,
        };
    }
    Ok(parent)
}

impl Part {
    /// Mounts it at a path of the pod's own, in place of what an earlier run had there.
    pub(super) fn mount_at(&self, target: &Path) -> Result<(), Error> {
        let _ = umount2(target, MntFlags::MNT_DETACH);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io("creating", parent))?;
        }
        // It may have been a folder in the run before.
        let _ = std::fs::remove_file(target).or_else(|_| std::fs::remove_dir(target));
        if self.is_folder {
            std::fs::create_dir(target).map_err(Error::io("creating", target))?;
        } else {
            File::create(target).map_err(Error::io("creating", target))?;
        }
        let source = format!("/proc/self/fd/{}", self.opened.as_raw_fd());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(source.as_str()), target, None::<&str>, flags, None::<&str>)
            .map_err(|errno| Error::io("mounting a part of a volume at", target)(errno.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn seen(part: &Part) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", part.opened.as_raw_fd())).unwrap()
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        fs::create_dir_all(volume.join("real")).unwrap();
        symlink("/etc", volume.join("out")).unwrap();
        symlink("../..", volume.join("up")).unwrap();
        symlink("real", volume.join("inner")).unwrap();
        symlink("nowhere", volume.join("dangling")).unwrap();
        for path in ["out", "out/passwd", "up", "up/x"] {
            for create in [false, true] {
                let why = open(&volume, path, create).err().unwrap();
                assert!(why.contains("leads out"), "{path}: {why}");
            }
        }
        for path in ["/etc", "..", "a/../../b"] {
            assert!(open(&volume, path, true).err().unwrap().contains("must be relative"), "{path}");
        }
        assert!(open(&volume, "dangling", true).is_err() && !volume.join("nowhere").exists());
        assert!(open(&volume, "missing", false).is_err());
        assert_eq!(seen(&open(&volume, "inner", false).unwrap()), volume.join("real"));
        let made = open(&volume, "new/folder", true).unwrap();
        assert!(made.is_folder && seen(&made) == volume.join("new/folder"));
    }

    /// What was opened is what is mounted, whatever its name means by then.
    #[test]
    fn a_name_that_is_exchanged_for_a_link_changes_nothing() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (volume, target) = (folder.path().join("volume"), folder.path().join("subpaths/c/0"));
        fs::create_dir_all(volume.join("x")).unwrap();
        fs::write(volume.join("x/mine"), "").unwrap();
        let part = open(&volume, "x", false).unwrap();
        fs::rename(volume.join("x"), volume.join("moved")).unwrap();
        symlink("/", volume.join("x")).unwrap();
        part.mount_at(&target).unwrap();
        let names: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // Again, as the next run of the container does; then it is a file.
        part.mount_at(&target).unwrap();
        let file = open(&volume, "moved/mine", false).unwrap();
        file.mount_at(&target).unwrap();
        let is_file = target.is_file();
        umount2(&target, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(names, ["mine"]);
        assert!(is_file);
    }
}
