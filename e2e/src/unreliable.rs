//! A bad network in front of a real server: answers get lost, watches lag and break.
//!
//! It invents nothing: whatever a client sees has happened, only later, or without an answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use claw_client::{
    ApiError, ByteStream, Request, ResourceRef, Response, Transport, Verb, WatchStream,
    request::{View, WatchOptions},
};
use claw_schemas::status::Reason;
use futures::StreamExt as _;

/// How bad the network is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of a hundred writes, so many happen without an answer, and as many do not happen at all.
    pub lost_percent: u64,
    /// Watch events come up to this much late.
    pub lag_ms_max: u64,
    /// A watch breaks after up to so many events; 0 for never.
    pub events_max: u64,
}

/// The bad network.
pub struct Unreliable {
    inner: Arc<dyn Transport>,
    faults: Faults,
    state: Arc<AtomicU64>,
}

impl Unreliable {
    /// In front of `inner`; the same seed draws the same faults, though not at the same moments.
    pub fn new(inner: Arc<dyn Transport>, faults: Faults, seed: u64) -> Self {
        Self { inner, faults, state: Arc::new(AtomicU64::new(seed)) }
    }
}

/// A number below `limit`: Weyl sequence, mixed as in SplitMix64.
fn draw(state: &AtomicU64, limit: u64) -> u64 {
    let mut z = state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) % limit.max(1)
}

fn lost() -> ApiError {
    ApiError::new(Reason::Timeout, "the answer was lost on the way")
}

#[async_trait]
impl Transport for Unreliable {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        let fate = draw(&self.state, 100);
        let write = !matches!(request.verb, Verb::Get | Verb::List(_));
        if write && fate < self.faults.lost_percent {
            return Err(lost());
        }
        let answer = self.inner.call(request).await;
        if write && fate < 2 * self.faults.lost_percent { Err(lost()) } else { answer }
    }

    async fn watch(
        &self,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError> {
        let stream = self.inner.watch(resource, options, view).await?;
        let (state, lag) = (Arc::clone(&self.state), self.faults.lag_ms_max);
        let late = stream.then(move |event| {
            let delay = Duration::from_millis(draw(&state, lag + 1));
            async move {
                tokio::time::sleep(delay).await;
                event
            }
        });
        if self.faults.events_max == 0 {
            return Ok(late.boxed());
        }
        let events = usize::try_from(draw(&self.state, self.faults.events_max) + 1).unwrap_or(1);
        Ok(late.take(events).boxed())
    }

    async fn stream(
        &self,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        self.inner.stream(resource, query).await
    }
}
