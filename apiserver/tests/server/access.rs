//! Who may do what, over the wire: tokens of service accounts, nodes by their certificates, strangers, other people.

use claw_client::{
    Client, HttpTransport,
    endpoint::Endpoint,
    request::{ListOptions, PatchKind},
};
use claw_schemas::status::Reason;
use futures::{StreamExt as _, stream, stream::FuturesUnordered};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Namespace, Node, Pod, Secret, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use serde_json::{Value, json};

use crate::support::{Agent, LIMIT, TestServer, client, eventually, grpc, http, pod, soon};

/// One more than a user may have under way and waiting.
const FLOOD: usize = 128 + 512 + 1;

fn object<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

/// A service account `bot` in `default` that may read and make config maps, and its token.
async fn bot(server: &TestServer) -> Endpoint {
    let admin = server.client();
    let accounts = admin.namespaced::<ServiceAccount>("default");
    accounts.create(&object(json!({"metadata": {"name": "bot", "namespace": "default"}}))).await.unwrap();
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create"]});
    let role: Role = object(json!({"metadata": {"name": "reader", "namespace": "default"}, "rules": [rule]}));
    admin.namespaced::<Role>("default").create(&role).await.unwrap();
    let binding: RoleBinding = object(json!({
        "metadata": {"name": "bot-reads", "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}],
    }));
    admin.namespaced::<RoleBinding>("default").create(&binding).await.unwrap();
    server.stranger().token(token_of_bot(server).await)
}

async fn token_of_bot(server: &TestServer) -> String {
    let accounts = server.client().namespaced::<ServiceAccount>("default");
    let made = accounts.create_subresource("bot", "token", &TokenRequest::default()).await.unwrap();
    let made: TokenRequest = serde_json::from_slice(&made.body).unwrap();
    made.status.unwrap().token.unwrap()
}

#[tokio::test]
async fn a_service_account_does_what_its_role_says_over_both_wires() {
    let server = TestServer::start().await;
    let bot = bot(&server).await;
    for transport in [http(&bot), grpc(&bot)] {
        let client = Client::new(transport, "test");
        client.namespaced::<ConfigMap>("default").list(ListOptions::default()).await.unwrap();
        let error = client.namespaced::<Secret>("default").list(ListOptions::default()).await.unwrap_err();
        assert_eq!(error.reason, Reason::Forbidden);
        assert!(error.message.contains("User \"system:serviceaccount:default:bot\" cannot list"), "{error}");
    }
    let own = HttpTransport::new(&bot).unwrap();
    own.get_raw("/apis").await.expect("everybody with a name may discover");
    server.client().namespaced::<ServiceAccount>("default").delete("bot", Default::default()).await.unwrap();
    let error =
        client(&bot).namespaced::<ConfigMap>("default").list(ListOptions::default()).await.unwrap_err();
    assert_eq!(error.code, 401, "its token went with it");
}

#[tokio::test]
async fn others_can_verify_tokens_by_published_keys() {
    let server = TestServer::start().await;
    let bot = HttpTransport::new(&bot(&server).await).unwrap();
    let document = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap();
    let configuration = document(&bot.get_raw("/.well-known/openid-configuration").await.unwrap().body);
    assert_eq!(configuration["issuer"], "https://kubernetes.default.svc.cluster.local");
    let place = format!("{}/openid/v1/jwks", server.server.url());
    assert_eq!(configuration["jwks_uri"], place.as_str());
    let keys = document(&bot.get_raw("/openid/v1/jwks").await.unwrap().body);
    assert_eq!((&keys["keys"][0]["kty"], &keys["keys"][0]["crv"]), (&json!("EC"), &json!("P-256")));
    let stranger = HttpTransport::new(&server.stranger()).unwrap();
    assert_eq!(stranger.get_raw("/openid/v1/jwks").await.unwrap_err().code, 401);
}

#[tokio::test]
async fn tokens_outlive_a_restart_because_their_key_does() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = TestServer::start_with(|config| config.store = claw_apiserver::StoreKind::Sled).await;
    let bot = bot(&server).await;
    let key = server.dir.path().join("pki/service-accounts.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let config = claw_apiserver::Config::new(server.dir.path(), server.server.address());
    server.server.shutdown().await;
    let _again = claw_apiserver::Server::start(config).await.unwrap();
    client(&bot).namespaced::<ConfigMap>("default").list(ListOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_joined_node_reads_what_its_pods_refer_to_and_nothing_else() {
    let server = TestServer::start().await;
    let admin = server.client();
    let token = server.server.create_join_token(LIMIT).await.unwrap();
    let endpoint = server.join("gpu-02", &token).await.unwrap();
    let (_agent, _) = Agent::connect(&*server.server.node_link("gpu-02"), "gpu-02").await;
    for name in ["mine", "other"] {
        let secret: Secret = object(json!({"metadata": {"name": name, "namespace": "default"}}));
        admin.namespaced::<Secret>("default").create(&secret).await.unwrap();
    }
    let node = client(&endpoint);
    let secrets = node.namespaced::<Secret>("default");
    assert_eq!(secrets.get("mine").await.unwrap_err().code, 403, "no pod refers to it yet");
    let mut web: Pod = pod("web", "gpu-02");
    let volume = json!({"name": "v", "secret": {"secretName": "mine"}});
    web.spec.as_mut().unwrap().volumes = Some(vec![object(volume)]);
    admin.namespaced::<Pod>("default").create(&web).await.unwrap();
    eventually("the server knows the pod's node", async || secrets.get("mine").await.ok()).await;
    let error = secrets.get("other").await.unwrap_err();
    assert_eq!(error.code, 403);
    assert!(error.message.ends_with("no pod that is bound to node \"gpu-02\" refers to it"), "{error}");
    assert_eq!(secrets.list(ListOptions::default()).await.unwrap_err().code, 403);
    node.namespaced::<Pod>("default").get("web").await.unwrap();

    let nodes = node.all::<Node>();
    let fence = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/tenant": "a"}}});
    let error = nodes.patch("gpu-02", None, PatchKind::Merge, &fence).await.unwrap_err();
    assert!(error.message.contains("is not allowed to modify labels"), "{error}");
    let rack = json!({"metadata": {"labels": {"example.com/rack": "7"}}});
    nodes.patch("gpu-02", None, PatchKind::Merge, &rack).await.unwrap();
    assert_eq!(nodes.patch("gpu-03", None, PatchKind::Merge, &rack).await.unwrap_err().code, 403);

    admin.namespaced::<Pod>("default").delete("web", Default::default()).await.unwrap();
    let now = claw_client::request::DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    let _ = admin.namespaced::<Pod>("default").delete("web", now).await;
    eventually("the right ends with the pod", async || secrets.get("mine").await.err()).await;
}

#[tokio::test]
async fn strangers_are_who_nobody_gave_anything() {
    let server = TestServer::start().await;
    let stranger = client(&server.stranger());
    assert_eq!(stranger.all::<Namespace>().list(ListOptions::default()).await.unwrap_err().code, 401);
    let binding = json!({
        "metadata": {"name": "public"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
    });
    let bindings = server.client().all::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>();
    bindings.create(&object(binding)).await.unwrap();
    stranger.all::<Namespace>().list(ListOptions::default()).await.unwrap();
}

/// A body that never comes.
type Never = StreamBody<stream::Pending<Result<hyper::body::Frame<bytes::Bytes>, std::convert::Infallible>>>;

/// A client of HTTP/2 that retries nothing.
fn bare_client(
    server: &TestServer,
) -> hyper_util::client::legacy::Client<
    hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>,
    Never,
> {
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.server.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http2()
        .build();
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build(connector)
}

#[tokio::test]
async fn a_flood_is_told_when_to_come_back_and_waits_for_itself_alone() {
    let server = TestServer::start().await;
    let bot = bot(&server).await;
    let (flood, token) = (bare_client(&server), token_of_bot(&server).await);
    let ask = || {
        let place = format!("{}/api/v1/namespaces/default/configmaps", server.server.url());
        let request = Request::post(place)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        flood.request(request.body(StreamBody::new(stream::pending())).unwrap())
    };
    // Each has a seat, or a place in the queue, until its body has come; so the only answer is to one too many.
    let mut asked: FuturesUnordered<_> = (0..FLOOD).map(|_| ask()).collect();
    let refused = soon("a refusal", asked.next()).await.unwrap().unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    let body = soon("the refusal's body", refused.into_body().collect()).await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&status["reason"], &status["code"]), (&json!("TooManyRequests"), &json!(429)));
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    // At once, and not because it had waited for too long.
    assert!(status["message"].as_str().unwrap().contains("as many wait as may"), "{status}");

    let stranger = HttpTransport::new(&server.stranger()).unwrap();
    let error = soon("an answer to somebody else", stranger.get_raw("/apis")).await.unwrap_err();
    assert_eq!(error.code, 401, "it is not turned away for the sake of others");
    drop(asked);
    let maps = client(&bot).namespaced::<ConfigMap>("default");
    eventually("room for the bot", async || maps.list(ListOptions::default()).await.ok()).await;
}
