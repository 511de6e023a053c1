//! Conversion by a program of the user's: `ConversionReview` over HTTPS.
//!
//! Source: "Webhook conversion" in the Kubernetes documentation.

use std::time::Duration;

use claw_schemas::ApiError;
use http::Uri;
use serde_json::{Value, json};

use crate::{
    https::{self, Endpoint},
    validation::faults::{Faults, Path},
};

/// How long a webhook may take. Kubernetes' own figure.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer: 500 objects (one step of a list) of the largest stored size would be too much for anybody; 64 MiB are
/// 500 objects of 128 KiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The versions of `ConversionReview` that are spoken.
const REVIEW_VERSION: &str = "v1";

/// A webhook that converts the objects of one kind.
pub(crate) struct Webhook {
    kind: String,
    /// What makes it unusable, in words, where something does.
    client: Result<Endpoint, String>,
}

impl Webhook {
    pub fn new(declared: &Value, kind: &str) -> Self {
        Self { kind: kind.to_owned(), client: Endpoint::new(&declared["clientConfig"], ANSWER_BYTES_MAX) }
    }

    /// Objects in the wished version, in the same order.
    pub async fn convert(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, ApiError> {
        let failed = |why: &str| {
            ApiError::internal(format!(
                "conversion webhook for {api_version}, Kind={} failed: {why}",
                self.kind
            ))
        };
        let client = self.client.as_ref().map_err(|why| failed(why))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview",
            "apiVersion": format!("{}/{REVIEW_VERSION}", super::GROUP),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
        });
        let answer = tokio::time::timeout(TIMEOUT, client.post("", &review))
            .await
            .map_err(|_| failed(&format!("no answer within {} s", TIMEOUT.as_secs())))?
            .map_err(|why| failed(&why))?;
        converted(&objects, answer, &uid, api_version).map_err(|why| failed(&why))
    }
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
        && let Err(why) = https::certificates(bundle)
    {
        faults.invalid_text(&at.field("caBundle"), "...", why);
    }
}
