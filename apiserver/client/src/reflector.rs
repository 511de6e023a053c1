//! Keeps a [`Store`] equal to what the server has, by list and watch.
//!
//! The rules, which servers and other clients rely on:
//! * the first list asks for `resourceVersion=0` in pages; a later one for the last revision seen,
//!   whole; after an expired or impossible revision the list asks for none, the most recent; a list whose
//!   pages expired before they were read is asked for whole;
//! * a watch starts at the list's revision and every event, bookmarks included, moves it forward;
//! * a watch that ends cleanly is resumed where it was, and so is one that broke because the server was away; one that
//!   says `Expired`, or what makes no sense, leads to a new list;
//! * once a watch is open, the server is asked whether it is as far as the cache: one that was restored from a backup
//!   would leave a watch from its future silent until it gets there;
//! * failures pause, longer each time; a watch closed at once that brought nothing new counts as one;
//! * an object that does not parse is named in the log; what is known of it stays until it is gone.
//!
//! Must never know: what the objects mean.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use claw_schemas::{ApiError, status::Reason};
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    api::{Api, Client, Object},
    backoff::Backoff,
    cache::{Change, Indexer, ObjectKey, Store, Writer},
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
/// A watch that lived shorter than this and brought nothing new counts as a failure.
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
    /// The most recent, whole.
    Whole,
}

impl From {
    fn options(self) -> ListOptions {
        let (resource_version, limit) = match self {
            Self::Any => (Some("0".to_owned()), PAGE_ITEMS),
            Self::Seen(revision) => (Some(revision.to_string()), 0),
            Self::Latest => (None, PAGE_ITEMS),
            Self::Whole => (None, 0),
        };
        ListOptions { resource_version, limit, ..ListOptions::default() }
    }

    /// Where to start after a list that started here failed.
    fn after(self, error: &ApiError) -> Self {
        match (self, is_expired(error)) {
            // Too large to come in one answer, perhaps.
            (Self::Whole, false) | (Self::Seen(_), true) => Self::Latest,
            // The server forgets faster than we read: no page of a whole list can expire.
            (Self::Any | Self::Latest | Self::Whole, true) => Self::Whole,
            (Self::Any | Self::Latest | Self::Seen(_), false) => self,
        }
    }
}

/// What a list brought.
struct Listed<K> {
    objects: Vec<K>,
    /// What could be read of those that do not parse.
    unreadable: Vec<ObjectMeta>,
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
            from = match self.list(from).await {
                Ok(()) => self.watch().await,
                Err(error) => {
                    self.pause("list", &error).await;
                    from.after(&error)
                }
            };
        }
    }

    async fn list(&mut self, from: From) -> Result<(), ApiError> {
        let mut options = self.selecting(from.options());
        let mut listed = Listed { objects: Vec::new(), unreadable: Vec::new() };
        loop {
            let body = self.ask(options.clone()).await?;
            let page: Page<'_> = serde_json::from_slice(&body)
                .map_err(|error| ApiError::internal(format!("the server's list does not parse: {error}")))?;
            page.items.into_iter().flatten().for_each(|item| self.read_item(item, &mut listed));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                // The token names the revision; asking for another one beside it is refused.
                Some(token) => {
                    options.continue_token = Some(token);
                    options.resource_version = None;
                    options.limit = PAGE_ITEMS;
                }
                None => {
                    let revision = parse_revision(page.metadata.resource_version.as_deref())?;
                    let (objects, unreadable) = (listed.objects.len(), listed.unreadable.len());
                    debug!(resource = %self.resource.plural, objects, unreadable, revision, "listed");
                    self.writer.replace_readable(listed.objects, &listed.unreadable, revision);
                    return Ok(());
                }
            }
        }
    }

    fn selecting(&self, options: ListOptions) -> ListOptions {
        ListOptions {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            ..options
        }
    }

    async fn ask(&self, options: ListOptions) -> Result<Bytes, ApiError> {
        let (resource, verb) = (self.resource.clone(), Verb::List(options));
        Ok(self.transport.call(Request { resource, verb, view: self.view }).await?.body)
    }

    fn read_item(&self, item: &RawValue, listed: &mut Listed<K>) {
        match self.decode(item.get().as_bytes()) {
            Ok(object) if self.writer.keeps(&object) => listed.objects.push(object),
            Ok(_) => {}
            Err(meta) => listed.unreadable.push(*meta),
        }
    }

    /// Watches from the revision reached, resuming for as long as that works; then says where to list.
    async fn watch(&mut self) -> From {
        loop {
            let started = Instant::now();
            let result = self.watch_once(started).await;
            // Whatever ended it then, the server is not one that fails all the time.
            if started.elapsed() > BACKOFF_CAP {
                self.backoff.reset();
            }
            let Err(error) = result else { continue };
            self.pause("watch", &error).await;
            if is_expired(&error) {
                return From::Latest;
            }
            if !is_away(&error) {
                return From::Seen(self.writer.revision());
            }
        }
    }

    /// One watch from its beginning to its end: `Ok` when it may simply be resumed.
    async fn watch_once(&mut self, started: Instant) -> Result<(), ApiError> {
        let seconds = WATCH_SECONDS + (self.backoff.fraction() * WATCH_SECONDS as f64 / 2.0) as u64;
        let options = WatchOptions {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            resource_version: Some(self.writer.revision().to_string()),
            allow_bookmarks: true,
            send_initial_events: false,
            timeout_seconds: Some(seconds),
        };
        let deadline = started + Duration::from_secs(seconds) + WATCH_GRACE;
        let stream = self.transport.watch(self.resource.clone(), options, self.view).await?;
        self.still_as_far().await?;
        self.writer.recovered();
        self.follow(stream, started, deadline).await
    }

    /// Fails when the server has never been where the cache is, which only a list can tell: a watch stays silent. Asked
    /// after the watch was opened, so that the answer is that of the server behind it; every time, since a server may be
    /// replaced between two watches without any of them failing.
    async fn still_as_far(&self) -> Result<(), ApiError> {
        let revision = Some(self.writer.revision().to_string());
        let options = ListOptions {
            resource_version: revision,
            resource_version_match: Some("NotOlderThan".to_owned()),
            limit: 1,
            ..ListOptions::default()
        };
        self.ask(self.selecting(options)).await.map(drop)
    }

    /// Takes events in until the watch ends: `Ok` when it may simply be resumed.
    async fn follow(
        &mut self,
        stream: WatchStream,
        started: Instant,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let mut stream = stream.ready_chunks(EVENTS_AT_A_TIME);
        let before = self.writer.revision();
        loop {
            match timeout_at(deadline, stream.next()).await.map_err(|_| silent())? {
                Some(events) => self.take(events)?,
                None if self.writer.revision() > before => return Ok(()),
                None if started.elapsed() < WATCH_TOO_SHORT => return Err(too_short()),
                None => {
                    self.backoff.reset();
                    return Ok(());
                }
            }
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
        let before = self.writer.revision();
        self.writer.change(changes);
        if self.writer.revision() > before {
            self.backoff.reset();
        }
        outcome
    }

    /// What an event changes. The revision of an object that does not parse still counts as seen.
    fn change(&self, event: WatchEvent) -> Result<Change<K>, ApiError> {
        Ok(match event {
            WatchEvent::Added(body) | WatchEvent::Modified(body) => self
                .decode(&body)
                .map_or_else(|unreadable| Change::Advanced(revision_of(&unreadable)), Change::Applied),
            WatchEvent::Deleted(body) => self.decode(&body).map_or_else(Change::Gone, Change::Deleted),
            WatchEvent::Bookmark(body) => Change::Advanced(revision_of(&metadata_of(&body))),
            WatchEvent::Error(error) => return Err(error),
        })
    }

    /// The object, or what can be read of one that does not parse.
    fn decode(&self, object: &[u8]) -> Result<K, Box<ObjectMeta>> {
        decode_bytes(object).map_err(|error| {
            let unreadable = Box::new(metadata_of(object));
            let name = ObjectKey::of(&unreadable);
            warn!(resource = %self.resource.plural, %name, %error, "an object does not parse and is passed over");
            unreadable
        })
    }

    async fn pause(&mut self, what: &str, error: &ApiError) {
        let asked = Duration::from_secs(u64::from(error.details.retry_after_seconds));
        let pause = self.backoff.pause().max(asked);
        // That history is gone is no trouble: the next list mends it.
        if !is_expired(error) {
            self.writer.failed(error);
        }
        warn!(resource = %self.resource.plural, %error, ?pause, "{what} failed; trying again");
        sleep(pause).await;
    }
}

/// Reads an object for the cache.
fn decode_bytes<K: Cached>(body: &[u8]) -> Result<K, serde_json::Error> {
    serde_json::from_slice(&without_managed_fields(body))
}

/// The metadata of an object or a bookmark; empty when there is none that parses.
fn metadata_of(body: &[u8]) -> ObjectMeta {
    serde_json::from_slice::<PartialObject>(body).unwrap_or_default().metadata
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

/// The server cannot be asked now; when it can be, it is the one it was. Other errors of a watch may come again for as
/// long as it starts at the same place.
fn is_away(error: &ApiError) -> bool {
    matches!(error.reason, Reason::ServiceUnavailable | Reason::Timeout | Reason::TooManyRequests)
}

fn silent() -> ApiError {
    ApiError::new(
        Reason::Timeout,
        "the watch went silent past its deadline: the connection is taken for dead",
    )
}

fn too_short() -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "the watch was closed at once and brought nothing")
}
