//! One server a data folder.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::error::Error;

/// Holds `DIR/lock` as long as it lives. The kernel lets go of it even when the process is killed.
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock, making the folder if it is not there.
    pub fn take(data_dir: &Path) -> Result<Self, Error> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(Error::file("create the data folder", data_dir))?;
        let path = data_dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(Error::File { action: "lock", path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_cannot_share_a_data_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let first = DataLock::take(&folder).unwrap();
        let error = DataLock::take(&folder).err().unwrap().to_string();
        assert!(error.contains("in use by another server") && error.contains("--data-dir"), "{error}");
        drop(first);
        DataLock::take(&folder).unwrap();
    }
}
