//! From a name to an image on disk: the registry or a mirror of it is asked, layers come side by side, and each is
//! unpacked while it arrives.
//!
//! Who wants what somebody else is already getting, in this process or another, waits for it. What has come stays when
//! the rest fails, so the next try goes on from there.

use std::{
    fmt,
    future::Future,
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{
    Digest, Images, Keyring, Name,
    keyring::Credential,
    lock::Lock,
    manifest::{self, Descriptor, Document, Manifest, Platform},
    registry::{Failure, parse},
    session::Session,
    store::{Pin, Record},
    unpack,
};
use crate::Error;

/// Parts of a layer that wait to be unpacked; a part is what one read of the connection gave, at most some 100 KiB.
const PARTS_MAX: usize = 32;

/// docker.io is called otherwise where it is reached.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of the layers that were not here.
    pub bytes: u64,
    /// Of all of them.
    pub bytes_all: u64,
    /// Layers that are here.
    pub layers: usize,
    /// Layers of the image.
    pub layers_all: usize,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.1} of {:.1} MiB, {} of {} layers",
            mebibytes(self.bytes),
            mebibytes(self.bytes_all),
            self.layers,
            self.layers_all
        )
    }
}

/// Told of progress.
pub type Tell<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Counts while layers come.
#[derive(Default)]
struct Counters {
    bytes: AtomicU64,
    layers: AtomicUsize,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error.full())
    }
}

impl Images {
    /// Brings the image that a name stands for now, and keeps it until the pin is dropped. What is here is not fetched.
    pub(super) async fn fetch(
        &self,
        name: &Name,
        keyring: &Keyring,
        tell: Tell<'_>,
    ) -> Result<(Record, Pin), Error> {
        let key = format!("name-{}", Digest::of(name.to_string().as_bytes()).hex());
        let _once = Lock::take(&self.store.lock_path(&key)).await?;
        let mut complaints = Vec::new();
        for base in self.bases(name) {
            for credential in credentials(&base, name, keyring) {
                let session = Session::new(&self.http, &base, name.repository(), credential);
                match self.from(&session, name, tell).await {
                    Ok(fetched) => return Ok(fetched),
                    Err(failure) => {
                        complaints.push(failure.message().to_owned());
                        if !matches!(failure, Failure::Unauthorized(_)) {
                            break;
                        }
                    }
                }
            }
        }
        complaints.dedup();
        Err(Error::Image(complaints.join("; ")))
    }

    /// Mirrors in their order, then the registry.
    fn bases(&self, name: &Name) -> Vec<String> {
        let mut bases = self.config.mirrors.get(name.registry()).cloned().unwrap_or_default();
        let host = if name.registry() == DOCKER_HUB.0 { DOCKER_HUB.1 } else { name.registry() };
        bases.push(format!("{}://{host}", self.http.scheme(name.registry())));
        bases
    }

    async fn from(
        &self,
        session: &Session<'_>,
        name: &Name,
        tell: Tell<'_>,
    ) -> Result<(Record, Pin), Failure> {
        let (text, digest) = session.manifest(&name.reference()).await?;
        let names = [name.clone(), name.at(&digest)];
        if let Some((record, pin)) = self.known(&names).await? {
            return Ok((record, pin));
        }
        let manifest = match manifest::read(&text)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => self.of_index(session, &index).await?,
        };
        let config = session.config(&manifest.config).await?;
        let config = manifest::read_config(&config, manifest.layers.len())?;
        let diff_ids = config.rootfs.diff_ids;
        let pin = self.with_store({
            let diff_ids = diff_ids.clone();
            move |store| store.pin(&diff_ids)
        });
        let pin = pin.await?;
        self.layers(session, &manifest, &diff_ids, tell).await?;
        let settings = config.config.unwrap_or_default();
        let id = manifest.config.digest;
        let record = self.with_store(move |store| {
            let record = store.describe(id, diff_ids, settings, Timestamp::now())?;
            store.put(&record, &names)
        });
        Ok((record.await?, pin))
    }

    /// The image of a manifest that is here already, under all its names.
    async fn known(&self, names: &[Name; 2]) -> Result<Option<(Record, Pin)>, Error> {
        let names = names.clone();
        self.with_store(move |store| {
            let Some((record, pin)) = store.take(&names[1])? else { return Ok(None) };
            Ok(Some((store.put(&record, &names)?, pin)))
        })
        .await
    }

    async fn of_index(&self, session: &Session<'_>, index: &[Descriptor]) -> Result<Manifest, Failure> {
        let chosen = manifest::choose(index, &Platform::here())?;
        let (text, _) = session.manifest(&chosen.digest.to_string()).await?;
        match manifest::read(&text)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(Failure::Refused("its index leads to another index".to_owned())),
        }
    }

    /// Brings the layers that are not here.
    async fn layers(
        &self,
        session: &Session<'_>,
        manifest: &Manifest,
        diff_ids: &[Digest],
        tell: Tell<'_>,
    ) -> Result<(), Failure> {
        let wanted = manifest.layers.iter().zip(diff_ids);
        let missing = wanted.clone().filter(|(_, diff_id)| !self.store.has_layer(diff_id));
        let bytes_all = missing.map(|(layer, _)| layer.size).fold(0, u64::saturating_add);
        let counters = Counters::default();
        let budget = Arc::new(AtomicU64::new(self.config.limits.image_bytes_max));
        let mut work: Vec<BoxFuture<'_, Result<(), Failure>>> = Vec::new();
        for (descriptor, diff_id) in wanted {
            let (budget, counters) = (Arc::clone(&budget), &counters);
            work.push(Box::pin(async move {
                self.layer(session, descriptor, diff_id, budget, &counters.bytes).await?;
                counters.layers.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }));
        }
        let work = stream::iter(work).buffer_unordered(self.layers_at_once).try_collect::<()>();
        let progress = || Progress {
            bytes: counters.bytes.load(Ordering::Relaxed),
            bytes_all,
            layers: counters.layers.load(Ordering::Relaxed),
            layers_all: diff_ids.len(),
        };
        every(self.config.progress_every, work, || tell(progress())).await
    }

    async fn layer(
        &self,
        session: &Session<'_>,
        descriptor: &Descriptor,
        diff_id: &Digest,
        budget: Arc<AtomicU64>,
        come: &AtomicU64,
    ) -> Result<(), Failure> {
        let lock = Lock::take(&self.store.lock_path(diff_id.hex())).await?;
        if self.store.has_layer(diff_id) {
            return Ok(());
        }
        let _turn = self.turns.acquire().await.map_err(|error| Failure::Refused(error.to_string()))?;
        let (sender, receiver) = mpsc::channel(PARTS_MAX);
        let (limits, digest, diff_id) =
            (self.config.limits.clone(), descriptor.digest.clone(), diff_id.clone());
        let unpacking = self.with_store(move |store| {
            let _lock = lock;
            store.add_layer(&diff_id, |into| {
                unpack::layer(Arriving::new(receiver), Some(&digest), into, &limits, &budget)
            })
        });
        let (sent, unpacked) = tokio::join!(session.blob(descriptor, sender, come), unpacking);
        // Of a download that broke, the rest is a consequence.
        sent?;
        Ok(unpacked?)
    }
}

/// What to try at one place: what is known for the very host that is asked, else nobody's.
fn credentials(base: &str, name: &Name, keyring: &Keyring) -> Vec<Option<Credential>> {
    let host = parse(base).map(|url| super::registry::host(&url)).unwrap_or_default();
    let host = if host == DOCKER_HUB.1 { DOCKER_HUB.0 } else { &host };
    let found = keyring.matching(&name.on(host));
    if found.is_empty() { vec![None] } else { found.into_iter().map(Some).collect() }
}

/// Does the work, and says how far it is from time to time.
async fn every<T>(interval: Duration, work: impl Future<Output = T>, tell: impl Fn()) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(interval, work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => tell(),
        }
    }
}

/// What comes over a channel, for a thread that reads.
struct Arriving {
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Arriving {
    fn new(parts: mpsc::Receiver<Bytes>) -> Self {
        Self { parts, part: Bytes::new() }
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let length = self.part.len().min(buffer.len());
        self.part.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_numbers() {
        let progress = Progress { bytes: 1 << 20, bytes_all: 5 << 19, layers: 2, layers_all: 10 };
        assert_eq!(progress.to_string(), "1.0 of 2.5 MiB, 2 of 10 layers");
    }

    #[test]
    fn a_mirror_is_not_told_the_password_of_its_origin() {
        let mut keyring = Keyring::default();
        let config = br#"{"auths": {"docker.io": {"username": "hub", "password": "p"}}}"#;
        keyring.add_docker_config(config).unwrap();
        let name = Name::parse("busybox").unwrap();
        assert_eq!(credentials("https://mirror.example:5000", &name, &keyring), [None]);
        let known = Credential::Password { user: "hub".to_owned(), password: "p".to_owned() };
        assert_eq!(credentials("https://registry-1.docker.io", &name, &keyring), [Some(known)]);
    }
}
