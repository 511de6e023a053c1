//! The file that holds a whole cluster's objects at one revision, and how a store is made of it again.
//!
//! ```text
//! "clawbernetes-backup 1\n"
//! revision                              u64, little-endian like all numbers here
//! 1, key length, value length, revision, key, value      u8 u32 u32 u64: an object, in the order of keys
//! 0, number of objects, SHA-256         of everything before the digest
//! ```
//!
//! Certificates and keys are not in it, so that nobody becomes an authority by reading a backup.
//!
//! Must never know: HTTP, what the objects mean.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::Path,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use crate::{
    private,
    store::{self, Key, Record, Revision, StoreError},
};

/// Where a running server gives it out.
pub const PATH: &str = "/clawbernetes/backup";

const MAGIC: &[u8] = b"clawbernetes-backup 1\n";

/// Bytes that are sent at a time, about.
const CHUNK_BYTES: usize = 256 << 10;

/// What a restored store is ahead of the backup: more writes than anybody makes between a backup and the accident. So no
/// revision is given twice, and watches of the time in between are told that they have expired. (etcd's advice.)
const REVISIONS_SKIPPED: Revision = 1_000_000_000;

/// Revisions are numbers in JSON, and more than this is not exact there.
const REVISION_MAX: Revision = (1 << 53) - REVISIONS_SKIPPED;

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("the backup cannot be read")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("this is no backup of clawbernetes, or one of a version that this one does not read")]
    Foreign,
    /// It is not what was written.
    #[error("the backup is damaged: {0}; take another one")]
    Damaged(&'static str),
    /// The folder is not empty.
    #[error("{0} is not empty; restore into a new folder, and keep the old one until all is well")]
    Occupied(String),
    /// The store cannot be made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a backup holds, without the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The state of the world it was taken of.
    pub revision: Revision,
    /// How many objects there are in it.
    pub objects: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// What the backup holds.
    pub backup: Summary,
    /// The revision at which the store goes on.
    pub revision: Revision,
}

/// A backup in pieces.
pub struct Pieces {
    records: std::vec::IntoIter<Record>,
    digest: Sha256,
    head: Option<BytesMut>,
    summary: Summary,
    ended: bool,
}

impl Pieces {
    /// Of all records at a revision, in order.
    pub fn new(revision: Revision, records: Vec<Record>) -> Self {
        let mut head = BytesMut::from(MAGIC);
        head.put_u64_le(revision);
        let summary = Summary { revision, objects: records.len() as u64 };
        Self { records: records.into_iter(), digest: Sha256::new(), head: Some(head), summary, ended: false }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut piece = self.head.take().unwrap_or_default();
        while piece.len() < CHUNK_BYTES && !self.ended {
            match self.records.next() {
                Some(record) => put(&mut piece, &record),
                None => {
                    piece.put_u8(0);
                    piece.put_u64_le(self.summary.objects);
                    self.ended = true;
                }
            }
        }
        self.digest.update(&piece);
        if self.ended {
            piece.put_slice(&self.digest.finalize_reset());
        }
        Some(piece.freeze())
    }
}

fn put(piece: &mut BytesMut, record: &Record) {
    let key = record.key.as_str().as_bytes();
    piece.put_u8(1);
    piece.put_u32_le(u32::try_from(key.len()).expect("a key is shorter than the body that named it"));
    piece.put_u32_le(u32::try_from(record.value.len()).expect("objects are at most a few MiB"));
    piece.put_u64_le(record.revision);
    piece.put_slice(key);
    piece.put_slice(&record.value);
}

/// Reads a backup to its end and hands the objects over. They count only if this succeeds.
///
/// # Errors
/// When it is not, byte for byte, what was written.
pub fn read(input: impl Read, mut sink: impl FnMut(Record)) -> Result<Summary, BackupError> {
    let mut input = Hashed { input, digest: Sha256::new() };
    if input.bytes(MAGIC.len()).ok().as_deref() != Some(MAGIC) {
        return Err(BackupError::Foreign);
    }
    let revision = input.u64()?;
    if revision > REVISION_MAX {
        return Err(BackupError::Damaged("its revision cannot be"));
    }
    let (mut objects, mut last) = (0, None);
    while input.u8()? == 1 {
        let record = input.record()?;
        if record.revision > revision || last.as_ref().is_some_and(|last| *last >= record.key) {
            return Err(BackupError::Damaged("objects are out of order"));
        }
        last = Some(record.key.clone());
        objects += 1;
        sink(record);
    }
    let counted = input.u64()?;
    let digest = input.digest.clone().finalize();
    if input.bytes(digest.len())? != *digest || counted != objects {
        return Err(BackupError::Damaged("its checksum does not match"));
    }
    match input.input.read(&mut [0])? {
        0 => Ok(Summary { revision, objects }),
        _ => Err(BackupError::Damaged("something follows its end")),
    }
}

/// Makes the store of a data folder that is empty or not there yet.
///
/// # Errors
/// When the backup is damaged, which is found out before anything is written, or the folder cannot be used.
pub fn restore(file: &Path, data_dir: &Path) -> Result<Restored, BackupError> {
    refuse_occupied(data_dir)?;
    let mut records = Vec::new();
    let backup = read(BufReader::new(File::open(file)?), |record| records.push(record))?;
    let revision = backup.revision + REVISIONS_SKIPPED;
    private::folder(data_dir)?;
    store::restore(&data_dir.join("store"), revision, records)?;
    Ok(Restored { backup, revision })
}

fn refuse_occupied(folder: &Path) -> Result<(), BackupError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::Occupied(folder.display().to_string())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Remembers what was read of it.
struct Hashed<R> {
    input: R,
    digest: Sha256,
}

impl<R: Read> Hashed<R> {
    /// So many bytes. Takes no more memory than there is in the file, whatever a damaged length says.
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(count as u64).read_to_end(&mut bytes)?;
        if bytes.len() < count {
            return Err(BackupError::Damaged("it ends too early"));
        }
        self.digest.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        Ok(self.bytes(N)?.try_into().expect("so many bytes were asked for"))
    }

    fn u8(&mut self) -> Result<u8, BackupError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BackupError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, BackupError> {
        self.array().map(u64::from_le_bytes)
    }

    fn record(&mut self) -> Result<Record, BackupError> {
        let (key, value, revision) = (self.u32()? as usize, self.u32()? as usize, self.u64()?);
        let key =
            String::from_utf8(self.bytes(key)?).map_err(|_| BackupError::Damaged("a key is no text"))?;
        Ok(Record { key: Key::from_text(&key), revision, value: self.bytes(value)?.into() })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn backup() -> Vec<u8> {
        let record = |name: &str, revision| Record {
            key: Key::object("", "configmaps", "a", name),
            revision,
            value: Bytes::from(name.repeat(200)),
        };
        Pieces::new(9, vec![record("x", 7), record("y", 9)]).flatten().collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut names = Vec::new();
        let summary =
            read(&*backup(), |record| names.push((record.key.place().1.to_owned(), record.revision)));
        assert_eq!(summary.unwrap(), Summary { revision: 9, objects: 2 });
        assert_eq!(names, [("x".to_owned(), 7), ("y".to_owned(), 9)]);
        let nothing: Vec<u8> = Pieces::new(0, Vec::new()).flatten().collect();
        assert_eq!(read(&*nothing, |_| ()).unwrap().objects, 0);
    }

    #[test]
    fn any_flipped_bit_and_any_missing_end_is_noticed() {
        let whole = backup();
        for at in 0..whole.len() {
            assert!(read(&whole[..at], |_| ()).is_err(), "cut at {at}");
            let mut harmed = whole.clone();
            harmed[at] ^= 1 << (at % 8);
            assert!(read(&*harmed, |_| ()).is_err(), "flipped at {at}");
        }
        let longer = [&*whole, b"x"].concat();
        assert!(read(&*longer, |_| ()).unwrap_err().to_string().contains("follows its end"));
    }

    /// The modes of a folder and of all that is in it, with a path for each.
    fn modes(path: &Path) -> Vec<(u32, String)> {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let mut found = vec![(mode, path.display().to_string())];
        for entry in path.is_dir().then(|| fs::read_dir(path).unwrap()).into_iter().flatten() {
            found.extend(modes(&entry.unwrap().path()));
        }
        found
    }

    #[tokio::test]
    async fn what_is_stored_is_its_owners_alone_in_a_folder_that_was_open_to_all_before() {
        let scratch = tempfile::tempdir().unwrap();
        let (file, data) = (scratch.path().join("backup"), scratch.path().join("data"));
        fs::write(&file, backup()).unwrap();
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        restore(&file, &data).unwrap();
        let store = data.join("store");
        assert_eq!(modes(&data)[0].0, 0o700);
        for (mode, path) in modes(&store).into_iter().filter(|(_, path)| !Path::new(path).is_dir()) {
            assert_eq!(mode, 0o600, "{path}");
        }
        fs::set_permissions(&store, fs::Permissions::from_mode(0o755)).unwrap();
        store::open_sled(&store).unwrap().close().await;
        assert_eq!(modes(&store)[0].0, 0o700);
    }

    #[tokio::test]
    async fn a_restored_store_goes_on_beyond_the_backup_and_knows_no_watch_of_before() {
        let scratch = tempfile::tempdir().unwrap();
        let (file, data) = (scratch.path().join("backup"), scratch.path().join("data"));
        fs::write(&file, backup()).unwrap();
        let restored = restore(&file, &data).unwrap();
        assert_eq!(restored.revision, 9 + REVISIONS_SKIPPED);
        let store = store::open_sled(&data.join("store")).unwrap();
        assert_eq!(store.revision(), restored.revision);
        let kind = Key::collection("", "configmaps", None);
        assert_eq!(store.list(&kind, None, 0, None).await.unwrap().items.len(), 2);
        for after in [1, 9, restored.revision - 1] {
            assert!(matches!(store.watch(&kind, after), Err(StoreError::Compacted { .. })), "{after}");
        }
        assert!(store.watch(&kind, restored.revision).is_ok());
        store.close().await;
        assert!(matches!(restore(&file, &data), Err(BackupError::Occupied(_))));
    }
}
