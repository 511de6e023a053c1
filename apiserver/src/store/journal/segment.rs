//! One file of the journal: a header, then frames, then whatever was there before.
//!
//! A segment is written full of zeros, or taken over from an older one, before it gets its name. Appending to it then
//! changes no metadata of the file system, so that one `fdatasync` is one trip to the disk.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    super::{
        StoreError,
        folder::{failed, sync_folder},
    },
    frame::Salt,
};
use crate::private;

/// Where frames begin: a block of its own for the header, so that no append ever rewrites it.
pub(super) const START: u64 = 4096;

const MAGIC: &[u8; 8] = b"clawjrnl";
const HEADER: usize = 44;
const ZEROS: usize = 1 << 20;

/// An open segment.
pub(super) struct Segment {
    pub number: u64,
    pub salt: Salt,
    pub length: u64,
    pub path: PathBuf,
    pub file: File,
}

impl Segment {
    /// Makes the segment `number`, of at least `length` bytes; from `old` if there is one.
    pub fn create(folder: &Path, number: u64, length: u64, old: Option<&Path>) -> Result<Self, StoreError> {
        let partial = folder.join("next.partial");
        if let Some(old) = old {
            fs::rename(old, &partial).map_err(failed("rename", old))?;
            // Before anything is written to it: under its old name it would be a damaged segment after a power cut.
            sync_folder(folder)?;
        }
        let file = private::open(&partial).map_err(failed("open", &partial))?;
        let mut salt = Salt::default();
        getrandom::fill(&mut salt).map_err(|error| StoreError::Disk(format!("no random bytes: {error}")))?;
        // Never zero, or the zeros of a new segment would look like the head of a frame.
        salt[0] |= 1;
        let path = path_of(folder, number);
        let segment = Self { number, salt, length, path, file };
        segment.fill().map_err(failed("write", &partial))?;
        fs::rename(&partial, &segment.path).map_err(failed("rename", &partial))?;
        sync_folder(folder)?;
        Ok(segment)
    }

    fn fill(&self) -> std::io::Result<()> {
        let zeros = vec![0; ZEROS];
        let mut at = self.file.metadata()?.len();
        while at < self.length {
            let part = zeros.len().min((self.length - at) as usize);
            self.file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        self.file.set_len(self.length)?;
        self.file.write_all_at(&self.header(), 0)?;
        self.file.sync_all()
    }

    fn header(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.length.to_le_bytes());
        out[24..40].copy_from_slice(&self.salt);
        let crc = crc32fast::hash(&out[..40]);
        out[40..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Opens the segment `number`, and reads all of it.
    pub fn open(folder: &Path, number: u64) -> Result<(Self, Vec<u8>), StoreError> {
        let path = path_of(folder, number);
        let file = File::options().read(true).write(true).open(&path).map_err(failed("open", &path))?;
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        let damaged = |how: &str| damaged(&path, how);
        let header = bytes.first_chunk::<HEADER>().ok_or_else(|| damaged("it is too short"))?;
        let mut salt = Salt::default();
        salt.copy_from_slice(&header[24..40]);
        let length = bytes.len() as u64;
        let segment = Self { number, salt, length, path: path.clone(), file };
        if segment.header() == *header {
            return Ok((segment, bytes));
        }
        let claimed = u64::from_le_bytes(std::array::from_fn(|at| header[16 + at]));
        let claimed = Self { length: claimed, ..segment };
        Err(damaged(match claimed.header() == *header {
            true => "its length has changed",
            false => "its header is broken",
        }))
    }
}

/// The numbers of a folder's segments, in order. What was left half-made is removed.
pub(super) fn numbers(folder: &Path) -> Result<Vec<u64>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let path = entry.map_err(failed("read", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "partial") {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            continue;
        }
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        found.push(number.ok_or_else(|| damaged(&path, "it is no segment"))?);
    }
    found.sort_unstable();
    Ok(found)
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.log"))
}

pub(super) fn damaged(path: &Path, how: &str) -> StoreError {
    StoreError::Unusable(format!(
        "the journal {} is damaged: {how}; restore the data folder from a snapshot",
        path.display()
    ))
}
