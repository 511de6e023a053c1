//! Watch events out of newline-delimited JSON, as bytes arrive. Pure.
//!
//! Objects are not parsed: an event's body is a slice of the line it came in.

use bytes::{Bytes, BytesMut};
use claw_schemas::{ApiError, status::Reason};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::transport::WatchEvent;

/// Longest line taken. Objects are at most 1.5 MiB on the server; a Table row with the whole object
/// and its cells doubles that at worst, and 8 MiB leaves room for escaped text.
pub(crate) const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Splits a byte stream into events.
#[derive(Default)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    scanned: usize,
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Lines {
    /// Takes bytes in.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole event, if one has arrived.
    pub fn next_event(&mut self) -> Result<Option<WatchEvent>, ApiError> {
        loop {
            let Some(end) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                if self.scanned > LINE_BYTES_MAX {
                    return Err(broken(format!("a watch event is longer than {LINE_BYTES_MAX} bytes")));
                }
                return Ok(None);
            };
            let line = self.buffer.split_to(self.scanned + end + 1).freeze();
            self.scanned = 0;
            if !line.trim_ascii().is_empty() {
                return parse(&line).map(Some);
            }
        }
    }

    /// Says whether the stream ended between events.
    pub fn finish(&self) -> Result<(), ApiError> {
        if self.buffer.trim_ascii().is_empty() {
            return Ok(());
        }
        Err(ApiError::new(Reason::ServiceUnavailable, "the connection broke within a watch event"))
    }
}

fn parse(line: &Bytes) -> Result<WatchEvent, ApiError> {
    let event: Line<'_> = serde_json::from_slice(line)
        .map_err(|error| broken(format!("a watch event does not parse: {error}")))?;
    let body = line.slice_ref(event.object.get().as_bytes());
    Ok(match event.r#type {
        "ADDED" => WatchEvent::Added(body),
        "MODIFIED" => WatchEvent::Modified(body),
        "DELETED" => WatchEvent::Deleted(body),
        "BOOKMARK" => WatchEvent::Bookmark(body),
        "ERROR" => WatchEvent::Error(
            serde_json::from_slice(&body)
                .map_err(|error| broken(format!("a watch's ERROR event does not parse: {error}")))?,
        ),
        other => return Err(broken(format!("a watch event has the unknown type \"{other}\""))),
    })
}

fn broken(message: String) -> ApiError {
    ApiError::internal(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"{\"type\":\"ADDED\",\"object\":{\"a\":\"x\\ny\"}}\n\n{\"object\":{\"b\":1},\"type\":\"BOOKMARK\"}\r\n";

    fn expected() -> Vec<WatchEvent> {
        vec![
            WatchEvent::Added(Bytes::from_static(b"{\"a\":\"x\\ny\"}")),
            WatchEvent::Bookmark(Bytes::from_static(b"{\"b\":1}")),
        ]
    }

    #[test]
    fn events_come_out_whole_wherever_the_bytes_are_cut() {
        for step in 1..=TEXT.len() {
            let mut lines = Lines::default();
            let mut events = Vec::new();
            for chunk in TEXT.chunks(step) {
                lines.push(chunk);
                while let Some(event) = lines.next_event().unwrap() {
                    events.push(event);
                }
            }
            assert_eq!(events, expected(), "in chunks of {step}");
            lines.finish().unwrap();
        }
    }

    #[test]
    fn a_stream_cut_within_an_event_is_an_error() {
        let mut lines = Lines::default();
        lines.push(&TEXT[..20]);
        assert_eq!(lines.next_event().unwrap(), None);
        assert!(lines.finish().unwrap_err().is_retryable());
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; LINE_BYTES_MAX / 4];
        for _ in 0..4 {
            lines.push(&chunk);
            assert_eq!(lines.next_event().unwrap(), None);
        }
        lines.push(&chunk);
        assert!(lines.next_event().unwrap_err().message.contains("longer than"));
    }

    #[test]
    fn an_error_event_carries_its_status() {
        let expired = ApiError::expired("too old resource version: 1 (1228)");
        let mut lines = Lines::default();
        lines.push(b"{\"type\":\"ERROR\",\"object\":");
        lines.push(&expired.to_json());
        lines.push(b"}\n");
        assert_eq!(lines.next_event().unwrap(), Some(WatchEvent::Error(expired)));
    }

    #[test]
    fn garbage_is_an_error_that_shows_it() {
        for text in ["nonsense\n", "{\"type\":\"RENAMED\",\"object\":{}}\n", "{\"type\":\"ADDED\"}\n"] {
            let mut lines = Lines::default();
            lines.push(text.as_bytes());
            assert!(lines.next_event().is_err(), "{text}");
        }
    }
}
