//! The store's refusals, in the words of the API.

use claw_schemas::{
    ApiError,
    status::{Cause, Reason},
};

use crate::store::{Revision, StoreError};

/// What a caller is told that cannot do anything better about a refusal.
pub(super) fn from_store(error: StoreError) -> ApiError {
    match error {
        StoreError::Conflict { key, .. } => {
            ApiError::new(Reason::Conflict, format!("{} was written meanwhile; try again", key.as_str()))
        }
        StoreError::Compacted { asked, oldest } => expired(asked, oldest),
        StoreError::Future { asked, current } => ahead(asked, current),
        StoreError::Closed => ApiError::new(Reason::ServiceUnavailable, "the server is shutting down"),
        StoreError::Unusable(_) | StoreError::Disk(_) => {
            tracing::error!(%error, "the store refused");
            ApiError::internal(error.to_string())
        }
    }
}

/// 410 for history that is gone.
pub(super) fn expired(asked: Revision, oldest: Revision) -> ApiError {
    ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
}

/// 504 for a revision that is not yet, as kube-apiserver says it after waiting in vain.
pub(super) fn ahead(asked: Revision, current: Revision) -> ApiError {
    let mut error =
        ApiError::new(Reason::Timeout, format!("Too large resource version: {asked}, current: {current}"));
    error.details.retry_after_seconds = 1;
    error.details.causes = vec![Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    }];
    error
}

/// 422 for an option of a request.
pub(super) fn bad_option(options: &str, field: &str, why: &str) -> ApiError {
    let cause = Cause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!("Forbidden: {why}"),
        field: field.to_owned(),
    };
    ApiError::invalid("meta.k8s.io", options, "", vec![cause])
}

/// A revision as clients send it.
pub(super) fn parse_revision(text: &str) -> Result<Revision, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "invalid resource version \"{text}\": use the decimal number of an earlier answer"
        ))
    })
}
