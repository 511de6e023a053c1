//! Turns what goes wrong below the API (TCP, TLS, HTTP, a proxy's page) into [`ApiError`]s that say
//! what to do.

use std::error::Error;

use claw_schemas::{ApiError, status::Reason};

/// How much of an answer that is no `Status` is shown.
const EXCERPT_BYTES: usize = 200;

/// An error with all that caused it, of which the last usually says what is wrong.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// The innermost cause: the outer ones say "client error (Connect)".
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The server could not be reached, or the connection broke.
pub(crate) fn unreachable(origin: &str, error: &(dyn Error + 'static), connecting: bool) -> ApiError {
    let cause = root_cause(error);
    let message = if cause.contains("certificate") || cause.contains("CertificateRequired") {
        format!("the TLS handshake with {origin} failed: {cause}: {}", tls_advice(&cause))
    } else if connecting {
        format!("cannot reach the server at {origin}: {cause}: is it running, and is this its address?")
    } else {
        format!("the connection to {origin} broke: {cause}: whether the request was carried out is not known")
    };
    ApiError::new(Reason::ServiceUnavailable, message)
}

/// What to do about a failed handshake, by rustls' words for it. Both kinds of clients come here: those with a kubeconfig
/// and nodes, which have none.
fn tls_advice(cause: &str) -> &'static str {
    if cause.contains("fatal alert") || cause.contains("CertificateRequired") {
        "the server does not accept the certificate of this client: renew it (client-certificate in a kubeconfig; a \
         node joins anew)"
    } else if cause.contains("not valid for") {
        "reach the server by a name that its certificate holds, or expect another (tls-server-name in a kubeconfig)"
    } else if cause.contains("xpired") || cause.contains("not valid yet") {
        "compare the clocks of both machines, or renew the certificate of the server"
    } else {
        "this client trusts another authority than that of the server (certificate-authority in a kubeconfig, --ca-cert \
         or --ca-hash of a node)"
    }
}

/// No answer in time.
pub(crate) fn timed_out(origin: &str, seconds: u64) -> ApiError {
    ApiError::new(
        Reason::Timeout,
        format!(
            "{origin} did not answer within {seconds} s: the server may be overloaded; try again, or allow more time"
        ),
    )
}

/// From an answer with a status code that is no success.
pub(crate) fn refused(code: u16, retry_after: Option<u32>, body: &[u8]) -> ApiError {
    let mut error: ApiError = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(status) if status["kind"] == "Status" => {
            serde_json::from_value(status).unwrap_or_else(|_| of_code(code, body))
        }
        _ => of_code(code, body),
    };
    if let Some(seconds) = retry_after
        && error.details.retry_after_seconds == 0
    {
        error.details.retry_after_seconds = seconds;
    }
    error
}

/// Something other than the API server answered: a proxy, a load balancer.
fn of_code(code: u16, body: &[u8]) -> ApiError {
    let excerpt = String::from_utf8_lossy(&body[..body.len().min(EXCERPT_BYTES)]);
    let message = format!("the server answered {code} without a Status: {:?}", excerpt.trim());
    ApiError::of_code(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_handshake_blames_what_failed_and_no_file_that_a_node_does_not_have() {
        let told =
            |cause: &str| unreachable("https://a", &std::io::Error::other(cause.to_owned()), true).message;
        for (cause, advice) in [
            ("invalid peer certificate: UnknownIssuer", "--ca-hash of a node"),
            (
                "invalid peer certificate: certificate not valid for name \"a\"",
                "by a name that its certificate holds",
            ),
            ("invalid peer certificate: certificate expired: verification time 7", "compare the clocks"),
            ("received fatal alert: CertificateRequired", "a node joins anew"),
        ] {
            let told = told(cause);
            assert!(told.contains(cause) && told.contains(advice), "{told}");
            assert!(!told.contains("the kubeconfig"), "{told}");
        }
    }

    #[test]
    fn a_status_comes_through_unchanged() {
        let sent = ApiError::not_found("apps", "deployments", "web");
        assert_eq!(refused(404, None, &sent.to_json()), sent);
    }

    #[test]
    fn a_proxys_page_becomes_an_error_of_its_code() {
        let error = refused(503, Some(7), b"<html>down for maintenance</html>");
        assert_eq!((error.code, error.reason), (503, Reason::ServiceUnavailable));
        assert_eq!(error.details.retry_after_seconds, 7);
        assert!(error.message.contains("down for maintenance"), "{error}");
        let error = refused(418, None, b"");
        assert_eq!((error.code, error.reason), (418, Reason::InternalError));
    }

    #[test]
    fn the_wait_that_the_server_names_wins_over_the_header() {
        let sent = ApiError::too_many_requests("slow down", 3);
        assert_eq!(refused(429, Some(9), &sent.to_json()).details.retry_after_seconds, 3);
    }
}
