//! What strangers can do to the port before they are anybody.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{TestServer, soon};

/// After which the server hangs up on who has not said hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// The beginning of a TLS record that promises 512 bytes of ClientHello and brings 2.
const HALF_A_HELLO: [u8; 7] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00];

#[tokio::test]
async fn half_a_hello_and_idle_connections_do_not_stop_the_service() {
    let server = TestServer::start().await;
    let (mut open, began) = (Vec::new(), Instant::now());
    for at in 0..200 {
        let mut stream = TcpStream::connect(server.server.address()).await.unwrap();
        if at % 2 == 0 {
            stream.write_all(&HALF_A_HELLO).await.unwrap();
        }
        open.push(stream);
    }
    soon("an answer", server.client().all::<Namespace>().get("default")).await.unwrap();
    // They are still there: it is not that they were turned away. On a slow machine their time may be over.
    for stream in &mut open {
        let mut byte = [0];
        let silent = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
        assert!(silent.is_err() || began.elapsed() >= HELLO_LIMIT, "the connection was closed");
    }
    soon("a stop in spite of them", server.server.shutdown()).await;
}

#[tokio::test]
async fn garbage_and_plain_http_are_cut_off() {
    let server = TestServer::start().await;
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 4096], &[0xff; 4096]] {
        let mut stream = TcpStream::connect(server.server.address()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        // A TLS alert, or a reset: an end in any case.
        let _ = soon("the end of the connection", stream.read_to_end(&mut rest)).await;
        if garbage.starts_with(b"GET") {
            assert!(String::from_utf8_lossy(&rest).contains("https://"));
        }
    }
    soon("an answer", server.client().all::<Namespace>().get("default")).await.unwrap();
}
