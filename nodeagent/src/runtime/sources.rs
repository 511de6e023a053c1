//! Config maps, secrets and tokens for pods, read through the API and kept: the first two for a moment, tokens for most
//! of their life. Claims are read each time: what they say changes just before it is asked for.

use std::{collections::HashMap, sync::Arc, time::Duration};

use claw_client::{Client, api::Object};
use claw_schemas::ApiError;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection},
    resource::v1::ResourceClaim,
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How stale a read may be: a pod with many references, or many pods that start together, ask once.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// How stale a read may be for a pod that has it already. All pods of a namespace look for its `kube-root-ca.crt`, each in a moment
/// of its own: they ask once or twice a minute together. It bounds how late a change reaches a pod, on top of the refresh interval of
/// its volumes.
const LEVEL_FOR: Duration = Duration::from_secs(30);

/// Entries beyond this are dropped, oldest reads first; 110 pods with 9 references each.
const ENTRIES_MAX: usize = 1_000;

/// Namespace and name.
type Key = (String, String);

/// When it was read, and what was there.
type Entry<K> = (Instant, Option<Arc<K>>);

/// Pod's uid, audience and asked life of a token.
type TokenKey = (String, String, i64);

/// A token, and when the next is asked for.
struct Token {
    text: Arc<str>,
    renew_at: Instant,
}

/// Life of a token when the pod does not say.
const TOKEN_SECONDS: i64 = 3_600;

/// The largest part of a token's life after which it is renewed, in percent: what is left bridges an outage of the server.
/// Kubernetes' figure, as is the next.
const RENEW_AFTER_PERCENT: u32 = 80;

/// A token is renewed at least once a day, however long it lives.
const RENEW_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Reads config maps and secrets that are not older than somebody wants.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    sources: &'a Sources,
    fresh_for: Duration,
}

impl Reader<'_> {
    /// `None` if there is no such config map.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, ApiError> {
        self.sources.read(&self.sources.config_maps, (namespace, name), self.fresh_for).await
    }

    /// `None` if there is no such secret.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, ApiError> {
        self.sources.read(&self.sources.secrets, (namespace, name), self.fresh_for).await
    }

    /// As [`Sources::token`].
    pub async fn token(
        &self,
        pod: &Pod,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<Arc<str>, ApiError> {
        self.sources.token(pod, wanted).await
    }
}

/// Reads config maps and secrets, and asks for tokens.
pub struct Sources {
    client: Client,
    config_maps: Mutex<HashMap<Key, Entry<ConfigMap>>>,
    secrets: Mutex<HashMap<Key, Entry<Secret>>>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
}

impl Sources {
    /// Over a client with the node's identity.
    pub fn new(client: Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default(), tokens: Mutex::default() }
    }

    /// `None` if there is no such config map.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, ApiError> {
        self.fresh().config_map(namespace, name).await
    }

    /// `None` if there is no such secret.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, ApiError> {
        self.fresh().secret(namespace, name).await
    }

    /// For who needs it to start.
    pub fn fresh(&self) -> Reader<'_> {
        Reader { sources: self, fresh_for: FRESH_FOR }
    }

    /// For who has it already, and looks whether it changed.
    pub fn level(&self) -> Reader<'_> {
        Reader { sources: self, fresh_for: LEVEL_FOR }
    }

    /// `None` if there is no such claim.
    pub async fn claim(&self, namespace: &str, name: &str) -> Result<Option<ResourceClaim>, ApiError> {
        self.client.namespaced::<ResourceClaim>(namespace).find(name).await
    }

    /// A token of the account that a pod runs as, good for as long as the pod is there.
    pub async fn token(
        &self,
        pod: &Pod,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<Arc<str>, ApiError> {
        let seconds = wanted.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let audience = wanted.audience.clone().unwrap_or_default();
        let key = (pod.metadata.uid.clone().unwrap_or_default(), audience, seconds);
        if let Some(token) = self.tokens.lock().get(&key)
            && Instant::now() < token.renew_at
        {
            return Ok(token.text.clone());
        }
        let token = self.request(pod, &key).await?;
        let text = token.text.clone();
        let mut tokens = self.tokens.lock();
        if tokens.len() >= ENTRIES_MAX {
            tokens.retain(|_, token| Instant::now() < token.renew_at);
        }
        tokens.insert(key, token);
        Ok(text)
    }

    async fn request(&self, pod: &Pod, (uid, audience, seconds): &TokenKey) -> Result<Token, ApiError> {
        let asked_at = Instant::now();
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.clone());
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
        let bound_object_ref = Some(BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name,
            uid: Some(uid.clone()),
        });
        let audiences = Some(audience.clone()).filter(|one| !one.is_empty()).map(|one| vec![one]);
        let spec = TokenRequestSpec { audiences, bound_object_ref, expiration_seconds: Some(*seconds) };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let api = self.client.namespaced::<ServiceAccount>(namespace.unwrap_or("default"));
        let answer = api.create_subresource(account.unwrap_or("default"), "token", &request).await?;
        let answer: TokenRequest = serde_json::from_slice(&answer.body)
            .map_err(|error| ApiError::internal(format!("the server's token does not parse: {error}")))?;
        // How long it lives, not until when: that would be by the server's clock, and this machine's may be another.
        let granted = answer.spec.and_then(|spec| spec.expiration_seconds).unwrap_or(*seconds);
        let token = answer.status.and_then(|status| status.token);
        let token = token.ok_or_else(|| ApiError::internal("the server sent no token"))?;
        Ok(Token { text: token.into(), renew_at: asked_at + renew_after(granted) })
    }

    async fn read<K: Object>(
        &self,
        cache: &Mutex<HashMap<Key, Entry<K>>>,
        (namespace, name): (&str, &str),
        fresh_for: Duration,
    ) -> Result<Option<Arc<K>>, ApiError> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((read_at, found)) = cache.lock().get(&key)
            && read_at.elapsed() < fresh_for
        {
            return Ok(found.clone());
        }
        let found = self.client.namespaced::<K>(namespace).find(name).await?.map(Arc::new);
        let mut cache = cache.lock();
        if cache.len() >= ENTRIES_MAX {
            cache.retain(|_, (read_at, _)| read_at.elapsed() < LEVEL_FOR);
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

/// How long a token that lives so long is used.
fn renew_after(life_s: i64) -> Duration {
    let life = Duration::from_secs(u64::try_from(life_s).unwrap_or(0)).min(RENEW_AFTER_MAX * 2);
    (life * RENEW_AFTER_PERCENT / 100).min(RENEW_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_for_most_of_its_life_and_never_longer_than_a_day() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        assert_eq!(renew_after(10 * 3_600), hours(8));
        assert_eq!(renew_after(i64::MAX), hours(24));
        assert_eq!(renew_after(-1), hours(0));
    }
}
