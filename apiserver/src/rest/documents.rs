//! Documents about the API itself: discovery, OpenAPI, version.

use axum::body::Body;
use claw_schemas::{ApiError, discovery, openapi::OpenApi, status::Reason};
use http::{HeaderMap, Response, header, request::Parts};
use serde_json::{Value, json};

use super::{State, accept, path::Path, respond};
use crate::auth::service_accounts;

/// The Kubernetes release whose API is spoken; clients compare it with their own.
const KUBERNETES_MAJOR: &str = "1";
const KUBERNETES_MINOR: &str = "36";

const OPENAPI_V2_PROTOBUF: &str = claw_schemas::openapi::V2_PROTOBUF;

/// What every 404 outside of objects says.
pub(super) fn no_such_path() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

/// What everybody may know of the server. `None` when the path is something else.
pub(super) fn about_server(path: &str) -> Option<Response<Body>> {
    Some(match path {
        "/version" | "/version/" => respond::body(200, respond::JSON, version().to_string()),
        _ => return None,
    })
}

fn version() -> Value {
    let own = env!("CARGO_PKG_VERSION");
    json!({
        "major": KUBERNETES_MAJOR,
        "minor": KUBERNETES_MINOR,
        "gitVersion": format!("v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0+clawbernetes-{own}"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The machine in the names that Kubernetes uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Discovery documents.
pub(super) async fn discovery(state: &State, path: &Path, parts: &Parts) -> Result<Response<Body>, ApiError> {
    let (registry, headers) = (&*state.service.registry(), &parts.headers);
    let form = accept::discovery(headers);
    let document = match (path, form) {
        (Path::CoreVersions, Some(form)) => {
            return Ok(aggregated(headers, form, &discovery::aggregated_core(registry, form)));
        }
        (Path::Groups, Some(form)) => {
            return Ok(aggregated(headers, form, &discovery::aggregated_groups(registry, form)));
        }
        (Path::CoreVersions, None) => Some(discovery::core_versions(registry, host(parts))),
        (Path::Groups, None) => Some(discovery::groups(registry)),
        (Path::Group(group), _) => discovery::group(registry, group),
        (Path::Version(group, version), _) => discovery::resources(registry, group, version),
        (Path::Resource(_), _) => None,
    };
    let (format, _) = accept::negotiate(headers)?;
    let body = document.ok_or_else(no_such_path)?.to_string().into();
    let answer = claw_client::Response { code: 200, body, warnings: Vec::new() };
    Ok(respond::answer(answer, format, false).await)
}

fn aggregated(headers: &HeaderMap, form: discovery::Aggregated, document: &Value) -> Response<Body> {
    let body = document.to_string().into_bytes();
    let hash = format!("{:08X}", crc32fast::hash(&body));
    respond::tagged(
        headers.get(header::IF_NONE_MATCH),
        &hash,
        form.media_type(),
        || body,
        accept::gzip(headers),
    )
}

/// The documents by which others verify tokens of service accounts. `None` when the path is not one of them.
pub(super) fn openid(state: &State, parts: &Parts) -> Option<Result<Response<Body>, ApiError>> {
    let path = parts.uri.path();
    let (document, content_type) = match path.trim_end_matches('/') {
        "/.well-known/openid-configuration" => {
            (service_accounts::discovery_document(&format!("https://{}", host(parts))), respond::JSON)
        }
        "/openid/v1/jwks" => match state.service.token_keys() {
            Some(keys) => (keys, "application/jwk-set+json"),
            None => return Some(Err(no_such_path())),
        },
        _ => return None,
    };
    Some(Ok(respond::body(200, content_type, document.to_string())))
}

/// What the client calls this server: HTTP/2 says it with the path, HTTP/1.1 in a header.
fn host(parts: &Parts) -> &str {
    let header = || parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    parts.uri.authority().map(http::uri::Authority::as_str).or_else(header).unwrap_or_default()
}

/// `/openapi/v2` and `/openapi/v3/...`. `None` when the path is not one of them.
pub(super) async fn openapi(
    state: &State,
    path: &str,
    headers: &HeaderMap,
) -> Option<Result<Response<Body>, ApiError>> {
    let wanted = path.strip_prefix("/openapi/")?.trim_end_matches('/').to_owned();
    let (openapi, headers) = (state.openapi(), headers.clone());
    // Building a document takes tens of milliseconds, which the worker threads have better uses for.
    let built = tokio::task::spawn_blocking(move || openapi_document(&openapi, &wanted, &headers)).await;
    Some(
        built.unwrap_or_else(|failed| {
            Err(ApiError::internal(format!("building the document failed: {failed}")))
        }),
    )
}

fn openapi_document(
    openapi: &OpenApi,
    wanted: &str,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let (document, content_type) = match wanted.split('/').collect::<Vec<_>>().as_slice() {
        ["v2"] if accept::openapi_protobuf(headers) => (Some(openapi.v2_protobuf()), OPENAPI_V2_PROTOBUF),
        ["v2"] => (Some(openapi.v2_json()), respond::JSON),
        ["v3"] => return Ok(respond::body(200, respond::JSON, openapi.index().to_string())),
        ["v3", "api", version] => (openapi.group_version("", version), respond::JSON),
        ["v3", "apis", group, version] => (openapi.group_version(group, version), respond::JSON),
        _ => (None, respond::JSON),
    };
    let document = document.ok_or_else(no_such_path)?;
    let known = headers.get(header::IF_NONE_MATCH);
    Ok(respond::tagged(known, &document.hash, content_type, || document.body, accept::gzip(headers)))
}
