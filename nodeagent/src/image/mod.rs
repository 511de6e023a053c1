//! Images: from a name to folders that overlayfs can stack, and to what the image says of how it wants to be run.
//!
//! [`pull`] brings them from registries, [`import`] from files, [`store`] keeps them, [`gc`] makes room. Nothing that
//! comes from outside is believed: digests are checked while content streams by, and [`unpack`] holds archives to
//! their folder.
//!
//! Must never know: pods, containers, the API server.

mod challenge;
mod digest;
pub mod gc;
mod import;
pub mod kept;
pub mod kernels;
pub mod keyring;
mod lock;
mod manifest;
mod name;
mod pull;
mod registry;
mod session;
pub mod store;
mod toolbox;
mod tree;
mod unpack;
pub mod user;
mod view;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Semaphore, watch};

pub use self::{
    digest::Digest,
    gc::Thresholds,
    keyring::Keyring,
    manifest::Settings,
    name::{Name, Policy},
    pull::{Progress, Tell},
    store::{InUse, Listed, Record, Store},
    unpack::Limits,
};
use self::{kept::Kept, kernels::Shown, registry::Http, store::Pin, user::Accounts};
use crate::Error;

/// Layers that are unpacked side by side: one CPU each, and enough of them that one that waits for its registry does
/// not hold up the rest.
const LAYERS_AT_ONCE: std::ops::RangeInclusive<usize> = 3..=16;

/// How long a registry may be silent; five times of it in a row are the end of a pull.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How often a pull says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// Longest `/etc/passwd` that is read.
const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;

/// Where images come from, and how much of them there may be.
#[derive(Clone, Debug)]
pub struct ImagesConfig {
    /// URLs to ask before a registry, by the registry's name.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts, with their port if it is not the usual one, that are spoken to over plain HTTP. Those of the loopback
    /// network are no exception.
    pub insecure: BTreeSet<String>,
    /// Authorities to trust beside the system's, PEM.
    pub ca_pem: Vec<u8>,
    /// The node's own docker configuration, read for every pull.
    pub docker_config: Option<PathBuf>,
    /// How much an image may become.
    pub limits: Limits,
    /// How long a registry may be silent.
    pub silence_max: Duration,
    /// How often a pull says how far it is.
    pub progress_every: Duration,
    /// When images go.
    pub thresholds: Thresholds,
    /// Folder of CUDA's compiler and headers, for the image of kernels.
    pub cuda: Option<PathBuf>,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            insecure: BTreeSet::new(),
            ca_pem: Vec::new(),
            docker_config: None,
            limits: Limits::default(),
            silence_max: SILENCE_MAX,
            progress_every: PROGRESS_EVERY,
            thresholds: Thresholds::default(),
            cuda: None,
        }
    }
}

/// An image on this machine, which stays for as long as this is held.
#[derive(Debug)]
pub struct Image {
    /// What its name stood for, in the API's words.
    pub id: String,
    /// Its id in the store; none of what the binary carries.
    pub key: Option<Digest>,
    /// Folders to stack, topmost first.
    pub layers: Vec<PathBuf>,
    /// How it wants to be run.
    pub settings: Settings,
    /// Of all layers, unpacked.
    pub bytes: u64,
    /// What its containers see of the machine, read-only.
    pub shown: Vec<Shown>,
    /// What its containers keep for those that come after them.
    pub kept: Option<Kept>,
    /// Its containers hold no capabilities and write nothing to their root, unless their pod says otherwise.
    pub is_confined: bool,
    _pin: Option<Pin>,
}

impl Image {
    /// One that nobody could remove.
    pub(crate) fn built_in(id: String, root: PathBuf, settings: Settings, bytes: u64) -> Self {
        Self {
            id,
            key: None,
            layers: vec![root],
            settings,
            bytes,
            shown: Vec::new(),
            kept: None,
            is_confined: false,
            _pin: None,
        }
    }

    /// Users and groups of the image.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn accounts(&self) -> Result<Accounts, Error> {
        let read = |path: &str| {
            let text =
                view::read(&self.layers, path, ACCOUNTS_BYTES_MAX).map_err(Error::io("reading", path))?;
            Ok::<_, Error>(String::from_utf8_lossy(&text.unwrap_or_default()).into_owned())
        };
        Ok(Accounts { passwd: read("/etc/passwd")?, group: read("/etc/group")? })
    }

    /// Variables it brings.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pair =
            |line: &String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.settings.env.iter().flatten().filter_map(pair).collect()
    }
}

/// The images of this machine, and ways for more to come.
pub struct Images {
    folder: PathBuf,
    store: Store,
    http: Http,
    config: ImagesConfig,
    layers_at_once: usize,
    /// One for each layer that is being unpacked.
    turns: Semaphore,
    changed: watch::Sender<()>,
}

impl Images {
    /// Opens the images in `folder`, whoever else has them open.
    ///
    /// # Errors
    /// When the folder is not writable, or the configuration not usable.
    pub fn open(folder: &Path, config: ImagesConfig) -> Result<Arc<Self>, Error> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let layers_at_once = cpus.clamp(*LAYERS_AT_ONCE.start(), *LAYERS_AT_ONCE.end());
        Ok(Arc::new(Self {
            store: Store::open(folder)?,
            http: Http::new(config.insecure.clone(), &config.ca_pem, config.silence_max)?,
            folder: folder.to_owned(),
            config,
            layers_at_once,
            turns: Semaphore::new(layers_at_once),
            changed: watch::Sender::new(()),
        }))
    }

    /// Where they are kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What it was opened with.
    pub fn config(&self) -> &ImagesConfig {
        &self.config
    }

    /// Wakes who wants to know that images came or went.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The image of a name, if it is here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn present(&self, name: &Name) -> Result<Option<Image>, Error> {
        let (built_in, name) = (self.built_in(name), name.clone());
        self.with_store(move |store| {
            if let Some(built_in) = built_in {
                return built_in().map(Some);
            }
            let Some((record, pin)) = store.take(&name)? else { return Ok(None) };
            image(store, &name, record, pin).map(Some)
        })
        .await
    }

    /// Brings the image that a name stands for now.
    ///
    /// # Errors
    /// Why it does not come: what every place that was asked said.
    pub async fn pull(&self, name: &Name, keyring: &Keyring, tell: Tell<'_>) -> Result<Image, Error> {
        if let Some(built_in) = self.built_in(name) {
            return self.with_store(move |_| built_in()).await;
        }
        let (record, pin) = self.fetch(name, keyring, tell).await?;
        self.changed.send_replace(());
        let name = name.clone();
        self.with_store(move |store| image(store, &name, record, pin)).await
    }

    /// What makes the image of a name that needs no registry: the binary carries it.
    fn built_in(&self, name: &Name) -> Option<Box<dyn FnOnce() -> Result<Image, Error> + Send>> {
        let folder = self.folder.clone();
        if toolbox::is_meant(name) {
            let name = name.clone();
            return Some(Box::new(move || toolbox::image(&folder, &name)));
        }
        let cuda = self.config.cuda.clone();
        kernels::is_meant(name).then(|| -> Box<dyn FnOnce() -> Result<Image, Error> + Send> {
            Box::new(move || kernels::image(&folder, cuda.as_deref()))
        })
    }

    /// Removes what earlier binaries left of the images that they carried; `in_use` gives the ids of images in use.
    ///
    /// # Errors
    /// When it cannot be removed, or what is in use not be told.
    pub async fn sweep(
        &self,
        in_use: impl FnOnce() -> Result<HashSet<String>, Error> + Send + 'static,
    ) -> Result<(), Error> {
        let folder = self.folder.clone();
        self.with_store(move |_| {
            // Nearly always there is one at most.
            if kernels::programs(&folder)? < 2 { Ok(()) } else { kernels::sweep(&folder, &in_use()?) }
        })
        .await
    }

    /// The node's own credentials.
    ///
    /// # Errors
    /// When there is a configuration that cannot be read.
    pub fn own_keyring(&self) -> Result<Keyring, Error> {
        let mut keyring = Keyring::default();
        if let Some(file) = &self.config.docker_config {
            keyring.add_docker_config(&std::fs::read(file).map_err(Error::io("reading", file))?)?;
        }
        Ok(keyring)
    }

    /// Makes room if the disk is fuller than it should be.
    ///
    /// # Errors
    /// When the store cannot be changed, or not enough can go.
    pub async fn collect(
        &self,
        in_use: impl FnOnce() -> Result<InUse, Error> + Send + 'static,
    ) -> Result<gc::Collected, Error> {
        let thresholds = self.config.thresholds.clone();
        let collected = self.with_store(move |store| gc::collect(store, &thresholds, in_use)).await?;
        if !collected.removed.is_empty() {
            self.changed.send_replace(());
        }
        Ok(collected)
    }

    /// Work on the store, in a thread for it.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|error| Error::Image(error.to_string()))?
    }
}

fn image(store: &Store, name: &Name, record: Record, pin: Pin) -> Result<Image, Error> {
    store.touch(&record.id);
    let mut layers = store.stack(&record)?;
    if layers.is_empty() {
        layers.push(store.nothing()?);
    }
    let of_repository = format!("{}/{}@", name.registry(), name.repository());
    let by_digest = record.digests.iter().find(|known| known.starts_with(&of_repository));
    let id = by_digest.or(record.digests.first()).cloned().unwrap_or_else(|| record.id.to_string());
    Ok(Image {
        id,
        key: Some(record.id),
        layers,
        settings: record.settings,
        bytes: record.bytes,
        shown: Vec::new(),
        kept: None,
        is_confined: false,
        _pin: Some(pin),
    })
}
