//! Conversion by a program of the user's: `ConversionReview` over HTTPS.
//!
//! Source: "Webhook conversion" in the Kubernetes documentation. Webhooks are reached by URL; one that is named by a
//! Service waits for Services to exist, and says so.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use claw_schemas::ApiError;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use crate::validation::faults::{Faults, Path};

/// How long a webhook may take. Kubernetes' own figure.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer: 500 objects (one step of a list) of the largest stored size would be too much for anybody; 64 MiB are
/// 500 objects of 128 KiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The versions of `ConversionReview` that are spoken.
const REVIEW_VERSION: &str = "v1";

type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A webhook that converts the objects of one kind.
pub(crate) struct Webhook {
    kind: String,
    /// What makes it unusable, in words, where something does.
    client: Result<(Uri, Pool), String>,
}

impl Webhook {
    pub fn new(declared: &Value, kind: &str) -> Self {
        Self { kind: kind.to_owned(), client: connect(declared) }
    }

    /// Objects in the wished version, in the same order.
    pub async fn convert(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, ApiError> {
        let failed = |why: &str| {
            ApiError::internal(format!(
                "conversion webhook for {api_version}, Kind={} failed: {why}",
                self.kind
            ))
        };
        let (uri, client) = self.client.as_ref().map_err(|why| failed(why))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview",
            "apiVersion": format!("{}/{REVIEW_VERSION}", super::GROUP),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
        });
        let answer = tokio::time::timeout(TIMEOUT, ask(client, uri, &review))
            .await
            .map_err(|_| failed(&format!("no answer within {} s", TIMEOUT.as_secs())))?
            .map_err(|why| failed(&why))?;
        converted(&objects, answer, &uid, api_version).map_err(|why| failed(&why))
    }
}

async fn ask(client: &Pool, uri: &Uri, review: &Value) -> Result<Value, String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(|error| error.to_string())?;
    let response =
        client.request(request).await.map_err(|error| format!("Post \"{uri}\": {}", chain(&error)))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("the answer breaks off: {error}"))?.to_bytes();
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    serde_json::from_slice(&body).map_err(|error| format!("its answer is no JSON: {error}"))
}

/// An error with its sources, of which the last usually says what is wrong.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// The objects in an answer, once it is certain that they are those that were sent.
fn converted(sent: &[Value], mut answer: Value, uid: &str, api_version: &str) -> Result<Vec<Value>, String> {
    let mut response = answer["response"].take();
    if response["uid"] != uid {
        return Err(format!("expected uid {uid} in its response, got {}", response["uid"]));
    }
    if response["result"]["status"] != "Success" {
        let message = response["result"]["message"].as_str().unwrap_or("no reason given");
        return Err(message.to_owned());
    }
    let Value::Array(mut objects) = response["convertedObjects"].take() else {
        return Err("response.convertedObjects is missing".to_owned());
    };
    if objects.len() != sent.len() {
        return Err(format!("it returned {} objects, expected {}", objects.len(), sent.len()));
    }
    for (index, (object, original)) in objects.iter_mut().zip(sent).enumerate() {
        accept(object, original, api_version)
            .map_err(|why| format!("invalid object at index {index}: {why}"))?;
    }
    Ok(objects)
}

/// A conversion may change everything but what an object is and whose; of its metadata, labels and annotations.
fn accept(object: &mut Value, original: &Value, api_version: &str) -> Result<(), String> {
    if object["apiVersion"] != api_version {
        return Err(format!("apiVersion is {}, expected {api_version}", object["apiVersion"]));
    }
    if object["kind"] != original["kind"] {
        return Err(format!("kind is {}, expected {}", object["kind"], original["kind"]));
    }
    for field in ["name", "namespace", "uid"] {
        if object["metadata"][field] != original["metadata"][field] {
            return Err(format!("metadata.{field} must not change"));
        }
    }
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let changed = object["metadata"][field].take();
        match (&mut metadata, changed) {
            (Value::Object(metadata), Value::Null) => drop(metadata.remove(field)),
            (metadata, changed) => metadata[field] = changed,
        }
    }
    object["metadata"] = metadata;
    Ok(())
}

fn connect(declared: &Value) -> Result<(Uri, Pool), String> {
    let config = &declared["clientConfig"];
    let Some(url) = config["url"].as_str() else {
        return Err(service_unreachable(&config["service"]));
    };
    let uri: Uri = url.parse().map_err(|error| format!("its url is none: {error}"))?;
    let tls = tls(config["caBundle"].as_str())?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    Ok((uri, Client::builder(TokioExecutor::new()).build(connector)))
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

fn certificates(bundle: &str) -> Result<Vec<CertificateDer<'static>>, String> {
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

/// Judges the webhook of a definition.
pub(super) fn validate(webhook: &Value, path: &Path<'_>, faults: &mut Faults) {
    let versions = webhook["conversionReviewVersions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let at = path.field("conversionReviewVersions");
    if versions.is_empty() {
        faults.required(&at, "");
    } else if !versions.iter().any(|version| version == REVIEW_VERSION) {
        let value = &webhook["conversionReviewVersions"];
        faults.invalid(&at, value, format_args!("must include at least one of {REVIEW_VERSION}"));
    }
    let (config, at) = (&webhook["clientConfig"], path.field("clientConfig"));
    match (config["url"].as_str(), config["service"].is_object()) {
        (Some(_), true) | (None, false) => {
            faults.required(&at, "exactly one of url or service is required");
        }
        (Some(url), false) => {
            let uri: Option<Uri> = url.parse().ok();
            if uri.as_ref().and_then(Uri::scheme_str) != Some("https") {
                faults.invalid(&at.field("url"), &config["url"], "'https' is the only allowed URL scheme");
            } else if uri.is_some_and(|uri| {
                uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@'))
            }) {
                let why = "user information and query parameters are not permitted in the URL";
                faults.invalid(&at.field("url"), &config["url"], why);
            }
        }
        (None, true) => {
            for field in ["namespace", "name"] {
                if config["service"][field].as_str().unwrap_or_default().is_empty() {
                    faults.required(&at.field("service").field(field), "");
                }
            }
        }
    }
    if let Some(bundle) = config["caBundle"].as_str()
        && let Err(why) = certificates(bundle)
    {
        faults.invalid_text(&at.field("caBundle"), "...", why);
    }
}
