//! The wire of a process that dies at a certain write: that one never reaches the server, nor does anything after it.
//!
//! Whatever a process does between two writes nobody else sees, so dying at each write in turn is dying everywhere.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use claw_client::{
    ApiError, ByteStream, Request, ResourceRef, Response, Transport, Verb, WatchStream,
    request::{View, WatchOptions},
};
use tokio_util::sync::CancellationToken;

/// The wire.
pub struct Mortal {
    inner: Arc<dyn Transport>,
    writes: AtomicU64,
    dies_at: u64,
    died: CancellationToken,
}

impl Mortal {
    /// In front of `inner`; the process dies at its write number `dies_at`, from 0, and `died` is cancelled then. Events do
    /// not count: nobody decides by them.
    pub fn new(inner: Arc<dyn Transport>, dies_at: u64, died: CancellationToken) -> Self {
        Self { inner, writes: AtomicU64::new(0), dies_at, died }
    }

    fn dies_of(&self, request: &Request) -> bool {
        let reads = matches!(request.verb, Verb::Get | Verb::List(_)) || request.resource.plural == "events";
        !reads && self.writes.fetch_add(1, Ordering::SeqCst) >= self.dies_at
    }
}

#[async_trait]
impl Transport for Mortal {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        if self.dies_of(&request) {
            self.died.cancel();
        }
        if self.died.is_cancelled() {
            return std::future::pending().await;
        }
        self.inner.call(request).await
    }

    async fn watch(
        &self,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError> {
        self.inner.watch(resource, options, view).await
    }

    async fn stream(
        &self,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        self.inner.stream(resource, query).await
    }
}
