//! Bodies that go on: watches as one JSON object a line, logs as plain text.

use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use claw_client::{ByteStream, WatchEvent, WatchStream, request::View};
use claw_schemas::ApiError;
use futures::{StreamExt as _, future, stream};
use http::Response;

use super::respond;

/// Events that are ready together travel in one chunk, up to so many bytes: four TLS records. It is what a watcher who
/// does not read holds, beside one object.
const CHUNK_BYTES: usize = 64 << 10;

/// A watch. Every chunk ends with a whole line, and goes out as soon as nothing more is ready.
pub(super) fn watch(events: WatchStream, view: View) -> Response<Body> {
    let content_type = match view {
        View::Table(_) => "application/json;as=Table;g=meta.k8s.io;v=v1;stream=watch",
        View::Object | View::Metadata => "application/json",
    };
    let mut events = events.fuse();
    let chunks = stream::poll_fn(move |context| next_chunk(&mut events, context));
    respond::body(200, content_type, Body::from_stream(chunks.map(Ok::<_, std::convert::Infallible>)))
}

/// What is ready, and the end when there is nothing any more.
fn next_chunk(events: &mut stream::Fuse<WatchStream>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
    let mut chunk = BytesMut::new();
    while chunk.len() < CHUNK_BYTES {
        match events.poll_next_unpin(context) {
            Poll::Ready(Some(event)) => {
                chunk.reserve(size(&event));
                write_line(&mut chunk, &event);
            }
            Poll::Ready(None) if chunk.is_empty() => return Poll::Ready(None),
            Poll::Pending if chunk.is_empty() => return Poll::Pending,
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
    Poll::Ready(Some(chunk.freeze()))
}

fn parts(event: &WatchEvent) -> (&'static str, Bytes) {
    match event {
        WatchEvent::Added(object) => ("ADDED", object.clone()),
        WatchEvent::Modified(object) => ("MODIFIED", object.clone()),
        WatchEvent::Deleted(object) => ("DELETED", object.clone()),
        WatchEvent::Bookmark(object) => ("BOOKMARK", object.clone()),
        WatchEvent::Error(error) => ("ERROR", error.to_json().into()),
    }
}

fn size(event: &Result<WatchEvent, ApiError>) -> usize {
    const FRAME: usize = r#"{"type":"MODIFIED","object":}"#.len() + 1;
    let object = match event {
        Ok(
            WatchEvent::Added(object)
            | WatchEvent::Modified(object)
            | WatchEvent::Deleted(object)
            | WatchEvent::Bookmark(object),
        ) => object.len(),
        Ok(WatchEvent::Error(_)) | Err(_) => 0,
    };
    FRAME + object
}

fn write_line(chunk: &mut BytesMut, event: &Result<WatchEvent, ApiError>) {
    let (kind, object) = match event {
        Ok(event) => parts(event),
        Err(error) => parts(&WatchEvent::Error(error.clone())),
    };
    chunk.put_slice(b"{\"type\":\"");
    chunk.put_slice(kind.as_bytes());
    chunk.put_slice(b"\",\"object\":");
    chunk.put_slice(&object);
    chunk.put_slice(b"}\n");
}

/// A log. A refusal that is already there becomes the answer, instead of a body that breaks off.
pub(super) async fn text(mut bytes: ByteStream) -> Response<Body> {
    let first = match future::poll_immediate(bytes.next()).await.flatten() {
        Some(Err(error)) => return respond::error(&error),
        first => first,
    };
    respond::body(200, "text/plain", Body::from_stream(stream::iter(first).chain(bytes)))
}
