//! Small files that survive a power cut: written aside, synced, renamed, and the folder synced after them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use crate::{error::Error, private};

/// Mode of keys, tokens and kubeconfigs.
pub const PRIVATE: u32 = 0o600;
/// Mode of certificates.
pub const PUBLIC: u32 = 0o644;

/// Makes a folder that only its owner may enter, and its parents.
pub fn private_folder(path: &Path) -> Result<(), Error> {
    private::folder(path).map_err(Error::file("create the folder", path))
}

/// The text of a file, or `None` when there is none.
pub fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Writes a whole file, or leaves what was there.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    replace(path, content, mode).map_err(Error::file("write", path))
}

/// Leaves a file alone that already says so with that mode.
pub fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let same_mode = fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o777 == mode);
    if same_mode && fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    write(path, content, mode)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let aside = path.with_extension("new");
    // A leftover of a crash may have a wider mode: the mode below counts only for files it creates.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(folder)?.sync_all()
}
