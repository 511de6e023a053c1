//! The Kubernetes REST API over the object service.
//!
//! Owns paths, query parameters, headers and content negotiation. Every rule about objects is the
//! service's; identities come from the authentication layer in front, as `Extension<Identity>`.
//!
//! Must never know: TLS, certificates, storage.

mod accept;
mod documents;
mod health;
mod operations;
mod path;
mod query;
mod respond;
mod stream;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use bytes::Bytes;
use claw_client::{
    Request, ResourceRef, Verb,
    request::{DeleteOptions, PatchKind, View, WriteOptions},
};
use claw_schemas::{
    ApiError, Registry,
    openapi::OpenApi,
    protobuf::{self, ProtobufError},
    status::Reason,
};
use http::{HeaderMap, Method, Response, header, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use self::{path::Path, query::Query};
use crate::{
    auth::Identity,
    metrics::{Series, verb_of},
    reach::Sessions,
    service::{self, ObjectService, limits::REQUEST_BYTES_MAX},
    trace,
};

/// How long a client may take to send a body: 3 MiB at the 1 Mbit/s of a poor uplink are 25 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a refused body is read before the answer: enough for a manifest of any honest size.
const DROPPED_BYTES_MAX: usize = 8 * REQUEST_BYTES_MAX;

/// What handlers share.
struct State {
    service: Arc<ObjectService>,
    openapi: ArcSwap<OpenApi>,
    sessions: Sessions,
}

impl State {
    /// The documents of the kinds that are served now.
    fn openapi(&self) -> Arc<OpenApi> {
        let (known, registry) = (self.openapi.load_full(), self.service.registry());
        if Arc::ptr_eq(known.registry(), &registry) {
            return known;
        }
        let renewed = Arc::new(known.renewed(registry));
        self.openapi.store(renewed.clone());
        renewed
    }
}

/// All paths of the API. The layer in front must put an `Extension<Identity>` on every request.
pub fn router(service: Arc<ObjectService>) -> Router {
    router_with(service, Sessions::default())
}

/// The same, with connections into pods as part of these sessions.
pub(crate) fn router_with(service: Arc<ObjectService>, sessions: Sessions) -> Router {
    let openapi = ArcSwap::from_pointee(OpenApi::new(service.registry()));
    let state = Arc::new(State { service, openapi, sessions });
    Router::new().fallback(move |request: http::Request<Body>| {
        let state = state.clone();
        async move {
            let (parts, body) = request.into_parts();
            let named = path::parse(parts.uri.path());
            let series = series(&state, &parts, named.as_ref());
            let answer = handle(&state, parts, named, body).await;
            let mut response = answer.unwrap_or_else(|error| respond::error(&error));
            // Whoever took the request counts the answer: it knows when the request came.
            response.extensions_mut().insert(series);
            response
        }
    })
}

/// Where a request is counted.
fn series(state: &State, parts: &Parts, named: Option<&Path>) -> Arc<Series> {
    let (requests, method) = (&state.service.metrics().requests, &parts.method);
    let Some(Path::Resource(resource)) = named else {
        return requests.elsewhere(verb_of(method, true, false, false));
    };
    let is_watch = resource.subresource.is_none() && query::asks_to_watch(parts.uri.query());
    let verb = verb_of(method, resource.name.is_some(), is_watch, accept::is_apply(&parts.headers));
    trace::about(verb, resource);
    requests.on(verb, resource, || state.service.serves(resource))
}

async fn handle(
    state: &State,
    parts: Parts,
    named: Option<Path>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let path = parts.uri.path();
    let read_only = matches!(parts.method, Method::GET | Method::HEAD);
    if let Some(response) = documents::about_server(path) {
        return if read_only { Ok(response) } else { Err(method_not_allowed()) };
    }
    if let Some(response) = health::answer(state, path, parts.uri.query()).await {
        return if read_only { response } else { Err(method_not_allowed()) };
    }
    let who = parts.extensions.get::<Identity>().ok_or_else(|| {
        ApiError::new(
            Reason::Unauthorized,
            "the server does not know who is asking: send a certificate or a token",
        )
    })?;
    if let Some(Path::Resource(resource)) = named {
        return on_resource(state, who, resource, &parts, body).await;
    }
    state.service.authorize_path(who, &parts.method.as_str().to_ascii_lowercase(), path)?;
    if read_only && let Some(response) = operations::answer(state, path).await {
        return response;
    }
    if let Some(response) = documents::openid(state, &parts) {
        return if read_only { response } else { Err(method_not_allowed()) };
    }
    if let Some(response) = documents::openapi(state, path, &parts.headers).await {
        return if read_only { response } else { Err(method_not_allowed()) };
    }
    match named.ok_or_else(documents::no_such_path)? {
        document if read_only => documents::discovery(state, &document, &parts).await,
        _ => Err(method_not_allowed()),
    }
}

async fn on_resource(
    state: &State,
    who: &Identity,
    mut resource: ResourceRef,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(parts.uri.query())?;
    if parts.method == Method::GET && resource.subresource.as_deref() == Some("log") {
        return Ok(stream::text(state.service.stream(who, resource, query.0).await?).await);
    }
    if let Some(verb) = opening(&parts.method, resource.subresource.as_deref()) {
        let is_forward = resource.subresource.as_deref() == Some("portforward");
        let reached = state.service.reach(who, verb, resource, query.0);
        return state.sessions.answer(parts, is_forward, reached).await;
    }
    let (format, mut view) = accept::negotiate(&parts.headers)?;
    if let View::Table(include) = &mut view {
        *include = query.include_object()?;
    }
    if parts.method == Method::GET && resource.subresource.is_none() && query.flag("watch")? {
        let mut options = query.watch_options(state.service.store().revision())?;
        if let Some(name) = resource.name.take() {
            let comma = if options.field_selector.is_empty() { "" } else { "," };
            options.field_selector += &format!("{comma}metadata.name={name}");
        }
        let (events, initial) = state.service.open_watch(who, resource, options, view).await?;
        let mut response = stream::watch(events, view);
        // Whoever gave the request a place holds it until what exists is read.
        response.extensions_mut().insert(initial);
        return Ok(response);
    }
    if let Some(asked) = write_verb(&parts.method, resource.name.is_some()) {
        // Before the body: nobody may make the server hold and decode what it will refuse.
        state.service.authorize_write(who, asked, &resource)?;
    }
    let verb = verb(&state.service.registry(), &resource, parts, &query, body).await?;
    let gzip = matches!(verb, Verb::Get | Verb::List(_)) && accept::gzip(&parts.headers);
    let answer = state.service.call(who, Request { resource, verb, view }).await?;
    Ok(respond::answer(answer, format, gzip).await)
}

/// The verb of a request to open a connection into a pod.
fn opening(method: &Method, subresource: Option<&str>) -> Option<&'static str> {
    let verb = match *method {
        Method::GET => "get",
        Method::POST => "create",
        _ => return None,
    };
    matches!(subresource, Some("exec" | "attach" | "portforward")).then_some(verb)
}

/// The verb, as authorization knows it, of a method that may come with a body.
fn write_verb(method: &Method, named: bool) -> Option<&'static str> {
    match (method.as_str(), named) {
        ("POST", _) => Some("create"),
        ("PUT", _) => Some("update"),
        ("PATCH", _) => Some("patch"),
        ("DELETE", true) => Some("delete"),
        ("DELETE", false) => Some("deletecollection"),
        _ => None,
    }
}

/// What a request asks for, by its method, path and parameters.
async fn verb(
    registry: &Registry,
    resource: &ResourceRef,
    parts: &Parts,
    query: &Query,
    body: Body,
) -> Result<Verb, ApiError> {
    let headers = &parts.headers;
    let write_options = |kind: &str| -> Result<WriteOptions, ApiError> {
        Ok(WriteOptions { user_agent: accept::user_agent(headers), ..query.write_options(kind)? })
    };
    Ok(match (&parts.method, &resource.name) {
        (&Method::GET, Some(_)) => Verb::Get,
        (&Method::GET, None) => Verb::List(query.list_options()?),
        (&Method::POST, _) => {
            let options = write_options("CreateOptions")?;
            Verb::Create { body: object(registry, headers, body).await?, options }
        }
        (&Method::PUT, Some(_)) => {
            let options = write_options("UpdateOptions")?;
            Verb::Update { body: object(registry, headers, body).await?, options }
        }
        (&Method::PATCH, Some(_)) => {
            let (kind, options) = (accept::patch_kind(headers)?, write_options("PatchOptions")?);
            let force = query.optional_flag("force")?;
            if force.is_some() && kind != PatchKind::Apply {
                return Err(service::force_without_apply());
            }
            Verb::Patch { kind, body: read(headers, body).await?, options, force: force.unwrap_or(false) }
        }
        (&Method::DELETE, name) => {
            let sent = delete_options(registry, headers, body).await?;
            let delete = query.delete_options(sent)?;
            match name {
                Some(_) => Verb::Delete(delete),
                None => Verb::DeleteCollection { list: query.list_options()?, delete },
            }
        }
        _ => return Err(method_not_allowed()),
    })
}

/// The body of a delete, which is optional.
async fn delete_options(
    registry: &Registry,
    headers: &HeaderMap,
    body: Body,
) -> Result<Option<DeleteOptions>, ApiError> {
    let body = read(headers, body).await?;
    if body.is_empty() {
        return Ok(None);
    }
    accept::check_body(headers)?;
    service::decode_delete_options(&as_json(registry, headers, body)?).map(Some)
}

/// Reads a body that is one object.
async fn object(registry: &Registry, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    accept::check_body(headers)?;
    as_json(registry, headers, read(headers, body).await?)
}

/// Turns a protobuf body into JSON, so that nothing behind knows of protobuf.
fn as_json(registry: &Registry, headers: &HeaderMap, body: Bytes) -> Result<Bytes, ApiError> {
    if !accept::is_protobuf(headers) {
        return Ok(body);
    }
    match protobuf::to_json(registry, &body) {
        Ok(object) => Ok(object.to_string().into()),
        Err(error @ ProtobufError::UnknownKind { .. }) => {
            Err(ApiError::new(Reason::UnsupportedMediaType, error.to_string()))
        }
        Err(error) => Err(ApiError::bad_request(error.to_string())),
    }
}

/// Reads a whole body within the limits of size and time.
async fn read(headers: &HeaderMap, mut body: Body) -> Result<Bytes, ApiError> {
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let reading = async {
        if announced.is_some_and(|bytes| bytes > REQUEST_BYTES_MAX) {
            return Err(too_large(body).await);
        }
        match Limited::new(&mut body, REQUEST_BYTES_MAX).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large(body).await),
            Err(error) => Err(ApiError::bad_request(format!("the request body breaks off: {error}"))),
        }
    };
    tokio::time::timeout(BODY_TIMEOUT, reading).await.unwrap_or_else(|_| {
        Err(ApiError::new(
            Reason::Timeout,
            format!("the request body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
        ))
    })
}

/// Refuses a body. Some of what the client still sends is read and dropped first: a connection closed with unread
/// data in it is reset, and the client would see that instead of the answer.
async fn too_large(mut body: Body) -> ApiError {
    let mut dropped = 0;
    while dropped < DROPPED_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        dropped += frame.data_ref().map_or(0, Bytes::len);
    }
    ApiError::new(
        Reason::RequestEntityTooLarge,
        format!("the request body is larger than the limit of {REQUEST_BYTES_MAX} bytes"),
    )
}

fn method_not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}
