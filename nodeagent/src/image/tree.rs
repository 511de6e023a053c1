//! A folder that strangers fill: every path is resolved below it by the kernel, so that nothing gets out of it, neither
//! by `..` nor through a symbolic link.
//!
//! Needs `openat2` (Linux 5.6). Must never know: archives.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::{
        stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat},
};

/// Of folders that nobody described.
const FOLDER_MODE: Mode = Mode::from_bits_truncate(0o755);

/// The folder.
pub(super) struct Tree {
    root: OwnedFd,
    /// The folder that was used last: entries mostly come folder by folder.
    last: Option<(PathBuf, Rc<OwnedFd>)>,
}

/// A name in a folder below the root. The folder is open, so whatever the path would lead to now, this stays below.
pub(super) struct Place {
    folder: Rc<OwnedFd>,
    name: PathBuf,
}

/// Owner, permissions and time of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub mtime_s: i64,
}

/// What kind of thing is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    Whiteout,
    Other,
}

impl Tree {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: File::open(root)?.into(), last: None })
    }

    /// The root itself.
    pub(super) fn root(&self) -> io::Result<File> {
        Ok(File::from(self.root.try_clone()?))
    }

    /// Where `path` is, whose folder must be there.
    pub(super) fn find(&mut self, path: &Path) -> io::Result<Place> {
        let (parent, name) = split(path)?;
        Ok(Place { folder: self.folder(parent)?, name })
    }

    /// Where `path` is; its folder is made if it is not there.
    pub(super) fn make_room(&mut self, path: &Path) -> io::Result<Place> {
        let (parent, name) = split(path)?;
        let folder = match self.folder(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = self.make_room(parent)?;
                mkdirat(Some(above.fd()), &above.name, FOLDER_MODE)?;
                // Whatever the process leaves out of new files' modes.
                fchmodat(Some(above.fd()), &above.name, FOLDER_MODE, FchmodatFlags::FollowSymlink)?;
                self.folder(parent)?
            }
            other => other?,
        };
        Ok(Place { folder, name })
    }

    /// Something was replaced, so paths may lead elsewhere.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    fn folder(&mut self, path: &Path) -> io::Result<Rc<OwnedFd>> {
        if let Some((known, folder)) = &self.last
            && known == path
        {
            return Ok(Rc::clone(folder));
        }
        let folder = Rc::new(beneath(&self.root, path, OFlag::O_PATH | OFlag::O_DIRECTORY)?);
        self.last = Some((path.to_owned(), Rc::clone(&folder)));
        Ok(folder)
    }
}

/// Opens what `path` leads to without leaving `root`. The empty path is the root.
pub(super) fn beneath(root: &OwnedFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(root.as_raw_fd(), path, how) {
            Ok(opened) => return Ok(own(opened)),
            // The kernel could not rule out an escape, because something was renamed meanwhile.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn split(path: &Path) -> io::Result<(&Path, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(Path::new("")), name.into()))
}

#[expect(unsafe_code, reason = "nix gives raw descriptors")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: it was just opened, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

impl Place {
    fn fd(&self) -> RawFd {
        self.folder.as_raw_fd()
    }

    /// What is there, links not followed.
    pub(super) fn kind(&self) -> io::Result<Option<Kind>> {
        let found = match fstatat(Some(self.fd()), &self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let format = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        Ok(Some(match format {
            SFlag::S_IFDIR => Kind::Folder,
            SFlag::S_IFCHR if found.st_rdev == 0 => Kind::Whiteout,
            _ => Kind::Other,
        }))
    }

    /// Removes whatever is there.
    pub(super) fn remove(&self) -> io::Result<()> {
        match unlinkat(Some(self.fd()), &self.name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            // The standard library removes trees without following links.
            Err(Errno::EISDIR) => crate::tree::remove(&self.path()),
            Err(error) => Err(error.into()),
        }
    }

    /// By way of the open folder: the last component is not followed by what is called with it here.
    fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd().to_string()).join(&self.name)
    }

    /// Makes a file that is open for writing, in place of whatever is there.
    pub(super) fn file(&self) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(Some(self.fd()), &self.name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let file = create().or_else(|error| self.again(error, create))?;
        Ok(File::from(own(file)))
    }

    /// Makes a folder, or keeps one that is there.
    pub(super) fn make_folder(&self) -> io::Result<File> {
        let create = || mkdirat(Some(self.fd()), &self.name, FOLDER_MODE);
        match create() {
            Err(Errno::EEXIST) if self.kind()? == Some(Kind::Folder) => {}
            made => made.or_else(|error| self.again(error, create))?,
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(File::from(own(openat(Some(self.fd()), &self.name, flags, Mode::empty())?)))
    }

    pub(super) fn symlink(&self, target: &OsStr) -> io::Result<()> {
        let create = || symlinkat(target, Some(self.fd()), &self.name);
        create().or_else(|error| self.again(error, create))
    }

    /// Another name for what is at `other`, which is not followed.
    pub(super) fn hard_link(&self, other: &Self) -> io::Result<()> {
        let create = || linkat(Some(other.fd()), &other.name, Some(self.fd()), &self.name, AtFlags::empty());
        create().or_else(|error| self.again(error, create))
    }

    pub(super) fn fifo(&self) -> io::Result<()> {
        let create =
            || mknodat(Some(self.fd()), &self.name, SFlag::S_IFIFO, Mode::S_IRUSR | Mode::S_IWUSR, 0);
        create().or_else(|error| self.again(error, create))
    }

    /// Says to overlayfs that what lower layers have here is gone.
    pub(super) fn whiteout(&self) -> io::Result<()> {
        Ok(mknodat(Some(self.fd()), &self.name, SFlag::S_IFCHR, Mode::empty(), 0)?)
    }

    fn again<T>(&self, error: Errno, create: impl Fn() -> nix::Result<T>) -> io::Result<T> {
        if error != Errno::EEXIST {
            return Err(error.into());
        }
        self.remove()?;
        Ok(create()?)
    }

    /// Sets what can be set of a thing that is no folder and no file: owner, time, and permissions unless it is a link.
    pub(super) fn describe(&self, attributes: &Attributes, is_link: bool) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        fchownat(Some(self.fd()), &self.name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if !is_link {
            let mode = Mode::from_bits_truncate(attributes.mode);
            fchmodat(Some(self.fd()), &self.name, mode, FchmodatFlags::FollowSymlink)?;
        }
        let time = TimeSpec::new(attributes.mtime_s, 0);
        utimensat(Some(self.fd()), &self.name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_that_lead_out_are_refused_by_the_kernel() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir(&root).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("/", root.join("top")).unwrap();
        std::fs::create_dir(root.join("inner")).unwrap();
        symlink("inner", root.join("within")).unwrap();
        let mut tree = Tree::open(&root).unwrap();
        for path in ["../x", "up/x", "top/x", "inner/../../x"] {
            let error = tree.make_room(Path::new(path)).err().expect(path);
            assert_eq!(error.raw_os_error(), Some(nix::libc::EXDEV), "{path}: {error}");
        }
        let place = tree.make_room(Path::new("within/new/file")).unwrap();
        assert_eq!(place.name, Path::new("file"));
        place.file().unwrap();
        assert!(root.join("inner/new/file").is_file());
    }

    #[test]
    fn what_is_there_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(folder.path()).unwrap();
        let place = tree.make_room(Path::new("a")).unwrap();
        place.make_folder().unwrap();
        tree.make_room(Path::new("a/b/c")).unwrap().file().unwrap();
        place.make_folder().unwrap();
        assert!(folder.path().join("a/b/c").exists(), "a folder over a folder keeps what is in it");
        place.symlink(OsStr::new("elsewhere")).unwrap();
        assert_eq!(place.kind().unwrap(), Some(Kind::Other));
        place.file().unwrap();
        assert!(folder.path().join("a").is_file());
        place.remove().unwrap();
        assert_eq!(place.kind().unwrap(), None);
    }
}
