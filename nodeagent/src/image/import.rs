//! Images from files: what `docker save`, `podman save`, `skopeo copy` and `umoci` write, as an archive or, of an OCI
//! layout, as a folder. So a cluster needs no registry.
//!
//! An archive is not unpacked: its index is read once, and contents are read where they lie.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use nix::fcntl::OFlag;
use serde::Deserialize;
use tar::{Archive, EntryType};

use super::{
    Digest, Images, Name, Record,
    lock::Lock,
    manifest::{self, DOCUMENT_BYTES_MAX, Descriptor, Document, Platform},
    name::Version,
    store::Store,
    tree, unpack,
};
use crate::Error;

/// Entries of an archive: an image has some hundred contents at most, and an archive some hundred images.
const ENTRIES_MAX: usize = 100_000;

/// A link to a link to a link.
const LINKS_MAX: usize = 8;

/// What is named inside: docker's own list of images, and the OCI's.
const DOCKER_LIST: &str = "manifest.json";
const OCI_INDEX: &str = "index.json";

/// The annotations that name an image, the whole name first.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// One image of a file.
struct Found {
    id: Digest,
    /// In the file, bottom first, with the digest that each should have if that is known.
    layers: Vec<(String, Option<Digest>)>,
    config: manifest::ConfigFile,
    names: Vec<Name>,
}

impl Images {
    /// Brings every image of a file, or of a folder with an OCI layout; `name` is given to the one that it holds. Gives
    /// them with the names that they have.
    ///
    /// # Errors
    /// When there is none in it, or one that is not whole.
    pub async fn import(&self, path: &Path, name: Option<Name>) -> Result<Vec<(Record, Vec<Name>)>, Error> {
        let (path, limits, threads) = (path.to_owned(), self.config.limits.clone(), self.layers_at_once);
        let imported = self.with_store(move |store| {
            let source = Source::open(store, &path)?;
            let mut found = source.images()?;
            match (name, &mut found[..]) {
                (Some(name), [one]) => one.names = vec![name],
                (Some(_), _) => {
                    return Err(refused("it holds several images, and one name was given".to_owned()));
                }
                (None, _) => {}
            }
            found.into_iter().map(|one| bring(store, &source, one, &limits, threads)).collect()
        });
        let imported = imported.await?;
        self.changed.send_replace(());
        Ok(imported)
    }
}

fn refused(why: String) -> Error {
    Error::Image(why)
}

fn bring(
    store: &Store,
    source: &Source,
    found: Found,
    limits: &unpack::Limits,
    threads: usize,
) -> Result<(Record, Vec<Name>), Error> {
    let diff_ids = found.config.rootfs.diff_ids;
    let _pin = store.pin(&diff_ids)?;
    let budget = Arc::new(AtomicU64::new(limits.image_bytes_max));
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Error> {
        while let Some(((path, digest), diff_id)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            found.layers.get(at).zip(diff_ids.get(at))
        } {
            let _lock = Lock::wait(&store.lock_path(diff_id.hex()))?;
            if !store.has_layer(diff_id) {
                let content = source.open_content(path)?;
                store.add_layer(diff_id, |into| {
                    unpack::layer(content, digest.as_ref(), into, limits, &budget)
                })?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(diff_ids.len())).map(|_| scope.spawn(work)).collect();
        let died = |_| Err(refused("a thread that unpacked a layer died".to_owned()));
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(died))
    })?;
    let settings = found.config.config.unwrap_or_default();
    let record = store.describe(found.id, diff_ids, settings, Timestamp::now())?;
    Ok((store.put(&record, &found.names)?, found.names))
}

/// A file or folder with images.
enum Source {
    Folder(OwnedFd),
    Archive { file: Arc<File>, entries: HashMap<PathBuf, Place> },
}

/// Where a content lies in an archive.
enum Place {
    Bytes { at: u64, length: u64 },
    Link(PathBuf),
}

impl Source {
    fn open(store: &Store, path: &Path) -> Result<Self, Error> {
        let opened = File::open(path).map_err(Error::io("opening", path))?;
        let found = opened.metadata().map_err(Error::io("reading", path))?;
        if found.is_dir() {
            return Ok(Self::Folder(opened.into()));
        }
        let mut start = [0; 2];
        let is_file = found.is_file();
        let is_compressed = is_file && opened.read_exact_at(&mut start, 0).is_ok() && start == [0x1f, 0x8b];
        let file = match (is_file, is_compressed) {
            (true, false) => opened,
            (true, true) => spool(store, flate2::read::MultiGzDecoder::new(BufReader::new(opened)))?,
            // A pipe.
            (false, _) => spool(store, opened)?,
        };
        let entries = entries(&file).map_err(Error::io("reading", path))?;
        Ok(Self::Archive { file: Arc::new(file), entries })
    }

    /// A content by its path.
    fn open_content(&self, path: &str) -> Result<Box<dyn Read>, Error> {
        let missing = || refused(format!("it lacks {path}"));
        match self {
            Self::Folder(root) => {
                // Links are followed, but not out of the folder.
                let opened = tree::beneath(root, Path::new(path), OFlag::O_RDONLY);
                let file = File::from(opened.map_err(Error::io("opening", path))?);
                if !file.metadata().is_ok_and(|found| found.is_file()) {
                    return Err(missing());
                }
                Ok(Box::new(file))
            }
            Self::Archive { file, entries } => {
                let mut path = plain(Path::new(path));
                for _ in 0..LINKS_MAX {
                    match entries.get(&path) {
                        Some(Place::Link(target)) => path.clone_from(target),
                        Some(Place::Bytes { at, length }) => {
                            return Ok(Box::new(Part { file: Arc::clone(file), at: *at, left: *length }));
                        }
                        None => break,
                    }
                }
                Err(missing())
            }
        }
    }

    /// A document, whole.
    fn document(&self, path: &str) -> Result<Vec<u8>, Error> {
        let mut text = Vec::new();
        let read = self.open_content(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text);
        read.map_err(Error::io("reading", path))?;
        if text.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(refused(format!("{path} is longer than {DOCUMENT_BYTES_MAX} bytes")));
        }
        Ok(text)
    }

    /// A document by its digest, checked.
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let text = self.document(&blob_path(digest))?;
        let came = Digest::of(&text);
        if came == *digest { Ok(text) } else { Err(refused(format!("{digest} is in truth {came}"))) }
    }

    fn images(&self) -> Result<Vec<Found>, Error> {
        // What docker writes today is both; only its own list has all names.
        if let Ok(list) = self.document(DOCKER_LIST) {
            return self.of_docker(&list);
        }
        match self.document(OCI_INDEX) {
            Ok(index) => self.of_layout(&index),
            Err(_) => Err(refused(format!(
                "it is neither what `docker save` writes (there is no {DOCKER_LIST}) nor an OCI layout (no {OCI_INDEX})"
            ))),
        }
    }

    fn of_docker(&self, list: &[u8]) -> Result<Vec<Found>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let list: Vec<Listed> = manifest::parse("list of images", list)?;
        let images = list.into_iter().map(|one| {
            let text = self.document(&one.config)?;
            let config = manifest::read_config(&text, one.layers.len())?;
            let names = one.repo_tags.unwrap_or_default();
            Ok(Found {
                id: Digest::of(&text),
                layers: one.layers.into_iter().map(|path| (path, None)).collect(),
                config,
                names: names.iter().map(|name| Name::parse(name)).collect::<Result<_, _>>()?,
            })
        });
        images.collect()
    }

    fn of_layout(&self, index: &[u8]) -> Result<Vec<Found>, Error> {
        let Document::Index(index) = manifest::read(index)? else {
            return Err(refused(format!("{OCI_INDEX} is no index")));
        };
        let here = Platform::here();
        let mut found = Vec::new();
        // Images of several platforms side by side are as good as an index of them.
        let is_split =
            index.len() > 1 && index.iter().all(|one| one.platform.is_some() && name_of(one).is_none());
        let chosen = if is_split { vec![manifest::choose(&index, &here)?] } else { index.iter().collect() };
        for one in chosen {
            found.push(self.of_descriptor(one, &here)?);
        }
        Ok(found)
    }

    fn of_descriptor(&self, descriptor: &Descriptor, here: &Platform) -> Result<Found, Error> {
        let manifest = match manifest::read(&self.blob(&descriptor.digest)?)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => {
                let chosen = manifest::choose(&index, here)?;
                match manifest::read(&self.blob(&chosen.digest)?)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => {
                        return Err(refused("its index leads to another index".to_owned()));
                    }
                }
            }
        };
        let config = manifest::read_config(&self.blob(&manifest.config.digest)?, manifest.layers.len())?;
        let mut names: Vec<Name> = name_of(descriptor).into_iter().collect();
        names.extend(names.first().map(|name| name.at(&descriptor.digest)));
        Ok(Found {
            id: manifest.config.digest,
            layers: manifest
                .layers
                .into_iter()
                .map(|layer| (blob_path(&layer.digest), Some(layer.digest)))
                .collect(),
            config,
            names,
        })
    }
}

/// The name that a layout gives an image. A bare tag, which some write, names nothing.
fn name_of(descriptor: &Descriptor) -> Option<Name> {
    let annotations = descriptor.annotations.as_ref()?;
    let said = NAME_ANNOTATIONS.iter().find_map(|key| annotations.get(*key))?;
    let name = Name::parse(said).ok().filter(|_| said.contains([':', '/']))?;
    matches!(name.version(), Version::Tag(_)).then_some(name)
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The paths of an archive, and where their contents lie.
fn entries(file: &File) -> io::Result<HashMap<PathBuf, Place>> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0))?;
    let mut archive = Archive::new(reader);
    let mut found = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if found.len() >= ENTRIES_MAX {
            return Err(io::Error::other(format!("it has more than {ENTRIES_MAX} entries")));
        }
        let path = plain(&entry.path()?);
        let place = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                Place::Bytes { at: entry.raw_file_position(), length: entry.size() }
            }
            // Old archives name a layer that comes twice by a link, from its own folder.
            EntryType::Symlink => {
                let Some(target) = entry.link_name()? else { continue };
                Place::Link(plain(&path.parent().unwrap_or(Path::new("")).join(target)))
            }
            EntryType::Link => {
                let Some(target) = entry.link_name()? else { continue };
                Place::Link(plain(&target))
            }
            _ => continue,
        };
        found.insert(path, place);
    }
    Ok(found)
}

/// Only a name in an archive: nothing is opened by it.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

/// Writes what cannot be read twice to a file without a name.
fn spool(store: &Store, mut reader: impl Read) -> Result<File, Error> {
    let path = store.scratch()?;
    let file = File::options().create_new(true).read(true).write(true).open(&path);
    let mut file = file.map_err(Error::io("creating", &path))?;
    fs::remove_file(&path).map_err(Error::io("removing", &path))?;
    io::copy(&mut reader, &mut file).map_err(Error::io("unpacking to", &path))?;
    Ok(file)
}

/// A part of a file.
struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
