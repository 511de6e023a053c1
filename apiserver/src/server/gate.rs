//! What every request passes first: who is asking, and which of the two APIs it is for.
//!
//! Must never know: objects, or how identities are proven.

use axum::{Router, body::Body};
use bytes::Bytes;
use claw_schemas::{ApiError, status::Reason};
use http::{HeaderValue, Request, Response, StatusCode, header};
use tower::ServiceExt as _;

use crate::{
    auth::{Authenticator, BOOTSTRAPPERS, Identity, Peer},
    grpc,
};

/// Paths that everybody may read: load balancers and `kubectl version` come without credentials.
const PUBLIC_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// gRPC's own health check, for the same reason.
const PUBLIC_GRPC: &str = "/grpc.health.v1.Health/";
/// All that a machine with a join token may do.
const JOIN: &str = "/clawbernetes.v1.NodeLink/Join";

/// The way in.
pub struct Gate {
    authenticator: Authenticator,
    rest: Router,
    grpc: Router,
}

impl Gate {
    /// A gate in front of the two APIs.
    pub fn new(authenticator: Authenticator, rest: Router, grpc: Router) -> Self {
        Self { authenticator, rest: rest.with_state(()), grpc: grpc.with_state(()) }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, peer: &Peer, mut request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let is_grpc = is_grpc(&request);
        let admitted = self
            .authenticator
            .authenticate(peer, request.headers())
            .await
            .and_then(|who| admit(&who, request.uri().path(), is_grpc).map(|()| who));
        let who = match admitted {
            Ok(who) => who,
            Err(error) => return refuse(&error, is_grpc),
        };
        request.extensions_mut().insert(who);
        let router = if is_grpc { self.grpc.clone() } else { self.rest.clone() };
        match router.oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/grpc"))
}

/// What is decided by the path alone. Everything else is the authorizer's.
fn admit(who: &Identity, path: &str, is_grpc: bool) -> Result<(), ApiError> {
    let is_public = if is_grpc { path.starts_with(PUBLIC_GRPC) } else { is_public_path(path) };
    if is_public {
        return Ok(());
    }
    if who.is_anonymous() {
        return Err(ApiError::new(
            Reason::Unauthorized,
            "this request carries no credentials: use a client certificate of this cluster or a bearer token \
             (the administrator's kubeconfig is admin.kubeconfig in the server's data folder)",
        ));
    }
    if who.is_in(BOOTSTRAPPERS) && !(is_grpc && path == JOIN) {
        return Err(ApiError::new(
            Reason::Forbidden,
            format!("User \"{}\" holds a join token, which is good only for joining a node", who.user),
        ));
    }
    Ok(())
}

/// `/livez`, or a part of it such as `/livez/ping`.
fn is_public_path(path: &str) -> bool {
    PUBLIC_PATHS
        .iter()
        .any(|public| path.strip_prefix(public).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn refuse(error: &ApiError, is_grpc: bool) -> Response<Body> {
    if is_grpc {
        return grpc::status(error).into_http();
    }
    let mut response = Response::new(Body::from(error.to_json()));
    *response.status_mut() = StatusCode::from_u16(error.code).unwrap_or(StatusCode::UNAUTHORIZED);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_reach_health_and_version_only() {
        let stranger = Identity::anonymous();
        for path in ["/healthz", "/livez", "/livez/ping", "/readyz", "/version"] {
            assert!(admit(&stranger, path, false).is_ok(), "{path}");
        }
        for path in ["/", "/api", "/livezz", "/versions", "/api/v1/pods", "/openapi/v2"] {
            assert_eq!(admit(&stranger, path, false).unwrap_err().code, 401, "{path}");
        }
        assert!(admit(&stranger, "/grpc.health.v1.Health/Check", true).is_ok());
        assert!(admit(&stranger, "/healthz", true).is_err());
    }

    #[test]
    fn a_join_token_is_good_for_joining_only() {
        let machine = Identity { user: "system:bootstrap:abcdef".into(), groups: vec![BOOTSTRAPPERS.into()] };
        assert!(admit(&machine, JOIN, true).is_ok());
        assert_eq!(admit(&machine, JOIN, false).unwrap_err().code, 403);
        assert_eq!(admit(&machine, "/api/v1/pods", false).unwrap_err().code, 403);
        assert_eq!(admit(&machine, "/clawbernetes.v1.Objects/Get", true).unwrap_err().code, 403);
    }
}
