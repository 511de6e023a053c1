//! A range of the store, followed for as long as the server runs: a list, then every change after it, and a
//! list again whenever the store ends the watch.

use std::{sync::Arc, time::Duration};

use crate::store::{Event, Key, Page, Store, StoreError, Watch};

/// Pause before listing again, so that a store in trouble is not asked in a tight loop.
const RELIST_DELAY: Duration = Duration::from_millis(100);

/// What happened in the range.
pub enum Change {
    /// One change.
    Event(Arc<Event>),
    /// Changes were missed; this is everything there is.
    Reset(Page),
}

/// Follows one range.
pub struct Follower {
    store: Arc<dyn Store>,
    prefix: Key,
    watch: Box<dyn Watch>,
}

impl Follower {
    /// Lists the range and follows it from there.
    pub async fn start(store: Arc<dyn Store>, prefix: Key) -> Result<(Self, Page), StoreError> {
        let (page, watch) = begin(&store, &prefix).await?;
        Ok((Self { store, prefix, watch }, page))
    }

    /// The next change. Waits for ever once the store is closed; safe to drop and call again.
    pub async fn next(&mut self) -> Change {
        if let Some(event) = self.watch.next().await {
            return Change::Event(event);
        }
        loop {
            tokio::time::sleep(RELIST_DELAY).await;
            match begin(&self.store, &self.prefix).await {
                Ok((page, watch)) => {
                    self.watch = watch;
                    return Change::Reset(page);
                }
                Err(StoreError::Closed) => std::future::pending().await,
                Err(error) => tracing::warn!(%error, prefix = ?self.prefix, "cannot list, will try again"),
            }
        }
    }
}

async fn begin(store: &Arc<dyn Store>, prefix: &Key) -> Result<(Page, Box<dyn Watch>), StoreError> {
    let page = store.list(prefix, None, 0, None).await?;
    let watch = store.watch(prefix, page.revision)?;
    Ok((page, watch))
}
