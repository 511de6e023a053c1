//! OpenAPI documents, version 3 (one a group version) and version 2 (one for all), built from the registry.
//!
//! A document is built when it is asked for and not kept: clients cache it by its hash, and a server at rest should
//! not carry megabytes of descriptions. Only the hashes stay.
//!
//! Must never know: HTTP, and how objects are stored.

use std::{collections::BTreeMap, sync::OnceLock};

use serde_json::{Value, json};

use crate::registry::Registry;

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
    registry: Registry,
    /// Path below `/openapi/v3/` → hash of the document there.
    hashes: OnceLock<BTreeMap<String, String>>,
}

impl OpenApi {
    /// For the kinds of a registry.
    pub fn new(registry: Registry) -> Self {
        Self { registry, hashes: OnceLock::new() }
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
        let _ = (group, version);
        None
    }

    /// `/openapi/v2` as JSON.
    pub fn v2_json(&self) -> Document {
        document(Vec::new())
    }

    /// `/openapi/v2` as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
    pub fn v2_protobuf(&self) -> Document {
        document(Vec::new())
    }

    fn hashes(&self) -> &BTreeMap<String, String> {
        self.hashes.get_or_init(|| {
            let mut hashes = BTreeMap::new();
            for kind in self.registry.iter() {
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
