//! Who gets in, and how the others are turned away.

use claw_client::{Endpoint, HttpTransport, ResourceRef, Transport, Verb, request::ListOptions};
use claw_schemas::{ApiError, status::Reason};
use k8s_openapi::api::core::v1::Namespace;

use crate::support::{TestServer, client, grpc, http};

async fn list_namespaces(transport: &dyn Transport) -> Result<(), ApiError> {
    let resource = ResourceRef::collection("", "v1", "namespaces");
    let request = claw_client::Request {
        resource,
        verb: Verb::List(ListOptions::default()),
        view: claw_client::request::View::Object,
    };
    transport.call(request).await.map(drop)
}

async fn both(endpoint: &Endpoint) -> [Result<(), ApiError>; 2] {
    [list_namespaces(&*http(endpoint)).await, list_namespaces(&*grpc(endpoint)).await]
}

fn admin_token(server: &TestServer) -> String {
    std::fs::read_to_string(server.dir.path().join("admin.token")).unwrap().trim().to_owned()
}

#[tokio::test]
async fn the_administrator_gets_in_by_certificate_and_by_token() {
    let server = TestServer::start().await;
    for answer in both(&server.admin()).await {
        answer.unwrap();
    }
    for answer in both(&server.stranger().token(admin_token(&server))).await {
        answer.unwrap();
    }
    let namespaces = server.client().all::<Namespace>().list(ListOptions::default()).await.unwrap();
    assert!(namespaces.items.iter().any(|one| one.metadata.name.as_deref() == Some("kube-system")));
}

#[tokio::test]
async fn strangers_are_told_what_to_do() {
    let server = TestServer::start().await;
    for answer in both(&server.stranger()).await {
        let error = answer.unwrap_err();
        assert_eq!((error.code, error.reason), (401, Reason::Unauthorized));
        assert!(error.message.contains("admin.kubeconfig"), "{error}");
    }
}

#[tokio::test]
async fn strangers_may_ask_for_health_and_version() {
    let server = TestServer::start().await;
    let stranger = HttpTransport::new(&server.stranger()).unwrap();
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(stranger.get_raw(path).await.unwrap().code, 200, "{path}");
    }
    assert_eq!(stranger.get_raw("/api").await.unwrap_err().code, 401);
}

#[tokio::test]
async fn a_wrong_token_is_refused_even_where_strangers_may_read() {
    let server = TestServer::start().await;
    for token in ["wrong", "abcdef.0123456789abcdef", "a b"] {
        let endpoint = server.stranger().token(token);
        for answer in both(&endpoint).await {
            assert_eq!(answer.unwrap_err().code, 401, "{token}");
        }
        let health = HttpTransport::new(&endpoint).unwrap().get_raw("/healthz").await;
        assert_eq!(health.unwrap_err().code, 401, "{token}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_cluster_does_not_get_in() {
    let (ours, theirs) = (TestServer::start().await, TestServer::start().await);
    let certificate = theirs.admin().certificate.unwrap();
    let foreign = ours.stranger().certificate(certificate.chain_pem, certificate.key_pem);
    let error = client(&foreign).all::<Namespace>().get("default").await.unwrap_err();
    assert_eq!(error.reason, Reason::ServiceUnavailable, "{error}");
}

#[tokio::test]
async fn the_server_shows_a_certificate_of_the_cluster() {
    let (ours, theirs) = (TestServer::start().await, TestServer::start().await);
    let mut misled = ours.admin();
    misled.trust = claw_client::endpoint::Trust::Roots(theirs.server.ca_pem().into());
    assert!(client(&misled).all::<Namespace>().get("default").await.is_err());

    let hash = ours.server.ca_hash().strip_prefix("sha256:").unwrap();
    let digest: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap()).collect();
    let mut pinned = ours.admin();
    pinned.trust = claw_client::endpoint::Trust::CaSha256(digest.try_into().unwrap());
    client(&pinned).all::<Namespace>().get("default").await.unwrap();
}

#[tokio::test]
async fn a_node_is_told_what_it_may_not_do() {
    let server = TestServer::start().await;
    let token = server.server.create_join_token(crate::support::LIMIT).await.unwrap();
    let node = server.join("gpu-02", &token).await.unwrap();
    for answer in [
        client(&node)
            .all::<k8s_openapi::api::core::v1::Secret>()
            .list(ListOptions::default())
            .await
            .map(drop),
        client(&node).all::<Namespace>().delete("default", Default::default()).await,
    ] {
        let error = answer.unwrap_err();
        assert_eq!(error.code, 403);
        assert!(error.message.contains("system:node:gpu-02"), "{error}");
    }
    client(&node).all::<Namespace>().get("default").await.unwrap();
}
