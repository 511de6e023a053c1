//! One server a data folder.

use std::path::Path;

use crate::{error::Error, file_lock::FileLock, private};

/// Holds `DIR/lock` as long as it lives.
pub struct DataLock {
    _file: FileLock,
}

impl DataLock {
    /// Takes the lock, making the folder if it is not there, and its owner's alone if it is not. Call it where blocking is allowed.
    pub fn take(data_dir: &Path) -> Result<Self, Error> {
        private::folder(data_dir)
            .map_err(Error::file("create the data folder, or close it to others,", data_dir))?;
        let path = data_dir.join("lock");
        match FileLock::take(&path).map_err(Error::file("lock", &path))? {
            Some(file) => Ok(Self { _file: file }),
            None => Err(Error::Locked(data_dir.to_owned())),
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
