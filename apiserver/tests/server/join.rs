//! Machines that become nodes.

use std::time::Duration;

use claw_client::{grpc::GrpcNodeLink, node::NodeLink as _};
use claw_schemas::status::Reason;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Agent, LIMIT, TestServer, certificate_request, client, grpc};

#[tokio::test]
async fn of_two_machines_with_one_token_one_joins() {
    let server = TestServer::start().await;
    let token = server.server.create_join_token(LIMIT).await.unwrap();
    let (one, two) = tokio::join!(server.join("one", &token), server.join("two", &token));
    let refused = match (one, two) {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
        (one, two) => panic!("{:?} {:?}", one.err(), two.err()),
    };
    assert_eq!(refused.code, 401, "{refused}");
    assert_eq!(server.join("three", &token).await.unwrap_err().code, 401);
    let secrets = server.client().namespaced::<Secret>("kube-system").list(Default::default()).await.unwrap();
    assert!(secrets.items.is_empty());
}

#[tokio::test]
async fn a_joined_machine_is_its_node_and_can_renew() {
    let server = TestServer::start().await;
    let token = server.server.create_join_token(LIMIT).await.unwrap();
    let node = server.join("gpu-02", &token).await.unwrap();
    let link = GrpcNodeLink::new(&node).unwrap();
    let (key, request) = certificate_request();
    let renewed = link.renew(request).await.unwrap();
    let renewed = GrpcNodeLink::new(&server.stranger().certificate(renewed.certificate_chain, key)).unwrap();
    let (_agent, pods) = Agent::connect(&renewed, "gpu-02").await;
    assert!(pods.pods.is_empty());
    assert_eq!(link.join("gpu-03", certificate_request().1).await.unwrap_err().reason, Reason::Forbidden);
}

#[tokio::test]
async fn a_token_is_good_for_nothing_but_joining() {
    let server = TestServer::start().await;
    let token = server.server.create_join_token(LIMIT).await.unwrap();
    let machine = server.stranger().token(&token);
    assert_eq!(client(&machine).all::<Namespace>().get("default").await.unwrap_err().code, 403);
    let over_grpc = claw_client::Client::new(grpc(&machine), "test");
    assert_eq!(over_grpc.all::<Namespace>().get("default").await.unwrap_err().code, 403);
    let link = GrpcNodeLink::new(&machine).unwrap();
    assert_eq!(link.renew(certificate_request().1).await.unwrap_err().code, 403);
    assert_eq!(link.session(mpsc::channel(1).1).await.err().unwrap().code, 403);
    server.join("gpu-02", &token).await.unwrap();
}

#[tokio::test]
async fn a_failed_try_does_not_use_up_the_token() {
    let server = TestServer::start().await;
    let token = server.server.create_join_token(LIMIT).await.unwrap();
    let link = GrpcNodeLink::new(&server.stranger().token(&token)).unwrap();
    assert_eq!(link.join("gpu-02", b"garbage".to_vec()).await.unwrap_err().code, 400);
    assert_eq!(link.join("GPU 02", certificate_request().1).await.unwrap_err().code, 400);
    let (_agent, _) = Agent::connect(&*server.server.node_link("taken"), "taken").await;
    assert_eq!(link.join("taken", certificate_request().1).await.unwrap_err().code, 409);
    server.join("gpu-02", &token).await.unwrap();
}

#[tokio::test]
async fn an_expired_or_unknown_token_joins_nobody() {
    let server = TestServer::start().await;
    let expired = server.server.create_join_token(Duration::ZERO).await.unwrap();
    let (id, _) = expired.split_once('.').unwrap();
    for token in [expired.clone(), format!("{id}.0123456789abcdef"), "abcdef.0123456789abcdef".to_owned()] {
        assert_eq!(server.join("gpu-02", &token).await.unwrap_err().code, 401);
    }
}

#[tokio::test]
async fn an_administrator_has_no_business_in_a_session() {
    let server = TestServer::start().await;
    let link = GrpcNodeLink::new(&server.admin()).unwrap();
    let error = Agent::dial(&link, "gpu-02", "first", json!({})).await.err().unwrap();
    assert_eq!(error.reason, Reason::Forbidden);
}
