//! Reading: one object, or a collection a page at a time, always from one state of the store.

use bytes::Bytes;
use claw_client::{
    Response,
    request::{ListOptions, View},
};
use claw_schemas::ApiError;

use super::{
    ObjectService, errors,
    kinds::Target,
    limits::LIST_CHUNK,
    paging::{self, Start},
    select::Selection,
    view::{self, ListMeta},
};
use crate::store::{Key, Page, Record, Revision, StoreError};

/// What a scan of a collection found.
pub(super) struct Found {
    pub items: Vec<Record>,
    pub revision: Revision,
    /// Where to go on, when the limit was reached.
    more_after: Option<Key>,
    /// How many there are, where that is known without looking at them.
    total: Option<usize>,
}

/// Why a scan failed.
pub(super) enum ScanError {
    /// The store refused, perhaps because the state asked for is gone.
    Store(StoreError),
    /// What is stored could not be served.
    Form(ApiError),
}

impl From<StoreError> for ScanError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ApiError> for ScanError {
    fn from(error: ApiError) -> Self {
        Self::Form(error)
    }
}

impl From<ScanError> for ApiError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Store(error) => errors::from_store(error),
            ScanError::Form(error) => error,
        }
    }
}

impl ObjectService {
    /// The stored record of a target.
    pub(super) async fn record(&self, target: &Target) -> Result<Record, ApiError> {
        self.find(&target.key()).await?.ok_or_else(|| target.not_found())
    }

    pub(super) async fn find(&self, key: &Key) -> Result<Option<Record>, ApiError> {
        self.store.get(key).await.map_err(errors::from_store)
    }

    pub(super) async fn get(&self, target: &Target, view: View) -> Result<Response, ApiError> {
        let record = target.kind.shown_one(self.record(target).await?).await?;
        Ok(ok(view::single(&target.kind, view, &record.value)))
    }

    pub(super) async fn list(
        &self,
        target: &Target,
        options: &ListOptions,
        view: View,
    ) -> Result<Response, ApiError> {
        let (items, meta) = self.listed(target, options).await?;
        Ok(ok(view::list(&target.kind, view, &items, &meta).await))
    }

    /// A collection, or a page of it, and what it says about itself.
    pub(super) async fn listed(
        &self,
        target: &Target,
        options: &ListOptions,
    ) -> Result<(Vec<Record>, ListMeta), ApiError> {
        let selection = Selection::parse(&target.kind, &options.label_selector, &options.field_selector)?;
        let prefix = target.prefix();
        let start = paging::start(&prefix, options, self.store.revision())?;
        let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
        let found = match self.scan(target, &selection, limit, start.after.as_ref(), start.at).await {
            Err(ScanError::Store(StoreError::Compacted { .. })) if start.continued => {
                return Err(expired_page(&prefix, &start));
            }
            other => other?,
        };
        let given = self.given(&prefix, &start, &found).await?;
        let token = found.more_after.map(|last| paging::token(&prefix, &last, found.revision, given));
        let meta = ListMeta {
            revision: found.revision,
            remaining: found.total.filter(|_| token.is_some()).map(|total| total.saturating_sub(given)),
            continue_token: token.unwrap_or_default(),
        };
        Ok((found.items, meta))
    }

    /// How many objects of a collection come before what a page left.
    async fn given(&self, prefix: &Key, start: &Start, found: &Found) -> Result<usize, ScanError> {
        let goes_on_elsewhere = start.continued && start.at.is_none();
        match (found.total, &found.more_after) {
            // The pages before were of another state, so what they gave says nothing here: count what follows.
            (Some(total), Some(last)) if goes_on_elsewhere => {
                let rest = self.store.list(prefix, Some(last), 0, Some(found.revision)).await?;
                Ok(total.saturating_sub(rest.items.len()))
            }
            _ => Ok(start.given.saturating_add(found.items.len())),
        }
    }

    /// Collects selected records in key order. `limit` 0 means all.
    pub(super) async fn scan(
        &self,
        target: &Target,
        selection: &Selection,
        limit: usize,
        after: Option<&Key>,
        at: Option<Revision>,
    ) -> Result<Found, ScanError> {
        let prefix = narrowed(target, selection);
        if selection.is_everything() || limit == 0 {
            let page = self.page(target, &prefix, after, limit, at).await?;
            return Ok(self.keep_selected(target, selection, page).await);
        }
        let mut found = Found { items: Vec::new(), revision: 0, more_after: None, total: None };
        // The store keeps the state of a page that is not the last for the pages after it. Beginning with a page of one
        // record makes it keep this one, wherever in the range the limit is reached.
        let (mut after, mut at, mut chunk) = (after.cloned(), at, 1);
        loop {
            let page = self.page(target, &prefix, after.as_ref(), chunk, at).await?;
            found.revision = page.revision;
            at = Some(page.revision);
            let more = page.more;
            let mut records = page.items.into_iter();
            for record in records.by_ref() {
                after = Some(record.key.clone());
                if self.selects(target, selection, &record) {
                    found.items.push(record);
                    if found.items.len() == limit {
                        found.more_after = after.filter(|_| more || records.len() > 0);
                        return Ok(found);
                    }
                }
            }
            if !more {
                return Ok(found);
            }
            // Few matches so far: fewer, larger steps through the rest.
            chunk = chunk.saturating_mul(4).max(limit).max(LIST_CHUNK);
            tokio::task::yield_now().await;
        }
    }

    /// A page of the store, its records as they are served.
    async fn page(
        &self,
        target: &Target,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, ScanError> {
        let mut page = self.store.list(prefix, after, limit, at).await?;
        page.items = target.kind.shown(page.items).await?;
        Ok(page)
    }

    async fn keep_selected(&self, target: &Target, selection: &Selection, page: Page) -> Found {
        if selection.is_everything() {
            let more_after = page.items.last().filter(|_| page.more).map(|record| record.key.clone());
            return Found { items: page.items, revision: page.revision, more_after, total: Some(page.total) };
        }
        let mut items = Vec::new();
        for (at, record) in page.items.into_iter().enumerate() {
            if self.selects(target, selection, &record) {
                items.push(record);
            }
            if at % LIST_CHUNK == LIST_CHUNK - 1 {
                tokio::task::yield_now().await;
            }
        }
        Found { items, revision: page.revision, more_after: None, total: None }
    }

    fn selects(&self, target: &Target, selection: &Selection, record: &Record) -> bool {
        selection.matches(&record.key, || target.kind.plan.facts(&record.value))
    }
}

/// The smallest range that holds everything selected: a pinned name makes it almost a point.
pub(super) fn narrowed(target: &Target, selection: &Selection) -> Key {
    let one_place = !target.namespace.is_empty() || !target.kind.descriptor.namespaced();
    match selection.pinned_name() {
        Some(name) if one_place && !name.is_empty() => target.kind.key(&target.namespace, name),
        _ => target.prefix(),
    }
}

fn expired_page(prefix: &Key, start: &Start) -> ApiError {
    let mut error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. \
         Start a new list without the continue parameter, or use the continue token of this answer to get the \
         remainder: objects written or deleted since the first page may then be missing or appear twice.",
    );
    if let Some(after) = &start.after {
        error.continue_token = paging::token(prefix, after, 0, 0).into();
    }
    error
}

/// 200 with a body.
pub(super) fn ok(body: Bytes) -> Response {
    Response { code: 200, body, warnings: Vec::new() }
}
