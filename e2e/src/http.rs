//! Plain HTTP to the API server, for stories that must send what no well-behaved client would.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;

use crate::Cluster;

/// What the administrator's kubeconfig holds, as PEM.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The cluster's certificate authority.
    pub ca: Vec<u8>,
    /// The administrator's certificate.
    pub certificate: Vec<u8>,
    /// The administrator's key.
    pub key: Vec<u8>,
}

impl Credentials {
    /// Of a running cluster.
    ///
    /// # Panics
    /// When its kubeconfig is not as kubectl expects it.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        Self::read(&cluster.kubeconfig())
    }

    /// Of the server that wrote this kubeconfig.
    ///
    /// # Panics
    /// When it is not as kubectl expects it.
    #[must_use]
    pub fn read(kubeconfig: &Path) -> Self {
        let text = fs::read_to_string(kubeconfig).expect("the kubeconfig is written before `ready`");
        let config: Value = serde_yaml::from_str(&text).expect("the kubeconfig is YAML");
        let data = |value: &Value| {
            let text = value.as_str().unwrap_or_else(|| panic!("the kubeconfig embeds its data: {config}"));
            STANDARD.decode(text).expect("embedded data is base64")
        };
        let user = &config["users"][0]["user"];
        Self {
            ca: data(&config["clusters"][0]["cluster"]["certificate-authority-data"]),
            certificate: data(&user["client-certificate-data"]),
            key: data(&user["client-key-data"]),
        }
    }
}

/// An HTTP client of one cluster.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
    headers: HeaderMap,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON, `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body of an answer that must have this code, as JSON.
    ///
    /// # Panics
    /// When it has another, with what it says.
    #[track_caller]
    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text());
        self.json()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Http {
    /// As administrator.
    #[must_use]
    pub fn admin(cluster: &Cluster) -> Self {
        Self::to(cluster.url(), &Credentials::of(cluster))
    }

    /// As administrator of a server elsewhere, say in this process.
    #[must_use]
    pub fn to(url: &str, credentials: &Credentials) -> Self {
        Self::new(url, tls(&credentials.ca, Some(credentials)), HeaderMap::new())
    }

    /// As nobody.
    #[must_use]
    pub fn anonymous(cluster: &Cluster) -> Self {
        Self::stranger(cluster.url(), &Credentials::of(cluster).ca)
    }

    /// As nobody, to the server whose authority this is.
    #[must_use]
    pub fn stranger(url: &str, ca: &[u8]) -> Self {
        Self::new(url, tls(ca, None), HeaderMap::new())
    }

    /// With a bearer token.
    ///
    /// # Panics
    /// When the token cannot be sent in a header.
    #[must_use]
    pub fn bearer(cluster: &Cluster, token: &str) -> Self {
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {token}").parse().expect("a token fits into a header");
        headers.insert(http::header::AUTHORIZATION, value);
        Self::new(cluster.url(), tls(&Credentials::of(cluster).ca, None), headers)
    }

    fn new(url: &str, config: ClientConfig, headers: HeaderMap) -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, url: url.to_owned(), headers }
    }

    /// Sends one request and hands the answer over unread.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Response<Incoming>> {
        let uri: Uri = format!("{}{path}", self.url).parse()?;
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Full::new(body.into()))?;
        request.headers_mut().extend(self.headers.clone());
        Ok(self.client.request(request).await?)
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let (parts, body) = self.send(method, path, headers, body).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Reads an object or a list that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.ask(Method::GET, path, &[], Bytes::new()).await?;
        if answer.code != 200 {
            bail!("GET {path}: {} {}", answer.code, answer.text());
        }
        Ok(answer.json())
    }

    /// Posts an object that must be accepted.
    ///
    /// # Errors
    /// When it is not.
    pub async fn post(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        let answer = self.ask(Method::POST, path, &[], object.to_string()).await?;
        if answer.code != 201 {
            bail!("POST {path}: {} {}", answer.code, answer.text());
        }
        Ok(answer.json())
    }

    /// Opens a watch; `path` carries its parameters.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn watch(&self, path: &str) -> anyhow::Result<Events> {
        self.watch_as(path, &[]).await
    }

    /// The same with headers.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn watch_as(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Events> {
        let response = self.send(Method::GET, path, headers, Bytes::new()).await?;
        if response.status() != 200 {
            bail!("GET {path}: {}", response.status());
        }
        Ok(Events { body: response.into_body(), rest: Vec::new() })
    }
}

/// The events of a watch.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    rest: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the server ended the watch in order.
    ///
    /// # Errors
    /// When the connection broke, or the event is no JSON.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).context("an event is JSON").map(Some);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Some(data) = frame?.data_ref() {
                        self.rest.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

/// TLS that trusts one authority, and shows a certificate when there is one.
///
/// # Panics
/// When the PEM is none.
#[must_use]
pub fn tls(ca: &[u8], client: Option<&Credentials>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.expect("the authority is PEM")).expect("the authority is a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let Some(client) = client else { return builder.with_no_client_auth() };
    let chain = CertificateDer::pem_slice_iter(&client.certificate).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(&client.key).expect("the key is PEM");
    builder
        .with_client_auth_cert(chain.expect("the certificate is PEM"), key)
        .expect("key and certificate agree")
}
