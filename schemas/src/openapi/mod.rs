//! OpenAPI documents, version 3 (one a group version) and version 2 (one for all), built from the registry.
//!
//! A document is built when it is asked for and not kept: clients cache it by its hash, and a server at rest should
//! not carry megabytes of descriptions. Only the hashes stay.
//!
//! Must never know: HTTP, and how objects are stored.

mod definitions;
mod dialect;
mod gnostic;
mod paths;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use serde_json::{Map, Value, json};

use self::{definitions::Definitions, dialect::Dialect};
use crate::{
    kinds,
    registry::{Descriptor, Registry},
};

/// Said in `info`: the API is that of Kubernetes, in the version whose types are served.
const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.36.0";

/// The media type of [`OpenApi::v2_protobuf`], for the `Content-Type` of the answer. Clients ask for it with an `@`
/// (see [`asks_for_protobuf`]), which Go's MIME parser refuses in an answer.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Whether an `Accept` header prefers the protobuf form of `/openapi/v2`, under either spelling of its name.
pub fn asks_for_protobuf(accept: &str) -> bool {
    let preferred = accept.split(',').next().unwrap_or_default();
    let media_type = preferred.split(';').next().unwrap_or_default().trim();
    media_type.replace('@', ".") == V2_PROTOBUF
}

/// One document.
#[derive(Clone, Debug)]
pub struct Document {
    /// The bytes.
    pub body: Vec<u8>,
    /// Hash of the bytes, upper-case hexadecimal; the same document always has the same.
    pub hash: String,
}

/// The documents of a registry.
#[derive(Debug)]
pub struct OpenApi {
    registry: Arc<Registry>,
    /// Path below `/openapi/v3/` → hash of the document there.
    hashes: OnceLock<BTreeMap<String, String>>,
    /// The hashes that an earlier registry already had, for the group versions that are as they were.
    known: BTreeMap<String, String>,
}

impl OpenApi {
    /// For the kinds of a registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, hashes: OnceLock::new(), known: BTreeMap::new() }
    }

    /// For a registry that took the place of this one's: what did not change is not worked out again.
    pub fn renewed(&self, registry: Arc<Registry>) -> Self {
        let (old, new) = (by_path(&self.registry), by_path(&registry));
        let same = |path: &str| {
            let kinds = old.get(path).zip(new.get(path));
            kinds.is_some_and(|(old, new)| {
                old.len() == new.len() && old.iter().zip(new).all(|(old, new)| Arc::ptr_eq(old, new))
            })
        };
        let mut known = self.hashes.get().unwrap_or(&self.known).clone();
        known.retain(|path, _| same(path));
        Self { registry, hashes: OnceLock::new(), known }
    }

    /// The registry described.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// `/openapi/v3`: where the document of each group version is, with its hash.
    pub fn index(&self) -> Value {
        let paths: serde_json::Map<String, Value> = self
            .hashes()
            .iter()
            .map(|(path, hash)| {
                (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
            })
            .collect();
        json!({"paths": paths})
    }

    /// `/openapi/v3/api/v1` (group empty) and `/openapi/v3/apis/GROUP/VERSION`; `None` when nothing is served there.
    pub fn group_version(&self, group: &str, version: &str) -> Option<Document> {
        let kinds: Vec<_> = readable(&self.registry)
            .map(AsRef::as_ref)
            .filter(|kind| kind.group == group && kind.version == version)
            .collect();
        if kinds.is_empty() {
            return None;
        }
        let (types, paths) = contents(Dialect::V3, &kinds);
        Some(json_document(&json!({
            "openapi": "3.0.0",
            "info": {"title": TITLE, "version": VERSION},
            "paths": paths,
            "components": {"schemas": types},
        })))
    }

    /// `/openapi/v2` as JSON.
    pub fn v2_json(&self) -> Document {
        json_document(&self.v2())
    }

    /// `/openapi/v2` as [`V2_PROTOBUF`].
    pub fn v2_protobuf(&self) -> Document {
        document(gnostic::encode(&self.v2()))
    }

    fn v2(&self) -> Value {
        let kinds: Vec<_> = readable(&self.registry).map(AsRef::as_ref).collect();
        let (types, paths) = contents(Dialect::V2, &kinds);
        json!({
            "swagger": "2.0",
            "info": {"title": TITLE, "version": VERSION},
            "paths": paths,
            "definitions": types,
        })
    }

    fn hashes(&self) -> &BTreeMap<String, String> {
        self.hashes.get_or_init(|| {
            let mut hashes = self.known.clone();
            for kind in readable(&self.registry) {
                let path = group_version_path(&kind.group, &kind.version);
                if !hashes.contains_key(&path)
                    && let Some(document) = self.group_version(&kind.group, &kind.version)
                {
                    hashes.insert(path, document.hash);
                }
            }
            hashes
        })
    }
}

/// The kinds of each document.
fn by_path(registry: &Registry) -> BTreeMap<String, Vec<&Arc<Descriptor>>> {
    let mut kinds: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for kind in readable(registry) {
        kinds.entry(group_version_path(&kind.group, &kind.version)).or_default().push(kind);
    }
    kinds
}

/// What can be read, stored or not.
fn readable(registry: &Registry) -> impl Iterator<Item = &Arc<Descriptor>> {
    registry.iter().chain(kinds::measured())
}

/// The types and the paths of some kinds.
fn contents(dialect: Dialect, kinds: &[&Descriptor]) -> (Map<String, Value>, Map<String, Value>) {
    let (mut types, mut paths) = (Definitions::new(dialect), Map::new());
    for kind in kinds {
        let ty = types.add_kind(kind);
        paths::add(&mut paths, dialect, kind, &ty);
    }
    (types.into_types(), paths)
}

fn json_document(value: &Value) -> Document {
    document(value.to_string().into_bytes())
}

/// `api/v1` or `apis/apps/v1`.
fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn document(body: Vec<u8>) -> Document {
    let hash = format!("{:032X}", fnv1a(&body));
    Document { body, hash }
}

/// FNV-1a over 128 bits: a cache key, not a signature.
fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests;
