//! API errors as gRPC statuses, and back.

use claw_schemas::{ApiError, status::Reason};
use tonic::{
    Code, Status,
    metadata::{BinaryMetadataValue, MetadataMap},
};

/// Trailer that carries the Kubernetes `Status` as JSON, beside the gRPC code.
pub const STATUS_TRAILER: &str = "clawbernetes-status-bin";

/// Bytes of the trailer's JSON, and of the message beside it. Clients take 16 KiB of headers (hyper's figure) and drop
/// the whole answer for more; the first grows by a third in base64, the second threefold if all of it must be escaped.
const TRAILER_BYTES_MAX: usize = 6 << 10;
const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// The gRPC form of an error. What is too long to travel is cut; the reason always arrives.
pub fn status(error: &ApiError) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(STATUS_TRAILER, BinaryMetadataValue::from_bytes(&trailer(error)));
    Status::with_metadata(code(error.reason), cut(&error.message), metadata)
}

fn trailer(error: &ApiError) -> Vec<u8> {
    let whole = error.to_json();
    if whole.len() <= TRAILER_BYTES_MAX {
        return whole;
    }
    let mut short = ApiError { message: cut(&error.message), ..error.clone() };
    short.details.name = cut(&error.details.name);
    loop {
        let json = short.to_json();
        let causes = &mut short.details.causes;
        if json.len() <= TRAILER_BYTES_MAX || causes.is_empty() {
            return json;
        }
        causes.truncate(causes.len() / 2);
    }
}

fn cut(text: &str) -> String {
    if text.len() <= MESSAGE_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)])
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
    fn what_is_too_long_for_headers_is_cut_and_the_reason_is_not() {
        let mut long = ApiError::not_found("", "pods", &"x".repeat(1 << 20));
        long.details.causes = vec![claw_schemas::status::Cause::required("spec", "é".repeat(3000)); 100];
        let sent = status(&long);
        let bytes = sent.metadata().get_bin(STATUS_TRAILER).unwrap().as_encoded_bytes().len();
        assert!(bytes < 10_000 && sent.message().len() < 2000, "{bytes} bytes");
        assert_eq!(error(&sent).reason, Reason::NotFound);
    }

    #[test]
    fn a_bare_status_keeps_its_meaning() {
        assert_eq!(error(&Status::not_found("gone")).reason, Reason::NotFound);
        assert_eq!(error(&Status::unavailable("later")).reason, Reason::ServiceUnavailable);
    }
}
