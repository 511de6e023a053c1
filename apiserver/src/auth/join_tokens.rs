//! Join tokens: one-time passes for machines, kept as Secrets of type `bootstrap.kubernetes.io/token`.
//!
//! A token reads `id.secret` and lives in the Secret `bootstrap-token-ID` of `kube-system`, in the format that
//! Kubernetes documents, so that `kubectl` and `clawbernetes token create` can make and list them. Using one
//! deletes the Secret with its revision as precondition: of two machines with one token, one gets in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use claw_client::{
    Request, ResourceRef, Verb,
    request::{DeleteOptions, View, WriteOptions},
};
use claw_schemas::{ApiError, status::Reason};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Identity,
    random::{digest, random_letters},
};
use crate::service::ObjectService;

/// Where the Secrets are.
const NAMESPACE: &str = "kube-system";
/// Their type.
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Letters of the public part. Kubernetes' format.
const ID_LETTERS: usize = 6;
/// Letters of the secret part: 36^16 is 82 bits. Kubernetes' format.
const SECRET_LETTERS: usize = 16;

/// Makes, finds and uses up join tokens.
#[derive(Clone)]
pub struct JoinTokens {
    service: Arc<ObjectService>,
    identity: Identity,
}

/// The part of a Secret that matters here.
#[derive(Deserialize)]
struct Secret {
    metadata: Metadata,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    resource_version: String,
}

/// A new token and the Secret that makes it valid. Whoever may create Secrets in `kube-system` can admit machines
/// this way, also from afar.
///
/// # Errors
/// When the operating system gives no random numbers.
pub fn new_join_token(ttl: Duration, now: Timestamp) -> Result<(String, Value), ApiError> {
    let random = |letters| random_letters(letters).map_err(|error| ApiError::internal(error.to_string()));
    let (id, secret) = (random(ID_LETTERS)?, random(SECRET_LETTERS)?);
    let expiration = SignedDuration::try_from(ttl)
        .ok()
        .and_then(|ttl| now.checked_add(ttl).ok())
        .ok_or_else(|| ApiError::bad_request(format!("a token cannot live for {ttl:?}")))?;
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": secret_name(&id), "namespace": NAMESPACE },
        "type": SECRET_TYPE,
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "expiration": format!("{expiration:.0}"),
            "usage-bootstrap-authentication": "true",
        },
    });
    Ok((format!("{id}.{secret}"), manifest))
}

impl JoinTokens {
    /// Keeps tokens in this service's Secrets.
    pub fn new(service: Arc<ObjectService>) -> Self {
        Self { service, identity: Identity::loopback("join-tokens") }
    }

    /// Makes a token.
    ///
    /// # Errors
    /// When the Secret cannot be stored.
    pub async fn create(&self, ttl: Duration) -> Result<String, ApiError> {
        let (token, manifest) = new_join_token(ttl, Timestamp::now())?;
        let body = Bytes::from(manifest.to_string());
        let resource = ResourceRef::collection("", "v1", "secrets").in_namespace(NAMESPACE);
        self.call(resource, Verb::Create { body, options: WriteOptions::default() }).await?;
        Ok(token)
    }

    /// The id of a token that is valid now.
    ///
    /// # Errors
    /// When the Secret cannot be read; that there is none is no error.
    pub async fn find(&self, token: &str) -> Result<Option<String>, ApiError> {
        let Some((id, secret)) = split(token) else { return Ok(None) };
        let Some(stored) = self.read(id).await? else { return Ok(None) };
        let is_right =
            stored.field("token-secret").is_some_and(|right| digest(&right) == digest(secret.as_bytes()));
        Ok((is_right && stored.is_valid(id, Timestamp::now())).then(|| id.to_owned()))
    }

    /// Uses a token up.
    ///
    /// # Errors
    /// `Unauthorized` when it is gone or expired by now.
    pub async fn consume(&self, id: &str) -> Result<(), ApiError> {
        let used = || {
            ApiError::new(
                Reason::Unauthorized,
                "the join token was used already or has expired; make a new one",
            )
        };
        let stored =
            self.read(id).await?.filter(|stored| stored.is_valid(id, Timestamp::now())).ok_or_else(used)?;
        let options = DeleteOptions {
            precondition_uid: Some(stored.metadata.uid),
            precondition_resource_version: Some(stored.metadata.resource_version),
            ..DeleteOptions::default()
        };
        match self.call(secret_of(id), Verb::Delete(options)).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.reason, Reason::NotFound | Reason::Conflict) => Err(used()),
            Err(error) => Err(error),
        }
    }

    async fn read(&self, id: &str) -> Result<Option<Secret>, ApiError> {
        match self.call(secret_of(id), Verb::Get).await {
            Ok(body) => Ok(serde_json::from_slice(&body).ok()),
            Err(error) if error.reason == Reason::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn call(&self, resource: ResourceRef, verb: Verb) -> Result<Bytes, ApiError> {
        let request = Request { resource, verb, view: View::Object };
        self.service.call(&self.identity, request).await.map(|response| response.body)
    }
}

impl Secret {
    fn field(&self, name: &str) -> Option<Vec<u8>> {
        STANDARD.decode(self.data.get(name)?).ok()
    }

    fn text(&self, name: &str) -> Option<String> {
        String::from_utf8(self.field(name)?).ok()
    }

    fn is_valid(&self, id: &str, now: Timestamp) -> bool {
        // A token without an expiration never expires, one whose expiration does not parse is not trusted.
        let lives =
            self.text("expiration").is_none_or(|text| text.parse::<Timestamp>().is_ok_and(|end| now < end));
        self.kind == SECRET_TYPE
            && self.text("token-id").as_deref() == Some(id)
            && self.text("usage-bootstrap-authentication").as_deref() == Some("true")
            && lives
    }
}

/// The two parts of a token, if it is one.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_word = |text: &str, letters: usize| {
        text.len() == letters && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (is_word(id, ID_LETTERS) && is_word(secret, SECRET_LETTERS)).then_some((id, secret))
}

fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

fn secret_of(id: &str) -> ResourceRef {
    ResourceRef::collection("", "v1", "secrets").in_namespace(NAMESPACE).named(&secret_name(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(expiration: &str) -> Secret {
        let data = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", expiration),
        ];
        Secret {
            metadata: Metadata { uid: String::new(), resource_version: String::new() },
            kind: SECRET_TYPE.to_owned(),
            data: data.map(|(name, value)| (name.to_owned(), STANDARD.encode(value))).into(),
        }
    }

    #[test]
    fn a_token_has_the_format_of_kubernetes() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let (token, manifest) = new_join_token(Duration::from_secs(3600), now).unwrap();
        let (id, secret) = split(&token).unwrap();
        assert_eq!(manifest["metadata"]["name"], format!("bootstrap-token-{id}"));
        assert_eq!(manifest["stringData"]["token-secret"], secret);
        assert_eq!(manifest["stringData"]["expiration"], "2026-01-01T01:00:00Z");
        assert!(new_join_token(Duration::MAX, now).is_err());
    }

    #[test]
    fn what_is_no_token_is_never_looked_up() {
        for wrong in
            ["", ".", "abcdef", "abcdef.short", "ABCDEF.0123456789abcdef", "../../x.0123456789abcdef"]
        {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_is_valid_until_it_expires() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert!(stored("2026-01-01T00:00:01Z").is_valid("abcdef", now));
        assert!(!stored("2026-01-01T00:00:00Z").is_valid("abcdef", now));
        assert!(!stored("soon").is_valid("abcdef", now));
        assert!(!stored("2026-01-01T00:00:01Z").is_valid("fedcba", now));
        let mut other = stored("2026-01-01T00:00:01Z");
        other.kind = "Opaque".to_owned();
        assert!(!other.is_valid("abcdef", now));
    }
}
