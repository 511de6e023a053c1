//! Watches: changes of a collection as events, in the one order of the store.
//!
//! The rules are those that clients rely on: synthetic `ADDED` events where a watch starts from nothing, `ADDED` and
//! `DELETED` where an object enters or leaves the selector, bookmarks that are never ahead of what was delivered, an
//! expired start as the only error event, and a clean end otherwise.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use claw_client::{
    ResourceRef, WatchEvent, WatchStream,
    request::{View, WatchOptions},
};
use claw_schemas::{ApiError, status::Reason};
use futures::{StreamExt as _, future, stream};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    ObjectService, encode, errors,
    existing::{Existing, Initial},
    kinds::{Served, Target, Term},
    limits::{BOOKMARK_BEFORE_END, BOOKMARK_INTERVAL, LIST_CHUNK, WATCH_LIFE_MAX, WATCH_LIFE_MIN},
    list::narrowed,
    memo::Memo,
    select::Selection,
    usage,
    view::{self, ListMeta},
    watches::Watching,
};
use crate::{
    auth::Identity,
    store::{Event, Key, Record, Revision, StoreError, Watch},
};

/// Annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Where a watch starts.
enum Start {
    /// With what exists, selected or not, as it is stored.
    Existing(Vec<Record>, Revision),
    /// After a revision.
    After(Revision),
}

impl ObjectService {
    /// Streams changes of a collection, in revision order.
    ///
    /// # Errors
    /// What is wrong with the request. An expired revision is not an error here but the stream's only event.
    pub async fn watch(
        &self,
        who: &Identity,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError> {
        self.open_watch(who, resource, options, view).await.map(|(events, _)| events)
    }

    /// The same, and how far it is with what existed before.
    ///
    /// # Errors
    /// See [`Self::watch`].
    pub async fn open_watch(
        &self,
        who: &Identity,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<(WatchStream, Initial), ApiError> {
        self.authorize(who, "watch", &resource, &options.field_selector)?;
        if usage::is_measured(&resource) {
            return Err(super::kinds::method_not_allowed());
        }
        let target = self.kinds.resolve(resource)?;
        if target.sub.is_some() || !target.name.is_empty() {
            return Err(super::kinds::method_not_allowed());
        }
        let selection = Selection::parse(&target.kind, &options.label_selector, &options.field_selector)?;
        if self.closing.is_cancelled() {
            return Err(ApiError::new(Reason::ServiceUnavailable, "the server is shutting down"));
        }
        let watching = self.watches.enter(who)?;
        let start = match self.watch_start(&target, &selection, &options).await? {
            Ok(start) => start,
            Err(expired) => return Ok((only(expired), Initial::over())),
        };
        let after = match &start {
            Start::Existing(_, revision) | Start::After(revision) => *revision,
        };
        let watch = match self.store.watch(&narrowed(&target, &selection), after) {
            Ok(watch) => watch,
            Err(StoreError::Compacted { asked, oldest }) => {
                return Ok((only(errors::expired(asked, oldest)), Initial::over()));
            }
            Err(error) => return Err(errors::from_store(error)),
        };
        let sent = self.metrics.watch_events(&target.kind.descriptor);
        let mut session = Session::new(self, target, selection, view, start, watch, &options, watching);
        // What cannot be converted at all is still an answer of its own.
        session.existing.prepare(&session.kind, &session.selection).await?;
        let initial = session.initial.clone();
        let events = stream::unfold((Box::new(session), sent), |(mut session, sent)| async move {
            let event = session.next().await?;
            sent.inc();
            Some((Ok(event), (session, sent)))
        });
        Ok((events.boxed(), initial))
    }

    /// The inner error is an expired start, which travels as an event.
    async fn watch_start(
        &self,
        target: &Target,
        selection: &Selection,
        options: &WatchOptions,
    ) -> Result<Result<Start, ApiError>, ApiError> {
        let asked = match options.resource_version.as_deref() {
            None | Some("" | "0") => 0,
            Some(revision) => errors::parse_revision(revision)?,
        };
        if asked > 0 && !options.send_initial_events {
            return Ok(Ok(Start::After(asked)));
        }
        let current = self.store.revision();
        if asked > current {
            return Err(errors::ahead(asked, current));
        }
        match self.store.list(&narrowed(target, selection), None, 0, None).await {
            Ok(page) => Ok(Ok(Start::Existing(page.items, page.revision))),
            Err(StoreError::Compacted { asked, oldest }) => Ok(Err(errors::expired(asked, oldest))),
            Err(error) => Err(errors::from_store(error)),
        }
    }
}

/// A watch that was over before it began.
fn only(error: ApiError) -> WatchStream {
    stream::iter([Ok(WatchEvent::Error(error))]).boxed()
}

/// One open watch.
struct Session {
    kind: Arc<Served>,
    selection: Selection,
    view: View,
    memo: Arc<Memo>,
    existing: Existing,
    initial: Initial,
    /// The revision of the bookmark that is to end the initial events.
    initial_end: Option<Revision>,
    watch: Box<dyn Watch>,
    /// Table columns travel in the first event only.
    columns_sent: bool,
    next_bookmark: Option<Instant>,
    deadline: Instant,
    alarm: Pin<Box<Sleep>>,
    closing: CancellationToken,
    /// Of a custom kind: cancelled when it is not served like this any more.
    gone: Option<CancellationToken>,
    _watching: Watching,
}

impl Session {
    #[expect(clippy::too_many_arguments, reason = "the parts of one watch, put together in one place")]
    fn new(
        service: &ObjectService,
        target: Target,
        selection: Selection,
        view: View,
        start: Start,
        watch: Box<dyn Watch>,
        options: &WatchOptions,
        watching: Watching,
    ) -> Self {
        let now = Instant::now();
        let deadline = now + life(options.timeout_seconds);
        let (existing, initial, initial_end) = match start {
            Start::Existing(records, revision) => {
                let end = options.send_initial_events.then_some(revision);
                (Existing::new(records), Initial::default(), end)
            }
            Start::After(_) => (Existing::default(), Initial::over(), None),
        };
        let next_bookmark = options.allow_bookmarks.then(|| bookmark_after(now, deadline)).flatten();
        Self {
            gone: target.kind.term.as_ref().map(Term::over),
            kind: target.kind,
            selection,
            view,
            memo: service.memo.clone(),
            existing,
            initial,
            initial_end,
            watch,
            columns_sent: false,
            next_bookmark,
            deadline,
            alarm: Box::pin(sleep_until(next_bookmark.unwrap_or(deadline))),
            // A child of its own, so that thousands of watches do not meet at one lock.
            closing: service.closing.child_token(),
            _watching: watching,
        }
    }

    async fn next(&mut self) -> Option<WatchEvent> {
        match self.existing.next(&self.kind, &self.selection).await {
            Ok(Some(record)) => {
                let item = view::item(&self.kind, self.view, &record.value);
                return Some(WatchEvent::Added(self.framed(item.into(), record.revision)));
            }
            Ok(None) if self.initial.is_over() => {}
            // The watch may live for a day: it keeps nothing of what it began with.
            Ok(None) => self.existing = Existing::default(),
            Err(error) => {
                tracing::warn!(kind = %self.kind.descriptor.kind, %error, "a watch ends: what exists cannot be converted");
                return None;
            }
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(self.bookmark(revision, true));
        }
        self.initial.end();
        // Asked here too, because changes that never cease would never let the alarm below have its turn.
        if self.closing.is_cancelled() || Instant::now() >= self.deadline {
            return None;
        }
        let mut passed_over = 0;
        loop {
            while let Some(event) = self.watch.try_next() {
                let event = shown(&self.kind, &self.memo, event).await?;
                if let Some(event) = self.translate(&event) {
                    return Some(event);
                }
                // A selector that chooses little may have a long past to look through.
                passed_over += 1;
                if passed_over % LIST_CHUNK == 0 {
                    tokio::task::yield_now().await;
                }
            }
            tokio::select! {
                biased;
                event = self.watch.next() => {
                    let event = shown(&self.kind, &self.memo, event?).await?;
                    if let Some(event) = self.translate(&event) {
                        return Some(event);
                    }
                }
                () = self.alarm.as_mut() => {
                    let now = Instant::now();
                    if now >= self.deadline {
                        return None;
                    }
                    self.next_bookmark = bookmark_after(now, self.deadline);
                    self.alarm.as_mut().reset(self.next_bookmark.unwrap_or(self.deadline));
                    return Some(self.bookmark(self.watch.progress(), false));
                }
                () = self.closing.cancelled() => return None,
                // Last, so that all that happened to the kind's objects is told before.
                () = cancelled(self.gone.as_ref()) => return None,
            }
        }
    }

    /// A change as this watcher sees it, if it does.
    fn translate(&mut self, event: &Event) -> Option<WatchEvent> {
        let is =
            !event.deleted && self.selects(&event.record.key, event.record.revision, &event.record.value);
        let was = event.previous.as_ref().is_some_and(|was| self.selects(&was.key, was.revision, &was.value));
        let make = match (was, is) {
            (false, false) => return None,
            (false, true) => WatchEvent::Added,
            (true, true) => WatchEvent::Modified,
            (true, false) => WatchEvent::Deleted,
        };
        let item = match &event.previous {
            // It left the selector: what it was, with the revision at which it went.
            Some(was) if !is && !event.deleted => {
                let was = encode::with_revision(&was.value, event.record.revision);
                view::item(&self.kind, self.view, &was).into()
            }
            _ if self.view == View::Object => event.record.value.clone(),
            _ => self.memo.state(&self.kind, event.record.revision).item(
                &self.kind,
                self.view,
                &event.record.value,
            ),
        };
        Some(make(self.framed(item, event.record.revision)))
    }

    fn selects(&self, key: &Key, revision: Revision, stored: &[u8]) -> bool {
        if !self.selection.needs_facts() {
            return self.selection.matches(key, super::facts::Facts::default);
        }
        let state = self.memo.state(&self.kind, revision);
        self.selection.matches(key, || state.facts(&self.kind, stored))
    }

    /// A row needs a table around it.
    fn framed(&mut self, item: Bytes, revision: Revision) -> Bytes {
        if !matches!(self.view, View::Table(_)) {
            return item;
        }
        let columns_of = (!self.columns_sent).then_some(&*self.kind);
        self.columns_sent = true;
        let meta = ListMeta { revision, ..ListMeta::default() };
        view::table(&meta.json(), columns_of, &item)
    }

    /// A revision and nothing else; at the end of the initial events it says so.
    fn bookmark(&mut self, revision: Revision, ends_initial: bool) -> WatchEvent {
        let (kind, api_version) = match self.view {
            View::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1"),
            _ => (&*self.kind.descriptor.kind, &*self.kind.api_version),
        };
        let annotations = if ends_initial {
            format!(",\"annotations\":{{\"{INITIAL_EVENTS_END}\":\"true\"}}")
        } else {
            String::new()
        };
        let object = Bytes::from(format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\",\"creationTimestamp\":null{annotations}}}}}"
        ));
        WatchEvent::Bookmark(match self.view {
            // A table has no place for annotations: its one row carries them.
            View::Table(_) => {
                let rows = if ends_initial { view::item(&self.kind, self.view, &object) } else { Vec::new() };
                self.framed(rows.into(), revision)
            }
            View::Object | View::Metadata => object,
        })
    }
}

/// A change in the form that is served, worked out once for all watchers. A change that cannot be converted ends the
/// watch: to leave it out would be a lie.
async fn shown(kind: &Served, memo: &Memo, event: Arc<Event>) -> Option<Arc<Event>> {
    if kind.is_stored_event(&event) {
        return Some(event);
    }
    match memo.state(kind, event.record.revision).shown(kind, &event).await {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::warn!(key = ?event.record.key, %error, "a watch ends: a change cannot be converted");
            None
        }
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => future::pending().await,
    }
}

/// How long a watch lives.
fn life(asked_s: Option<u64>) -> Duration {
    match asked_s.filter(|seconds| *seconds > 0) {
        Some(seconds) => Duration::from_secs(seconds).min(WATCH_LIFE_MAX),
        None => {
            // Any spread will do, so that clients do not come back all at once; the clock's low digits are one.
            let spread = u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs())
                % WATCH_LIFE_MIN.as_secs();
            WATCH_LIFE_MIN + Duration::from_secs(spread)
        }
    }
}

/// When the next bookmark is due, if there is to be one before the end.
fn bookmark_after(now: Instant, deadline: Instant) -> Option<Instant> {
    let last = deadline.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > now)?;
    Some(last.min(now + BOOKMARK_INTERVAL))
}
