//! Config maps and secrets for pods, read through the API and kept for a moment.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use claw_client::{Client, api::Object};
use claw_schemas::ApiError;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;

/// How stale a read may be: a pod with many references, or many pods that start together, ask once.
/// It bounds how late a change reaches a pod, on top of the refresh interval of its volumes.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// Entries beyond this are dropped, oldest reads first; 110 pods with 9 references each.
const ENTRIES_MAX: usize = 1_000;

/// Namespace and name.
type Key = (String, String);

/// When it was read, and what was there.
type Entry<K> = (Instant, Option<Arc<K>>);

/// Reads config maps and secrets.
pub struct Sources {
    client: Client,
    config_maps: Mutex<HashMap<Key, Entry<ConfigMap>>>,
    secrets: Mutex<HashMap<Key, Entry<Secret>>>,
}

impl Sources {
    /// Over a client with the node's identity.
    pub fn new(client: Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    /// `None` if there is no such config map.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, ApiError> {
        self.read(&self.config_maps, namespace, name).await
    }

    /// `None` if there is no such secret.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, ApiError> {
        self.read(&self.secrets, namespace, name).await
    }

    async fn read<K: Object>(
        &self,
        cache: &Mutex<HashMap<Key, Entry<K>>>,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<K>>, ApiError> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((read_at, found)) = cache.lock().get(&key)
            && read_at.elapsed() < FRESH_FOR
        {
            return Ok(found.clone());
        }
        let found = self.client.namespaced::<K>(namespace).find(name).await?.map(Arc::new);
        let mut cache = cache.lock();
        if cache.len() >= ENTRIES_MAX {
            cache.retain(|_, (read_at, _)| read_at.elapsed() < FRESH_FOR);
        }
        // What is missing may be created any moment, and a container is waiting for it.
        if found.is_some() {
            cache.insert(key, (Instant::now(), found.clone()));
        } else {
            cache.remove(&key);
        }
        Ok(found)
    }
}
