//! The gate and the door of a whole server, on a clock that stands still while anybody works.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use claw_client::{
    self as client, ResourceRef, Verb,
    request::{View, WriteOptions},
};
use claw_schemas::proto;
use futures::stream;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{NODE_GRACE_DEFAULT, core::Core};
use crate::{
    auth::{Identity, Peer},
    pki::{LEAF_LIFE, Pki},
    store,
};

const MINUTE: Duration = Duration::from_secs(60);

/// A server, and its administrator's token.
async fn core() -> (Core, String) {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path(), &["localhost".to_owned()].into()).unwrap();
    let core = Core::start(store::memory(), &pki, NODE_GRACE_DEFAULT, LEAF_LIFE).await.unwrap();
    (core, pki.admin_token().to_owned())
}

async fn call(core: &Core, token: &str, method: &str, body: Body) -> Response<Body> {
    let request = Request::post(format!("/clawbernetes.v1.Objects/{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    core.door.gate.answer(&Peer::unknown(), request.body(body).unwrap()).await
}

/// One message, as gRPC frames it.
fn framed(message: &impl prost::Message) -> Body {
    let message = message.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(&message);
    Body::from(frame.freeze())
}

/// The head of a message that never comes.
fn endless() -> Body {
    let head = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(&[0, 0, 0, 0, 16]))]);
    Body::from_stream(futures::StreamExt::chain(head, stream::pending()))
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_message_does_not_come_is_over_after_a_minute() {
    let (core, token) = core().await;
    for method in ["Get", "Watch"] {
        let began = Instant::now();
        let answer = timeout(10 * MINUTE, call(&core, &token, method, endless())).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4", "{method}");
        assert!(began.elapsed() < 2 * MINUTE, "{method}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_for_as_long_as_its_client_likes() {
    let (core, token) = core().await;
    let resource = proto::ResourceRef {
        version: "v1".to_owned(),
        resource: "secrets".to_owned(),
        ..proto::ResourceRef::default()
    };
    let watch = proto::WatchRequest { resource: Some(resource), ..proto::WatchRequest::default() };
    let mut answer = call(&core, &token, "Watch", framed(&watch)).await;
    assert!(answer.headers().get("grpc-status").is_none(), "{answer:?}");
    let next = timeout(10 * MINUTE, answer.body_mut().frame()).await;
    assert!(next.is_err(), "it has ended: {next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_has_a_seat_until_its_beginning_is_read() {
    let (core, _) = core().await;
    let reader = json!({"metadata": {"name": "reader"}, "rules": [
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["watch"]},
    ]});
    let binding = json!({
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}],
    });
    for (plural, object) in [("clusterroles", reader), ("clusterrolebindings", binding)] {
        let verb = Verb::Create { body: object.to_string().into(), options: WriteOptions::default() };
        let resource = ResourceRef::collection("rbac.authorization.k8s.io", "v1", plural);
        let request = client::Request { resource, verb, view: View::Object };
        core.service.call(&Identity::loopback("test"), request).await.unwrap();
    }
    let eve = Peer::proven(Identity::of("eve", &[]), SystemTime::now() + 60 * MINUTE);
    let seated = || core.service.metrics().fairness.seated.get();
    let request = Request::get("/api/v1/namespaces?watch=1").body(Body::empty()).unwrap();
    let mut answer = core.door.gate.answer(&eve, request).await;
    assert_eq!((answer.status().as_u16(), seated()), (200, 1));
    while timeout(MINUTE / 2, answer.body_mut().frame()).await.is_ok() {}
    assert_eq!(seated(), 0);
}

type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// A connection without a certificate.
async fn connect(core: &Core) -> (Sender, tokio::task::JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    core.serve(far, Peer::unknown(), true);
    let connected = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await;
    let (sender, connection) = connected.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

async fn get(sender: &mut Sender, token: Option<&str>) -> u16 {
    let mut request = Request::get("https://localhost/livez");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    answer.status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_nobody_is_closed_after_a_minute_whatever_it_asks() {
    let (core, _) = core().await;
    let (_idle, first) = connect(&core).await;
    let (mut busy, second) = connect(&core).await;
    assert_eq!(get(&mut busy, None).await, 200);
    for connection in [first, second] {
        timeout(2 * MINUTE, connection).await.expect("it is closed").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_somebody_stays_open() {
    let (core, token) = core().await;
    let (mut sender, connection) = connect(&core).await;
    assert_eq!(get(&mut sender, Some(&token)).await, 200);
    assert!(timeout(10 * MINUTE, connection).await.is_err(), "it was closed");
    assert_eq!(get(&mut sender, None).await, 200);
}
