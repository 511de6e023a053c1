//! One layer, from its bytes to a folder that overlayfs can stack.
//!
//! What comes in is not trusted: it may be an archive that wants out of its folder, that grows without end, or that is
//! not the one that was promised. It is read once, as it arrives: decompressed, digested, and unpacked in one pass.
//! Whiteouts become what overlayfs takes for them. Only what an unpacked tree needs is kept: owners, permissions with
//! set-user-id, times, and the attributes `security.capability` and `user.*`.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt, fchown},
    },
    path::{Component, Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};
use xattr::FileExt as _;

use super::{
    Digest,
    digest::Hashing,
    tree::{Attributes, Kind, Tree},
};
use crate::{Error, overlay, rootless::Ids};

/// What stands between the stages of the pipeline.
const BUFFER_BYTES: usize = 128 * 1024;

/// What may stand before one entry: its header, long names, attributes. Linux knows paths of 4 KiB and attributes of
/// 64 KiB.
const HEADERS_BYTES_MAX: u64 = 2 << 20;

/// A ratio says nothing about small layers: a few zeros compress to nothing.
const RATIO_FROM_BYTES: u64 = 64 << 20;

/// Names with a meaning of their own begin with it.
const WHITEOUT: &[u8] = b".wh.";
/// Says that a folder has nothing of lower layers.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Bookkeeping of a file system that is no longer used.
const META: &[u8] = b".wh..wh.";

/// How much a layer may become.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of all layers of an image together, unpacked.
    pub image_bytes_max: u64,
    /// How many times its compressed size a layer may be.
    pub ratio_max: u64,
    /// Files, folders and links of one layer.
    pub entries_max: u64,
    /// Bytes of the paths of a layer's folders, which are kept in memory.
    pub folders_bytes_max: usize,
}

impl Default for Limits {
    /// Four times the largest images in use, which carry models; the largest ratio of real layers is about 50, that of
    /// bombs 1,000 and more; the most entries of real layers are about 500,000; the paths of the folders of the largest take some
    /// 10 MiB.
    fn default() -> Self {
        Self {
            image_bytes_max: 512 << 30,
            ratio_max: 250,
            entries_max: 4_000_000,
            folders_bytes_max: 64 << 20,
        }
    }
}

/// What a layer turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Of the archive without compression.
    pub diff_id: Digest,
    /// Of the archive without compression.
    pub bytes: u64,
    /// Of the archive as it came.
    pub digest: Digest,
}

/// Unpacks into a folder that is there and empty. `budget` is what the image may still take; it is taken from. Of an
/// archive that is not `promised`, this is what is said, whatever else is wrong with it.
pub(super) fn layer(
    compressed: impl Read,
    promised: Option<&Digest>,
    into: &Path,
    limits: &Limits,
    budget: &Arc<AtomicU64>,
) -> Result<Unpacked, Error> {
    let mut compressed = Hashing::new(compressed);
    let unpacked = unpack(&mut compressed, into, limits, budget);
    if matches!(unpacked, Ok(_) | Err(Error::Damaged(_))) {
        io::copy(&mut compressed, &mut io::sink()).map_err(broken)?;
        let came = compressed.digest();
        if let Some(promised) = promised.filter(|promised| **promised != came) {
            return Err(refused(format!("the layer should be {promised}, and what came is {came}")));
        }
    }
    let (diff_id, bytes) = unpacked?;
    Ok(Unpacked { diff_id, bytes, digest: compressed.digest() })
}

fn unpack<R: Read>(
    compressed: &mut Hashing<R>,
    into: &Path,
    limits: &Limits,
    budget: &Arc<AtomicU64>,
) -> Result<(Digest, u64), Error> {
    let come_in = compressed.length();
    let archive = Hashing::new(decoder(BufReader::with_capacity(BUFFER_BYTES, compressed)).map_err(broken)?);
    let metered = Metered {
        inner: archive,
        come_in,
        come_out: 0,
        ratio_max: limits.ratio_max,
        budget: Arc::clone(budget),
    };
    let allowance = Rc::new(Cell::new(None));
    let mut reader =
        Guarded { inner: BufReader::with_capacity(BUFFER_BYTES, metered), allowance: Rc::clone(&allowance) };
    let mut unpacker = Unpacker::new(into, limits)?;
    {
        let mut archive = Archive::new(&mut reader);
        let mut entries = archive.entries().map_err(broken)?;
        loop {
            allowance.set(Some(HEADERS_BYTES_MAX));
            let Some(entry) = entries.next() else { break };
            allowance.set(None);
            unpacker.entry(entry.map_err(broken)?)?;
        }
        allowance.set(None);
    }
    unpacker.finish()?;
    // What follows the end of the archive counts, too.
    io::copy(&mut reader, &mut io::sink()).map_err(broken)?;
    let archive = reader.inner.get_ref();
    Ok((archive.inner.digest(), archive.come_out))
}

/// By what it begins with: names of formats are wrong now and then.
fn decoder<'a>(mut compressed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = compressed.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(compressed))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(compressed)?)
    } else {
        Box::new(compressed)
    })
}

fn broken(error: io::Error) -> Error {
    match own(&error) {
        Some(why) => refused(why),
        None => Error::Damaged(format!("the layer cannot be read: {error}")),
    }
}

/// What one of the readers here has said, on its way through those of others.
fn own(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(own) = error.downcast_ref::<Error>() {
        return Some(own.to_string());
    }
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    own(inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source())?)
}

fn refused(message: String) -> Error {
    Error::Image(message)
}

/// Counts what comes out of the decompressor, and ends a bomb.
struct Metered<R> {
    inner: R,
    come_in: Arc<AtomicU64>,
    come_out: u64,
    ratio_max: u64,
    budget: Arc<AtomicU64>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.come_out += read as u64;
        spend(&self.budget, read as u64)?;
        let allowed = self.come_in.load(Ordering::Relaxed).saturating_mul(self.ratio_max);
        if self.come_out > allowed.max(RATIO_FROM_BYTES) {
            let why = format!(
                "the layer grows to more than {} times its size (a bomb? `--image-ratio-max` allows more)",
                self.ratio_max
            );
            return Err(io::Error::other(refused(why)));
        }
        Ok(read)
    }
}

fn spend(budget: &AtomicU64, bytes: u64) -> io::Result<()> {
    let take = |left: u64| left.checked_sub(bytes);
    match budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::other(refused(
            "the image is larger than images may be (`--image-bytes-max` allows more)".to_owned(),
        ))),
    }
}

/// While an allowance is set, reads no more than that: what belongs to a header is kept in memory.
struct Guarded<R> {
    inner: R,
    allowance: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.allowance.get() else { return self.inner.read(buffer) };
        let read = self.inner.read(buffer)?;
        let left = left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(refused(format!("an entry's header is longer than {HEADERS_BYTES_MAX} bytes")))
        })?;
        self.allowance.set(Some(left));
        Ok(read)
    }
}

/// Puts entries where they belong.
struct Unpacker<'a> {
    tree: Tree,
    limits: &'a Limits,
    /// Users and groups who can own something here.
    owners: (Ids, Ids),
    entries: u64,
    /// For what passes through.
    buffer: Vec<u8>,
    /// Whatever is put into a folder changes its time, so that is set at the end.
    folder_times: BTreeMap<PathBuf, i64>,
    /// What the paths of these take.
    remembered_bytes: usize,
}

impl<'a> Unpacker<'a> {
    fn new(into: &Path, limits: &'a Limits) -> Result<Self, Error> {
        let tree = Tree::open(into).map_err(Error::io("opening", into))?;
        Ok(Self {
            tree,
            limits,
            owners: (Ids::of_users(), Ids::of_groups()),
            entries: 0,
            buffer: vec![0; BUFFER_BYTES],
            folder_times: BTreeMap::new(),
            remembered_bytes: 0,
        })
    }

    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(refused(format!("the layer has more than {} entries", self.limits.entries_max)));
        }
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            return self.skip(&mut entry);
        }
        let named = entry.path().map_err(broken)?.into_owned();
        let path = plain(&named)?;
        let put = match path.file_name() {
            None => self.root(&entry),
            Some(name) if name.as_bytes().starts_with(WHITEOUT) => self.whiteout(&path, name),
            Some(_) => self.put(&mut entry, &path),
        };
        put.map_err(|error| at(&named, error))?;
        self.skip(&mut entry)
    }

    /// Reads what is left of an entry, so that only headers come before the next.
    fn skip<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Error> {
        while entry.read(&mut self.buffer).map_err(broken)? > 0 {}
        Ok(())
    }

    /// What an archive says of its own root.
    fn root<R: Read>(&mut self, entry: &Entry<'_, R>) -> io::Result<()> {
        let (root, attributes) = (self.tree.root()?, attributes(entry)?);
        self.check_owner(&attributes)?;
        describe(&root, &attributes)
    }

    fn whiteout(&mut self, path: &Path, name: &OsStr) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new(""));
        if name.as_bytes() == OPAQUE {
            let folder = if folder.as_os_str().is_empty() {
                self.tree.root()?
            } else {
                self.tree.make_room(folder)?.make_folder()?
            };
            return overlay::make_opaque(&folder);
        }
        if name.as_bytes().starts_with(META) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name.as_bytes()[WHITEOUT.len()..]);
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(io::Error::other("it hides nothing that can have a name"));
        }
        let place = self.tree.make_room(&folder.join(hidden))?;
        match place.kind()? {
            None => place.whiteout(),
            // The layer brings another: only what lower ones have of it is gone.
            Some(Kind::Folder) => overlay::make_opaque(&place.make_folder()?),
            Some(Kind::Whiteout | Kind::Other) => Ok(()),
        }
    }

    /// Nobody may be made the owner whom an ordinary user does not have.
    fn check_owner(&self, attributes: &Attributes) -> io::Result<()> {
        let (users, groups) = &self.owners;
        if users.has(attributes.uid) && groups.has(attributes.gid) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "it belongs to {}:{}, who is not there: this node is an ordinary user's, and has the user's subordinate ids alone \
             (/etc/subuid, /etc/subgid)",
            attributes.uid, attributes.gid
        )))
    }

    fn put<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let place = self.tree.make_room(path)?;
        let attributes = attributes(entry)?;
        self.check_owner(&attributes)?;
        let kind = entry.header().entry_type();
        let before = place.kind()?;
        if before.is_some() && !(before == Some(Kind::Folder) && kind == EntryType::Directory) {
            self.tree.forget();
        }
        match kind {
            EntryType::Directory => {
                let folder = place.make_folder()?;
                if before == Some(Kind::Whiteout) {
                    overlay::make_opaque(&folder)?;
                }
                set_attributes(&folder, entry)?;
                self.remember_time(path, attributes.mtime_s)?;
                describe(&folder, &attributes)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = place.file()?;
                self.fill(entry, &mut file)?;
                // Owners first: changing them takes set-user-id and capabilities away.
                fchown(&file, Some(attributes.uid), Some(attributes.gid))?;
                set_attributes(&file, entry)?;
                describe(&file, &attributes)
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link to nothing"))?;
                place.symlink(target.as_os_str())?;
                place.describe(&attributes, true)
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link to nothing"))?;
                self.hard_link(&place, &target)
            }
            EntryType::Fifo => {
                place.fifo()?;
                place.describe(&attributes, false)
            }
            EntryType::Char | EntryType::Block => {
                Err(io::Error::other("it is a device; images must not bring any"))
            }
            other => Err(io::Error::other(format!("it is of a kind that is not known: {other:?}"))),
        }
    }

    fn remember_time(&mut self, folder: &Path, mtime_s: i64) -> io::Result<()> {
        if self.folder_times.insert(folder.to_owned(), mtime_s).is_none() {
            self.remembered_bytes += folder.as_os_str().len();
        }
        let bytes_max = self.limits.folders_bytes_max;
        if self.remembered_bytes > bytes_max {
            let why = format!("the paths of the layer's folders take more than {bytes_max} bytes");
            return Err(io::Error::other(why));
        }
        Ok(())
    }

    fn hard_link(&mut self, place: &super::tree::Place, target: &Path) -> io::Result<()> {
        let shown = target.display();
        let plain = plain(target).map_err(io::Error::other)?;
        let other = self.tree.find(&plain)?;
        match other.kind()? {
            None | Some(Kind::Whiteout) => {
                Err(io::Error::other(format!("a hard link to {shown}, which is not in the layer")))
            }
            Some(Kind::Folder) => Err(io::Error::other(format!("a hard link to the folder {shown}"))),
            Some(Kind::Other) => place.hard_link(&other),
        }
    }

    fn fill<R: Read>(&mut self, entry: &mut Entry<'_, R>, file: &mut File) -> io::Result<()> {
        if entry.header().entry_type() == EntryType::GNUSparse && entry.size() > self.limits.image_bytes_max {
            return Err(io::Error::other("the file is larger than images may be"));
        }
        loop {
            match entry.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => file.write_all(&self.buffer[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn finish(mut self) -> Result<(), Error> {
        for (path, mtime_s) in std::mem::take(&mut self.folder_times).into_iter().rev() {
            let mut set = || -> io::Result<()> {
                let place = self.tree.find(&path)?;
                // A later entry may have taken its place.
                if place.kind()? == Some(Kind::Folder) {
                    place.make_folder()?.set_modified(time(mtime_s))?;
                }
                Ok(())
            };
            match set() {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path, error)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn at(path: &Path, error: io::Error) -> Error {
    let why = match error.raw_os_error() {
        Some(nix::libc::EXDEV) => "it leads out of the image".to_owned(),
        Some(nix::libc::ELOOP) => "it leads through a link that must not be followed".to_owned(),
        _ => error.to_string(),
    };
    refused(format!("the layer's entry {}: {why}", path.display()))
}

/// A path below the root of the layer, as which some builders write absolute ones. One that goes up is refused.
fn plain(path: &Path) -> Result<PathBuf, Error> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refused(format!(
                    "the layer's entry {}: it leads out of the image",
                    path.display()
                )));
            }
        }
    }
    Ok(plain)
}

fn attributes<R: Read>(entry: &Entry<'_, R>) -> io::Result<Attributes> {
    let header = entry.header();
    let id = |value: io::Result<u64>| value.and_then(|id| u32::try_from(id).map_err(io::Error::other));
    Ok(Attributes {
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        mode: header.mode()? & 0o7777,
        mtime_s: i64::try_from(header.mtime()?).unwrap_or(0),
    })
}

/// Owner, permissions and time of something that is open.
fn describe(file: &File, attributes: &Attributes) -> io::Result<()> {
    fchown(file, Some(attributes.uid), Some(attributes.gid))?;
    file.set_permissions(PermissionsExt::from_mode(attributes.mode))?;
    file.set_modified(time(attributes.mtime_s))
}

fn time(mtime_s: i64) -> SystemTime {
    let seconds = Duration::from_secs(mtime_s.unsigned_abs());
    if mtime_s < 0 { SystemTime::UNIX_EPOCH - seconds } else { SystemTime::UNIX_EPOCH + seconds }
}

/// Extended attributes that mean something in a container. Others could speak to overlayfs.
fn set_attributes<R: Read>(file: &File, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else {
            continue;
        };
        let is_users = name.starts_with("user.") && !name.starts_with(overlay::OF_USERS);
        if name == "security.capability" || is_users {
            match file.set_xattr(name, extension.value_bytes()) {
                // Not every file system has them.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOTSUP) => {}
                set => set?,
            }
        }
    }
    Ok(())
}
