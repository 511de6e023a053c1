//! Keeps a [`Store`] equal to what the server has, by list and watch.
//!
//! The rules, which servers and other clients rely on:
//! * the first list asks for `resourceVersion=0` in pages; a later one for the last revision seen,
//!   whole; after an expired or impossible revision the list asks for none, the most recent;
//! * a watch starts at the list's revision and every event, bookmarks included, moves it forward;
//! * a watch that ends cleanly is resumed where it was; one that says `Expired` leads to a new list;
//! * failures pause, longer each time; a watch closed at once without an event counts as one.
//!
//! Must never know: what the objects mean.

use std::{sync::Arc, time::Duration};

use claw_schemas::{ApiError, status::Reason};
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    api::{Api, Client, Object},
    backoff::Backoff,
    cache::{Change, Indexer, Store, Writer},
    object::{Cached, PartialObject, revision_of, without_managed_fields},
    request::{ListOptions, Request, ResourceRef, Verb, View, WatchOptions},
    transport::{Transport, WatchEvent, WatchStream},
};

/// Items per page of a paged list: client-go's figure. 500 objects of 10 KiB are 5 MiB a page.
pub const PAGE_ITEMS: u64 = 500;
/// First pause after a failure. A server restarts in less than a second, so short.
pub const BACKOFF_BASE: Duration = Duration::from_millis(200);
/// Longest pause: client-go's figure, bearable for a person who waits.
pub const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// A watch asks to be ended after this long, up to half as much again: 5 to 7.5 minutes, so that
/// many watches opened together do not end together.
pub const WATCH_SECONDS: u64 = 300;
/// How long past its own deadline a watch may stay silent before its connection counts as dead.
pub const WATCH_GRACE: Duration = Duration::from_secs(30);
/// Events that are taken in together, if they are there together: as many pods decode in 1 ms, and each is the copy of a
/// few nodes of the cache's trees that the next need not make.
const EVENTS_AT_A_TIME: usize = 64;
/// A watch that lived shorter than this and brought nothing counts as a failure.
const WATCH_TOO_SHORT: Duration = Duration::from_secs(1);

/// Lists and watches one kind into a cache.
///
/// ```no_run
/// # async fn f(client: claw_client::Client, cancel: tokio_util::sync::CancellationToken) {
/// use claw_client::reflector::Reflector;
/// use k8s_openapi::api::core::v1::Pod;
/// let reflector = Reflector::new(&client.all::<Pod>()).fields("spec.nodeName=gpu-02");
/// let pods = reflector.store();
/// tokio::spawn(reflector.run(cancel));
/// pods.synced().await.expect("the reflector runs");
/// # }
/// ```
pub struct Reflector<K> {
    transport: Arc<dyn Transport>,
    resource: ResourceRef,
    view: View,
    label_selector: String,
    field_selector: String,
    backoff: Backoff,
    writer: Writer<K>,
}

/// Where the next list starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// Anything the server has at hand, in pages.
    Any,
    /// No older than this, whole.
    Seen(u64),
    /// The most recent, in pages.
    Latest,
}

/// Why a watch phase ended.
enum Ended {
    /// The history is gone: list the most recent state.
    Expired,
    /// Something that only a new list can sort out.
    Broken,
}

/// One page, whose objects are not parsed yet.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

impl<K: Object> Reflector<K> {
    /// Of typed objects.
    pub fn new(api: &Api<K>) -> Self {
        Self::of(Arc::clone(api.client().transport()), api.resource().clone())
    }
}

impl Reflector<PartialObject> {
    /// Of any kind's metadata alone, which is all the server is asked to send.
    pub fn metadata(client: &Client, resource: ResourceRef) -> Self {
        let mut reflector = Self::of(Arc::clone(client.transport()), resource);
        reflector.view = View::Metadata;
        reflector
    }
}

impl<K: Cached> Reflector<K> {
    /// Of a collection named at run time: `K` is usually a [`DynamicObject`](crate::object::DynamicObject).
    pub fn of(transport: Arc<dyn Transport>, resource: ResourceRef) -> Self {
        Self {
            transport,
            resource,
            view: View::Object,
            label_selector: String::new(),
            field_selector: String::new(),
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            writer: Writer::new(),
        }
    }

    /// Only objects whose labels match.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.label_selector = selector.into();
        self
    }

    /// Only objects whose fields match.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.field_selector = selector.into();
        self
    }

    /// Adds an index to the store, read with [`Snapshot::indexed`](crate::cache::Snapshot::indexed).
    #[must_use]
    pub fn index(mut self, name: &'static str, indexer: Indexer<K>) -> Self {
        self.writer = self.writer.index(name, indexer);
        self
    }

    /// Keeps only some of the objects: see [`Writer::keep_only`].
    #[must_use]
    pub fn keep_only(mut self, keep: fn(&K) -> bool) -> Self {
        self.writer = self.writer.keep_only(keep);
        self
    }

    /// Other pauses than the usual ones, for a simulation above all.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The cache that [`Self::run`] keeps; subscribe to it for deltas.
    pub fn store(&self) -> Store<K> {
        self.writer.store()
    }

    /// What is reflected.
    pub fn resource(&self) -> &ResourceRef {
        &self.resource
    }

    /// Lists and watches until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        cancel.run_until_cancelled_owned(self.reflect()).await;
    }

    async fn reflect(&mut self) {
        let mut from = From::Any;
        loop {
            match self.list(from).await {
                Ok(()) => {
                    from = match self.watch().await {
                        Ended::Expired => From::Latest,
                        Ended::Broken => From::Seen(self.writer.revision()),
                    };
                }
                Err(error) => {
                    if is_expired(&error) {
                        from = From::Latest;
                    }
                    self.pause("list", &error).await;
                }
            }
        }
    }

    async fn list(&mut self, from: From) -> Result<(), ApiError> {
        let mut options = ListOptions {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            ..ListOptions::default()
        };
        match from {
            From::Any => {
                options.resource_version = Some("0".to_owned());
                options.limit = PAGE_ITEMS;
            }
            From::Seen(revision) => options.resource_version = Some(revision.to_string()),
            From::Latest => options.limit = PAGE_ITEMS,
        }
        let mut objects = Vec::new();
        loop {
            let request = Request {
                resource: self.resource.clone(),
                verb: Verb::List(options.clone()),
                view: self.view,
            };
            let body = self.transport.call(request).await?.body;
            let page: Page<'_> = serde_json::from_slice(&body)
                .map_err(|error| ApiError::internal(format!("the server's list does not parse: {error}")))?;
            let items =
                page.items.into_iter().flatten().filter_map(|item| self.decode(item.get().as_bytes()));
            objects.extend(items.filter(|object| self.writer.keeps(object)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                // The token names the revision; asking for another one beside it is refused.
                Some(token) => {
                    options.continue_token = Some(token);
                    options.resource_version = None;
                    options.limit = PAGE_ITEMS;
                }
                None => {
                    let revision = parse_revision(page.metadata.resource_version.as_deref())?;
                    debug!(resource = %self.resource.plural, objects = objects.len(), revision, "listed");
                    self.writer.replace(objects, revision);
                    return Ok(());
                }
            }
        }
    }

    /// Watches from the revision reached, resuming for as long as that works.
    async fn watch(&mut self) -> Ended {
        loop {
            let seconds = WATCH_SECONDS + (self.backoff.fraction() * WATCH_SECONDS as f64 / 2.0) as u64;
            let options = WatchOptions {
                label_selector: self.label_selector.clone(),
                field_selector: self.field_selector.clone(),
                resource_version: Some(self.writer.revision().to_string()),
                allow_bookmarks: true,
                send_initial_events: false,
                timeout_seconds: Some(seconds),
            };
            let started = Instant::now();
            let deadline = started + Duration::from_secs(seconds) + WATCH_GRACE;
            let opened = self.transport.watch(self.resource.clone(), options, self.view).await;
            let result = match opened {
                Ok(stream) => self.follow(stream, started, deadline).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => {}
                Err(error) if is_expired(&error) => return Ended::Expired,
                Err(error) => {
                    self.pause("watch", &error).await;
                    // A server that is merely away is asked again for what came since.
                    if !error.is_retryable() {
                        return Ended::Broken;
                    }
                }
            }
        }
    }

    /// Takes events in until the watch ends: `Ok` when it may simply be resumed.
    async fn follow(
        &mut self,
        stream: WatchStream,
        started: Instant,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let mut stream = stream.ready_chunks(EVENTS_AT_A_TIME);
        let mut empty = true;
        loop {
            match timeout_at(deadline, stream.next()).await.map_err(|_| silent())? {
                Some(events) => self.take(events)?,
                None if empty && started.elapsed() < WATCH_TOO_SHORT => return Err(too_short()),
                None => {
                    self.backoff.reset();
                    return Ok(());
                }
            }
            empty = false;
        }
    }

    /// Takes in events that came together. An error among them ends the watch; what came before it counts.
    fn take(&mut self, events: Vec<Result<WatchEvent, ApiError>>) -> Result<(), ApiError> {
        let mut changes = Vec::with_capacity(events.len());
        let mut outcome = Ok(());
        for event in events {
            match event.and_then(|event| self.change(event)) {
                Ok(change) => changes.push(change),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if !changes.is_empty() {
            self.backoff.reset();
            self.writer.change(changes);
        }
        outcome
    }

    /// What an event changes. An object that does not parse is left as it was; its revision still counts as seen.
    fn change(&self, event: WatchEvent) -> Result<Change<K>, ApiError> {
        let seen = |body: &[u8]| Change::Advanced(revision_in(body));
        Ok(match event {
            WatchEvent::Added(body) | WatchEvent::Modified(body) => {
                self.decode(&body).map_or_else(|| seen(&body), Change::Applied)
            }
            WatchEvent::Deleted(body) => self.decode(&body).map_or_else(|| seen(&body), Change::Deleted),
            WatchEvent::Bookmark(body) => seen(&body),
            WatchEvent::Error(error) => return Err(error),
        })
    }

    fn decode(&self, object: &[u8]) -> Option<K> {
        decode_bytes(object)
            .inspect_err(|error| {
                warn!(resource = %self.resource.plural, %error, "an object does not parse and is ignored");
            })
            .ok()
    }

    async fn pause(&mut self, what: &str, error: &ApiError) {
        let asked = Duration::from_secs(u64::from(error.details.retry_after_seconds));
        let pause = self.backoff.pause().max(asked);
        warn!(resource = %self.resource.plural, %error, ?pause, "{what} failed; trying again");
        sleep(pause).await;
    }
}

/// Reads an object for the cache.
fn decode_bytes<K: Cached>(body: &[u8]) -> Result<K, serde_json::Error> {
    serde_json::from_slice(&without_managed_fields(body))
}

/// The revision that an object or a bookmark carries; 0, which changes nothing, when it carries none.
fn revision_in(body: &[u8]) -> u64 {
    serde_json::from_slice::<PartialObject>(body).map_or(0, |partial| revision_of(&partial.metadata))
}

fn parse_revision(text: Option<&str>) -> Result<u64, ApiError> {
    let text = text.unwrap_or_default();
    text.parse().map_err(|_| {
        ApiError::internal(format!("the server's list carries resourceVersion \"{text}\", not a number"))
    })
}

/// The revision is too old, or newer than anything the server has (it was restored from a backup).
fn is_expired(error: &ApiError) -> bool {
    error.reason == Reason::Expired
        || error.details.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge")
}

fn silent() -> ApiError {
    ApiError::new(
        Reason::Timeout,
        "the watch went silent past its deadline: the connection is taken for dead",
    )
}

fn too_short() -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "the watch was closed at once without an event")
}
