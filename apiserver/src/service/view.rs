//! How stored objects look in an answer: themselves, `PartialObjectMetadata`, or rows of a `Table`.
//!
//! Everything is spliced from stored bytes; only cells need something of the object as a document.

use std::fmt::Write as _;

use bytes::Bytes;
use claw_client::request::{IncludeObject, View};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    encode::{metadata_of, quoted},
    kinds::Served,
    limits::LIST_CHUNK,
};
use crate::store::{Record, Revision};

/// What a list says about itself.
#[derive(Debug, Default)]
pub(super) struct ListMeta {
    pub revision: Revision,
    /// Empty on the last page.
    pub continue_token: String,
    pub remaining: Option<usize>,
}

/// One object as a whole answer.
pub(super) fn single(kind: &Served, view: View, stored: &Bytes) -> Bytes {
    match view {
        View::Object => stored.clone(),
        View::Metadata => item(kind, view, stored).into(),
        View::Table(_) => {
            let meta = format!("{{\"resourceVersion\":{}}}", revision_text(stored));
            table(&meta, Some(kind), &item(kind, view, stored))
        }
    }
}

/// One object of a list, or in a watch event (where a row is put into a table of its own).
pub(super) fn item(kind: &Served, view: View, stored: &[u8]) -> Vec<u8> {
    let mut item = Vec::new();
    write_item(&mut item, kind, view, stored, Timestamp::now());
    item
}

fn write_item(out: &mut Vec<u8>, kind: &Served, view: View, stored: &[u8], now: Timestamp) {
    match view {
        View::Object => out.extend_from_slice(stored),
        View::Metadata => write_partial(out, metadata_of(stored)),
        View::Table(include) => write_row(out, kind, include, stored, now),
    }
}

/// A whole list.
pub(super) async fn list(kind: &Served, view: View, items: &[Record], meta: &ListMeta) -> Bytes {
    let meta = meta.json();
    let mut body: Vec<u8> = match view {
        View::Object => list_head(&kind.descriptor.list_kind(), &kind.api_version, &meta),
        View::Metadata => list_head("PartialObjectMetadataList", "meta.k8s.io/v1", &meta),
        View::Table(_) => table_head(&meta, Some(kind)),
    }
    .into_bytes();
    let stored: usize = items.iter().map(|item| item.value.len() + 1).sum();
    if view == View::Object {
        body.reserve(stored + 2);
    }
    let (now, head) = (Timestamp::now(), body.len());
    for (at, record) in items.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        write_item(&mut body, kind, view, &record.value, now);
        if at == 0 {
            // Items are much alike, so that the first says how much room the others take. Most have no more than is stored.
            let alike = (body.len() - head + 1).saturating_mul(items.len());
            body.reserve(alike.min(stored + 2));
        }
        // A long answer must not keep a worker thread from the other requests.
        if at % LIST_CHUNK == LIST_CHUNK - 1 {
            tokio::task::yield_now().await;
        }
    }
    body.extend_from_slice(b"]}");
    body.into()
}

/// A table around rows that are already JSON. The first of a watch, and every other table, defines the columns.
pub(super) fn table(meta: &str, columns_of: Option<&Served>, rows: &[u8]) -> Bytes {
    let mut body = table_head(meta, columns_of).into_bytes();
    body.extend_from_slice(rows);
    body.extend_from_slice(b"]}");
    body.into()
}

fn list_head(kind: &str, api_version: &str, meta: &str) -> String {
    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":[")
}

fn table_head(meta: &str, columns_of: Option<&Served>) -> String {
    let columns = columns_of.map_or_else(|| "null".to_owned(), columns);
    format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{meta},\"columnDefinitions\":{columns},\"rows\":["
    )
}

fn columns(kind: &Served) -> String {
    let columns: Vec<Value> = kind
        .descriptor
        .columns
        .iter()
        .map(|column| {
            serde_json::json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect();
    Value::Array(columns).to_string()
}

fn write_row(out: &mut Vec<u8>, kind: &Served, include: IncludeObject, stored: &[u8], now: Timestamp) {
    let (read, metadata) = kind.row.read_beside(stored, "metadata").unwrap_or_else(|error| {
        tracing::error!(%error, "a stored object does not parse");
        (Value::Null, "null")
    });
    let cells = kind.descriptor.cells.of(&read, now);
    out.extend_from_slice(b"{\"cells\":");
    serde_json::to_writer(&mut *out, &cells).expect("JSON values serialise into memory");
    out.extend_from_slice(b",\"object\":");
    match include {
        IncludeObject::None => out.extend_from_slice(b"null"),
        IncludeObject::Metadata => write_partial(out, metadata),
        IncludeObject::Object => out.extend_from_slice(stored),
    }
    out.push(b'}');
}

fn write_partial(out: &mut Vec<u8>, metadata: &str) {
    out.extend_from_slice(
        b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":",
    );
    out.extend_from_slice(metadata.as_bytes());
    out.push(b'}');
}

/// The JSON string of an object's revision.
fn revision_text(stored: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Revision {
        #[serde(default)]
        resource_version: String,
    }
    let metadata: Result<Revision, _> = serde_json::from_str(metadata_of(stored));
    quoted(&metadata.map(|metadata| metadata.resource_version).unwrap_or_default())
}

impl ListMeta {
    /// As JSON.
    pub fn json(&self) -> String {
        let mut text = format!("{{\"resourceVersion\":\"{}\"", self.revision);
        if !self.continue_token.is_empty() {
            let _ = write!(text, ",\"continue\":{}", quoted(&self.continue_token));
        }
        if let Some(remaining) = self.remaining {
            let _ = write!(text, ",\"remainingItemCount\":{remaining}");
        }
        text.push('}');
        text
    }
}
