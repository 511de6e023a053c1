//! One repository on one registry, as somebody: manifests, and contents that go on where a connection broke. Source: the
//! distribution specification of the OCI, and docker's token authentication.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, RANGE, WWW_AUTHENTICATE},
};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    Digest,
    challenge::{self, Challenge},
    keyring::Credential,
    manifest::{ACCEPTED, DOCUMENT_BYTES_MAX, Descriptor},
    registry::{Chunks, Failure, Http, parse},
};

/// How often in a row a content may break off without getting on by [`PROGRESS_BYTES`].
const TRIES_MAX: u32 = 5;
const PROGRESS_BYTES: u64 = 1 << 20;

/// Between tries; doubles.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Tokens are a few KiB.
const TOKEN_BYTES_MAX: u64 = 1 << 20;

/// Who asks for tokens; authorities want a name.
const CLIENT_ID: &str = "clawbernetes";

/// What a registry says of itself about what it sent.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// A repository.
pub(super) struct Session<'a> {
    http: &'a Http,
    /// `https://host:port`, perhaps with a path.
    base: String,
    repository: String,
    credential: Option<Credential>,
    /// What was found to be good here.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Session<'a> {
    /// At `base`, which is a registry or a mirror of one.
    pub(super) fn new(http: &'a Http, base: &str, repository: &str, credential: Option<Credential>) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        Self { http, base, repository: repository.to_owned(), credential, authorization: Mutex::default() }
    }

    fn url(&self, kind: &str, reference: &str) -> String {
        format!("{}/v2/{}/{kind}/{reference}", self.base, self.repository)
    }

    /// The document that a tag or digest stands for, and its digest.
    pub(super) async fn manifest(&self, reference: &str) -> Result<(Bytes, Digest), Failure> {
        let what = self.url("manifests", reference);
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]);
        let mut delay = RETRY_DELAY;
        for _ in 1..TRIES_MAX {
            match self.document(&what, reference, &headers).await {
                Err(Failure::Trouble(_)) => tokio::time::sleep(delay).await,
                done => return done,
            }
            delay *= 2;
        }
        self.document(&what, reference, &headers).await
    }

    async fn document(
        &self,
        what: &str,
        reference: &str,
        headers: &HeaderMap,
    ) -> Result<(Bytes, Digest), Failure> {
        let response = self.get(what, headers).await?;
        let promised = response.headers().get(CONTENT_DIGEST).and_then(|said| said.to_str().ok());
        let promised = promised.map(str::to_owned);
        let text = self.http.body(what, response, DOCUMENT_BYTES_MAX).await?;
        let digest = Digest::of(&text);
        let asked = Digest::parse(reference).ok().map(|asked| asked.to_string());
        for promise in asked.iter().chain(promised.iter().filter(|said| said.starts_with("sha256:"))) {
            if *promise != digest.to_string() {
                return Err(lie(what, promise, &digest));
            }
        }
        Ok((text, digest))
    }

    /// A small content, whole and checked.
    pub(super) async fn config(&self, descriptor: &Descriptor) -> Result<Bytes, Failure> {
        if descriptor.size > DOCUMENT_BYTES_MAX {
            let why = format!("its configuration is longer than {DOCUMENT_BYTES_MAX} bytes");
            return Err(Failure::Refused(why));
        }
        let (sender, mut receiver) = mpsc::channel::<Bytes>(4);
        let gather = async {
            let mut text = Vec::new();
            while let Some(part) = receiver.recv().await {
                text.extend_from_slice(&part);
            }
            text
        };
        let come = AtomicU64::new(0);
        let (sent, text) = tokio::join!(self.blob(descriptor, sender, &come), gather);
        sent?;
        let digest = Digest::of(&text);
        if digest != descriptor.digest {
            return Err(lie(&self.url("blobs", &descriptor.digest.to_string()), &descriptor.digest, &digest));
        }
        Ok(text.into())
    }

    /// Sends a content on as it comes, from where it broke off if it does. What comes is not checked, but is never
    /// more, and at the end not less, than its descriptor says. Ends early if nobody wants it any more.
    pub(super) async fn blob(
        &self,
        descriptor: &Descriptor,
        out: mpsc::Sender<Bytes>,
        come: &AtomicU64,
    ) -> Result<(), Failure> {
        let what = self.url("blobs", &descriptor.digest.to_string());
        let (mut at, mut tries, mut delay) = (0, 0, RETRY_DELAY);
        loop {
            let before = at;
            match self.blob_from(&what, descriptor.size, &mut at, &out, come).await {
                Err(Failure::Trouble(why)) => {
                    if at - before >= PROGRESS_BYTES {
                        (tries, delay) = (0, RETRY_DELAY);
                    }
                    tries += 1;
                    if tries >= TRIES_MAX {
                        let size = descriptor.size;
                        return Err(Failure::Trouble(format!("{why} ({at} of {size} bytes came)")));
                    }
                    tracing::debug!(why, at, "a download goes on");
                    tokio::time::sleep(delay).await;
                    delay *= 2;
                }
                done => return done,
            }
        }
    }

    async fn blob_from(
        &self,
        what: &str,
        size: u64,
        at: &mut u64,
        out: &mpsc::Sender<Bytes>,
        come: &AtomicU64,
    ) -> Result<(), Failure> {
        let mut headers = HeaderMap::new();
        if *at > 0 {
            let range = HeaderValue::try_from(format!("bytes={at}-"));
            headers.insert(RANGE, range.map_err(|error| Failure::Refused(error.to_string()))?);
        }
        let response = self.get(what, &headers).await?;
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers()) == Some(*at) => 0,
            StatusCode::PARTIAL_CONTENT => {
                return Err(Failure::Refused(format!("{what}: another part came than was asked for")));
            }
            // From the beginning again.
            _ => *at,
        };
        let mut chunks = Chunks::of(self.http, what, response.into_body());
        while let Some(mut chunk) = chunks.next().await? {
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= known as u64;
            let chunk = chunk.split_off(known);
            *at += chunk.len() as u64;
            if *at > size {
                return Err(Failure::Refused(format!(
                    "{what}: more came than the {size} bytes of its manifest"
                )));
            }
            come.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if !chunk.is_empty() && out.send(chunk).await.is_err() {
                return Ok(());
            }
        }
        match *at < size {
            true => Err(Failure::Trouble(format!("{what}: it ends too early"))),
            false => Ok(()),
        }
    }

    /// Asks as who we are; becomes who we can be if that is not enough.
    async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Response<Incoming>, Failure> {
        let mut is_second = false;
        loop {
            let mut headers = headers.clone();
            if let Some(authorization) = self.authorization.lock().clone() {
                headers.insert(AUTHORIZATION, authorization);
            }
            let response = self.http.get(url, &headers).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            if response.status() != StatusCode::UNAUTHORIZED || is_second {
                return Err(self.http.failure(url, response).await);
            }
            let said = response.headers().get_all(WWW_AUTHENTICATE).iter();
            let challenges: Vec<Challenge> =
                said.filter_map(|said| said.to_str().ok()).flat_map(challenge::parse).collect();
            match self.authorize(&challenges).await? {
                Some(authorization) => *self.authorization.lock() = Some(authorization),
                None => return Err(self.http.failure(url, response).await),
            }
            is_second = true;
        }
    }

    /// What to send from now on; `None` when there is nothing that could help.
    async fn authorize(&self, challenges: &[Challenge]) -> Result<Option<HeaderValue>, Failure> {
        let by = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        if let Some(challenge) = by("bearer") {
            return self.token(challenge).await.map(Some);
        }
        match (by("basic"), &self.credential) {
            (Some(_), Some(Credential::Password { user, password })) => basic(user, password).map(Some),
            _ => Ok(None),
        }
    }

    async fn token(&self, challenge: &Challenge) -> Result<HeaderValue, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let said = |name: &str| challenge.parameters.get(name).map(String::as_str);
        let realm = said("realm").ok_or_else(|| {
            Failure::Refused(format!("{}: it does not say where tokens are to be had", self.base))
        })?;
        let scope = format!("repository:{}:pull", self.repository);
        let scope = said("scope").unwrap_or(&scope);
        let mut fields = vec![("scope", scope)];
        fields.extend(said("service").map(|service| ("service", service)));
        let response = match &self.credential {
            Some(Credential::IdentityToken(token)) => {
                fields.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT_ID),
                    ("refresh_token", token),
                ]);
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                let headers = HeaderMap::from_iter([(CONTENT_TYPE, form)]);
                let body = Bytes::from(encoded(&fields));
                self.http.send(Method::POST, &parse(realm)?, &headers, body).await?
            }
            credential => {
                let mut headers = HeaderMap::new();
                if let Some(Credential::Password { user, password }) = credential {
                    headers.insert(AUTHORIZATION, basic(user, password)?);
                }
                let joint = if realm.contains('?') { '&' } else { '?' };
                self.http.get(&format!("{realm}{joint}{}", encoded(&fields)), &headers).await?
            }
        };
        let what = format!("a token from {realm}");
        if !response.status().is_success() {
            return Err(self.http.failure(&what, response).await);
        }
        let text = self.http.body(&what, response, TOKEN_BYTES_MAX).await?;
        let answer: Option<Answer> = serde_json::from_slice(&text).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        let token = token.ok_or_else(|| Failure::Refused(format!("{what}: there is none in the answer")))?;
        secret(&format!("Bearer {token}"))
    }
}

fn lie(what: &str, promised: &impl std::fmt::Display, came: &Digest) -> Failure {
    Failure::Refused(format!("{what}: it should be {promised}, and what came is {came}"))
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, Failure> {
    secret(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn secret(text: &str) -> Result<HeaderValue, Failure> {
    let unusable = |_| Failure::Refused("what it wants to be told does not fit into a header".to_owned());
    let mut value = HeaderValue::try_from(text).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(value)
}

/// `bytes 5-9/10` starts at 5.
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let said = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    said.trim().strip_prefix("bytes")?.trim().split_once('-')?.0.parse().ok()
}

/// As forms and queries are written.
fn encoded(fields: &[(&str, &str)]) -> String {
    let one = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect()
    };
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", one(name), one(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_as_forms_are() {
        let fields = [("scope", "repository:a/b:pull"), ("service", "a b&c")];
        assert_eq!(encoded(&fields), "scope=repository%3Aa%2Fb%3Apull&service=a%20b%26c");
    }

    #[test]
    fn a_part_says_where_it_starts() {
        let headers =
            |said: &'static str| HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(said))]);
        assert_eq!(starts_at(&headers("bytes 5-9/10")), Some(5));
        assert_eq!(starts_at(&headers("bytes */10")), None);
        assert_eq!(starts_at(&HeaderMap::new()), None);
    }
}
