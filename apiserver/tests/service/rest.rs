//! The REST layer: paths, headers and bodies as kubectl and the client libraries send them.

use std::sync::Arc;

use axum::body::Body;
use claw_apiserver::{
    auth::{Action, Authorizer, Identity},
    service::ObjectService,
    store,
};
use claw_schemas::{ApiError, Registry};
use futures::StreamExt as _;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    custom::{define, definition},
    world::{World, deployment, parse, world},
};

/// Sends one request through the router. `headers` as `name: value`.
pub async fn send(world: &World, method: &str, path: &str, headers: &[&str], body: &str) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for line in headers {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(world.who.clone());
    claw_apiserver::rest::router(world.service.clone()).oneshot(request).await.unwrap()
}

pub async fn bytes(response: Response<Body>) -> bytes::Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

pub async fn get(world: &World, path: &str) -> (u16, Value) {
    let response = send(world, "GET", path, &[], "").await;
    (response.status().as_u16(), parse(&bytes(response).await))
}

pub const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

pub async fn configmap(world: &World, name: &str) {
    let body = json!({"metadata": {"name": name}}).to_string();
    assert_eq!(send(world, "POST", CONFIGMAPS, &[], &body).await.status(), 201);
}

#[tokio::test]
async fn an_object_lives_its_life_over_rest() {
    let world = world().await;
    let body =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": "1"}});
    let made = send(
        &world,
        "POST",
        &format!("{CONFIGMAPS}?fieldManager=kubectl-create"),
        &["content-type: application/json"],
        &body.to_string(),
    )
    .await;
    assert_eq!(
        (made.status().as_u16(), &made.headers()[header::CONTENT_TYPE]),
        (201, &"application/json".parse().unwrap())
    );
    let one = format!("{CONFIGMAPS}/x");
    let (code, mut object) = get(&world, &one).await;
    assert_eq!((code, &object["data"]["a"]), (200, &json!("1")));
    object["data"]["a"] = json!("2");
    let put = send(&world, "PUT", &one, &[], &object.to_string()).await;
    assert_eq!(put.status(), 200);
    let patched =
        send(&world, "PATCH", &one, &["content-type: application/merge-patch+json"], r#"{"data":{"b":"3"}}"#)
            .await;
    assert_eq!(parse(&bytes(patched).await)["data"], json!({"a": "2", "b": "3"}));
    let (code, list) = get(&world, &format!("{CONFIGMAPS}?limit=500")).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 1));
    let options = r#"{"propagationPolicy":"Background","preconditions":{}}"#;
    let gone = send(&world, "DELETE", &one, &["content-type: application/json"], options).await;
    assert_eq!(parse(&bytes(gone).await)["status"], "Success");
    assert_eq!(get(&world, &one).await.0, 404);
}

#[tokio::test]
async fn errors_are_always_a_status() {
    let world = world().await;
    let patch = ["content-type: application/json"];
    for (method, path, headers, body, code) in [
        ("GET", "/api/v1/namespaces/default/configmaps/none", &[][..], "", 404),
        ("GET", "/nowhere", &[], "", 404),
        ("GET", "/apis/none/v1/things", &[], "", 404),
        ("GET", "/apis/none/v1", &[], "", 404),
        ("GET", "/openapi/v3/apis/none/v1", &[], "", 404),
        ("POST", "/api/v1/namespaces/default/configmaps/x", &[], "{}", 405),
        ("PUT", CONFIGMAPS, &[], "{}", 405),
        ("POST", "/version", &[], "", 405),
        ("POST", "/api", &[], "", 405),
        ("GET", CONFIGMAPS, &["accept: text/html"], "", 406),
        ("POST", CONFIGMAPS, &["content-type: application/vnd.kubernetes.protobuf"], "k8s", 400),
        ("PATCH", "/api/v1/namespaces/default/configmaps/x", &patch, "{}", 415),
        ("POST", CONFIGMAPS, &[], "{not json", 400),
        ("POST", CONFIGMAPS, &[], "", 400),
        ("GET", "/api/v1/configmaps?limit=many", &[], "", 400),
        ("GET", "/api/v1/configmaps?continue=nonsense", &[], "", 400),
        ("GET", "/api/v1/configmaps?watch=1&resourceVersion=abc", &[], "", 400),
        ("POST", "/api/v1/namespaces/default/configmaps?dryRun=Some", &[], "{}", 422),
        ("DELETE", "/api/v1/namespaces/default/configmaps/x?propagationPolicy=Never", &[], "", 422),
    ] {
        let response = send(&world, method, path, headers, body).await;
        assert_eq!(response.status(), code, "{method} {path}");
        let status: ApiError = serde_json::from_slice(&bytes(response).await).unwrap();
        assert_eq!(status.code, code, "{method} {path}");
        assert!(!status.message.is_empty());
    }
}

#[tokio::test]
async fn bodies_above_the_limit_are_413_before_they_are_read() {
    let world = world().await;
    let big = "x".repeat(4 << 20);
    assert_eq!(send(&world, "POST", CONFIGMAPS, &[], &big).await.status(), 413);
    assert_eq!(send(&world, "POST", CONFIGMAPS, &["content-length: 99999999"], "{}").await.status(), 413);
}

#[tokio::test]
async fn a_request_without_an_identity_is_401() {
    let world = world().await;
    let request = Request::get(CONFIGMAPS).body(Body::empty()).unwrap();
    let response = claw_apiserver::rest::router(world.service.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 401);
}

#[tokio::test]
async fn kubectl_gets_tables_when_it_asks_for_them() {
    let world = world().await;
    configmap(&world, "x").await;
    let accept = "accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
    let table = parse(&bytes(send(&world, "GET", CONFIGMAPS, &[accept], "").await).await);
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("x")));
    let path = format!("{CONFIGMAPS}/x?includeObject=Object");
    let table = parse(&bytes(send(&world, "GET", &path, &[accept], "").await).await);
    assert_eq!(table["rows"][0]["object"]["kind"], "ConfigMap");
}

#[tokio::test]
async fn warnings_travel_as_headers() {
    let world = world().await;
    let mut body = deployment("web", 1);
    body["spec"]["wat"] = json!(1);
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let made = send(&world, "POST", path, &[], &body.to_string()).await;
    assert_eq!(made.headers()[header::WARNING], r#"299 - "unknown field \"spec.wat\"""#);
    let strict =
        send(&world, "POST", &format!("{path}?fieldValidation=Strict"), &[], &body.to_string()).await;
    assert_eq!(strict.status(), 400);
}

#[tokio::test]
async fn yaml_goes_in_and_comes_out() {
    let world = world().await;
    let headers = ["content-type: application/yaml", "accept: application/yaml"];
    let made =
        send(&world, "POST", CONFIGMAPS, &headers, "metadata:\n  name: written\ndata:\n  a: b\n").await;
    assert_eq!(made.status(), 201);
    let text = bytes(made).await;
    let value: Value = serde_yaml::from_slice(&text).unwrap();
    assert_eq!(value["data"]["a"], "b");
    assert!(!text.starts_with(b"{"));
}

#[tokio::test]
async fn numbers_of_custom_objects_come_back_to_their_last_digit() {
    let world = world().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "numbers": {"type": "array", "items": {"type": "number"}}}}}}});
    let versions = [json!({"name": "v1", "served": true, "storage": true, "schema": schema})];
    define(&world, &definition(&versions)).await;
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let written = [
        "0.1234567890123456789",
        "1e23",
        "5e-324",
        "2.2250738585072014e-308",
        "1.7976931348623157e308",
        "9007199254740993.5",
        "0.30000000000000004",
        "-123456.78901234567",
        "8.41e21",
        // These go wrong in the last digit where a parser is only nearly right.
        "0.00039408939882578373",
        "5.2940766019091685e155",
        "7.580299509755893e155",
    ];
    let json =
        format!(r#"{{"metadata": {{"name": "json"}}, "spec": {{"numbers": [{}]}}}}"#, written.join(","));
    let yaml = format!("metadata:\n  name: yaml\nspec:\n  numbers:\n  - {}\n", written.join("\n  - "));
    for (form, body) in [("json", json), ("yaml", yaml)] {
        let media = format!("application/{form}");
        let headers = [&*format!("content-type: {media}"), &*format!("accept: {media}")];
        let made = send(&world, "POST", widgets, &headers, &body).await;
        assert_eq!(made.status(), 201, "{form}");
        let one = format!("{widgets}/{form}");
        let patch = ["content-type: application/merge-patch+json"];
        let patched = send(&world, "PATCH", &one, &patch, r#"{"metadata": {"labels": {"a": "b"}}}"#).await;
        assert_eq!(patched.status(), 200, "{form}");
        let answer = bytes(send(&world, "GET", &one, &headers[1..], "").await).await;
        let read = numbers(std::str::from_utf8(&answer).unwrap());
        let meant: Vec<f64> = written.iter().map(|number| number.parse().unwrap()).collect();
        assert_eq!(read, meant, "{form}");
    }
}

/// The numbers below `numbers:` in an answer, read by the parser of Rust itself.
fn numbers(answer: &str) -> Vec<f64> {
    let (_, list) = answer.rsplit_once("numbers").unwrap();
    let words = list.split(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    words
        .filter(|word| word.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
        .map_while(|word| match word {
            "-" => Some(None),
            word => word.parse().ok().map(Some),
        })
        .flatten()
        .collect()
}

#[tokio::test]
async fn large_answers_are_packed_for_those_who_can_unpack() {
    let world = world().await;
    for name in ["a", "b", "c"] {
        let body = json!({"metadata": {"name": name}, "data": {"a": "x".repeat(90_000)}}).to_string();
        send(&world, "POST", CONFIGMAPS, &[], &body).await;
    }
    let packed = send(&world, "GET", CONFIGMAPS, &["accept-encoding: gzip"], "").await;
    assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
    let packed = bytes(packed).await;
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed), &mut unpacked).unwrap();
    let plain = send(&world, "GET", CONFIGMAPS, &[], "").await;
    assert!(plain.headers().get(header::CONTENT_ENCODING).is_none());
    assert_eq!(bytes(plain).await, unpacked);
    let small = send(&world, "GET", "/api/v1/namespaces", &["accept-encoding: gzip"], "").await;
    assert!(small.headers().get(header::CONTENT_ENCODING).is_none());
}

#[tokio::test]
async fn a_watch_is_a_line_an_event() {
    let world = world().await;
    configmap(&world, "a").await;
    let path = format!(
        "{CONFIGMAPS}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=20"
    );
    let response = send(&world, "GET", &path, &[], "").await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    let lines: Vec<Value> =
        first.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parse).collect();
    assert_eq!((lines[0]["type"].as_str(), lines[1]["type"].as_str()), (Some("ADDED"), Some("BOOKMARK")));
    configmap(&world, "b").await;
    let next = body.next().await.unwrap().unwrap();
    assert!(next.ends_with(b"\n"));
    let event = parse(&next);
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("b")));
    world.service.close_watches();
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn an_expired_watch_is_200_with_an_error_line() {
    let world = world().await;
    configmap(&world, "a").await;
    let now = world.service.store().revision();
    world.service.store().compact(now).await.unwrap();
    let response = send(&world, "GET", &format!("{CONFIGMAPS}?watch=1&resourceVersion=1"), &[], "").await;
    assert_eq!(response.status(), 200);
    let event = parse(&bytes(response).await);
    assert_eq!(
        (&event["type"], &event["object"]["code"], &event["object"]["kind"]),
        (&json!("ERROR"), &json!(410), &json!("Status"))
    );
}

#[tokio::test]
async fn one_object_can_be_watched_by_its_path() {
    let world = world().await;
    configmap(&world, "a").await;
    configmap(&world, "b").await;
    let response = send(&world, "GET", &format!("{CONFIGMAPS}/b?watch=true"), &[], "").await;
    let line = response.into_body().into_data_stream().next().await.unwrap().unwrap();
    assert_eq!(parse(&line)["object"]["metadata"]["name"], "b");
}

#[tokio::test]
async fn discovery_comes_plain_and_aggregated() {
    let world = world().await;
    assert_eq!(get(&world, "/api").await.1["kind"], "APIVersions");
    assert_eq!(get(&world, "/apis").await.1["kind"], "APIGroupList");
    assert_eq!(get(&world, "/apis/apps").await.1["kind"], "APIGroup");
    let (_, resources) = get(&world, "/apis/apps/v1").await;
    assert!(resources["resources"].as_array().unwrap().iter().any(|one| one["name"] == "deployments/scale"));
    let accept =
        "accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let response = send(&world, "GET", "/apis", &[accept], "").await;
    let headers = response.headers().clone();
    assert!(headers[header::CONTENT_TYPE].to_str().unwrap().contains("g=apidiscovery.k8s.io;v=v2"));
    assert_eq!(parse(&bytes(response).await)["kind"], "APIGroupDiscoveryList");
    let tag = format!("if-none-match: {}", headers[header::ETAG].to_str().unwrap());
    assert_eq!(send(&world, "GET", "/apis", &[accept, &tag], "").await.status(), 304);
}

#[tokio::test]
async fn the_version_has_whole_numbers_and_health_is_plain_text() {
    let world = world().await;
    let (_, version) = get(&world, "/version").await;
    assert!(version["major"].as_str().unwrap().parse::<u32>().is_ok());
    assert!(version["minor"].as_str().unwrap().parse::<u32>().is_ok());
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1."));
    assert_eq!(bytes(send(&world, "GET", "/livez", &[], "").await).await, "ok");
    assert_eq!(send(&world, "GET", "/readyz", &[], "").await.status(), 500);
    world.service.set_ready(true);
    assert_eq!(send(&world, "GET", "/readyz", &[], "").await.status(), 200);
}

#[tokio::test]
async fn kubectl_create_sends_protobuf_and_reads_json() {
    let world = world().await;
    let protobuf = ["content-type: application/vnd.kubernetes.protobuf"];
    // Envelope { typeMeta { "v1", "ConfigMap" }, raw { metadata { name "p" }, data { "a": "b" } } }
    let body = "k8s\0\n\x0f\n\x02v1\x12\x09ConfigMap\x12\x0d\n\x03\n\x01p\x12\x06\n\x01a\x12\x01b";
    assert_eq!(send(&world, "POST", CONFIGMAPS, &protobuf, body).await.status(), 201);
    let (code, object) = get(&world, &format!("{CONFIGMAPS}/p")).await;
    assert_eq!((code, &object["data"]), (200, &json!({"a": "b"})));
    let teapot = "k8s\0\n\x0c\n\x02v1\x12\x06Teapot";
    assert_eq!(send(&world, "POST", CONFIGMAPS, &protobuf, teapot).await.status(), 415);
}

#[tokio::test]
async fn warnings_are_few_however_many_faults_a_body_has() {
    let world = world().await;
    let key = format!(r#""{}":"1""#, "a".repeat(50));
    let body =
        format!(r#"{{"metadata":{{"name":"x"}},"data":{{{}{key}}}}}"#, format!("{key},").repeat(40_000));
    let made = send(&world, "POST", CONFIGMAPS, &[], &body).await;
    assert_eq!(made.status(), 201);
    let warnings: Vec<_> = made.headers().get_all(header::WARNING).iter().collect();
    assert!(warnings.len() > 1 && warnings.iter().map(|warning| warning.len()).sum::<usize>() < 8 << 10);
    assert!(warnings.last().unwrap().to_str().unwrap().contains("more"), "{warnings:?}");
    let long = "y".repeat(100_000);
    let body = format!(r#"{{"metadata":{{"name":"y"}},"{long}":1}}"#);
    let made = send(&world, "POST", CONFIGMAPS, &[], &body).await;
    assert_eq!(made.status(), 201);
    assert!(made.headers()[header::WARNING].len() < 1 << 10);
}

#[tokio::test]
async fn a_dry_run_is_one_wherever_it_is_said() {
    let world = world().await;
    let body = json!({"metadata": {"name": "x"}}).to_string();
    for query in ["dryRun=&dryRun=All", "dryRun=All&dryRun=None", "dryRun=All&dryRun=All"] {
        let answer = send(&world, "POST", &format!("{CONFIGMAPS}?{query}"), &[], &body).await;
        assert!([201, 422].contains(&answer.status().as_u16()), "{query}: {}", answer.status());
        assert_eq!(get(&world, &format!("{CONFIGMAPS}/x")).await.0, 404, "{query}");
    }
}

#[tokio::test]
async fn a_delete_whose_options_are_not_understood_deletes_nothing() {
    let world = world().await;
    configmap(&world, "x").await;
    let one = format!("{CONFIGMAPS}/x");
    for options in [
        r#"{"preconditions":{"uid":5}}"#,
        r#"{"preconditions":{"resourceVersion":7}}"#,
        r#"{"preconditions":"none"}"#,
        r#"{"orphanDependents":"yes"}"#,
        r#"{"propagationPolicy":7}"#,
    ] {
        let answer = send(&world, "DELETE", &one, &[], options).await;
        assert_eq!(answer.status(), 422, "{options}");
        assert_eq!(get(&world, &one).await.0, 200, "{options}");
    }
}

#[tokio::test]
async fn the_server_is_called_in_discovery_what_the_client_calls_it() {
    let world = world().await;
    let address = |document: &Value| document["serverAddressByClientCIDRs"][0]["serverAddress"].clone();
    let told = bytes(send(&world, "GET", "/api", &["host: gpu.example.com:6443"], "").await).await;
    assert_eq!(address(&parse(&told)), "gpu.example.com:6443");
    // HTTP/2 says it with the path.
    assert_eq!(address(&get(&world, "https://gpu.example.com:6443/api").await.1), "gpu.example.com:6443");
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_little() {
    let world = world().await;
    for place in 0..10 {
        let object = json!({"metadata": {"name": format!("x{place}")}, "data": {"k": "v".repeat(200_000)}});
        assert_eq!(send(&world, "POST", CONFIGMAPS, &[], &object.to_string()).await.status(), 201);
    }
    let watch = send(&world, "GET", &format!("{CONFIGMAPS}?watch=1"), &[], "").await;
    let mut body = watch.into_body();
    for _ in 0..10 {
        let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(chunk.len() < 400_000 && chunk.ends_with(b"}\n"), "{} bytes", chunk.len());
    }
}

/// Lets nobody do anything.
struct NoOne;

impl Authorizer for NoOne {
    fn allows(&self, _: &Identity, _: &Action<'_>) -> bool {
        false
    }
}

#[tokio::test]
async fn who_may_not_write_is_told_before_a_body_is_waited_for() {
    let service = Arc::new(ObjectService::new(store::memory(), Registry::builtin(), Arc::new(NoOne)));
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let path = if method == "POST" { CONFIGMAPS.to_owned() } else { format!("{CONFIGMAPS}/x") };
        let never = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        let patch = "application/merge-patch+json";
        let mut request = Request::builder().method(method).uri(path).body(never).unwrap();
        request.headers_mut().insert(header::CONTENT_TYPE, patch.parse().unwrap());
        request.extensions_mut().insert(Identity::of("eve", &[]));
        let answer = claw_apiserver::rest::router(service.clone()).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 403, "{method}");
    }
}
