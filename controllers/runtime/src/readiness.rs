//! Which controllers cannot begin yet, what they wait for, and why it does not come.
//!
//! A controller begins when the kinds that it reads are known. One that the server does not list (it is not allowed, its
//! objects cannot be converted) holds up those who need it, and nobody else. They say so in the log, and here for whoever
//! tells of the health of the process.
//!
//! Must never know: what controllers do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use claw_client::{ApiError, Cached, Object, Store};
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::select;
use tracing::{info, warn};

use crate::Env;

/// A server that is away is nobody's fault for so long: it may be starting too.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often what is wrong is told again while it lasts.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Name of a controller and of a kind.
type Place = (&'static str, String);

/// What the controllers of a process wait for before they begin. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<Place, Option<ApiError>>>>);

/// A controller that has not begun.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its name: `deployment`.
    pub controller: &'static str,
    /// The kind that is not known yet: `replicasets.apps`.
    pub kind: String,
    /// Why not; `None` while nothing went wrong.
    pub error: Option<ApiError>,
}

/// A cache that a controller does not begin without.
pub struct Need {
    kind: String,
    cache: Box<dyn Cache>,
}

#[async_trait]
trait Cache: Send + Sync {
    async fn synced(&self) -> bool;
    async fn stuck(&self) -> ApiError;
}

#[async_trait]
impl<K: Cached> Cache for Store<K> {
    async fn synced(&self) -> bool {
        Self::synced(self).await.is_ok()
    }

    async fn stuck(&self) -> ApiError {
        Self::stuck(self, PATIENCE).await
    }
}

impl Need {
    /// The cache of a kind; `kind` is what to call it: `replicasets.apps`.
    pub fn new<K: Cached>(kind: impl Into<String>, cache: &Store<K>) -> Self {
        Self { kind: kind.into(), cache: Box::new(cache.clone()) }
    }

    /// The same for a kind that is a Rust type.
    pub fn of<K: Object>(cache: &Store<K>) -> Self {
        let name =
            if K::GROUP.is_empty() { K::PLURAL.to_owned() } else { format!("{}.{}", K::PLURAL, K::GROUP) };
        Self::new(name, cache)
    }
}

impl Readiness {
    /// Those that have not begun, by name.
    pub fn waiting(&self) -> Vec<Waiting> {
        let waiting = self.0.lock();
        let waiting = waiting.iter().map(|((controller, kind), error)| Waiting {
            controller,
            kind: kind.clone(),
            error: error.clone(),
        });
        waiting.collect()
    }

    /// Waits until a controller has all that it needs. False when a cache ended before.
    pub async fn all(&self, env: &Env, controller: &'static str, needs: Vec<Need>) -> bool {
        let waits = needs.into_iter().map(|need| self.one(env, controller, need));
        join_all(waits).await.into_iter().all(|synced| synced)
    }

    async fn one(&self, env: &Env, controller: &'static str, need: Need) -> bool {
        let Need { kind, cache } = need;
        // Most caches are there before anybody could look.
        let entry = Entry { waiting: &self.0, place: (controller, kind) };
        entry.set(None);
        let mut told = false;
        loop {
            let error = select! {
                biased;
                synced = cache.synced() => {
                    if told && synced {
                        info!(controller, kind = entry.place.1, "the kind is known now");
                    }
                    return synced;
                }
                error = cache.stuck() => error,
            };
            let kind = &entry.place.1;
            warn!(controller, kind, %error, "a controller cannot begin: a kind that it reads is not listed");
            entry.set(Some(error));
            told = true;
            select! {
                biased;
                _ = cache.synced() => {}
                () = env.sleep(TELL_AGAIN) => {}
            }
        }
    }
}

/// That a controller waits, until this is dropped.
struct Entry<'a> {
    waiting: &'a Mutex<BTreeMap<Place, Option<ApiError>>>,
    place: Place,
}

impl Entry<'_> {
    fn set(&self, error: Option<ApiError>) {
        self.waiting.lock().insert(self.place.clone(), error);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.place);
    }
}
