//! Folders and files for their owner alone: what is stored here holds Secrets.
//!
//! Whoever made the folder, and whatever the umask was: modes are set, not only asked for.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Mode of folders that only their owner may enter.
const FOLDER: u32 = 0o700;

/// Mode of files that only their owner may read.
const FILE: u32 = 0o600;

/// Makes a folder that only its owner may enter, and its parents, or makes of one that is there such a one.
///
/// # Errors
/// When it cannot be made, or is somebody else's.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)?;
    close(path, FOLDER)
}

/// Opens a file for reading and writing, made first if it is not there.
///
/// # Errors
/// When it cannot be opened, or is somebody else's.
pub fn open(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE).open(path)?;
    file.set_permissions(Permissions::from_mode(FILE))?;
    Ok(file)
}

/// Takes from others what they may do with a file that another library made.
///
/// # Errors
/// When it is not there, or is somebody else's.
pub fn file(path: &Path) -> io::Result<()> {
    close(path, FILE)
}

fn close(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}
