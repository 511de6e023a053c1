//! The one seam between clients and the server.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use claw_schemas::ApiError;
use futures::Stream;

use crate::request::{Request, ResourceRef, Response, View, WatchOptions};

/// One change, as it travels on a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// JSON of the object after the change.
    Added(Bytes),
    /// JSON of the object after the change.
    Modified(Bytes),
    /// JSON of the object as it last was, with the revision of its deletion.
    Deleted(Bytes),
    /// JSON of an object that has only kind and `metadata.resourceVersion` (and annotations).
    Bookmark(Bytes),
    /// The watch is over; a `410 Expired` asks for a new list.
    Error(ApiError),
}

/// Changes in revision order. Ends without an error when the server closes the watch.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, ApiError>> + Send>>;

/// Raw bytes, such as a container's log.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;

/// Carries requests to an API server.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Asks once.
    ///
    /// # Errors
    /// What the server refused, or that it could not be reached: then a write may have happened all the same.
    async fn call(&self, request: Request) -> Result<Response, ApiError>;

    /// Watches a collection (or one object, by the field selector `metadata.name=x`).
    ///
    /// # Errors
    /// As [`Self::call`]. A revision that is too old is told by [`WatchEvent::Error`] instead, as the only event.
    async fn watch(
        &self,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError>;

    /// Reads a streaming subresource, `log` above all. `query` holds its parameters by their REST names.
    ///
    /// # Errors
    /// As [`Self::call`].
    async fn stream(
        &self,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError>;
}
