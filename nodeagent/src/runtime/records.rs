//! Small JSON records on disk, replaced whole: a reader sees the old one or the new one.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// Records hold what containers are given, Secrets among it: they are for the agent alone.
const PRIVATE: u32 = 0o600;

/// Replaces the record. It survives the death of any process, not a power cut: for what is about
/// processes, which a power cut ends too.
pub fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    replace(path, record, false)
}

/// Replaces the record, and returns once it would survive a power cut.
pub fn write_durably<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    replace(path, record, true)
}

fn replace<T: Serialize>(path: &Path, record: &T, durably: bool) -> Result<(), Error> {
    let text =
        serde_json::to_vec(record).map_err(|source| Error::Record { path: path.to_owned(), source })?;
    let temporary = path.with_extension("tmp");
    let result = (|| -> io::Result<()> {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(PRIVATE).open(&temporary)?;
        // What is left of an earlier one has the mode it had.
        file.set_permissions(Permissions::from_mode(PRIVATE))?;
        file.write_all(&text)?;
        if durably {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        if durably && let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    })();
    result.map_err(Error::io("writing", path))
}

/// How much room [`reserve`] takes: one block of a file system.
const RESERVED_BYTES: usize = 4096;

/// Takes room on the disk for a record that must be written one day, when the disk may be full.
pub fn reserve(path: &Path) -> Result<(), Error> {
    let room = [b' '; RESERVED_BYTES];
    let result = (|| {
        let temporary = path.with_extension("tmp");
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(PRIVATE).open(temporary)?;
        file.write_all(&room)
    })();
    result.map_err(Error::io("taking room for", path))
}

/// Writes the record as [`write_durably`] does, into the room that [`reserve`] took.
pub fn write_reserved<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    let mut text =
        serde_json::to_vec(record).map_err(|source| Error::Record { path: path.to_owned(), source })?;
    // All of it, so that nothing has to be cut off.
    text.resize(text.len().max(RESERVED_BYTES), b' ');
    let temporary = path.with_extension("tmp");
    let result = (|| -> io::Result<()> {
        let mut file =
            File::options().write(true).create(true).truncate(false).mode(PRIVATE).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    })();
    result.map_err(Error::io("writing", path))
}

/// Reads a record; `None` if there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("reading", path)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| Error::Record { path: path.to_owned(), source })
}

/// Reads a record of [`write`]; one that a power cut left incomplete counts as none.
pub fn read_if_whole<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match read(path) {
        Err(Error::Record { .. }) => Ok(None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write(&path, &1).unwrap();
        write_durably(&path, &2).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), Some(2));
    }

    #[test]
    fn a_record_is_the_agents_alone_even_where_another_left_its_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        fs::write(path.with_extension("tmp"), "half").unwrap();
        fs::set_permissions(path.with_extension("tmp"), Permissions::from_mode(0o644)).unwrap();
        write(&path, &1).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
    }

    #[test]
    fn a_record_with_room_of_its_own_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        reserve(&path).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write_reserved(&path, &7).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), Some(7));
        let long = "x".repeat(2 * RESERVED_BYTES);
        write_reserved(&path, &long).unwrap();
        assert_eq!(read::<String>(&path).unwrap(), Some(long));
    }

    #[test]
    fn a_record_that_does_not_parse_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        fs::write(&path, "{").unwrap();
        let error = read::<u32>(&path).unwrap_err();
        assert!(error.to_string().contains("record.json"), "{error}");
        assert_eq!(read_if_whole::<u32>(&path).unwrap(), None);
    }
}
