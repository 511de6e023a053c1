//! The images of this machine, on disk. Content is named by its digest and shared; whatever has its name is complete.
//!
//! ```text
//! images/layers/DIFF-ID/fs/         an unpacked layer, as overlayfs stacks it
//! images/layers/DIFF-ID/layer.json  its size, and its short name
//! images/l/SHORT                    a link to the layer: what is said to mount has to be short
//! images/configs/ID.json            an image: how it is run, and its layers
//! images/names/HEX.json             a name, and which image has it
//! images/locks/                     one while a layer or a name is worked on
//! images/pins/                      layers that somebody needs in this moment
//! images/ingest/                    layers that are being unpacked
//! images/trash/                     what is being removed
//! ```
//!
//! Everything is made beside and renamed, so a crash at any point leaves a store that is whole. A layer is on the disk
//! before it gets its name (one `syncfs` each), and so are images and names; a power cut takes away what was not done,
//! never a part of it. Locks (see [`super::lock`]) hold between processes: the command line works on the store of a
//! running agent.
//!
//! An image that a container on disk was made of stays, whoever asks. Who knows those is [`InUse`].

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Digest, Name, Settings, lock::Lock, unpack::Unpacked};
use crate::{Error, ids, runtime::records};

/// Digits of a short name: 256 of them fit in the 4 KiB that mount takes.
const SHORT_DIGITS: usize = 10;

/// The store.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// An image on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Digest of its configuration: the image's id.
    pub id: Digest,
    /// Bottom first, as they are without compression.
    pub layers: Vec<Digest>,
    /// How it is run.
    pub settings: Settings,
    /// Names by digest: `docker.io/library/busybox@sha256:…`.
    pub digests: Vec<String>,
    /// Of all layers, unpacked.
    pub bytes: u64,
    /// When it came here.
    pub created_at: Timestamp,
}

/// An image with all its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The image.
    pub record: Record,
    /// In order.
    pub names: Vec<String>,
    /// When a container of it was last started, or it came here.
    pub used_at: SystemTime,
}

#[derive(Debug, Serialize, Deserialize)]
struct NameRecord {
    name: String,
    image: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
struct LayerRecord {
    bytes: u64,
    short: String,
}

/// Keeps layers from being removed until it is dropped.
#[derive(Debug)]
pub struct Pin {
    _lock: Lock,
}

/// What may not be removed: ids of images that containers on disk were made of.
pub type InUse = HashSet<Digest>;

impl Store {
    /// Opens the store in `folder`, and clears what crashes left.
    ///
    /// # Errors
    /// When it is not writable.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        for name in ["layers", "l", "configs", "names", "locks", "pins", "ingest", "trash"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(Error::io("creating", &path))?;
        }
        let store = Self { folder: folder.to_owned() };
        {
            let _alone = store.alone()?;
            store.clear_unfinished()?;
            store.clear_links()?;
        }
        store.empty_trash();
        Ok(store)
    }

    fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.folder.join(kind).join(name)
    }

    /// Short, and only while names change: whoever decides by what is here must be alone.
    fn alone(&self) -> Result<Lock, Error> {
        Lock::wait(&self.folder.join("store.lock"))
    }

    /// The lock of a name or a layer: two who want the same do it once.
    pub(super) fn lock_path(&self, key: &str) -> PathBuf {
        self.path("locks", key)
    }

    /// Layers that nobody is unpacking any more.
    fn clear_unfinished(&self) -> Result<(), Error> {
        for name in names(&self.folder.join("ingest"))? {
            if let Some(_lock) = Lock::attempt(&self.lock_path(&name))? {
                self.discard(&self.path("ingest", &name))?;
            }
        }
        Ok(())
    }

    /// Short names of layers that are gone.
    fn clear_links(&self) -> Result<(), Error> {
        for name in names(&self.folder.join("l"))? {
            let path = self.path("l", &name);
            // Of a layer that is being named at this moment, somebody holds the lock.
            let target = fs::read_link(&path).map_err(Error::io("reading", &path))?;
            let layer = target.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            if let Some(_lock) = Lock::attempt(&self.lock_path(&layer))?
                && !path.exists()
            {
                fs::remove_file(&path).map_err(Error::io("removing", &path))?;
            }
        }
        Ok(())
    }

    /// A name that nobody has, for a file of a moment.
    pub(super) fn scratch(&self) -> Result<PathBuf, Error> {
        Ok(self.path("trash", &ids::random()?))
    }

    /// Bytes of the disk that are used, of those that it has for us.
    pub(super) fn disk(&self) -> Result<(u64, u64), Error> {
        let found = nix::sys::statvfs::statvfs(&self.folder).map_err(|error| Error::Io {
            doing: "asking for the room of",
            path: self.folder.clone(),
            source: error.into(),
        })?;
        let used = (found.blocks() - found.blocks_free()) * found.fragment_size();
        Ok((used, used + found.blocks_available() * found.fragment_size()))
    }

    /// An empty folder, for images without layers.
    pub(super) fn nothing(&self) -> Result<PathBuf, Error> {
        let path = self.folder.join("nothing");
        fs::create_dir_all(&path).map_err(Error::io("creating", &path))?;
        Ok(path)
    }

    /// Out of sight at once; the files go in [`Self::empty_trash`].
    fn discard(&self, path: &Path) -> Result<(), Error> {
        let to = self.path("trash", &ids::random()?);
        fs::rename(path, to).map_err(Error::io("removing", path))
    }

    fn empty_trash(&self) {
        for name in names(&self.folder.join("trash")).unwrap_or_default() {
            // Somebody else may be at it, too.
            let path = self.path("trash", &name);
            let _ = crate::tree::remove(&path).or_else(|_| fs::remove_file(&path));
        }
    }
}

/// Layers.
impl Store {
    /// Whether a layer is here.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.path("layers", diff_id.hex()).exists()
    }

    /// Brings a layer in. `fill` gets an empty folder, and says what it put there. The caller holds the layer's lock.
    pub(super) fn add_layer(
        &self,
        diff_id: &Digest,
        fill: impl FnOnce(&Path) -> Result<Unpacked, Error>,
    ) -> Result<(), Error> {
        let beside = self.path("ingest", diff_id.hex());
        if beside.exists() {
            // Left by somebody who died at it.
            self.discard(&beside)?;
        }
        let content = beside.join("fs");
        fs::create_dir_all(&content).map_err(Error::io("creating", &content))?;
        let added = fill(&content).and_then(|unpacked| {
            if unpacked.diff_id != *diff_id {
                let got = unpacked.diff_id;
                return Err(Error::Image(format!("a layer should be {diff_id} unpacked, and is {got}")));
            }
            self.name_layer(diff_id, &beside, unpacked.bytes)
        });
        if added.is_err() && beside.exists() {
            self.discard(&beside)?;
            self.empty_trash();
        }
        added
    }

    fn name_layer(&self, diff_id: &Digest, beside: &Path, bytes: u64) -> Result<(), Error> {
        let short = ids::random()?[..SHORT_DIGITS].to_owned();
        records::write(&beside.join("layer.json"), &LayerRecord { bytes, short: short.clone() })?;
        let link = self.path("l", &short);
        std::os::unix::fs::symlink(format!("../layers/{}/fs", diff_id.hex()), &link)
            .map_err(Error::io("linking", &link))?;
        sync_all(beside)?;
        let to = self.path("layers", diff_id.hex());
        fs::rename(beside, &to).map_err(Error::io("naming", &to))?;
        sync_folder(&self.folder.join("layers"))
    }

    fn layer(&self, diff_id: &Digest) -> Result<LayerRecord, Error> {
        let path = self.path("layers", diff_id.hex()).join("layer.json");
        records::read(&path)?
            .ok_or_else(|| Error::NotFound(format!("the layer {diff_id} is not on this machine")))
    }

    /// Bytes of a layer, unpacked.
    pub(super) fn layer_bytes(&self, diff_id: &Digest) -> Result<u64, Error> {
        self.layer(diff_id).map(|layer| layer.bytes)
    }

    /// Folders to stack, topmost first, by their short names. An image without layers is an empty folder.
    ///
    /// # Errors
    /// When a layer is not here.
    pub fn stack(&self, record: &Record) -> Result<Vec<PathBuf>, Error> {
        let mut stack = Vec::new();
        for layer in record.layers.iter().rev() {
            let path = self.path("l", &self.layer(layer)?.short);
            // The same layer may come twice, and overlayfs takes none twice: the lower one is hidden anyway.
            if !stack.contains(&path) {
                stack.push(path);
            }
        }
        Ok(stack)
    }

    /// Keeps layers, those that are here and those that will come.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn pin(&self, layers: &[Digest]) -> Result<Pin, Error> {
        let _alone = self.alone()?;
        self.pin_now(layers)
    }

    fn pin_now(&self, layers: &[Digest]) -> Result<Pin, Error> {
        let path = self.path("pins", &ids::random()?);
        let taken = || Error::Image("a name that was just made up is taken".to_owned());
        let mut lock = Lock::attempt(&path)?.ok_or_else(taken)?;
        let text: String = layers.iter().map(|layer| format!("{layer}\n")).collect();
        lock.file.write_all(text.as_bytes()).map_err(Error::io("writing", &path))?;
        Ok(Pin { _lock: lock })
    }

    fn pinned(&self) -> Result<HashSet<Digest>, Error> {
        let mut pinned = HashSet::new();
        for name in names(&self.folder.join("pins"))? {
            let path = self.path("pins", &name);
            // Whoever made it is gone if it can be locked, and then so is the pin.
            if Lock::attempt(&path)?.is_none() {
                let text = fs::read_to_string(&path).unwrap_or_default();
                pinned.extend(text.lines().filter_map(|line| Digest::parse(line).ok()));
            }
        }
        Ok(pinned)
    }
}

/// Images and their names.
impl Store {
    /// The image that has a name, with its layers kept; `None` if it is not here, or not all of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn take(&self, name: &Name) -> Result<Option<(Record, Pin)>, Error> {
        let _alone = self.alone()?;
        let Some(record) = self.find(name)? else { return Ok(None) };
        if !record.layers.iter().all(|layer| self.has_layer(layer)) {
            return Ok(None);
        }
        let pin = self.pin_now(&record.layers)?;
        Ok(Some((record, pin)))
    }

    /// The image that has a name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find(&self, name: &Name) -> Result<Option<Record>, Error> {
        match records::read::<NameRecord>(&self.name_path(&name.to_string()))? {
            Some(named) => self.image(&named.image),
            None => Ok(None),
        }
    }

    fn image(&self, id: &Digest) -> Result<Option<Record>, Error> {
        records::read(&self.config_path(id))
    }

    fn config_path(&self, id: &Digest) -> PathBuf {
        self.path("configs", &format!("{}.json", id.hex()))
    }

    fn name_path(&self, name: &str) -> PathBuf {
        self.path("names", &format!("{}.json", Digest::of(name.as_bytes()).hex()))
    }

    /// Writes an image down, whose layers are here, and gives it names; another image that has one loses it.
    ///
    /// # Errors
    /// When it cannot be written, or lacks a layer.
    pub fn put(&self, record: &Record, names: &[Name]) -> Result<Record, Error> {
        let _alone = self.alone()?;
        if let Some(missing) = record.layers.iter().find(|layer| !self.has_layer(layer)) {
            return Err(Error::NotFound(format!("the layer {missing} is not on this machine")));
        }
        let mut record = record.clone();
        if let Some(known) = self.image(&record.id)? {
            record.digests.extend(known.digests);
        }
        record.digests.extend(names.iter().map(ToString::to_string).filter(|name| name.contains('@')));
        record.digests.sort();
        record.digests.dedup();
        records::write_durably(&self.config_path(&record.id), &record)?;
        for name in names {
            let name = name.to_string();
            let named = NameRecord { name: name.clone(), image: record.id.clone() };
            records::write_durably(&self.name_path(&name), &named)?;
        }
        Ok(record)
    }

    /// An image of layers that are here.
    pub(super) fn describe(
        &self,
        id: Digest,
        layers: Vec<Digest>,
        settings: Settings,
        created_at: Timestamp,
    ) -> Result<Record, Error> {
        let bytes = layers.iter().map(|layer| self.layer_bytes(layer)).sum::<Result<u64, Error>>()?;
        Ok(Record { id, layers, settings, digests: Vec::new(), bytes, created_at })
    }

    /// A container of it is about to start.
    pub(super) fn touch(&self, id: &Digest) {
        // Decides only which of two goes first.
        if let Ok(file) = File::options().append(true).open(self.config_path(id)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// All images, those without a name included.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let mut named: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for file in names(&self.folder.join("names"))? {
            if let Some(record) = records::read_if_whole::<NameRecord>(&self.path("names", &file))? {
                named.entry(record.image).or_default().push(record.name);
            }
        }
        let mut listed = Vec::new();
        for file in names(&self.folder.join("configs"))? {
            let path = self.path("configs", &file);
            let Some(record) = records::read_if_whole::<Record>(&path)? else { continue };
            let used_at = fs::metadata(&path).and_then(|file| file.modified());
            let mut names = named.remove(&record.id).unwrap_or_default();
            names.sort();
            listed.push(Listed { record, names, used_at: used_at.unwrap_or(SystemTime::UNIX_EPOCH) });
        }
        listed.sort_by(|one, other| (&one.names, &one.record.id).cmp(&(&other.names, &other.record.id)));
        Ok(listed)
    }

    /// The images that a person means by a name, an id, or the beginning of an id.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn meant(&self, text: &str) -> Result<Listed, Error> {
        let listed = self.list()?;
        if let Ok(name) = Name::parse(text) {
            let name = name.to_string();
            if let Some(found) = listed.iter().find(|one| one.names.contains(&name)) {
                return Ok(found.clone());
            }
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut found = listed.into_iter().filter(|one| one.record.id.hex().starts_with(digits));
        match (found.next(), found.next()) {
            (Some(one), None) if digits.len() >= 4 => Ok(one),
            (Some(_), Some(_)) if digits.len() >= 4 => {
                Err(Error::NotFound(format!("\"{text}\" is the beginning of several images' ids")))
            }
            _ => Err(Error::NotFound(format!("no image \"{text}\" is on this machine"))),
        }
    }
}

/// Removal.
impl Store {
    /// Takes a name away, and the image with its last one. Gives the bytes that became free.
    ///
    /// # Errors
    /// When a container was made of it.
    pub fn remove(&self, text: &str, in_use: impl FnOnce() -> Result<InUse, Error>) -> Result<u64, Error> {
        let freed = {
            let _alone = self.alone()?;
            let meant = self.meant(text)?;
            let by_name = Name::parse(text).ok().map(|name| name.to_string());
            let by_name = by_name.filter(|name| meant.names.contains(name));
            let tags = meant.names.iter().filter(|name| !name.contains('@')).count();
            if let Some(name) = by_name.filter(|name| tags > 1 && !name.contains('@')) {
                self.remove_file(&self.name_path(&name))?;
                0
            } else {
                if in_use()?.contains(&meant.record.id) || is_kept(&meant.record, &self.pinned()?) {
                    let message = format!("the image \"{text}\" is in use by a container on this machine");
                    return Err(Error::Image(message));
                }
                self.forget(&meant)?;
                self.sweep()?
            }
        };
        self.empty_trash();
        Ok(freed)
    }

    /// Removes images that were used longest ago, until so many bytes are free. Gives what it removed, and the bytes.
    ///
    /// # Errors
    /// When the store cannot be changed.
    pub fn shrink(
        &self,
        wanted_bytes: u64,
        used_before: SystemTime,
        in_use: impl FnOnce() -> Result<InUse, Error>,
    ) -> Result<(Vec<Listed>, u64), Error> {
        let mut removed = Vec::new();
        let freed = {
            let _alone = self.alone()?;
            let in_use = in_use()?;
            let pinned = self.pinned()?;
            let mut candidates = self.list()?;
            candidates.retain(|one| {
                let is_kept = in_use.contains(&one.record.id) || is_kept(&one.record, &pinned);
                !is_kept && one.used_at <= used_before
            });
            candidates.sort_by_key(|one| one.used_at);
            // Layers that no image has any more come first.
            let mut freed = self.sweep()?;
            for one in candidates {
                if freed >= wanted_bytes {
                    break;
                }
                self.forget(&one)?;
                freed += self.sweep()?;
                removed.push(one);
            }
            freed
        };
        self.empty_trash();
        Ok((removed, freed))
    }

    fn forget(&self, image: &Listed) -> Result<(), Error> {
        for name in &image.names {
            self.remove_file(&self.name_path(name))?;
        }
        self.remove_file(&self.config_path(&image.record.id))
    }

    fn remove_file(&self, path: &Path) -> Result<(), Error> {
        fs::remove_file(path).map_err(Error::io("removing", path))
    }

    /// Removes layers that no image has and nobody needs. Gives their bytes.
    fn sweep(&self) -> Result<u64, Error> {
        let mut needed = self.pinned()?;
        needed.extend(self.list()?.into_iter().flat_map(|one| one.record.layers));
        let mut freed = 0;
        for name in names(&self.folder.join("layers"))? {
            let Ok(layer) = Digest::parse(&format!("sha256:{name}")) else { continue };
            if needed.contains(&layer) {
                continue;
            }
            let record = self.layer(&layer)?;
            self.discard(&self.path("layers", &name))?;
            let _ = fs::remove_file(self.path("l", &record.short));
            freed += record.bytes;
        }
        Ok(freed)
    }
}

/// Whether a container of the image may be about to start.
fn is_kept(record: &Record, pinned: &HashSet<Digest>) -> bool {
    !record.layers.is_empty() && record.layers.iter().all(|layer| pinned.contains(layer))
}

/// Everything that was written to the disk that `folder` is on.
fn sync_all(folder: &Path) -> Result<(), Error> {
    let opened = File::open(folder).map_err(Error::io("opening", folder))?;
    nix::unistd::syncfs(opened.as_raw_fd()).map_err(|error| Error::Io {
        doing: "syncing",
        path: folder.to_owned(),
        source: error.into(),
    })
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(Error::io("syncing", folder))
}

/// Names in a folder, without those of records that are being written.
fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("reading", folder))?;
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("reading", folder)(error)),
        }
    }
    names.retain(|name| !name.ends_with(".tmp"));
    Ok(names)
}

#[cfg(test)]
mod tests;
