//! The gate and the door of a whole server, on a clock that stands still while anybody works.

use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use claw_schemas::proto;
use futures::stream;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use super::{NODE_GRACE_DEFAULT, core::Core};
use crate::{auth::Peer, pki::Pki, store};

const MINUTE: Duration = Duration::from_secs(60);

/// A server, and its administrator's token.
async fn core() -> (Core, String) {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path(), &["localhost".to_owned()].into()).unwrap();
    let core = Core::start(store::memory(), &pki, NODE_GRACE_DEFAULT).await.unwrap();
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

