//! Calls of programs that users run: a document is posted over HTTPS, a document comes back.
//!
//! Webhooks are reached by URL; one that is named by a Service waits for Services to exist, and says so. A client keeps
//! its connections for the next call.
//!
//! Must never know: what the documents say.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;

/// Connections that are kept to one webhook while nobody uses them, and for how long: a burst of writes finds them, an idle
/// cluster holds none.
const IDLE_CONNECTIONS_MAX: usize = 16;
const IDLE_LIMIT: Duration = Duration::from_secs(60);

type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A program that answers documents with documents.
pub(crate) struct Endpoint {
    uri: Uri,
    pool: Pool,
    answer_bytes_max: usize,
}

impl Endpoint {
    /// What a `clientConfig` says. Answers are cut off at so many bytes.
    ///
    /// # Errors
    /// What makes it unusable, in words.
    pub fn new(config: &Value, answer_bytes_max: usize) -> Result<Self, String> {
        let Some(url) = config["url"].as_str() else {
            return Err(service_unreachable(&config["service"]));
        };
        let uri: Uri = url.parse().map_err(|error| format!("its url is none: {error}"))?;
        let tls = tls(config["caBundle"].as_str())?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(IDLE_CONNECTIONS_MAX).pool_idle_timeout(IDLE_LIMIT);
        let pool = builder.pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { uri, pool, answer_bytes_max })
    }

    /// Posts a document; `query` is added to the address. Gives the answer's document.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn post(&self, query: &str, document: &Value) -> Result<Value, String> {
        let uri = self.address(query);
        let request = Request::builder()
            .method(Method::POST)
            .uri(&uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(document.to_string())))
            .map_err(|error| error.to_string())?;
        let response = self
            .pool
            .request(request)
            .await
            .map_err(|error| format!("Post \"{uri}\": {}", claw_client::with_causes(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), self.answer_bytes_max).collect().await;
        let body = body.map_err(|error| format!("the answer breaks off: {error}"))?.to_bytes();
        if !status.is_success() {
            return Err(format!("it answered {status}"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("its answer is no JSON: {error}"))
    }

    /// The address with a query.
    pub fn address(&self, query: &str) -> String {
        if query.is_empty() { self.uri.to_string() } else { format!("{}?{query}", self.uri) }
    }
}

/// Trusts the bundle of the definition alone; without one, nobody.
fn tls(bundle: Option<&str>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(bundle.unwrap_or_default())? {
        roots.add(certificate).map_err(|error| format!("caBundle: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The certificates of a `caBundle`.
///
/// # Errors
/// Why it holds none, in words.
pub(crate) fn certificates(bundle: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = STANDARD.decode(bundle).map_err(|error| format!("caBundle is no base64: {error}"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates.map_err(|error| format!("caBundle holds no PEM certificates: {error}"))
}

fn service_unreachable(service: &Value) -> String {
    let (namespace, name) =
        (service["namespace"].as_str().unwrap_or_default(), service["name"].as_str().unwrap_or_default());
    format!(
        "the service {namespace}/{name} cannot be reached, because this cluster has no Services yet; give clientConfig.url instead"
    )
}
