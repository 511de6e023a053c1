//! Bodies that go on: watches as one JSON object a line, logs as plain text.

use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use claw_client::{ByteStream, WatchEvent, WatchStream, request::View};
use futures::{Stream, StreamExt as _, future, stream};
use http::Response;

use super::respond;

/// Events that are ready together travel in one chunk, up to so many bytes: four TLS records. It is what a watcher who
/// does not read holds, beside one object.
const CHUNK_BYTES: usize = 64 << 10;

/// A watch. Every chunk ends with a whole line, and goes out as soon as nothing more is ready. What breaks a watch ends it
/// without a word: clients know one error event, of an expired revision, and resume after whatever they saw.
pub(super) fn watch(events: WatchStream, view: View) -> Response<Body> {
    let content_type = match view {
        View::Table(_) => "application/json;as=Table;g=meta.k8s.io;v=v1;stream=watch",
        View::Object | View::Metadata => "application/json",
    };
    let mut events = events.scan((), |(), event| future::ready(event.ok())).fuse();
    let chunks = stream::poll_fn(move |context| next_chunk(&mut events, context));
    respond::body(200, content_type, Body::from_stream(chunks.map(Ok::<_, std::convert::Infallible>)))
}

/// What is ready, and the end when there is nothing any more.
fn next_chunk(
    events: &mut stream::Fuse<impl Stream<Item = WatchEvent> + Unpin>,
    context: &mut Context<'_>,
) -> Poll<Option<Bytes>> {
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

fn size(event: &WatchEvent) -> usize {
    const FRAME: usize = r#"{"type":"MODIFIED","object":}"#.len() + 1;
    let object = match event {
        WatchEvent::Added(object)
        | WatchEvent::Modified(object)
        | WatchEvent::Deleted(object)
        | WatchEvent::Bookmark(object) => object.len(),
        WatchEvent::Error(_) => 0,
    };
    FRAME + object
}

fn write_line(chunk: &mut BytesMut, event: &WatchEvent) {
    let (kind, object) = parts(event);
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

#[cfg(test)]
mod tests {
    use claw_schemas::ApiError;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn what_breaks_a_watch_ends_it_without_an_error_event() {
        let added = || Ok(WatchEvent::Added("{}".into()));
        let expired = || Ok(WatchEvent::Error(ApiError::expired("too old resource version: 1 (9)")));
        for (events, expected) in [
            (vec![added(), Err(ApiError::internal("broken")), added()], vec!["ADDED"]),
            (vec![Err(ApiError::too_many_requests("later", 1))], vec![]),
            (vec![added(), expired()], vec!["ADDED", "ERROR"]),
        ] {
            let body = watch(stream::iter(events).boxed(), View::Object).into_body();
            let text = body.collect().await.unwrap().to_bytes();
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let types: Vec<_> = lines
                .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap()["type"].clone())
                .collect();
            assert_eq!(types, expected);
        }
    }
}
