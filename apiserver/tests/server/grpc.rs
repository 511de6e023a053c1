//! The gRPC side of the port: objects, errors, health, reflection.

use claw_client::{
    Client, WatchEvent,
    request::{DeleteOptions, ListOptions, PatchKind, WatchOptions},
};
use claw_schemas::status::Reason;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{TestServer, grpc, soon};

/// tonic's own client, with no code of ours between it and the server.
async fn channel(server: &TestServer, as_admin: bool) -> Channel {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(server.server.ca_pem()))
        .domain_name("localhost");
    if as_admin {
        let admin = server.admin().certificate.unwrap();
        tls = tls.identity(Identity::from_pem(admin.chain_pem, admin.key_pem));
    }
    let endpoint = Channel::from_shared(server.server.url().to_owned()).unwrap().tls_config(tls).unwrap();
    endpoint.connect().await.unwrap()
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(
        json!({ "metadata": { "name": name, "namespace": "default" }, "data": { "a": "1" } }),
    )
    .unwrap()
}

#[tokio::test]
async fn objects_are_written_read_and_watched() {
    let server = TestServer::start().await;
    let maps = Client::new(grpc(&server.admin()), "test").namespaced::<ConfigMap>("default");
    let created = maps.create(&map("one")).await.unwrap();
    let options =
        WatchOptions { resource_version: created.metadata.resource_version.clone(), ..Default::default() };
    let mut watch = maps.watch(options).await.unwrap();
    let patched = maps.patch("one", None, PatchKind::Merge, &json!({ "data": { "b": "2" } })).await.unwrap();
    assert_eq!(patched.data.as_ref().unwrap().len(), 2);
    assert_eq!(maps.list(Default::default()).await.unwrap().items.len(), 1);
    maps.delete("one", DeleteOptions::default()).await.unwrap();

    let mut next = async || soon("an event", watch.next()).await.unwrap().unwrap();
    assert!(
        matches!(next().await, WatchEvent::Modified(body) if serde_json::from_slice::<ConfigMap>(&body).unwrap() == patched)
    );
    assert!(matches!(next().await, WatchEvent::Deleted(_)));
}

#[tokio::test]
async fn a_selector_that_no_url_could_carry_is_refused() {
    let server = TestServer::start().await;
    let maps = Client::new(grpc(&server.admin()), "test").namespaced::<ConfigMap>("default");
    let (labels, fields) = ("!a,".repeat(30_000), "metadata.name=a,".repeat(5_000));
    let by_labels = ListOptions { label_selector: labels.clone(), ..ListOptions::default() };
    let by_fields = ListOptions { field_selector: fields, ..ListOptions::default() };
    for options in [by_labels, by_fields] {
        let error = maps.list(options).await.unwrap_err();
        assert_eq!((error.code, error.reason), (400, Reason::BadRequest), "{error}");
    }
    let error =
        maps.watch(WatchOptions { label_selector: labels, ..Default::default() }).await.err().unwrap();
    assert_eq!(error.reason, Reason::BadRequest, "{error}");
}

#[tokio::test]
async fn errors_are_the_same_as_over_rest() {
    let server = TestServer::start().await;
    let over_grpc = Client::new(grpc(&server.admin()), "test").namespaced::<ConfigMap>("default");
    let over_http = server.client().namespaced::<ConfigMap>("default");
    let there = over_http.create(&map("there")).await.unwrap();
    over_http.patch("there", None, PatchKind::Merge, &json!({ "data": { "b": "2" } })).await.unwrap();
    for (case, reason) in [
        (over_grpc.get("missing").await.unwrap_err(), Reason::NotFound),
        (over_grpc.create(&map("there")).await.unwrap_err(), Reason::AlreadyExists),
        (over_grpc.update(&there).await.unwrap_err(), Reason::Conflict),
        (over_grpc.create(&map("Not A Name")).await.unwrap_err(), Reason::Invalid),
    ] {
        assert_eq!(case.reason, reason, "{case}");
    }
    assert_eq!(over_grpc.get("missing").await.unwrap_err(), over_http.get("missing").await.unwrap_err());
}

#[tokio::test]
async fn health_is_open_to_strangers_and_nothing_else_is() {
    let server = TestServer::start().await;
    let stranger = channel(&server, false).await;
    for service in ["", "clawbernetes.v1.Objects", "clawbernetes.v1.NodeLink"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(stranger.clone()).check(request).await.unwrap();
        assert_eq!(answer.into_inner().status, 1, "{service} is serving");
    }
    let reflection = ServerReflectionClient::new(stranger)
        .server_reflection_info(stream::iter([ServerReflectionRequest::default()]))
        .await;
    assert_eq!(reflection.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn reflection_lists_the_services_and_describes_them() {
    let server = TestServer::start().await;
    let admin = channel(&server, true).await;
    let ask = async |request: MessageRequest| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut answers = ServerReflectionClient::new(admin.clone())
            .server_reflection_info(stream::iter([request]))
            .await
            .unwrap()
            .into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("a list is answered with a list")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["clawbernetes.v1.Objects", "clawbernetes.v1.NodeLink", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol("clawbernetes.v1.Objects".to_owned());
    assert!(matches!(ask(symbol).await, MessageResponse::FileDescriptorResponse(_)));

    let request = tonic_reflection::pb::v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            ),
        ),
    };
    let mut old = tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient::new(admin)
        .server_reflection_info(stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    assert!(old.message().await.unwrap().is_some());
}

#[tokio::test]
async fn malformed_requests_are_named() {
    use claw_schemas::proto::{
        CreateRequest, GetRequest, Object, ResourceRef, objects_client::ObjectsClient,
    };

    let server = TestServer::start().await;
    let mut objects = ObjectsClient::new(channel(&server, true).await);
    let status = objects.get(GetRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("resource is required"), "{status}");

    let resource = Some(ResourceRef {
        version: "v1".to_owned(),
        resource: "configmaps".to_owned(),
        namespace: "default".to_owned(),
        ..ResourceRef::default()
    });
    let object = Some(Object { content_type: "text/html".to_owned(), body: "x".into() });
    let status = objects.create(CreateRequest { resource, object, options: None }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("text/html"), "{status}");
}

#[tokio::test]
async fn an_administrator_acts_as_somebody_else() {
    use claw_schemas::proto::{ListRequest, ResourceRef, objects_client::ObjectsClient};

    let server = TestServer::start().await;
    let mut objects = ObjectsClient::new(channel(&server, true).await);
    let mut list_as = async |group: &'static str| {
        let resource = Some(ResourceRef {
            version: "v1".to_owned(),
            resource: "namespaces".to_owned(),
            ..ResourceRef::default()
        });
        let mut request = tonic::Request::new(ListRequest { resource, ..ListRequest::default() });
        request.metadata_mut().insert("impersonate-user", "eve".parse().unwrap());
        request.metadata_mut().insert("impersonate-group", group.parse().unwrap());
        objects.list(request).await
    };
    list_as("system:masters").await.unwrap();
    let refused = list_as("devs").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("User \"eve\" cannot list"), "{refused}");
}

#[tokio::test]
async fn an_error_with_many_causes_arrives_with_its_reason() {
    let server = TestServer::start().await;
    let maps = Client::new(grpc(&server.admin()), "test").namespaced::<ConfigMap>("default");
    let mut wrong = map("wrong");
    let keys = (0..2000).map(|place| (format!("not a key {place} é"), String::new()));
    wrong.data = Some(keys.collect());
    let error = maps.create(&wrong).await.unwrap_err();
    assert_eq!((error.code, error.reason), (422, Reason::Invalid), "{error}");
    assert!(error.message.contains("not a key") && !error.details.causes.is_empty(), "{error}");
}
