//! Whatever is thrown at the server, the answer is a clear error, and it goes on serving.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    pin::pin,
    time::Duration,
};

use claw_e2e::{
    Cluster, Options,
    http::{Answer, Http},
    need::{self, Need},
    wait,
};
use futures::{StreamExt as _, stream};
use http::Method;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// As many as the promise names.
const WATCHES: usize = 10_000;

/// As many are asked for at a time: the server works on one while the other side of another is worked on here.
const WATCHES_AT_A_TIME: usize = 4;

async fn post(http: &Http, body: impl Into<bytes::Bytes>) -> Answer {
    http.ask(Method::POST, PATH, &[("content-type", "application/json")], body).await.expect("an answer")
}

#[track_caller]
fn assert_status(answer: &Answer, code: u16, reason: &str, words: &[&str]) {
    let status = answer.json();
    assert_eq!(answer.code, code, "{}", answer.text());
    assert_eq!(status["kind"], "Status", "errors are Status objects: {}", answer.text());
    assert_eq!(status["reason"], reason, "{}", answer.text());
    let message = status["message"].as_str().unwrap_or("");
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_objects_are_refused_by_name() {
    let cluster = Cluster::start(Options::server());
    let http = Http::admin(&cluster);
    assert_status(&post(&http, "{\"kind\": \"ConfigMap\", ").await, 400, "BadRequest", &[]);
    assert_status(&post(&http, &b"\xff\xfe\x00garbage"[..]).await, 400, "BadRequest", &[]);
    assert_status(&post(&http, "[]").await, 400, "BadRequest", &[]);
    let yaml = "kind: ConfigMap\n  apiVersion: v1\n\t- x";
    let answer =
        http.ask(Method::POST, PATH, &[("content-type", "application/yaml")], yaml).await.expect("an answer");
    assert_status(&answer, 400, "BadRequest", &[]);

    let wrong = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": 1}});
    let answer = post(&http, wrong.to_string()).await;
    assert!(matches!(answer.code, 400 | 422), "{}", answer.text());
    assert!(answer.text().contains("data"), "the field is named: {}", answer.text());

    let unknown =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "dada": {"a": "1"}});
    let strict = format!("{PATH}?fieldValidation=Strict");
    let answer = http.ask(Method::POST, &strict, &[], unknown.to_string()).await.expect("an answer");
    assert_status(&answer, 400, "BadRequest", &["strict decoding error", "unknown field \"dada\""]);

    let bad_name = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Not_A_Name"}});
    assert_status(&post(&http, bad_name.to_string()).await, 422, "Invalid", &["metadata.name", "Not_A_Name"]);
    let other_kind = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}});
    assert_status(&post(&http, other_kind.to_string()).await, 400, "BadRequest", &["Secret"]);

    // 3 MiB of JSON is more than any object may be; so is nesting without end.
    let huge = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "x".repeat(4 << 20)}});
    let answer = post(&http, huge.to_string()).await;
    assert_status(&answer, 413, "RequestEntityTooLarge", &[]);
    let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    assert_status(&post(&http, deep).await, 400, "BadRequest", &[]);
    still_serves(&http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_a_status() {
    let cluster = Cluster::start(Options::server());
    let http = Http::admin(&cluster);
    for (path, code, reason) in [
        ("/api/v1/namespaces/default/nonsense", 404, "NotFound"),
        ("/apis/nobody.example/v1/things", 404, "NotFound"),
        ("/api/v1/pods?labelSelector=a%3D%3D%3Db", 400, "BadRequest"),
        ("/api/v1/pods?fieldSelector=spec.nonsense%3D1", 400, "BadRequest"),
        ("/api/v1/pods?limit=minus-one", 400, "BadRequest"),
        ("/api/v1/pods?continue=garbage", 400, "BadRequest"),
        ("/api/v1/pods?watch=true&resourceVersion=latest", 400, "BadRequest"),
    ] {
        let answer = http.ask(Method::GET, path, &[], "").await.expect("an answer");
        assert_eq!(
            (answer.code, answer.json()["reason"].as_str()),
            (code, Some(reason)),
            "{path}: {}",
            answer.text()
        );
    }
    let answer = http.ask(Method::PUT, PATH, &[], "{}").await.expect("an answer");
    assert_status(&answer, 405, "MethodNotAllowed", &[]);
    let headers = [("content-type", "text/plain")];
    let answer = http.ask(Method::PATCH, &format!("{PATH}/c"), &headers, "{}").await.expect("an answer");
    assert_status(&answer, 415, "UnsupportedMediaType", &[]);
    let headers = [("content-type", "application/apply-patch+yaml")];
    for (query, body, code, reason) in [
        ("", "{}", 422, "Invalid"),
        ("?fieldManager=m", "{}", 400, "BadRequest"),
        ("?fieldManager=m", "a: [", 400, "BadRequest"),
    ] {
        let path = format!("{PATH}/c{query}");
        let answer = http.ask(Method::PATCH, &path, &headers, body).await.expect("an answer");
        assert_status(&answer, code, reason, &[]);
    }
    still_serves(&http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_learn_nothing() {
    let cluster = Cluster::start(Options::server());
    let nobody = Http::anonymous(&cluster);
    for path in [PATH, "/api/v1/secrets", "/apis/apps/v1/deployments", "/api", "/openapi/v2"] {
        let answer = nobody.ask(Method::GET, path, &[], "").await.expect("an answer");
        assert_status(&answer, 401, "Unauthorized", &[]);
    }
    assert_eq!(nobody.ask(Method::GET, "/readyz", &[], "").await.expect("an answer").code, 200);
    for token in ["wrong", "abcdef.0123456789abcdef", &"x".repeat(4000)] {
        let answer = Http::bearer(&cluster, token).ask(Method::GET, PATH, &[], "").await.expect("an answer");
        assert_status(&answer, 401, "Unauthorized", &[]);
    }
    still_serves(&Http::admin(&cluster)).await;
}

#[test]
fn broken_connections_cost_nothing() {
    let cluster = Cluster::start(Options::server());
    // The first bytes of a TLS hello that never goes on, plain HTTP on the TLS port, and noise.
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    let starts: [&[u8]; 3] = [&hello, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0xff; 2048]];
    let mut open = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(cluster.address()).expect("the server accepts");
        // A server that hangs up at once is in its right.
        let _ = stream.write_all(starts[number % starts.len()]);
        open.push(stream);
    }
    block_on(async { still_serves(&Http::admin(&cluster)).await });
    // Plain HTTP is told something or hung up on, not left hanging.
    let mut plain = TcpStream::connect(cluster.address()).expect("the server accepts");
    plain.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out can be set");
    let _ = plain.write_all(b"GET /api HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut answer = Vec::new();
    match plain.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn ten_thousand_watches_are_served_or_refused_in_words() {
    raise_descriptor_limit();
    let cluster = Cluster::start(Options::server());
    block_on(async {
        let http = Http::admin(&cluster);
        let list = http.get(PATH).await.expect("lists");
        let revision = list["metadata"]["resourceVersion"].as_str().expect("a revision");
        let path = format!("{PATH}?watch=true&resourceVersion={revision}");
        let (mut open, mut refused) = (Vec::new(), 0);
        let ask = |_| http.send(Method::GET, &path, &[], "");
        let mut answers = pin!(stream::iter(0..WATCHES).map(ask).buffer_unordered(WATCHES_AT_A_TIME));
        while let Some(response) = answers.next().await {
            match response {
                Ok(response) if response.status() == 200 => open.push(response),
                Ok(response) => {
                    assert_eq!(response.status(), 429, "too many is said as 429");
                    assert!(response.headers().contains_key("retry-after"), "and when to come back");
                    refused += 1;
                }
                // The limit on connections: hung up on before any request.
                Err(_) => refused += 1,
            }
            if refused > 100 {
                break;
            }
        }
        eprintln!("{} watches are open, {refused} were refused", open.len());
        assert!(open.len() >= 1000, "only {} watches were accepted", open.len());
        // With all of them open, a write is still acknowledged, and the last watcher sees it.
        still_serves(&Http::admin(&cluster)).await;
        let last = open.pop().expect("there are some");
        let mut body = last.into_body();
        let frame = tokio::time::timeout(wait::SOON, http_body_util::BodyExt::frame(&mut body));
        let frame =
            frame.await.expect("an event arrives in time").expect("the watch goes on").expect("a frame");
        assert!(frame.data_ref().is_some_and(|data| data.starts_with(b"{\"type\":\"ADDED\"")));
    });
}

#[test]
fn kubectl_prints_errors_that_help() {
    if !need::all("kubectl_prints_errors_that_help", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::server());
    for kubectl in cluster.kubectls() {
        let said = kubectl.fails(&["apply", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: [\n");
        assert!(said.contains("error"), "{said}");
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: two}\n";
        let said = kubectl.fails(&["apply", "--validate=false", "-f", "-"], text);
        assert!(said.contains("replicas") || said.contains("selector"), "the field is named: {said}");
        let said = kubectl.fails(&["get", "nonsense"], "");
        assert!(said.contains("the server doesn't have a resource type \"nonsense\""), "{said}");
    }
}

async fn still_serves(http: &Http) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "alive-"}});
    let made: Value = http.post(PATH, &object).await.expect("the server goes on");
    let name = made["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("alive-") && name.len() > "alive-".len(), "{made}");
}

fn block_on(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(story);
}

/// Up to the hard limit; the server inherits it.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit may go up to the hard one");
}
