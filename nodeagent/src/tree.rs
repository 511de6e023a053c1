//! Removes what containers left, however deep it is: no stack and no descriptor is used up by a level.
//!
//! The standard library's removal takes both for every level, so that a program in a container could end the agent by
//! making folders in folders.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, renameat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

/// Entries looked at before anything is done about them.
const BATCH: usize = 1_024;

/// Removes a folder with all that is in it. Links are removed, never followed.
///
/// # Errors
/// When something cannot be removed, or a file system is mounted in it.
pub fn remove(folder: &Path) -> io::Result<()> {
    let mut top = open(None, folder.as_os_str())?;
    let mut names = Names::default();
    loop {
        let entries = entries(&mut top)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            if !unlink(&top, &entry)? {
                flatten(&top, &entry, &mut names)?;
            }
        }
    }
    drop(top);
    std::fs::remove_dir(folder)
}

/// Moves what is in a folder up beside it, where there is no deeper level, and removes the folder.
fn flatten(top: &Dir, name: &CString, names: &mut Names) -> io::Result<()> {
    let mut folder = open(Some(top), OsStr::from_bytes(name.as_bytes()))?;
    loop {
        let entries = entries(&mut folder)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            if !unlink(&folder, &entry)? {
                names.move_up(&folder, &entry, top)?;
            }
        }
    }
    match unlinkat(Some(top.as_raw_fd()), name.as_c_str(), UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOENT) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a file or an empty folder. `false`: it is a folder that holds something.
fn unlink(folder: &Dir, name: &CString) -> io::Result<bool> {
    let at = Some(folder.as_raw_fd());
    match unlinkat(at, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(true),
        // Linux says EISDIR of folders, POSIX would have EPERM.
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    match unlinkat(at, name.as_c_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn open(at: Option<&Dir>, name: &OsStr) -> io::Result<Dir> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(Dir::openat(at.map(|at| at.as_raw_fd()), name, flags, Mode::empty())?)
}

/// Some of what is in a folder, from its beginning.
fn entries(folder: &mut Dir) -> io::Result<Vec<CString>> {
    let names = folder.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    let real =
        names.filter(|name| !matches!(name.as_deref().map(std::ffi::CStr::to_bytes), Ok(b"." | b"..")));
    real.take(BATCH).collect::<Result<_, _>>().map_err(io::Error::from)
}

/// New names for what is moved.
#[derive(Default)]
struct Names {
    last: u64,
}

impl Names {
    fn move_up(&mut self, from: &Dir, name: &CString, to: &Dir) -> io::Result<()> {
        loop {
            self.last += 1;
            let new = format!(".removing-{}", self.last);
            match renameat(Some(from.as_raw_fd()), name.as_c_str(), Some(to.as_raw_fd()), new.as_str()) {
                // Somebody has that name already.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(()) => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_folder_goes_with_all_that_is_in_it_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let (outside, folder) = (scratch.path().join("outside"), scratch.path().join("folder"));
        fs::create_dir_all(outside.join("kept")).unwrap();
        fs::create_dir_all(folder.join("a/b/c")).unwrap();
        fs::create_dir_all(folder.join(".removing-1/x")).unwrap();
        fs::write(folder.join("a/b/file"), "x").unwrap();
        fs::write(folder.join(".removing-2"), "x").unwrap();
        symlink(&outside, folder.join("a/link")).unwrap();
        for number in 0..3 * BATCH {
            fs::write(folder.join("a/b/c").join(number.to_string()), "").unwrap();
        }
        remove(&folder).unwrap();
        assert!(!folder.exists() && outside.join("kept").is_dir());
        assert_eq!(remove(&folder).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn no_depth_is_too_deep() {
        // Where there is one, in memory: some disks take milliseconds to free a folder.
        let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let folder = scratch.path().join("folder");
        fs::create_dir(&folder).unwrap();
        // By names relative to one folder after the other, as a program in a container would.
        let mut at = open(None, folder.as_os_str()).unwrap();
        for _ in 0..4_000 {
            nix::sys::stat::mkdirat(Some(at.as_raw_fd()), "d", Mode::S_IRWXU).unwrap();
            at = open(Some(&at), OsStr::new("d")).unwrap();
        }
        drop(at);
        let small = std::thread::Builder::new().stack_size(64 * 1024);
        small
            .spawn({
                let folder = folder.clone();
                move || remove(&folder).unwrap()
            })
            .unwrap()
            .join()
            .unwrap();
        assert!(!folder.exists());
    }
}
