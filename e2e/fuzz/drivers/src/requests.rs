//! Requests over HTTP: paths, queries, headers. Each gets an answer with a status that is not the server's fault.

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, Method, Request, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{json, tape::Tape, world};

const PATHS: [&str; 16] = [
    "/api",
    "/apis",
    "/api/v1",
    "/apis/apps/v1",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/api/v1",
    "/version",
    "/api/v1/configmaps",
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/web",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apps/v1/namespaces/default/deployments/web",
    "/apis/apps/v1/namespaces/default/deployments/web/scale",
    "/apis/example.com/v1/things",
    "/api/v1/namespaces/default",
];
const PARAMETERS: [&str; 16] = [
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
    "fieldManager",
    "fieldValidation",
    "dryRun",
    "force",
    "propagationPolicy",
    "gracePeriodSeconds",
    "pretty",
    "includeObject",
    "orphanDependents",
];
const VALUES: [&str; 16] = [
    "",
    "0",
    "1",
    "-1",
    "18446744073709551616",
    "app=web",
    "metadata.name=web",
    "Exact",
    "NotOlderThan",
    "All",
    "Strict",
    "true",
    "Orphan",
    "None",
    "%",
    "%ff%00",
];
const TYPES: [&str; 14] = [
    "application/json",
    "application/yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf",
    "*/*",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    "text/html,*/*;q=0.8",
    ";;;",
    ",",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// One request, which changes nothing.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let method = tape
        .pick(
            &[Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD].each_ref(),
        )
        .clone();
    let Some(request) = request(&mut tape, method) else { return };
    world::within(|world| {
        let shown = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(world.who.clone());
        let router = world.router.clone();
        world.runtime.block_on(async {
            let answer =
                router.oneshot(Request::from_parts(parts, body)).await.expect("an answer, whatever it is");
            let status = answer.status();
            assert!(status.as_u16() < 500, "{shown}: {status}");
            let body = answer.into_body().collect().await.expect("the answer is whole").to_bytes();
            if status.as_u16() >= 400 && !shown.starts_with("HEAD") {
                let said: Value =
                    serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{shown}: {body:?}"));
                assert_eq!(
                    (&said["kind"], &said["code"]),
                    (&json!("Status"), &json!(status.as_u16())),
                    "{shown}"
                );
                assert!(
                    said["message"].as_str().is_some_and(|message| !message.is_empty()),
                    "{shown}: {said}"
                );
            }
        });
    });
}

fn request(tape: &mut Tape<'_>, method: Method) -> Option<Request<Body>> {
    let mut uri = tape.pick(&PATHS).to_owned();
    if tape.below(4) == 3 {
        uri = format!(
            "{uri}/{}",
            tape.text(&["x", "status", "..", "%2e%2e", "", "a%2fb"]).replace([' ', '\n', '\t', '\0'], "+")
        );
    }
    // Never for real, never a watch, which does not end.
    uri.push_str("?dryRun=All");
    let mut parameters = 0;
    while tape.more(parameters, 5) {
        let name = tape.pick(&PARAMETERS);
        let value = if name == "continue" && tape.flag() { token(tape) } else { tape.text(&VALUES) };
        uri = format!("{uri}&{name}={}", value.replace([' ', '\n', '\t', '\0', '#', '"', '<'], "+"));
        parameters += 1;
    }
    let mut request = Request::builder().method(method).uri(uri);
    for name in [header::ACCEPT, header::CONTENT_TYPE, header::ACCEPT_ENCODING, header::IF_MODIFIED_SINCE] {
        if tape.flag() {
            let value = tape.text(&TYPES);
            request = request.header(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
    }
    let mut body = world::deployment();
    json::damage(tape, &mut body);
    let body = if tape.flag() { body.to_string().into_bytes() } else { tape.rest().to_vec() };
    request.body(Body::from(body)).ok()
}

/// Something like the token of a page that goes on.
fn token(tape: &mut Tape<'_>) -> String {
    let mut token = json!({"v": 1, "rv": tape.number(), "after": tape.text(&["default/web", "default/", "/"]), "given": tape.number()});
    json::damage(tape, &mut token);
    BASE64_URL_SAFE_NO_PAD.encode(token.to_string())
}
