//! A bad network in front of a real server: answers get lost, watches lag and break.
//!
//! It invents nothing: whatever a client sees has happened, only later, or without an answer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use claw_client::{
    ApiError, ByteStream, Request, ResourceRef, Response, Transport, Verb, WatchStream,
    request::{View, WatchOptions},
};
use claw_schemas::status::Reason;
use futures::StreamExt as _;

use crate::dice::Dice;

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
    dice: Arc<Dice>,
}

impl Unreliable {
    /// In front of `inner`; the same seed draws the same faults, though not at the same moments.
    pub fn new(inner: Arc<dyn Transport>, faults: Faults, seed: u64) -> Self {
        Self { inner, faults, dice: Arc::new(Dice::new(seed)) }
    }
}

fn lost() -> ApiError {
    ApiError::new(Reason::Timeout, "the answer was lost on the way")
}

#[async_trait]
impl Transport for Unreliable {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        let fate = self.dice.below(100);
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
        let (dice, lag) = (Arc::clone(&self.dice), self.faults.lag_ms_max);
        let late = stream.then(move |event| {
            let delay = Duration::from_millis(dice.below(lag + 1));
            async move {
                tokio::time::sleep(delay).await;
                event
            }
        });
        if self.faults.events_max == 0 {
            return Ok(late.boxed());
        }
        let events = usize::try_from(self.dice.below(self.faults.events_max) + 1).unwrap_or(1);
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
