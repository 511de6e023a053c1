//! The client library against a real server: the same answers and the same errors over every wire.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use claw_apiserver::{Config, Server, StoreKind};
use claw_client::{
    CertificateFiles, Client, Endpoint, GrpcNodeLink, GrpcTransport, HttpTransport, Kubeconfig, Request,
    ResourceRef, Token, Transport, Trust, Verb, WatchEvent,
    request::{
        DeleteOptions, FieldValidation, IncludeObject, ListOptions, PatchKind, View, WatchOptions,
        WriteOptions,
    },
};
use claw_schemas::status::Reason;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server in this process, with a TLS port.
struct Rig {
    server: Server,
    _folder: TempDir,
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listen: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let config = Config { store: StoreKind::Memory, ..Config::new(folder.path(), listen) };
        Self { server: Server::start(config).await.expect("the server starts"), _folder: folder }
    }

    fn endpoint(&self) -> Endpoint {
        Kubeconfig::read(&self.server.kubeconfig_path())
            .expect("a kubeconfig")
            .select(None)
            .expect("a context")
            .endpoint
    }

    /// One transport a wire, by name.
    fn transports(&self) -> Vec<(&'static str, Arc<dyn Transport>)> {
        vec![
            ("in process", self.server.transport("tests")),
            ("HTTP", Arc::new(HttpTransport::new(&self.endpoint()).expect("HTTP"))),
            ("gRPC", Arc::new(GrpcTransport::new(&self.endpoint()).expect("gRPC"))),
        ]
    }
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": value}})).expect("a ConfigMap")
}

fn maps() -> ResourceRef {
    ResourceRef::collection("", "v1", "configmaps").in_namespace("default")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wire_creates_reads_changes_lists_and_deletes() {
    let rig = Rig::start().await;
    for (i, (wire, transport)) in rig.transports().into_iter().enumerate() {
        let maps = Client::new(transport, "tests").namespaced::<ConfigMap>("default");
        let name = format!("map-{i}");
        let created = maps.create(&config_map(&name, "1")).await.expect(wire);
        let mut changed = created.clone();
        changed.data = config_map(&name, "2").data;
        let changed = maps.update(&changed).await.expect(wire);
        assert_ne!(changed.metadata.resource_version, created.metadata.resource_version, "{wire}");
        let patch = json!({"data": {"more": "3"}});
        maps.patch(&name, None, PatchKind::Merge, &patch).await.expect(wire);
        let read = maps.get(&name).await.expect(wire);
        assert_eq!(read.data.expect("data")["more"], "3", "{wire}");
        let options =
            ListOptions { field_selector: format!("metadata.name={name}"), ..ListOptions::default() };
        assert_eq!(maps.list(options).await.expect(wire).items.len(), 1, "{wire}");
        maps.delete(&name, DeleteOptions::default()).await.expect(wire);
        assert!(maps.find(&name).await.expect(wire).is_none(), "{wire}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wire_tells_a_refusal_in_the_same_words() {
    let rig = Rig::start().await;
    let local = Client::new(rig.server.transport("tests"), "tests").namespaced::<ConfigMap>("default");
    let stale = local.create(&config_map("there", "1")).await.expect("creates");
    local.patch("there", None, PatchKind::Merge, &json!({"data": {"k": "2"}})).await.expect("patches");
    let mut told = Vec::new();
    for (wire, transport) in rig.transports() {
        let maps = Client::new(transport, "tests").namespaced::<ConfigMap>("default");
        let precondition =
            DeleteOptions { precondition_uid: Some("another".to_owned()), ..DeleteOptions::default() };
        let errors = [
            maps.get("missing").await.expect_err(wire),
            maps.create(&config_map("there", "1")).await.expect_err(wire),
            maps.update(&stale).await.expect_err(wire),
            maps.create(&config_map("Not_A_Name", "1")).await.expect_err(wire),
            maps.delete("there", precondition).await.expect_err(wire),
            maps.list(ListOptions { label_selector: "a b c".to_owned(), ..ListOptions::default() })
                .await
                .expect_err(wire),
        ];
        let reasons: Vec<_> = errors.iter().map(|error| error.reason).collect();
        assert_eq!(
            reasons,
            [
                Reason::NotFound,
                Reason::AlreadyExists,
                Reason::Conflict,
                Reason::Invalid,
                Reason::Conflict,
                Reason::BadRequest
            ],
            "{wire}: {errors:?}"
        );
        told.push((wire, errors));
    }
    for (wire, errors) in &told[1..] {
        assert_eq!(*errors, told[0].1, "{wire} differs from {}", told[0].0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wire_watches_the_same_events() {
    let rig = Rig::start().await;
    let start = Client::new(rig.server.transport("tests"), "tests")
        .namespaced::<ConfigMap>("default")
        .list(ListOptions::default())
        .await
        .expect("lists")
        .resource_version;
    let options = WatchOptions { resource_version: Some(start), ..WatchOptions::default() };
    let mut watches = Vec::new();
    for (wire, transport) in rig.transports() {
        watches.push((wire, transport.watch(maps(), options.clone(), View::Object).await.expect(wire)));
    }
    let local = Client::new(rig.server.transport("tests"), "tests").namespaced::<ConfigMap>("default");
    local.create(&config_map("a", "1")).await.expect("creates");
    local.patch("a", None, PatchKind::Merge, &json!({"data": {"k": "2"}})).await.expect("patches");
    local.delete("a", DeleteOptions::default()).await.expect("deletes");
    let mut seen = Vec::new();
    for (wire, mut watch) in watches {
        let mut events = Vec::new();
        for _ in 0..3 {
            events.push(watch.next().await.expect(wire).expect(wire));
        }
        assert!(matches!(
            events.as_slice(),
            [WatchEvent::Added(_), WatchEvent::Modified(_), WatchEvent::Deleted(_)]
        ));
        seen.push((wire, events));
    }
    for (wire, events) in &seen[1..] {
        assert_eq!(*events, seen[0].1, "{wire} differs from {}", seen[0].0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_metadata_and_warnings_come_over_http() {
    let rig = Rig::start().await;
    let http: Arc<dyn Transport> = Arc::new(HttpTransport::new(&rig.endpoint()).expect("HTTP"));
    let write = |validation| WriteOptions { field_validation: validation, ..WriteOptions::default() };
    let body =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "w"}, "dataa": {}}).to_string();
    let create = |validation| Request {
        resource: maps(),
        verb: Verb::Create { body: body.clone().into(), options: write(validation) },
        view: View::Object,
    };
    let strict = http.call(create(FieldValidation::Strict)).await.expect_err("a strict server refuses");
    assert!(strict.message.contains("unknown field \"dataa\""), "{strict}");
    let warned = http.call(create(FieldValidation::Warn)).await.expect("a warning server accepts");
    assert_eq!((warned.code, warned.warnings.len()), (201, 1), "{:?}", warned.warnings);
    assert!(warned.warnings[0].contains("unknown field \"dataa\""), "{:?}", warned.warnings);

    let list = |view| Request { resource: maps(), verb: Verb::List(ListOptions::default()), view };
    let table = http.call(list(View::Table(IncludeObject::None))).await.expect("a table");
    let table: Value = serde_json::from_slice(&table.body).expect("JSON");
    assert_eq!(table["kind"], "Table");
    let metadata = http.call(list(View::Metadata)).await.expect("metadata");
    let metadata: Value = serde_json::from_slice(&metadata.body).expect("JSON");
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");

    let grpc = GrpcTransport::new(&rig.endpoint()).expect("gRPC");
    let refused = grpc.call(list(View::Metadata)).await.expect_err("gRPC has no views");
    assert_eq!(refused.reason, Reason::NotAcceptable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_by_its_authority_or_the_authoritys_digest_and_nothing_else() {
    let rig = Rig::start().await;
    let good = rig.endpoint();
    let digest = rig.server.ca_hash().strip_prefix("sha256:").expect("a digest").to_owned();
    let digest: Vec<u8> =
        (0..64).step_by(2).map(|i| u8::from_str_radix(&digest[i..i + 2], 16).expect("hexadecimal")).collect();
    let mut digest: [u8; 32] = digest.try_into().expect("32 bytes");
    let version = |trust: Trust| {
        let endpoint = good.clone().trust(trust);
        async move { HttpTransport::new(&endpoint).expect("HTTP").get_raw("/version").await }
    };
    version(good.trust.clone()).await.expect("its authority");
    version(Trust::CaSha256(digest)).await.expect("its authority's digest");
    version(Trust::Anything).await.expect("anything");
    for wrong in [
        Trust::System,
        Trust::CaSha256({
            digest[0] ^= 1;
            digest
        }),
    ] {
        let error = version(wrong).await.expect_err("another authority");
        assert!(
            error.message.contains("TLS handshake") && error.message.contains("certificate-authority"),
            "{error}"
        );
    }
    let mut elsewhere = good.clone();
    elsewhere.server_name = Some("elsewhere.example.com".to_owned());
    let error =
        HttpTransport::new(&elsewhere).expect("HTTP").get_raw("/version").await.expect_err("another name");
    assert!(error.message.contains("tls-server-name"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_a_certificate_or_a_token_and_a_wrong_one_is_refused() {
    let rig = Rig::start().await;
    let nobody = {
        let mut endpoint = rig.endpoint();
        endpoint.certificate = None;
        endpoint
    };
    let token = std::fs::read_to_string(rig.server.kubeconfig_path().with_file_name("admin.token"));
    let token = token.expect("the administrator's token").trim().to_owned();
    let list = || Request { resource: maps(), verb: Verb::List(ListOptions::default()), view: View::Object };
    let with_token = nobody.clone().token(token);
    HttpTransport::new(&with_token).expect("HTTP").call(list()).await.expect("a good token over HTTP");
    GrpcTransport::new(&with_token).expect("gRPC").call(list()).await.expect("a good token over gRPC");
    for endpoint in [nobody.clone(), nobody.clone().token("wrong")] {
        let http = HttpTransport::new(&endpoint).expect("HTTP").call(list()).await.expect_err("nobody");
        let grpc = GrpcTransport::new(&endpoint).expect("gRPC").call(list()).await.expect_err("nobody");
        assert_eq!((http.reason, grpc.reason), (Reason::Unauthorized, Reason::Unauthorized));
    }
    let link = GrpcNodeLink::new(&nobody.token("abcdef.0123456789abcdef")).expect("a link");
    let error = link.join("gpu-02", Vec::new()).await.expect_err("a token that was never made");
    assert_eq!(error.reason, Reason::Unauthorized, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_tokens_in_files_that_are_replaced_are_taken_up_over_every_wire() {
    let (rig, stranger) = (Rig::start().await, Rig::start().await);
    let list = || Request { resource: maps(), verb: Verb::List(ListOptions::default()), view: View::Object };
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path
    };
    let files = |of: &Rig| {
        let certificate = of.endpoint().certificate.expect("an administrator's certificate");
        CertificateFiles {
            chain: place("chain.pem", &certificate.chain_pem),
            key: place("key.pem", &certificate.key_pem),
        }
    };
    let mut by_certificate = rig.endpoint();
    by_certificate.certificate_files = Some(files(&stranger));
    by_certificate.certificate = stranger.endpoint().certificate;
    let mut by_token = rig.endpoint();
    by_token.certificate = None;
    by_token.token = Some(Token::File(place("token", b"wrong")));
    let token = std::fs::read(rig.server.kubeconfig_path().with_file_name("admin.token")).expect("a token");

    let mut clients: Vec<Arc<dyn Transport>> = Vec::new();
    for endpoint in [&by_certificate, &by_token] {
        clients.push(Arc::new(HttpTransport::new(endpoint).expect("HTTP")));
        clients.push(Arc::new(GrpcTransport::new(endpoint).expect("gRPC")));
    }
    for client in &clients {
        client.call(list()).await.expect_err("what the files hold is not known here");
    }
    files(&rig);
    place("token", &token);
    for (number, client) in clients.iter().enumerate() {
        let answer = client.call(list()).await;
        assert!(answer.is_ok(), "what the files hold now is not taken up by client {number}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_cleanly_when_the_server_stops() {
    let rig = Rig::start().await;
    let http = HttpTransport::new(&rig.endpoint()).expect("HTTP");
    let mut watch = http.watch(maps(), WatchOptions::default(), View::Object).await.expect("watches");
    rig.server.shutdown().await;
    let end = tokio::time::timeout(Duration::from_secs(30), async {
        while let Some(event) = watch.next().await {
            event.expect("events until the end");
        }
    });
    end.await.expect("the watch ends");
}
