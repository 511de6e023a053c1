//! The one error of the API: what a Kubernetes `Status` of status `Failure` says.
//!
//! Source of reasons and codes: the Kubernetes API conventions and `k8s.io/apimachinery` `meta/v1`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a request failed, in the words clients match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// 400: the request itself is malformed.
    BadRequest,
    /// 401: nobody we know.
    Unauthorized,
    /// 403: known, but not allowed.
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 406: no representation the client accepts.
    NotAcceptable,
    /// 409 on create.
    AlreadyExists,
    /// 409: the object changed meanwhile, or a precondition does not hold.
    Conflict,
    /// 410: the history asked for is compacted.
    Expired,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422: the object does not validate; causes name the fields.
    Invalid,
    /// 429, with a time to retry.
    TooManyRequests,
    /// 500
    InternalError,
    /// 503
    ServiceUnavailable,
    /// 504
    Timeout,
}

impl Reason {
    /// The HTTP status code that goes with the reason.
    pub const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// One field that is wrong, or one fact behind a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldManagerConflict`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wrong, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field: `spec.template.spec.containers[0].image`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Object name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group, empty for core.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plural resource (historic name of the field).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Object uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Details per field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds to wait before trying again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A failed request. Serialises as a `v1.Status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable cause.
    pub reason: Reason,
    /// One sentence that names the object, the field and the fix.
    pub message: String,
    /// What it is about.
    pub details: Box<Details>,
    /// For an expired page of a list: the token with which the rest can be had, not consistent with the pages before.
    /// Travels as `metadata.continue`; empty otherwise.
    pub continue_token: Box<str>,
    /// What those who were asked about the request have to say beside: texts for `Warning` headers. Not part of the
    /// `Status`.
    pub warnings: Vec<String>,
}

/// The wire form: `Status` with its constant fields.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default = "internal")]
    reason: String,
    #[serde(default)]
    details: Details,
    #[serde(default)]
    code: u16,
}

fn internal() -> String {
    "InternalError".to_owned()
}

impl From<Wire> for ApiError {
    fn from(wire: Wire) -> Self {
        let reason = serde_json::from_value(serde_json::Value::String(wire.reason))
            .unwrap_or_else(|_| reason_of_code(wire.code));
        let code = if wire.code == 0 { reason.code() } else { wire.code };
        let continue_token =
            wire.metadata.get("continue").and_then(|token| token.as_str()).unwrap_or_default();
        Self {
            code,
            reason,
            message: wire.message,
            details: Box::new(wire.details),
            continue_token: continue_token.into(),
            warnings: Vec::new(),
        }
    }
}

impl From<ApiError> for Wire {
    fn from(error: ApiError) -> Self {
        let mut metadata = serde_json::Map::new();
        if !error.continue_token.is_empty() {
            metadata.insert("continue".to_owned(), error.continue_token.as_ref().into());
        }
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            metadata,
            status: "Failure".to_owned(),
            message: error.message,
            reason: format!("{:?}", error.reason),
            details: *error.details,
            code: error.code,
        }
    }
}

fn reason_of_code(code: u16) -> Reason {
    match code {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        406 => Reason::NotAcceptable,
        409 => Reason::Conflict,
        410 => Reason::Expired,
        413 => Reason::RequestEntityTooLarge,
        415 => Reason::UnsupportedMediaType,
        422 => Reason::Invalid,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        _ => Reason::InternalError,
    }
}

impl ApiError {
    /// An error with the reason's own code and no details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code: reason.code(),
            reason,
            message: message.into(),
            details: Box::default(),
            continue_token: Box::default(),
            warnings: Vec::new(),
        }
    }

    /// An error of which only the HTTP status code is known.
    pub fn of_code(code: u16, message: impl Into<String>) -> Self {
        Self { code, ..Self::new(reason_of_code(code), message) }
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 500
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::InternalError, message)
    }

    /// 404: `pods "x" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(Reason::NotFound, format!("{} \"{name}\" not found", qualified(group, resource)))
            .about(group, resource, name)
    }

    /// 409: `pods "x" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(Reason::AlreadyExists, format!("{} \"{name}\" already exists", qualified(group, resource)))
            .about(group, resource, name)
    }

    /// 409 with the sentence that `kubectl` and client-go print on a lost race.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        Self::new(
            Reason::Conflict,
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource)),
        )
        .about(group, resource, name)
    }

    /// 410
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 422: `Deployment.apps "x" is invalid: spec.replicas: Invalid value: ...`.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let faults: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let listed = match faults.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut error =
            Self::new(Reason::Invalid, format!("{} \"{name}\" is invalid: {listed}", qualified(group, kind)))
                .about(group, kind, name);
        error.details.causes = causes;
        error
    }

    /// 429
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut error = Self::new(Reason::TooManyRequests, message);
        error.details.retry_after_seconds = retry_after_seconds;
        error
    }

    /// Names the object the error is about.
    #[must_use]
    pub fn about(mut self, group: &str, resource: &str, name: &str) -> Self {
        group.clone_into(&mut self.details.group);
        resource.clone_into(&mut self.details.kind);
        name.clone_into(&mut self.details.name);
        self
    }

    /// Whether the same request may succeed when sent again without change.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.reason,
            Reason::TooManyRequests | Reason::InternalError | Reason::ServiceUnavailable | Reason::Timeout
        )
    }

    /// The JSON of the `Status`.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a Status holds only strings and numbers")
    }
}

/// `deployments.apps`, or `pods` in the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Cause {
    /// A value that is not allowed: `Invalid value: "x": why`.
    pub fn invalid(field: impl Into<String>, value: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self {
            reason: "FieldValueInvalid".to_owned(),
            message: format!("Invalid value: {value}: {why}"),
            field: field.into(),
        }
    }

    /// A value that is missing: `Required value: why`.
    pub fn required(field: impl Into<String>, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        let message =
            if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { reason: "FieldValueRequired".to_owned(), message, field: field.into() }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = ApiError::invalid(
            "apps",
            "Deployment",
            "web",
            vec![Cause::invalid("spec.replicas", -1, "must be greater than or equal to 0")],
        );
        let json: serde_json::Value = serde_json::from_slice(&error.to_json()).unwrap();
        assert_eq!(json["kind"], "Status");
        assert_eq!(json["reason"], "Invalid");
        assert_eq!(json["code"], 422);
        assert_eq!(
            json["message"],
            "Deployment.apps \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(serde_json::from_value::<ApiError>(json).unwrap(), error);
    }

    #[test]
    fn an_unknown_reason_falls_back_to_its_code() {
        let error: ApiError =
            serde_json::from_str(r#"{"kind":"Status","reason":"Teapot","code":409,"message":"m"}"#).unwrap();
        assert_eq!(error.reason, Reason::Conflict);
    }
}
