//! A client that knows nothing but the address reads the API over gRPC: everything it needs comes from reflection.

use bytes::{Buf as _, BufMut as _, Bytes};
use claw_e2e::{
    Cluster, Options,
    http::{Credentials, Http},
};
use http::uri::PathAndQuery;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MethodDescriptor, ReflectMessage as _, Value, prost::Message as _,
};
use serde_json::json;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const SERVICE: &str = "clawbernetes.v1.Objects";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_reflection_alone_lists_watches_and_writes() {
    let cluster = Cluster::start(Options::server());
    let channel = connect(&cluster, true).await;
    let service = Reflected::discover(channel.clone()).await;

    // List what every cluster has.
    let list = service.unary("List", &service.request("List", "namespaces", "")).await.expect("lists");
    let list: serde_json::Value = serde_json::from_slice(&bytes_of(&list, "body")).expect("JSON");
    assert_eq!(list["kind"], "NamespaceList", "{list}");
    let names: Vec<_> =
        list["items"].as_array().expect("items").iter().map(|i| i["metadata"]["name"].clone()).collect();
    assert!(names.contains(&json!("default")), "{names:?}");

    // Watch from that revision on; what REST writes is seen here.
    let mut request = service.request("Watch", "configmaps", "default");
    let revision = list["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    request.set_field_by_name("resource_version", Value::String(revision));
    let mut watch = service.stream("Watch", &request).await.expect("watches");
    let http = Http::admin(&cluster);
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen"}, "data": {"a": "1"}});
    http.post("/api/v1/namespaces/default/configmaps", &object).await.expect("creates");
    let event = watch.message().await.expect("the watch goes on").expect("an event comes");
    let event = DynamicMessage::decode(service.method("Watch").output(), event).expect("an event decodes");
    assert_eq!(event.get_field_by_name("type").expect("a type").as_enum_number(), Some(1), "ADDED");
    let seen: serde_json::Value = serde_json::from_slice(&bytes_of(&event, "body")).expect("JSON");
    assert_eq!(seen["metadata"]["name"], "seen");

    // What gRPC writes, REST reads: byte for byte the same object.
    let mut create = service.request("Create", "configmaps", "default");
    let mut body = DynamicMessage::new(message_field(&create, "object"));
    body.set_field_by_name("content_type", Value::String("application/json".to_owned()));
    let text = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}}).to_string();
    body.set_field_by_name("body", Value::Bytes(Bytes::from(text)));
    create.set_field_by_name("object", Value::Message(body));
    let made = service.unary("Create", &create).await.expect("creates");
    let made: serde_json::Value = serde_json::from_slice(&bytes_of(&made, "body")).expect("JSON");
    assert_eq!(http.get("/api/v1/namespaces/default/configmaps/made").await.expect("reads"), made);

    // A second one is refused with the code of gRPC and the Status of Kubernetes.
    let refused = service.unary("Create", &create).await.expect_err("it exists");
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    let status = refused.metadata().get_bin("clawbernetes-status-bin").expect("the Status travels along");
    let status = status.to_bytes().expect("it is base64");
    let status: serde_json::Value = serde_json::from_slice(&status).expect("it is JSON");
    assert_eq!((&status["kind"], &status["reason"]), (&json!("Status"), &json!("AlreadyExists")));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_refuses_a_client_without_credentials() {
    let cluster = Cluster::start(Options::server());
    let admin = Reflected::discover(connect(&cluster, true).await).await;
    let nobody = Reflected { channel: connect(&cluster, false).await, pool: admin.pool.clone() };
    let request = nobody.request("List", "secrets", "");
    let refused = nobody.unary("List", &request).await.expect_err("nobody may list secrets");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}

async fn connect(cluster: &Cluster, as_admin: bool) -> Channel {
    let credentials = Credentials::of(cluster);
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&credentials.ca));
    if as_admin {
        tls = tls.identity(Identity::from_pem(&credentials.certificate, &credentials.key));
    }
    let endpoint =
        Endpoint::from_shared(cluster.url().to_owned()).expect("a URL").tls_config(tls).expect("TLS");
    endpoint.connect().await.expect("the server speaks gRPC on its one port")
}

/// The service as reflection describes it.
struct Reflected {
    channel: Channel,
    pool: DescriptorPool,
}

impl Reflected {
    async fn discover(channel: Channel) -> Self {
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::FileContainingSymbol(SERVICE.to_owned())),
        };
        let mut reflection = ServerReflectionClient::new(channel.clone());
        let asked = tokio_stream::once(ask);
        let mut answers =
            reflection.server_reflection_info(asked).await.expect("reflection answers").into_inner();
        let answer = answers.message().await.expect("an answer").expect("one answer");
        let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
            panic!("no file describes {SERVICE}: {answer:?}");
        };
        let mut pool = DescriptorPool::new();
        for file in files.file_descriptor_proto {
            pool.decode_file_descriptor_proto(file.as_slice()).expect("a descriptor");
        }
        Self { channel, pool }
    }

    fn method(&self, name: &str) -> MethodDescriptor {
        let service = self.pool.get_service_by_name(SERVICE).expect("reflection describes the service");
        service.methods().find(|method| method.name() == name).unwrap_or_else(|| panic!("no method {name}"))
    }

    /// The request of a method, about a collection of the core group.
    fn request(&self, method: &str, resource: &str, namespace: &str) -> DynamicMessage {
        let mut request = DynamicMessage::new(self.method(method).input());
        let mut reference = DynamicMessage::new(message_field(&request, "resource"));
        for (field, value) in [("version", "v1"), ("resource", resource), ("namespace", namespace)] {
            reference.set_field_by_name(field, Value::String(value.to_owned()));
        }
        request.set_field_by_name("resource", Value::Message(reference));
        request
    }

    async fn unary(&self, method: &str, request: &DynamicMessage) -> Result<DynamicMessage, Status> {
        let mut grpc = self.ready().await;
        let request = Request::new(Bytes::from(request.encode_to_vec()));
        let answer = grpc.unary(request, path(method), Raw).await?.into_inner();
        Ok(DynamicMessage::decode(self.method(method).output(), answer).expect("an answer decodes"))
    }

    async fn stream(&self, method: &str, request: &DynamicMessage) -> Result<Streaming<Bytes>, Status> {
        let mut grpc = self.ready().await;
        let request = Request::new(Bytes::from(request.encode_to_vec()));
        Ok(grpc.server_streaming(request, path(method), Raw).await?.into_inner())
    }

    async fn ready(&self) -> Grpc<Channel> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.expect("the channel is open");
        grpc
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/{SERVICE}/{method}").parse().expect("a path")
}

fn message_field(message: &DynamicMessage, field: &str) -> prost_reflect::MessageDescriptor {
    let field = message.descriptor().get_field_by_name(field).unwrap_or_else(|| panic!("no field {field}"));
    field.kind().as_message().expect("a message field").clone()
}

fn bytes_of(message: &DynamicMessage, field: &str) -> Bytes {
    message.get_field_by_name(field).expect("the field is described").as_bytes().expect("bytes").clone()
}

/// Messages as bytes: their types are only known at run time.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
