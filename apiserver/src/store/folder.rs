//! A data folder: who may open it, and which format it holds.
//!
//! ```text
//! FORMAT           one line that names the format and its version
//! LOCK             locked by the one server that has the folder open
//! journal/N.log    every write since the newest state, in segments (`journal`); there from the beginning
//! state-R/         the whole state at revision R, written once (`checkpoint`)
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{Revision, StoreError};
use crate::{file_lock::FileLock, private};

/// What FORMAT holds. A change that this program's predecessors would misread gets the next number.
const FORMAT: &str = "clawbernetes-store 1\n";

/// Leads the names of state folders.
const STATE: &str = "state-";

/// Marks what is being written and not yet whole.
const PARTIAL: &str = ".partial";

/// An opened data folder. Others are kept out until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: FileLock,
}

impl Folder {
    /// Opens a folder, made first if it is not there. Whether there is a store in it is for [`Self::holds_store`] to say.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_folder(path)?;
        private::folder(path).map_err(failed("close to others", path))?;
        let name = path.join("LOCK");
        match FileLock::take(&name).map_err(failed("lock", &name))? {
            Some(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            None => Err(StoreError::Unusable(format!(
                "{} is in use by another server; stop that one first, or choose another data folder",
                path.display()
            ))),
        }
    }

    /// Whether the folder holds a store. An error if it holds a part of one, or something else.
    pub fn holds_store(&self) -> Result<bool, StoreError> {
        if !self.has_format()? {
            self.refuse_strangers()?;
            return Ok(false);
        }
        match (self.journal().is_dir(), self.beginning().is_dir()) {
            (true, _) => Ok(true),
            // The last step of a beginning is left.
            (false, true) => self.name_journal().map(|()| true),
            (false, false) => Err(StoreError::Unusable(format!(
                "{} is missing, and what was written into it; restore the data folder from a snapshot, or move {} away \
                 to begin anew with nothing",
                self.journal().display(),
                self.path.display()
            ))),
        }
    }

    /// Makes the folder a store with the journal that `make` makes. Before the format is written, nothing counts; from
    /// then on there is a journal, whose absence is no beginning.
    pub fn begin(&self, make: impl FnOnce(&Path) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let beginning = self.beginning();
        if beginning.exists() {
            fs::remove_dir_all(&beginning).map_err(failed("remove", &beginning))?;
        }
        fs::create_dir(&beginning).map_err(failed("create", &beginning))?;
        make(&beginning)?;
        write_whole(&self.path.join("FORMAT"), FORMAT.as_bytes())?;
        self.name_journal()
    }

    fn name_journal(&self) -> Result<(), StoreError> {
        let beginning = self.beginning();
        fs::rename(&beginning, self.journal()).map_err(failed("rename", &beginning))?;
        sync_folder(&self.path)
    }

    /// Where a journal lies until the folder is a store.
    fn beginning(&self) -> PathBuf {
        self.path.join(format!("journal{PARTIAL}"))
    }

    /// Where the journal lies.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Where the state at a revision lies, and where it is written until it is whole.
    pub fn state(&self, revision: Revision) -> (PathBuf, PathBuf) {
        let name = format!("{STATE}{revision}");
        (self.path.join(&name), self.path.join(name + PARTIAL))
    }

    /// A place for what need not outlive the moment.
    pub fn scratch(&self) -> PathBuf {
        self.path.join(format!("{STATE}read{PARTIAL}"))
    }

    /// The revisions of whole states, newest first. What was left half-written is removed.
    pub fn states(&self) -> Result<Vec<Revision>, StoreError> {
        let mut found: Vec<Revision> = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed("read", &self.path))? {
            let entry = entry.map_err(failed("read", &self.path))?;
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(STATE)) else { continue };
            if rest.ends_with(PARTIAL) {
                fs::remove_dir_all(entry.path()).map_err(failed("remove", &entry.path()))?;
            } else if let Ok(revision) = rest.parse() {
                found.push(revision);
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// Removes a state that a newer one has replaced.
    pub fn remove_state(&self, revision: Revision) -> Result<(), StoreError> {
        // Renamed first: a half-removed state must not pass for a whole one.
        let (whole, partial) = self.state(revision);
        fs::rename(&whole, &partial).map_err(failed("rename", &whole))?;
        sync_folder(&self.path)?;
        fs::remove_dir_all(&partial).map_err(failed("remove", &partial))
    }

    /// Whether the folder says that it is of this program's format. An error if it says that it is of another.
    fn has_format(&self) -> Result<bool, StoreError> {
        let name = self.path.join("FORMAT");
        match fs::read(&name) {
            Ok(found) if found == FORMAT.as_bytes() => Ok(true),
            Ok(found) => Err(StoreError::Unusable(format!(
                "{} says {:?}, and this clawbernetes reads {:?} alone; start the version that wrote the folder, or \
                 move the folder away to begin anew",
                name.display(),
                String::from_utf8_lossy(&found[..found.len().min(64)]).trim_end(),
                FORMAT.trim_end(),
            ))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("read", &name)(error)),
        }
    }

    /// Refuses to begin where anything lies but what an interrupted beginning leaves.
    fn refuse_strangers(&self) -> Result<(), StoreError> {
        let path = &self.path;
        for entry in fs::read_dir(path).map_err(failed("read", path))? {
            let entry = entry.map_err(failed("read", path))?;
            let name = entry.file_name();
            if !["LOCK", "FORMAT.partial", "journal.partial"].iter().any(|known| name == *known) {
                return Err(StoreError::Unusable(format!(
                    "{} is no data folder (it holds {} but no FORMAT); choose an empty one",
                    path.display(),
                    entry.path().display()
                )));
            }
        }
        Ok(())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a folder that is not there, and those above it, so that a power cut leaves it its name.
fn make_folder(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(above)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("create", path)(error)),
        _ => sync_folder(above),
    }
}

/// Writes a small file so that it is there whole or not at all.
fn write_whole(name: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let partial = name.with_extension("partial");
    let mut file = private::open(&partial).map_err(failed("create", &partial))?;
    file.set_len(0).map_err(failed("empty", &partial))?;
    file.write_all(bytes).map_err(failed("write", &partial))?;
    file.sync_all().map_err(failed("sync", &partial))?;
    fs::rename(&partial, name).map_err(failed("rename", &partial))?;
    name.parent().map_or(Ok(()), sync_folder)
}

/// Makes a folder's list of names durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync", path))
}

/// Makes everything in a folder durable and its owner's alone, and the folder itself.
pub(super) fn sync_tree(path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(failed("read", path))? {
        let entry = entry.map_err(failed("read", path))?.path();
        if entry.is_dir() {
            sync_tree(&entry)?;
        } else {
            private::file(&entry).map_err(failed("close to others", &entry))?;
            File::open(&entry).and_then(|file| file.sync_all()).map_err(failed("sync", &entry))?;
        }
    }
    sync_folder(path)
}

/// Copies a folder and what is in it.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::create_dir(to).map_err(failed("create", to))?;
    for entry in fs::read_dir(from).map_err(failed("read", from))? {
        let entry = entry.map_err(failed("read", from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_tree(&from, &to)?;
        } else {
            fs::copy(&from, &to).map_err(failed("copy", &from))?;
        }
    }
    Ok(())
}

/// Says what could not be done to which file.
pub(super) fn failed<'a>(verb: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |error| StoreError::Disk(format!("cannot {verb} {}: {error}", path.display()))
}
