//! Bodies that go on: watches as one JSON object a line, logs as plain text.

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use claw_client::{ByteStream, WatchEvent, WatchStream, request::View};
use claw_schemas::ApiError;
use futures::{StreamExt as _, future, stream};
use http::Response;

use super::respond;

/// Events that are ready together travel in one chunk: 64 of 1 KiB fill four TLS records.
const EVENTS_A_CHUNK: usize = 64;

/// A watch. Every chunk ends with a whole line, and goes out as soon as nothing more is ready.
pub(super) fn watch(events: WatchStream, view: View) -> Response<Body> {
    let content_type = match view {
        View::Table(_) => "application/json;as=Table;g=meta.k8s.io;v=v1;stream=watch",
        View::Object | View::Metadata => "application/json",
    };
    let chunks = events.ready_chunks(EVENTS_A_CHUNK).map(|events| {
        let mut chunk = BytesMut::with_capacity(events.iter().map(size).sum());
        events.iter().for_each(|event| write_line(&mut chunk, event));
        Ok::<_, std::convert::Infallible>(chunk.freeze())
    });
    respond::body(200, content_type, Body::from_stream(chunks))
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
