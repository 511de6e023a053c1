//! What those who run a server see of it: health, figures, names of requests, backups.

use std::time::Duration;

use claw_apiserver::backup;
use claw_client::{HttpTransport, endpoint::Endpoint, request::WatchOptions};
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::{client::legacy, rt::TokioExecutor};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::support::{TestServer, client, eventually, soon};

fn object<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

fn config_map(name: &str) -> ConfigMap {
    object(json!({"metadata": {"name": name, "namespace": "default"}}))
}

/// A client with nothing of its own, to see what is on the wire.
struct Wire {
    http: legacy::Client<hyper_rustls::HttpsConnector<legacy::connect::HttpConnector>, Empty<bytes::Bytes>>,
    url: String,
    token: Option<String>,
}

impl Wire {
    /// As the administrator, or as nobody.
    fn new(server: &TestServer, is_admin: bool) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        let pem = rustls_pki_types::CertificateDer::pem_slice_iter(server.server.ca_pem().as_bytes());
        pem.for_each(|certificate| roots.add(certificate.unwrap()).unwrap());
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .build();
        let token = std::fs::read_to_string(server.dir.path().join("admin.token")).unwrap();
        Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(connector),
            url: server.server.url().to_owned(),
            token: is_admin.then(|| token.trim().to_owned()),
        }
    }

    async fn get(&self, path: &str, audit_id: Option<&str>) -> Response<Incoming> {
        let mut request = Request::get(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(id) = audit_id {
            request = request.header("audit-id", id);
        }
        soon("an answer", self.http.request(request.body(Empty::new()).unwrap())).await.unwrap()
    }

    async fn text(&self, path: &str) -> (u16, String) {
        let answer = self.get(path, None).await;
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn health_is_told_check_by_check_to_everybody() {
    let server = TestServer::start().await;
    let nobody = Wire::new(&server, false);
    for path in ["/livez", "/readyz", "/healthz", "/livez/ping", "/readyz/store", "/readyz/nodes"] {
        assert_eq!(nobody.text(path).await, (200, "ok".to_owned()), "{path}");
    }
    let all =
        "[+]ping ok\n[+]store ok\n[+]definitions ok\n[+]nodes ok\n[+]shutdown ok\nreadyz check passed\n";
    assert_eq!(nobody.text("/readyz?verbose").await, (200, all.to_owned()));
    let some = "[+]ping ok\n[+]store excluded: ok\nwarn: some health checks cannot be excluded: no matches for \
                \"etcd\"\nlivez check passed\n";
    assert_eq!(nobody.text("/livez?verbose&exclude=store&exclude=etcd").await, (200, some.to_owned()));
    assert_ne!(nobody.text("/readyz/no-such-check").await.0, 200);
}

#[tokio::test]
async fn a_store_that_takes_no_writes_fails_the_checks_unless_they_leave_it_out() {
    let server = TestServer::start().await;
    server.server.service().store().close().await;
    let nobody = Wire::new(&server, false);
    let failed = "[+]ping ok\n[-]store failed: reason withheld\nlivez check failed\n";
    assert_eq!(nobody.text("/livez").await, (500, failed.to_owned()));
    assert_eq!(nobody.text("/livez/store").await.0, 500);
    assert_eq!(nobody.text("/livez?exclude=store").await, (200, "ok".to_owned()));
}

#[tokio::test]
async fn while_it_stops_a_server_is_alive_and_not_ready() {
    let server = TestServer::start_with(|config| config.shutdown_delay = Duration::from_secs(3600)).await;
    let nobody = Wire::new(&server, false);
    assert_eq!(nobody.text("/readyz").await.0, 200);
    let TestServer { server, dir: _dir } = server;
    let stop = tokio::spawn(server.shutdown());
    let (code, text) = eventually("a server that is not ready", async || {
        Some(nobody.text("/readyz").await).filter(|(code, _)| *code != 200)
    })
    .await;
    assert_eq!(code, 500);
    assert!(
        text.contains("[-]shutdown failed: reason withheld\n") && text.ends_with("readyz check failed\n")
    );
    assert!(text.contains("[+]store ok\n"), "{text}");
    assert_eq!(nobody.text("/livez").await, (200, "ok".to_owned()));
    stop.abort();
}

/// The value of a sample, whose labels may come in between.
fn sample(text: &str, name: &str, labels: &[&str]) -> f64 {
    let is_it = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    let line = text.lines().find(is_it).unwrap_or_else(|| panic!("no {name} {labels:?} in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn figures_tell_what_was_asked_stored_and_watched() {
    let server = TestServer::start_with(|config| config.store = claw_apiserver::StoreKind::Sled).await;
    let (admin, wire) = (server.client(), Wire::new(&server, true));
    let maps = admin.namespaced::<ConfigMap>("default");
    let mut watch = maps.watch(WatchOptions::default()).await.unwrap();
    for name in ["a", "b", "c"] {
        maps.create(&config_map(name)).await.unwrap();
    }
    maps.get("missing").await.unwrap_err();
    for _ in 0..3 {
        soon("an event", watch.next()).await.unwrap().unwrap();
    }
    assert_eq!(wire.text("/api/v1/made-up-things").await.0, 404);
    let (code, text) = wire.text("/metrics").await;
    assert_eq!(code, 200);
    let (name, of) = ("apiserver_request_total", "resource=\"configmaps\"");
    assert_eq!(sample(&text, name, &["verb=\"POST\"", of, "code=\"201\""]), 3.0);
    assert_eq!(sample(&text, name, &["verb=\"GET\"", of, "code=\"404\""]), 1.0);
    assert_eq!(sample(&text, name, &["verb=\"WATCH\"", of, "code=\"200\""]), 1.0);
    let name = "apiserver_request_duration_seconds_count";
    assert_eq!(sample(&text, name, &["verb=\"POST\"", of]), 3.0);
    assert!(!text.contains("made-up-things"), "a client's words are no labels");
    assert!(sample(&text, "apiserver_watch_events_total", &[of]) >= 3.0);
    assert!(sample(&text, "apiserver_longrunning_requests", &["verb=\"WATCH\""]) >= 1.0);
    assert!(sample(&text, "apiserver_resource_objects", &[of]) >= 3.0);
    assert!(sample(&text, "clawbernetes_store_object_bytes", &[of]) > 300.0);
    assert!(sample(&text, "clawbernetes_store_writes_total", &[]) >= 3.0);
    assert!(sample(&text, "clawbernetes_store_commit_duration_seconds_count", &[]) >= 3.0);
    assert!(sample(&text, "clawbernetes_store_batch_transactions_count", &[]) >= 3.0);
    // An answer is under way for a moment after it was read.
    eventually("this one alone", async || {
        let (_, text) = wire.text("/metrics").await;
        (sample(&text, "apiserver_current_inflight_requests", &["readOnly"]) == 1.0).then_some(())
    })
    .await;
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
        assert!(sample(&text, name, &[]) > 0.0);
    }
    drop(watch);
    eventually("the end of the watch", async || {
        let (_, text) = wire.text("/metrics").await;
        (sample(&text, "apiserver_longrunning_requests", &[]) == 0.0).then_some(())
    })
    .await;
}

/// A service account without any role.
async fn bot(server: &TestServer) -> Endpoint {
    let accounts = server.client().namespaced::<ServiceAccount>("default");
    accounts.create(&object(json!({"metadata": {"name": "bot", "namespace": "default"}}))).await.unwrap();
    let made = accounts.create_subresource("bot", "token", &TokenRequest::default()).await.unwrap();
    let made: Value = serde_json::from_slice(&made.body).unwrap();
    server.stranger().token(made["status"]["token"].as_str().unwrap())
}

#[tokio::test]
async fn figures_and_backups_are_for_those_whom_a_role_lets_see_them() {
    let server = TestServer::start().await;
    let nobody = Wire::new(&server, false);
    let bot = HttpTransport::new(&bot(&server).await).unwrap();
    for path in ["/metrics", backup::PATH] {
        assert_eq!(nobody.text(path).await.0, 401, "{path}");
        assert_eq!(bot.get_raw(path).await.unwrap_err().code, 403, "{path}");
    }
    let admin = client(&server.admin());
    let role: ClusterRole = object(json!({
        "metadata": {"name": "sees-figures"},
        "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
    }));
    admin.all::<ClusterRole>().create(&role).await.unwrap();
    let binding: ClusterRoleBinding = object(json!({
        "metadata": {"name": "bot-sees-figures"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "sees-figures"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}],
    }));
    admin.all::<ClusterRoleBinding>().create(&binding).await.unwrap();
    assert_eq!(bot.get_raw("/metrics").await.unwrap().code, 200);
    assert_eq!(bot.get_raw(backup::PATH).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn every_answer_has_a_name_which_is_the_clients_if_that_is_sane() {
    let server = TestServer::start().await;
    let (nobody, admin) = (Wire::new(&server, false), Wire::new(&server, true));
    let mut seen = std::collections::HashSet::new();
    for (wire, path, code) in [
        (&admin, "/api/v1/pods", 200),
        (&admin, "/api/v1/nothing", 404),
        (&nobody, "/api/v1/pods", 401),
        (&nobody, "/livez", 200),
    ] {
        let answer = wire.get(path, None).await;
        assert_eq!(answer.status(), code);
        assert!(seen.insert(answer.headers()["audit-id"].clone()), "{path}");
        assert_eq!(wire.get(path, Some("mine-42")).await.headers()["audit-id"], "mine-42");
        assert_ne!(wire.get(path, Some("not mine")).await.headers()["audit-id"], "not mine");
    }
}
