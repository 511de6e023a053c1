//! Asks a server for its health by gRPC: `grpc.health.v1.Health`, without encryption. What is said of a failure are the kubelet's words.

use std::{error::Error as _, io};

use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::{Code, Status, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::service_fn;

use super::{AGENT, Network, authority, connect};

/// Success if the server says that the service serves; of an empty name, that it does itself.
pub(super) async fn check(network: &Network, address: &(String, u16), service: &str) -> Result<(), String> {
    let at = authority(address);
    let refused = |error: tonic::transport::Error| {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        format!("error: failed to connect service at {at:?}: {why}")
    };
    let endpoint =
        Endpoint::from_shared(format!("http://{at}")).and_then(|endpoint| endpoint.user_agent(AGENT));
    let unreachable = |why| format!("error: failed to connect service at {at:?}: {why}");
    // One connection: a probe that loses it has failed.
    let mut stream = Some(TokioIo::new(connect(network, address).await.map_err(unreachable)?));
    let connector = service_fn(move |_: Uri| {
        std::future::ready(stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = endpoint.map_err(refused)?.connect_with_connector(connector).await.map_err(refused)?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(request).await.map_err(|status| failed(&status))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(format!("service unhealthy (responded with {:?})", other.as_str_name())),
    }
}

fn failed(status: &Status) -> String {
    let why = status.message();
    match status.code() {
        Code::Unimplemented => format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {why}"
        ),
        code => format!("error: health rpc probe failed: {code:?}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::{Server, server::TcpIncoming};

    use super::*;

    async fn asked(address: &(String, u16), service: &str) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        check(&Network::open(folder.path(), [10, 88]).unwrap(), address, service).await
    }

    #[tokio::test]
    async fn a_service_is_well_if_its_server_says_so() {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("shop", tonic_health::ServingStatus::Serving).await;
        reporter.set_service_status("till", tonic_health::ServingStatus::NotServing).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
        let incoming = TcpListenerStream::new(listener);
        let server = tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
        assert_eq!(asked(&address, "").await, Ok(()), "of the server itself");
        assert_eq!(asked(&address, "shop").await, Ok(()));
        let unwell = "service unhealthy (responded with \"NOT_SERVING\")";
        assert_eq!(asked(&address, "till").await, Err(unwell.to_owned()));
        let unknown = asked(&address, "moon").await.unwrap_err();
        assert!(unknown.contains("health rpc probe failed: NotFound"), "{unknown}");
        server.abort();
        let _ = server.await;
    }

    #[tokio::test]
    async fn who_does_not_speak_of_health_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
        let incoming = TcpIncoming::from(listener);
        let routes = tonic::service::Routes::default();
        let server = tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
        let mute = asked(&address, "").await.unwrap_err();
        assert!(mute.contains("does not implement the grpc health protocol"), "{mute}");
        server.abort();
        let _ = server.await;
        let gone = asked(&address, "").await.unwrap_err();
        assert!(gone.contains("failed to connect service"), "{gone}");
    }
}
