//! Tokens of service accounts: what they say, and whether that still holds.
//!
//! A token is good while its account exists, and so does the pod, secret or node it is bound to: those are looked up at
//! every request. Only the signature is remembered, because checking one takes as long as a request.

mod jwt;

use std::{collections::BTreeMap, sync::Arc};

use claw_schemas::ApiError;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::jwt::Key as SigningKey;
use super::{AUTHENTICATED, Identity, SERVICE_ACCOUNTS, digest, rbac::SERVICE_ACCOUNT_PREFIX};
use crate::store::{Key, Store};

/// Who signs, and for whom when nobody says: the name of the API inside of a cluster.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Tokens whose signature is remembered, at under 2 KiB each; beyond that the memory starts over.
const REMEMBERED_MAX: usize = 4_096;

/// How long after its pod began to stop a token is good: the pod has that much to say good-bye. Kubernetes' figure.
const AFTER_DELETION_S: i64 = 60;

/// What a token says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// For whom it is meant.
    #[serde(rename = "aud")]
    pub audiences: Vec<String>,
    #[serde(rename = "exp")]
    expires: i64,
    #[serde(rename = "iat")]
    issued: i64,
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "jti")]
    id: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
    #[serde(rename = "nbf")]
    not_before: i64,
    #[serde(rename = "sub")]
    subject: String,
}

/// The objects that a token stands and falls with.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// Where they are.
    pub namespace: String,
    /// The node of the pod, or the one the token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Incarnation>,
    /// The pod it was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Incarnation>,
    /// The secret it is kept in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Incarnation>,
    /// Whose token it is.
    #[serde(rename = "serviceaccount")]
    pub account: Incarnation,
}

/// One object, never its successor of the same name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Incarnation {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Signs tokens, and tells whose they are.
pub struct ServiceAccounts {
    key: SigningKey,
    store: Arc<dyn Store>,
    remembered: Mutex<BTreeMap<[u8; 32], Arc<Claims>>>,
}

impl ServiceAccounts {
    /// Over the accounts of a store.
    pub fn new(key: SigningKey, store: Arc<dyn Store>) -> Self {
        Self { key, store, remembered: Mutex::default() }
    }

    /// A token that lives for so many seconds, and when it ends.
    ///
    /// # Errors
    /// When the machine gives no random numbers.
    pub fn issue(
        &self,
        bound: Bound,
        audiences: Vec<String>,
        seconds: i64,
        now: Timestamp,
    ) -> Result<(String, Timestamp), ApiError> {
        let issued = now.as_second();
        let claims = Claims {
            audiences,
            expires: issued.saturating_add(seconds),
            issued,
            issuer: ISSUER.to_owned(),
            id: uuid::Uuid::new_v4().to_string(),
            not_before: issued,
            subject: user_name(&bound.namespace, &bound.account.name),
            bound,
        };
        let failed = || ApiError::internal("the token could not be signed");
        let end = Timestamp::from_second(claims.expires).map_err(|_| failed())?;
        Ok((self.key.sign(&claims).ok_or_else(failed)?, end))
    }

    /// Whose token it is, and for which of the wanted audiences. `None` when it is not one of ours, or not good any
    /// more.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn review(
        &self,
        token: &str,
        wanted: &[String],
        now: Timestamp,
    ) -> Result<Option<(Identity, Vec<String>)>, ApiError> {
        let Some(claims) = self.verified(token) else { return Ok(None) };
        let in_time = (claims.not_before..claims.expires).contains(&now.as_second());
        let audiences: Vec<String> =
            claims.audiences.iter().filter(|one| wanted.contains(one)).cloned().collect();
        if !in_time || audiences.is_empty() || claims.issuer != ISSUER {
            return Ok(None);
        }
        Ok(self.stands(&claims.bound, now).await?.then(|| (bearer(&claims), audiences)))
    }

    /// The public key, as the OpenID documents say it.
    pub fn public_keys(&self) -> Value {
        self.key.public_set()
    }

    fn verified(&self, token: &str) -> Option<Arc<Claims>> {
        let key = digest(token.as_bytes());
        if let Some(known) = self.remembered.lock().get(&key) {
            return Some(known.clone());
        }
        let claims: Arc<Claims> = Arc::new(self.key.verify(token)?);
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(key, claims.clone());
        Some(claims)
    }

    /// Whether everything that a token is bound to is still there.
    async fn stands(&self, bound: &Bound, now: Timestamp) -> Result<bool, ApiError> {
        let Bound { namespace, account, pod, secret, node } = bound;
        // The node of a pod's token only says where the pod is: the token falls with the pod.
        let node = node.as_ref().filter(|_| pod.is_none() && secret.is_none());
        for (plural, namespace, wanted) in [
            ("serviceaccounts", namespace.as_str(), Some(account)),
            ("pods", namespace, pod.as_ref()),
            ("secrets", namespace, secret.as_ref()),
            ("nodes", "", node),
        ] {
            if let Some(wanted) = wanted
                && !self.is_there(plural, namespace, wanted, now).await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn is_there(
        &self,
        plural: &str,
        namespace: &str,
        wanted: &Incarnation,
        now: Timestamp,
    ) -> Result<bool, ApiError> {
        let key = Key::object("", plural, namespace, &wanted.name);
        let found = self.store.get(&key).await.map_err(|error| ApiError::internal(error.to_string()))?;
        let head = found.and_then(|record| serde_json::from_slice::<Head>(&record.value).ok());
        Ok(head.is_some_and(|head| head.metadata.uid == wanted.uid && head.metadata.lives(now)))
    }
}

#[derive(Deserialize)]
struct Head {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

impl Metadata {
    fn lives(&self, now: Timestamp) -> bool {
        self.deletion_timestamp.as_deref().is_none_or(|text| {
            let end = text.parse::<Timestamp>().map(Timestamp::as_second);
            end.is_ok_and(|end| now.as_second() < end.saturating_add(AFTER_DELETION_S))
        })
    }
}

/// The user that a service account is.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The groups that a service account is in.
pub fn groups(namespace: &str) -> Vec<String> {
    vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}"), AUTHENTICATED.to_owned()]
}

/// A service account as it asks, without what a token of its would say.
pub(crate) fn identity_of(namespace: &str, name: &str) -> Identity {
    Identity::new(user_name(namespace, name), groups(namespace))
}

fn bearer(claims: &Claims) -> Identity {
    let Bound { namespace, account, pod, node, .. } = &claims.bound;
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    add("credential-id", format!("JTI={}", claims.id));
    for (kind, object) in [("pod", pod), ("node", node)] {
        if let Some(Incarnation { name, uid }) = object {
            add(&format!("{kind}-name"), name.clone());
            add(&format!("{kind}-uid"), uid.clone());
        }
    }
    Identity::new(claims.subject.clone(), groups(namespace)).with(account.uid.clone(), extra)
}

/// The document that tells where the public keys are (OpenID Connect Discovery 1.0).
pub fn discovery_document(server: &str) -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{server}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, Change, Draft, Expect, Write};

    const TEN_MINUTES: i64 = 600;

    fn named(name: &str, uid: &str) -> Incarnation {
        Incarnation { name: name.to_owned(), uid: uid.to_owned() }
    }

    async fn put(store: &dyn Store, plural: &str, name: &str, rest: &str) {
        let key = Key::object("", plural, "team", name);
        let old = store.get(&key).await.unwrap();
        let expect = old.map_or(Expect::Absent, |old| Expect::Revision(old.revision));
        let bytes = format!(r#"{{"metadata":{{{rest},"resourceVersion":""}}}}"#).into_bytes();
        let revision_at = bytes.len() - 3;
        let change = Change::Put(Draft { bytes, revision_at });
        store.commit(vec![Write { key, expect, change }]).await.unwrap();
    }

    async fn world() -> (Arc<dyn Store>, ServiceAccounts, Timestamp) {
        let store = store::memory();
        put(&*store, "serviceaccounts", "bot", r#""uid":"a1""#).await;
        let accounts = ServiceAccounts::new(jwt::tests::key(), store.clone());
        (store, accounts, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    fn bound() -> Bound {
        Bound { namespace: "team".to_owned(), account: named("bot", "a1"), ..Bound::default() }
    }

    fn ours() -> Vec<String> {
        vec![ISSUER.to_owned()]
    }

    fn after(now: Timestamp, seconds: i64) -> Timestamp {
        Timestamp::from_second(now.as_second() + seconds).unwrap()
    }

    #[tokio::test]
    async fn a_token_is_its_account_until_it_expires() {
        let (_, accounts, now) = world().await;
        let (token, end) = accounts.issue(bound(), ours(), TEN_MINUTES, now).unwrap();
        assert_eq!(end, after(now, TEN_MINUTES));
        let (who, audiences) = accounts.review(&token, &ours(), now).await.unwrap().unwrap();
        assert_eq!(who.user, "system:serviceaccount:team:bot");
        assert_eq!(who.groups, groups("team"));
        assert_eq!((who.uid.as_str(), audiences), ("a1", ours()));
        assert!(accounts.review(&token, &ours(), after(now, TEN_MINUTES)).await.unwrap().is_none());
        assert!(accounts.review(&token, &ours(), after(now, -1)).await.unwrap().is_none());
        assert!(accounts.review("abcdef.0123456789abcdef", &ours(), now).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_token_for_another_audience_is_none() {
        let (_, accounts, now) = world().await;
        let both = vec!["vault".to_owned(), "registry".to_owned()];
        let (token, _) = accounts.issue(bound(), both, TEN_MINUTES, now).unwrap();
        assert!(accounts.review(&token, &ours(), now).await.unwrap().is_none());
        let wanted = vec!["registry".to_owned(), "other".to_owned()];
        let (_, audiences) = accounts.review(&token, &wanted, now).await.unwrap().unwrap();
        assert_eq!(audiences, ["registry"]);
    }

    #[tokio::test]
    async fn a_token_falls_with_its_account_and_its_pod() {
        let (store, accounts, now) = world().await;
        put(&*store, "pods", "web", r#""uid":"p1""#).await;
        let with_pod = Bound { pod: Some(named("web", "p1")), node: Some(named("n", "n1")), ..bound() };
        let (token, _) = accounts.issue(with_pod, ours(), TEN_MINUTES, now).unwrap();
        let good = async |at: Timestamp| accounts.review(&token, &ours(), at).await.unwrap();
        let who = good(now).await.unwrap().0;
        assert_eq!(who.extra["authentication.kubernetes.io/pod-name"], ["web"]);
        put(&*store, "pods", "web", r#""uid":"p1","deletionTimestamp":"2026-01-01T00:00:00Z""#).await;
        assert!(good(after(now, 59)).await.is_some() && good(after(now, 60)).await.is_none());
        put(&*store, "pods", "web", r#""uid":"p2""#).await;
        assert!(good(now).await.is_none(), "a successor of the same name");
        put(&*store, "pods", "web", r#""uid":"p1""#).await;
        assert!(good(now).await.is_some());
        put(&*store, "serviceaccounts", "bot", r#""uid":"a2""#).await;
        assert!(good(now).await.is_none());
    }
}
