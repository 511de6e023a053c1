//! API errors as gRPC statuses, and back.

use claw_schemas::{ApiError, status::Reason};
use tonic::{
    Code, Status,
    metadata::{BinaryMetadataValue, MetadataMap},
};

/// Trailer that carries the Kubernetes `Status` as JSON, beside the gRPC code.
pub const STATUS_TRAILER: &str = "clawbernetes-status-bin";

/// The gRPC form of an error.
pub fn status(error: &ApiError) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(STATUS_TRAILER, BinaryMetadataValue::from_bytes(&error.to_json()));
    Status::with_metadata(code(error.reason), error.message.clone(), metadata)
}

const fn code(reason: Reason) -> Code {
    match reason {
        Reason::NotFound => Code::NotFound,
        Reason::AlreadyExists => Code::AlreadyExists,
        Reason::Conflict => Code::Aborted,
        Reason::BadRequest
        | Reason::Invalid
        | Reason::RequestEntityTooLarge
        | Reason::UnsupportedMediaType
        | Reason::NotAcceptable => Code::InvalidArgument,
        Reason::Unauthorized => Code::Unauthenticated,
        Reason::Forbidden => Code::PermissionDenied,
        Reason::MethodNotAllowed => Code::Unimplemented,
        Reason::Expired => Code::OutOfRange,
        Reason::TooManyRequests => Code::ResourceExhausted,
        Reason::ServiceUnavailable => Code::Unavailable,
        Reason::Timeout => Code::DeadlineExceeded,
        Reason::InternalError => Code::Internal,
    }
}

/// What a peer's gRPC error means here: its trailer if it has one, else what the code says.
pub fn error(status: &Status) -> ApiError {
    let stated = status
        .metadata()
        .get_bin(STATUS_TRAILER)
        .and_then(|value| value.to_bytes().ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    stated.unwrap_or_else(|| {
        let reason = match status.code() {
            Code::NotFound => Reason::NotFound,
            Code::InvalidArgument => Reason::BadRequest,
            Code::PermissionDenied => Reason::Forbidden,
            Code::Unauthenticated => Reason::Unauthorized,
            Code::DeadlineExceeded => Reason::Timeout,
            Code::ResourceExhausted | Code::OutOfRange => Reason::RequestEntityTooLarge,
            _ => Reason::ServiceUnavailable,
        };
        ApiError::new(reason, status.message())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_travels_whole_beside_its_code() {
        let error_sent = ApiError::conflict("apps", "deployments", "web", "it changed");
        let sent = status(&error_sent);
        assert_eq!(sent.code(), Code::Aborted);
        assert_eq!(error(&sent), error_sent);
    }

    #[test]
    fn a_bare_status_keeps_its_meaning() {
        assert_eq!(error(&Status::not_found("gone")).reason, Reason::NotFound);
        assert_eq!(error(&Status::unavailable("later")).reason, Reason::ServiceUnavailable);
    }
}
