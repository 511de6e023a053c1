//! What every request passes first: who is asking, as whom, whether it is their turn, and which of the two APIs it is
//! for.
//!
//! Must never know: objects, or how identities are proven.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use claw_client::trace::SPANS;
use claw_schemas::{ApiError, status::Reason};
use http::{HeaderValue, Request, Response, StatusCode, header};
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span, trace_span};

use super::{
    answer,
    audit::{AUDIT_ID, Asked, Ids},
    fairness::{Fairness, Seat},
};
use crate::{
    auth::{Authenticator, Authorizer, BOOTSTRAPPERS, Identity, Peer, impersonate},
    grpc,
    metrics::{Metrics, Series, verb_of},
    trace,
};

/// Paths that everybody may read: load balancers and `kubectl version` come without credentials.
const PUBLIC_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// gRPC's own health check, for the same reason.
const PUBLIC_GRPC: &str = "/grpc.health.v1.Health/";
/// All that a machine with a join token may do.
const JOIN: &str = "/clawbernetes.v1.NodeLink/Join";
/// What nodes open once and keep.
const NODE_LINK: &str = "/clawbernetes.v1.NodeLink/";
/// Of it, what goes on for as long as the node likes, and is answered when the node has said the first word.
const SESSIONS: [&str; 2] = ["/clawbernetes.v1.NodeLink/Session", "/clawbernetes.v1.NodeLink/Stream"];
/// The service that decides itself who may do what.
const OBJECTS: &str = "/clawbernetes.v1.Objects/";
/// Its answers without a size that may be large and are no streams.
const GRPC_LARGE: [&str; 2] = ["/clawbernetes.v1.Objects/List", "/clawbernetes.v1.Objects/Batch"];

/// Codes that say that the server failed: Unknown, Internal, Unavailable, DataLoss.
const GRPC_FAILURES: [u16; 4] = [2, 13, 14, 15];

/// How long a call by gRPC may take until its answer begins, with the time in the queue and until its message is here
/// and read: upstream's limit for a request. REST has limits of its own, since it knows who asks before it reads.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// When the client stops waiting, which only gRPC says.
fn deadline<B>(request: &Request<B>, is_grpc: bool) -> Result<Option<grpc::Deadline>, ApiError> {
    if is_grpc { grpc::Deadline::of(request.headers()) } else { Ok(None) }
}

/// When the server stops working for an answer to begin. What an answer that is a stream does after that is bounded by
/// what the client said alone.
fn limit<B>(request: &Request<B>, told: Option<grpc::Deadline>, is_grpc: bool) -> Option<grpc::Deadline> {
    match is_grpc && !SESSIONS.contains(&request.uri().path()) {
        true => Some(grpc::Deadline::within(told, CALL_LIMIT)),
        false => told,
    }
}

/// The way in.
pub struct Gate {
    authenticator: Authenticator,
    authorizer: Arc<dyn Authorizer>,
    fairness: Arc<Fairness>,
    metrics: Arc<Metrics>,
    ids: Ids,
    rest: Router,
    grpc: Router,
}

impl Gate {
    /// A gate in front of the two APIs.
    pub fn new(
        authenticator: Authenticator,
        authorizer: Arc<dyn Authorizer>,
        metrics: Arc<Metrics>,
        rest: Router,
        grpc: Router,
    ) -> Self {
        let (rest, grpc) = (rest.with_state(()), grpc.with_state(()));
        let fairness = Fairness::new(metrics.fairness.clone());
        Self { authenticator, authorizer, fairness, metrics, ids: Ids::new(), rest, grpc }
    }

    /// Answers one request, counts it, and gives it a name.
    pub async fn answer<B>(&self, peer: &Peer, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let id = self.ids.of(request.headers());
        let span = trace::begin(&request, &id);
        self.traced(peer, request, id, &span).instrument(span.clone()).await
    }

    async fn traced<B>(
        &self,
        peer: &Peer,
        request: Request<B>,
        id: HeaderValue,
        span: &Span,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let is_grpc = is_grpc(&request);
        let asked =
            Asked { id, method: request.method().clone(), uri: request.uri().clone(), at: Instant::now() };
        let under_way = self.metrics.requests.under_way(&asked.method).enter();
        let (user, mut response) = match deadline(&request, is_grpc) {
            Ok(deadline) => {
                // The time in the queue counts: to the client it is all one wait.
                let limit = limit(&request, deadline, is_grpc);
                let worked = self.work_on(peer, request, deadline, is_grpc);
                grpc::Deadline::keep(limit, worked)
                    .await
                    .unwrap_or_else(|over| (None, refuse(&over, is_grpc)))
            }
            Err(error) => (None, refuse(&error, is_grpc)),
        };
        drop(under_way);
        self.count(&asked, user.as_deref(), &mut response, is_grpc);
        trace::answered(span, user.as_deref(), &response, is_grpc.then(|| grpc_code(&response)));
        response.headers_mut().insert(AUDIT_ID, asked.id);
        response
    }

    /// Admits a request and has it answered; the user who asked, if that is known.
    async fn work_on<B>(
        &self,
        peer: &Peer,
        mut request: Request<B>,
        deadline: Option<grpc::Deadline>,
        is_grpc: bool,
    ) -> (Option<String>, Response<Body>)
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        match self.admit(peer, &request, is_grpc).await {
            Ok((who, seat)) => (Some(who.user.clone()), self.pass_on(request, who, seat, is_grpc).await),
            Err(error) => (None, refuse(&error, is_grpc)),
        }
    }

    /// Counts an answer, and says in the log how it went.
    fn count(&self, asked: &Asked, user: Option<&str>, response: &mut Response<Body>, is_grpc: bool) {
        let requests = &self.metrics.requests;
        if is_grpc {
            let code = grpc_code(response);
            requests.grpc_answered(asked.uri.path(), code.into());
            return asked.log(user, code, GRPC_FAILURES.contains(&code));
        }
        let code = response.status();
        // Without one it did not come so far that somebody looked what it is about.
        let series = response.extensions_mut().remove::<Arc<Series>>();
        let series = series.unwrap_or_else(|| requests.elsewhere(verb_of(&asked.method, true, false, false)));
        series.answered(code.as_u16(), asked.at);
        asked.log(user, code.as_u16(), code.is_server_error());
    }

    async fn pass_on<B>(
        &self,
        mut request: Request<B>,
        who: Identity,
        seat: Option<Seat>,
        is_grpc: bool,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        request.extensions_mut().insert(who);
        let is_large = is_grpc && GRPC_LARGE.contains(&request.uri().path());
        let router = if is_grpc { self.grpc.clone() } else { self.rest.clone() };
        match router.oneshot(request.map(Body::new)).await {
            Ok(response) => answer::held(response, seat, is_large),
            Err(never) => match never {},
        }
    }

    /// Who a request is by, and its place among the others.
    async fn admit<B>(
        &self,
        peer: &Peer,
        request: &Request<B>,
        is_grpc: bool,
    ) -> Result<(Identity, Option<Seat>), ApiError> {
        let (headers, path) = (request.headers(), request.uri().path());
        let who = self.authenticator.authenticate(peer, headers).await?;
        check_path(&who, path, is_grpc)?;
        let who = impersonate::apply(who, headers, &*self.authorizer)?;
        let seat = match is_exempt(&who, path, is_grpc) {
            true => None,
            false => {
                let turn = trace_span!(target: SPANS, "queue", user = who.user);
                Some(self.fairness.seat(&who.user).instrument(turn).await?)
            }
        };
        Ok((who, seat))
    }
}

/// Who never waits: the control plane and its administrators, on whom everything waits; sessions of nodes, which are
/// what keeps a node alive; and health, by which others decide whether to restart the server.
fn is_exempt(who: &Identity, path: &str, is_grpc: bool) -> bool {
    who.is_master()
        || is_public(path, is_grpc)
        || is_grpc && path.starts_with(NODE_LINK) && who.node().is_some()
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/grpc"))
}

/// The code with which an answer by gRPC begins: an error is told at once, all else goes well so far.
fn grpc_code(response: &Response<Body>) -> u16 {
    let status = response.headers().get("grpc-status");
    status.map_or(0, |status| status.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(u16::MAX))
}

/// What is decided by the path alone. Everything else is the authorizer's.
fn check_path(who: &Identity, path: &str, is_grpc: bool) -> Result<(), ApiError> {
    if is_public(path, is_grpc) {
        return Ok(());
    }
    if who.is_anonymous() && is_grpc && !path.starts_with(OBJECTS) {
        return Err(ApiError::new(
            Reason::Unauthorized,
            "this call carries no credentials: use a client certificate of this cluster or a bearer token",
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

fn is_public(path: &str, is_grpc: bool) -> bool {
    if is_grpc { path.starts_with(PUBLIC_GRPC) } else { is_public_path(path) }
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
    if error.details.retry_after_seconds > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, error.details.retry_after_seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_get_past_the_gate_only_where_somebody_decides_about_them() {
        let stranger = Identity::anonymous();
        let may = |path: &str, is_grpc| check_path(&stranger, path, is_grpc).is_ok();
        assert!(may("/grpc.health.v1.Health/Check", true) && may("/clawbernetes.v1.Objects/Get", true));
        assert!(!may("/clawbernetes.v1.NodeLink/Session", true) && !may("/grpc.reflection.v1.X/Y", true));
        assert!(may("/api/v1/pods", false));
        for path in ["/healthz", "/livez", "/livez/ping", "/readyz", "/version"] {
            assert!(is_public(path, false) && !is_public(path, true), "{path}");
        }
        for path in ["/", "/api", "/livezz", "/versions", "/api/v1/pods", "/openapi/v2"] {
            assert!(!is_public(path, false), "{path}");
        }
    }

    #[test]
    fn a_join_token_is_good_for_joining_only() {
        let machine = Identity::of("system:bootstrap:abcdef", &[BOOTSTRAPPERS]);
        assert!(check_path(&machine, JOIN, true).is_ok());
        assert_eq!(check_path(&machine, JOIN, false).unwrap_err().code, 403);
        assert_eq!(check_path(&machine, "/api/v1/pods", false).unwrap_err().code, 403);
        assert_eq!(check_path(&machine, "/clawbernetes.v1.Objects/Get", true).unwrap_err().code, 403);
    }

    #[test]
    fn administrators_health_and_the_sessions_of_nodes_never_wait() {
        let node = Identity::of_node("gpu-02");
        assert!(is_exempt(&Identity::loopback("x"), "/api/v1/pods", false));
        assert!(is_exempt(&node, "/clawbernetes.v1.NodeLink/Session", true));
        assert!(!is_exempt(&node, "/api/v1/pods", false));
        assert!(is_exempt(&Identity::anonymous(), "/livez", false));
        assert!(!is_exempt(&Identity::anonymous(), "/api", false));
        assert!(!is_exempt(&Identity::of("eve", &[]), "/clawbernetes.v1.NodeLink/Session", true));
    }

    #[test]
    fn who_is_turned_away_is_told_when_to_come_back() {
        let busy = ApiError::too_many_requests("busy", 3);
        let response = refuse(&busy, false);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        assert_eq!(refuse(&busy, true).headers()["grpc-status"], "8");
    }
}
