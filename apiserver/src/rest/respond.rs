//! Responses: bodies, headers, errors, compression.

use std::io::Write as _;

use axum::body::Body;
use bytes::Bytes;
use claw_schemas::ApiError;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, StatusCode, header};

use super::accept::Format;

/// Answers smaller than this are not worth compressing: 128 KiB cross a gigabit link in a millisecond, which is what
/// compressing them takes. Kubernetes' own figure.
const GZIP_BYTES_MIN: usize = 128 * 1024;

pub(super) const JSON: &str = "application/json";

/// An answer with a body.
pub(super) fn body(code: u16, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An error, always as a `Status`.
pub(super) fn error(error: &ApiError) -> Response<Body> {
    let mut response = body(error.code, JSON, error.to_json());
    if error.details.retry_after_seconds > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, error.details.retry_after_seconds.into());
    }
    warn(&mut response, &error.warnings);
    response
}

fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// What the service answered.
pub(super) async fn answer(answer: claw_client::Response, format: Format, gzip: bool) -> Response<Body> {
    let mut response = match format {
        // Packing 10 MB takes 50 ms, which the worker threads have better uses for.
        Format::Json if gzip && answer.body.len() >= GZIP_BYTES_MIN => {
            let (code, json) = (answer.code, answer.body);
            match tokio::task::spawn_blocking(move || packed(code, json, true)).await {
                Ok(response) => response,
                Err(failed) => {
                    return error(&ApiError::internal(format!("packing the answer failed: {failed}")));
                }
            }
        }
        Format::Json => body(answer.code, JSON, answer.body),
        // Slower still, and nobody who is in a hurry asks for it.
        Format::Yaml => {
            let (code, json) = (answer.code, answer.body);
            let made = tokio::task::spawn_blocking(move || yaml(&json)).await;
            let made = made.unwrap_or_else(|failed| {
                Err(ApiError::internal(format!("writing the answer as YAML failed: {failed}")))
            });
            match made {
                Ok(text) => body(code, "application/yaml", text),
                Err(failed) => return error(&failed),
            }
        }
    };
    warn(&mut response, &answer.warnings);
    response
}

fn packed(code: u16, json: Bytes, gzip: bool) -> Response<Body> {
    if !gzip || json.len() < GZIP_BYTES_MIN {
        return body(code, JSON, json);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(json.len() / 4), Compression::fast());
    match encoder.write_all(&json).and_then(|()| encoder.finish()) {
        Ok(packed) => {
            let mut response = body(code, JSON, packed);
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            response
        }
        Err(_) => body(code, JSON, json),
    }
}

fn yaml(json: &[u8]) -> Result<String, ApiError> {
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::internal(format!("the answer does not turn into YAML: {error}"))
    };
    let value: serde_json::Value = serde_json::from_slice(json).map_err(|error| failed(&error))?;
    Ok(claw_schemas::yaml::to_string(&value))
}

/// A document with a hash: 304 when the client has it already.
pub(super) fn tagged(
    if_none_match: Option<&HeaderValue>,
    hash: &str,
    content_type: &'static str,
    document: impl FnOnce() -> Vec<u8>,
    gzip: bool,
) -> Response<Body> {
    let etag = format!("\"{hash}\"");
    let known = if_none_match.and_then(|value| value.to_str().ok()).is_some_and(|tags| tags.contains(&etag));
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = packed(200, document().into(), gzip);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, no-cache"));
    response
}
