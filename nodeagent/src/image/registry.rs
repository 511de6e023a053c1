//! Requests to registries, over HTTPS, and over plain HTTP where a host was named for it, whoever redirects there.
//!
//! Answers are read to a longest length, and who stops sending is given up. Credentials stay where they belong: an
//! `Authorization` is not sent where a redirect leads. Must never know: what is asked for.

use std::{
    collections::BTreeSet,
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, LOCATION, USER_AGENT},
    uri::Authority,
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;

use crate::Error;

/// A registry redirects to its storage, and that perhaps to another region.
const REDIRECTS_MAX: usize = 5;

/// Who sends less than this in the time that a registry may be silent is as good as silent.
const ALIVE_BYTES: usize = 16 << 10;

/// Of answers that say what went wrong.
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;

/// Longest wait for a connection: around the world with two lost packets (1 s + 2 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to one registry that are kept for the next layer, and for how long.
const IDLE_CONNECTIONS_MAX: usize = 8;
const IDLE_LIMIT: Duration = Duration::from_secs(30);

const AGENT: &str = concat!("clawbernetes/", env!("CARGO_PKG_VERSION"));

/// Why a registry gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Who we are is not enough.
    Unauthorized(String),
    /// It has no such thing.
    Missing(String),
    /// Trouble that may pass.
    Trouble(String),
    /// It will not be otherwise.
    Refused(String),
}

impl Failure {
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Unauthorized(why) | Self::Missing(why) | Self::Trouble(why) | Self::Refused(why) => why,
        }
    }
}

/// Connections to registries.
pub(super) struct Http {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Hosts, with their port if it is not the usual one, that plain HTTP may be spoken to.
    insecure: BTreeSet<String>,
    /// How long one may be silent.
    silence_max: Duration,
}

impl Http {
    /// Trusts the system's authorities, and those of `ca_pem`.
    pub(super) fn new(
        insecure: BTreeSet<String>,
        ca_pem: &[u8],
        silence_max: Duration,
    ) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls(ca_pem)?).https_or_http();
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector.enable_http1().wrap_connector(tcp));
        Ok(Self { pool, insecure, silence_max })
    }

    /// What comes before a host's name.
    pub(super) fn scheme(&self, host: &str) -> &'static str {
        if self.insecure.contains(host) { "http" } else { "https" }
    }

    /// Asks, and follows where it is sent. Headers with an `Authorization` lose it at another origin.
    pub(super) async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Response<Incoming>, Failure> {
        let first = parse(url)?;
        let mut url = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = headers.clone();
            if origin(&url) != origin(&first) {
                headers.remove(AUTHORIZATION);
            }
            let response = self.send(Method::GET, &url, &headers, Bytes::new()).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let location =
                location.ok_or_else(|| Failure::Refused(format!("{} sends us on to nowhere", host(&url))))?;
            url = resolve(&url, location)?;
        }
        Err(Failure::Refused(format!("{} sends us around in circles", host(&first))))
    }

    /// One request, answered within the time that a registry may be silent.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let host = host(url);
        if url.scheme_str() != Some("https") && !self.insecure.contains(&host) {
            let why = format!(
                "{host} would be spoken to without encryption; `--insecure-registry {host}` allows it"
            );
            return Err(Failure::Refused(why));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url.clone();
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(USER_AGENT, http::HeaderValue::from_static(AGENT));
        let answer = self.within(&host, self.pool.request(request)).await?;
        answer.map_err(|error| {
            if speaks_plain(&error) {
                let why =
                    format!("{host} answers without encryption; `--insecure-registry {host}` allows it");
                return Failure::Refused(why);
            }
            Failure::Trouble(format!("{host}: {}", claw_client::with_causes(&error)))
        })
    }

    /// The whole body of an answer, if it is not too long.
    pub(super) async fn body(
        &self,
        what: &str,
        response: Response<Incoming>,
        bytes_max: u64,
    ) -> Result<Bytes, Failure> {
        let mut chunks = Chunks::of(self, what, response.into_body());
        let mut text = Vec::new();
        while let Some(chunk) = chunks.next().await? {
            if (text.len() + chunk.len()) as u64 > bytes_max {
                return Err(Failure::Refused(format!("{what}: it is longer than {bytes_max} bytes")));
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text.into())
    }

    /// What an answer that is no success means.
    pub(super) async fn failure(&self, what: &str, response: Response<Incoming>) -> Failure {
        #[derive(Deserialize)]
        struct Complaints {
            errors: Vec<Complaint>,
        }
        #[derive(Deserialize)]
        struct Complaint {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = response.status();
        let said = self.body(what, response, COMPLAINT_BYTES_MAX).await.unwrap_or_default();
        let said = serde_json::from_slice::<Complaints>(&said).ok();
        let said = said.and_then(|said| said.errors.into_iter().next());
        let said = said.map_or_else(String::new, |said| format!(" ({}: {})", said.code, said.message));
        let why = format!("{what}: {status}{said}");
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Unauthorized(why),
            StatusCode::NOT_FOUND => Failure::Missing(why),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Failure::Trouble(why),
            _ if status.is_server_error() => Failure::Trouble(why),
            _ => Failure::Refused(why),
        }
    }

    async fn within<T>(&self, what: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::time::timeout(self.silence_max, work).await.map_err(|_| silent(what, self.silence_max))
    }
}

/// Whether what came in place of TLS was something else, such as plain HTTP.
fn speaks_plain(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| match error.downcast_ref::<io::Error>() {
        // It passes by what it holds when it names its source, and may hold another of its kind.
        Some(error) => error.get_ref().map(|held| held as &(dyn std::error::Error + 'static)),
        None => error.source(),
    });
    causes.any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType))
        )
    })
}

fn silent(what: &str, silence_max: Duration) -> Failure {
    Failure::Trouble(format!("{what}: no progress in {} s", silence_max.as_secs_f32()))
}

/// A body as it comes in.
pub(super) struct Chunks<'a> {
    what: &'a str,
    body: Incoming,
    silence_max: Duration,
    /// Spent waiting, and come meanwhile. Time that the reader takes does not count.
    waited: Duration,
    come_bytes: usize,
}

impl<'a> Chunks<'a> {
    pub(super) fn of(http: &Http, what: &'a str, body: Incoming) -> Self {
        Self { what, body, silence_max: http.silence_max, waited: Duration::ZERO, come_bytes: 0 }
    }

    /// The next part; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let since = Instant::now();
            let left = self.silence_max.saturating_sub(self.waited);
            let frame = tokio::time::timeout(left, self.body.frame()).await;
            self.waited += since.elapsed();
            let frame = match frame {
                Err(_) => return Err(silent(self.what, self.silence_max)),
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.map_err(|error| {
                    Failure::Trouble(format!("{}: {}", self.what, claw_client::with_causes(&error)))
                })?,
            };
            let Ok(data) = frame.into_data() else { continue };
            self.come_bytes += data.len();
            if self.come_bytes >= ALIVE_BYTES {
                (self.waited, self.come_bytes) = (Duration::ZERO, 0);
            }
            return Ok(Some(data));
        }
    }
}

/// Reads an absolute URL.
pub(super) fn parse(url: &str) -> Result<Uri, Failure> {
    let wrong = || Failure::Refused(format!("\"{url}\" is no URL"));
    let parsed: Uri = url.parse().map_err(|_| wrong())?;
    match (parsed.scheme_str(), parsed.authority()) {
        (Some("http" | "https"), Some(_)) => Ok(parsed),
        _ => Err(wrong()),
    }
}

/// Where a `Location` leads from a place.
fn resolve(from: &Uri, location: &str) -> Result<Uri, Failure> {
    let (scheme, authority) =
        (from.scheme_str().unwrap_or("https"), from.authority().map_or("", Authority::as_str));
    let begins_with_scheme =
        location.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?']));
    let absolute = if begins_with_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    parse(&absolute)
}

fn origin(url: &Uri) -> (Option<&str>, Option<&Authority>) {
    (url.scheme_str(), url.authority())
}

/// Host, and the port if it is written.
pub(super) fn host(url: &Uri) -> String {
    let host = url.host().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn tls(ca_pem: &[u8]) -> Result<ClientConfig, Error> {
    let unusable =
        |error: &dyn std::fmt::Display| Error::Certificate(format!("authorities for registries: {error}"));
    let mut roots = claw_client::system_roots().unwrap_or_else(|error| {
        tracing::debug!(%error, "registries are known by configured authorities alone");
        rustls::RootCertStore::empty()
    });
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| unusable(&error))?.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn a_location_is_read_from_where_it_was_found() {
        let from = parse("https://reg.example/v2/app/blobs/x").unwrap();
        for (location, expected) in [
            ("https://cdn.example/y?z=1", "https://cdn.example/y?z=1"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("/y", "https://reg.example/y"),
            ("y", "https://reg.example/v2/app/blobs/y"),
            ("/y?from=https://z", "https://reg.example/y?from=https://z"),
        ] {
            assert_eq!(resolve(&from, location).unwrap().to_string(), expected);
        }
        assert!(resolve(&from, "file:///etc/passwd").is_err());
    }

    #[test]
    fn a_host_without_its_port_is_another() {
        let http = Http::new(["a:5000".to_owned()].into(), &[], Duration::from_secs(1)).unwrap();
        assert_eq!(
            (http.scheme("a:5000"), http.scheme("a"), http.scheme("127.0.0.1")),
            ("http", "https", "https")
        );
    }

    #[tokio::test]
    async fn plain_http_is_spoken_only_where_it_was_named() {
        let http = Http::new(BTreeSet::new(), &[], Duration::from_secs(1)).unwrap();
        let failure = http.get("http://127.0.0.1:1/v2/", &HeaderMap::new()).await.unwrap_err();
        assert!(
            matches!(&failure, Failure::Refused(why) if why.contains("--insecure-registry 127.0.0.1:1")),
            "{failure:?}"
        );
    }

    #[tokio::test]
    async fn who_answers_https_in_plain_http_is_told_apart_from_who_is_in_trouble() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
            // Until the other side has understood: a closed connection would hide the answer.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        });
        let http = Http::new(BTreeSet::new(), &[], Duration::from_secs(30)).unwrap();
        let failure = http.get(&format!("https://{host}/v2/"), &HeaderMap::new()).await.unwrap_err();
        let allowed = format!("--insecure-registry {host}");
        assert!(matches!(&failure, Failure::Refused(why) if why.contains(&allowed)), "{failure:?}");
    }
}
