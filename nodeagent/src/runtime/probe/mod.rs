//! Carries out one probe: HTTP, gRPC and TCP from the host, commands inside the container.

mod grpc;

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::network::Network;

/// What probes say who they are.
const AGENT: &str = concat!("kube-probe/clawbernetes-", env!("CARGO_PKG_VERSION"));

/// A server is asked whether it is well, not who it is: certificates of pods are signed by anybody.
static TLS: LazyLock<TlsConnector> =
    LazyLock::new(|| TlsConnector::from(Arc::new(claw_client::trust_anything())));

/// What to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeTarget {
    /// A command that exits 0.
    Exec(Vec<String>),
    /// An HTTP GET, by default with a status from 200 to 399.
    Http {
        /// Over TLS; any certificate will do.
        tls: bool,
        /// Address and port.
        address: (String, u16),
        /// Path and query.
        path: String,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// Any answer will do.
        any_status: bool,
    },
    /// A port that accepts connections.
    Tcp((String, u16)),
    /// A server that says by gRPC that it is well.
    Grpc {
        /// Address and port.
        address: (String, u16),
        /// Which of its services; empty for itself.
        service: String,
    },
}

impl ProbeTarget {
    /// From the probe of a container, in a pod with this address.
    ///
    /// # Errors
    /// When the probe names something this node cannot do; the probe then fails with that sentence.
    pub fn of(probe: &Probe, container: &Container, pod_ip: Option<IpAddr>) -> Result<Self, String> {
        if let Some(ExecAction { command }) = &probe.exec {
            return Ok(Self::Exec(command.clone().unwrap_or_default()));
        }
        if let Some(get) = &probe.http_get {
            return Self::of_http(get, container, pod_ip);
        }
        if let Some(TCPSocketAction { host, port }) = &probe.tcp_socket {
            return Ok(Self::Tcp(address(host.as_deref(), port, container, pod_ip)?));
        }
        if let Some(GRPCAction { port, service }) = &probe.grpc {
            let address = address(None, &IntOrString::Int(*port), container, pod_ip)?;
            return Ok(Self::Grpc { address, service: service.clone().unwrap_or_default() });
        }
        Err("the probe says of nothing what is to be asked: use exec, httpGet, tcpSocket or grpc".to_owned())
    }

    fn of_http(get: &HTTPGetAction, container: &Container, pod_ip: Option<IpAddr>) -> Result<Self, String> {
        let scheme = get.scheme.as_deref().unwrap_or("HTTP");
        let tls = scheme.eq_ignore_ascii_case("https");
        if !tls && !scheme.eq_ignore_ascii_case("http") {
            return Err(format!("there are no probes over {scheme}: use HTTP or HTTPS"));
        }
        let path = get.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        Ok(Self::Http {
            tls,
            address: address(get.host.as_deref(), &get.port, container, pod_ip)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: get
                .http_headers
                .iter()
                .flatten()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
            any_status: false,
        })
    }
}

fn address(
    host: Option<&str>,
    port: &IntOrString,
    container: &Container,
    pod_ip: Option<IpAddr>,
) -> Result<(String, u16), String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port)
                .ok_or_else(|| format!("the container has no port named \"{name}\""))?,
        },
    };
    let port = u16::try_from(number).map_err(|_| format!("port {number} is out of range"))?;
    match host.filter(|host| !host.is_empty()) {
        Some(host) => Ok((host.to_owned(), port)),
        None => pod_ip.map(|ip| (ip.to_string(), port)).ok_or_else(|| "the pod has no address".to_owned()),
    }
}

/// Probes over the network.
pub(super) async fn over_network(
    network: &Network,
    target: &ProbeTarget,
    timeout: Duration,
) -> Result<(), String> {
    let attempt = async {
        match target {
            ProbeTarget::Exec(_) => Err("not a network probe".to_owned()),
            ProbeTarget::Tcp(address) => connect(network, address).await.map(drop),
            ProbeTarget::Grpc { address, service } => grpc::check(network, address, service).await,
            ProbeTarget::Http { tls, address, path, headers, any_status } => {
                let scheme = if *tls { "https" } else { "http" };
                let asked = get(network, *tls, address, path, headers).await;
                let status =
                    asked.map_err(|why| format!("Get \"{scheme}://{}{path}\": {why}", authority(address)))?;
                if *any_status || (200..400).contains(&status) {
                    return Ok(());
                }
                Err(format!("HTTP probe failed with statuscode: {status}"))
            }
        }
    };
    tokio::time::timeout(timeout, attempt)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs())))
}

/// As URLs have it.
fn authority((host, port): &(String, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn connect(network: &Network, address: &(String, u16)) -> Result<TcpStream, String> {
    network
        .dial(&address.0, address.1)
        .await
        .map_err(|error| format!("dial tcp {}: {error}", authority(address)))
}

/// The status of the answer.
async fn get(
    network: &Network,
    tls: bool,
    address: &(String, u16),
    path: &str,
    headers: &[(String, String)],
) -> Result<u16, String> {
    let stream = connect(network, address).await?;
    if !tls {
        return ask(stream, address, path, headers).await.map_err(|error| error.to_string());
    }
    let name = ServerName::try_from(address.0.clone()).map_err(|error| error.to_string())?;
    let stream = TLS.connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
    ask(stream, address, path, headers).await.map_err(|error| error.to_string())
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    address: &(String, u16),
    path: &str,
    headers: &[(String, String)],
) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = http::Request::get(path).body(Empty::<bytes::Bytes>::new())?;
    *request.headers_mut() = headers_of(&authority(address), headers)?;
    let mut exchange = std::pin::pin!(sender.send_request(request));
    // The connection makes progress only while it is polled; it ends with this probe. A server that
    // answers and closes ends it in the same moment the answer arrives.
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    };
    Ok(answer?.status().as_u16())
}

/// What a probe says of itself where its headers say nothing else. A name may come several times; an empty value takes what is
/// said without being asked away.
fn headers_of(host: &str, asked: &[(String, String)]) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in asked {
        headers.append(HeaderName::try_from(name.as_str())?, HeaderValue::try_from(value.as_str())?);
    }
    for (name, value) in [(HOST, host), (USER_AGENT, AGENT), (ACCEPT, "*/*")] {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::try_from(value)?);
        } else if headers[&name].is_empty() {
            headers.remove(&name);
        }
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// For a probe that is to be answered, however busy the machine.
    const LONG: Duration = Duration::from_secs(120);

    async fn asked(target: &ProbeTarget, timeout: Duration) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        over_network(&Network::open(folder.path(), [10, 88]).unwrap(), target, timeout).await
    }

    async fn server(answer: &'static str) -> (String, u16) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        ("127.0.0.1".to_owned(), port)
    }

    fn target(address: (String, u16), any_status: bool) -> ProbeTarget {
        ProbeTarget::Http { tls: false, address, path: "/healthz".to_owned(), headers: vec![], any_status }
    }

    /// With a certificate that nobody signed, for somebody else, and long over.
    async fn tls_server(answer: &'static str) -> (String, u16) {
        let mut params = rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        ("127.0.0.1".to_owned(), port)
    }

    #[tokio::test]
    async fn over_tls_any_certificate_will_do() {
        let over_tls = |address| {
            let path = "/healthz".to_owned();
            ProbeTarget::Http { tls: true, address, path, headers: vec![], any_status: false }
        };
        let limit = LONG;
        let well = tls_server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(asked(&over_tls(well), limit).await, Ok(()));
        let unwell = tls_server("HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n").await;
        let error = asked(&over_tls(unwell), limit).await.unwrap_err();
        assert_eq!(error, "HTTP probe failed with statuscode: 500");
        let plain = server("HTTP/1.1 200 OK\r\n\r\n").await;
        let error = asked(&over_tls(plain), limit).await.unwrap_err();
        assert!(error.starts_with("Get \"https://127.0.0.1:") && error.contains("tls: "), "{error}");
    }

    #[test]
    fn a_probe_names_what_it_asks() {
        let of = |probe: serde_json::Value| {
            let probe: Probe = serde_json::from_value(probe).unwrap();
            ProbeTarget::of(&probe, &Container::default(), Some([10, 88, 0, 2].into()))
        };
        let address = || ("10.88.0.2".to_owned(), 8443);
        let http = |tls| ProbeTarget::Http {
            tls,
            address: address(),
            path: "/".to_owned(),
            headers: vec![],
            any_status: false,
        };
        let get = |scheme: &str| of(serde_json::json!({"httpGet": {"port": 8443, "scheme": scheme}}));
        assert_eq!((get("HTTPS"), get("http")), (Ok(http(true)), Ok(http(false))));
        assert!(get("gopher").unwrap_err().contains("gopher"));
        let grpc = |service: &str| Ok(ProbeTarget::Grpc { address: address(), service: service.to_owned() });
        assert_eq!(of(serde_json::json!({"grpc": {"port": 8443, "service": "shop"}})), grpc("shop"));
        assert_eq!(of(serde_json::json!({"grpc": {"port": 8443}})), grpc(""));
        assert!(of(serde_json::json!({})).is_err());
    }

    async fn http(answer: &'static str) -> Result<(), String> {
        asked(&target(server(answer).await, false), LONG).await
    }

    #[tokio::test]
    async fn a_status_below_400_is_success_and_others_are_named() {
        assert_eq!(http("HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
        assert_eq!(http("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await, Ok(()));
        let error = http("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap_err();
        assert_eq!(error, "HTTP probe failed with statuscode: 503");
        let busy = server("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(asked(&target(busy, true), LONG).await, Ok(()), "any will do");
    }

    #[tokio::test]
    async fn garbage_and_silence_fail() {
        assert!(http("not http at all\r\n\r\n").await.is_err());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
        let error = asked(&target(address, true), Duration::from_millis(50)).await.unwrap_err();
        assert!(error.contains("no answer"), "{error}");
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_fails() {
        // Taken before anybody listens on it, so that nobody else gets it.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = ("127.0.0.1".to_owned(), socket.local_addr().unwrap().port());
        assert!(asked(&ProbeTarget::Tcp(address.clone()), LONG).await.is_err());
        let _listener = socket.listen(1).unwrap();
        assert_eq!(asked(&ProbeTarget::Tcp(address), LONG).await, Ok(()));
    }

    #[test]
    fn a_port_may_be_named() {
        let container: Container = serde_json::from_value(serde_json::json!(
            {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}
        ))
        .unwrap();
        let probe = |port: serde_json::Value| -> Probe {
            serde_json::from_value(serde_json::json!({"tcpSocket": {"port": port}})).unwrap()
        };
        let ip = Some([10, 88, 0, 2].into());
        let expected = Ok(ProbeTarget::Tcp(("10.88.0.2".to_owned(), 8080)));
        assert_eq!(ProbeTarget::of(&probe("web".into()), &container, ip), expected);
        assert_eq!(ProbeTarget::of(&probe(8080.into()), &container, ip), expected);
        assert!(ProbeTarget::of(&probe("ssh".into()), &container, ip).unwrap_err().contains("\"ssh\""));
    }

    #[test]
    fn the_headers_of_a_probe_take_the_place_of_the_usual_ones() {
        let pairs = |asked: &[(&str, &str)]| {
            let asked: Vec<_> = asked.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let headers = headers_of("10.88.0.2:80", &asked).unwrap();
            let shown = |name: &str| {
                let all = headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned());
                all.collect::<Vec<_>>()
            };
            (shown("host"), shown("accept"), shown("x-many"))
        };
        assert_eq!(pairs(&[]), (vec!["10.88.0.2:80".to_owned()], vec!["*/*".to_owned()], vec![]));
        let (host, accept, many) =
            pairs(&[("Host", "shop.example"), ("Accept", ""), ("X-Many", "1"), ("X-Many", "2")]);
        assert_eq!((host, accept), (vec!["shop.example".to_owned()], vec![]));
        assert_eq!(many, ["1", "2"]);
        assert!(headers_of("a:1", &[("no header".to_owned(), String::new())]).is_err());
    }
}
