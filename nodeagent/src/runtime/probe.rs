//! Carries out one probe: HTTP and TCP from the host, commands inside the container.

use std::{net::IpAddr, time::Duration};

use http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, ExecAction, HTTPGetAction, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::net::TcpStream;

/// What to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeTarget {
    /// A command that exits 0.
    Exec(Vec<String>),
    /// An HTTP GET, by default with a status from 200 to 399.
    Http {
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
        Err("this kind of probe is not supported on this node: use exec, httpGet or tcpSocket".to_owned())
    }

    fn of_http(get: &HTTPGetAction, container: &Container, pod_ip: Option<IpAddr>) -> Result<Self, String> {
        if get.scheme.as_deref().is_some_and(|scheme| !scheme.eq_ignore_ascii_case("http")) {
            return Err("probes over HTTPS are not supported on this node yet: use HTTP".to_owned());
        }
        let path = get.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        Ok(Self::Http {
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
pub(super) async fn over_network(target: &ProbeTarget, timeout: Duration) -> Result<(), String> {
    let attempt = async {
        match target {
            ProbeTarget::Exec(_) => Err("not a network probe".to_owned()),
            ProbeTarget::Tcp(address) => connect(address).await.map(drop),
            ProbeTarget::Http { address, path, headers, any_status } => {
                let status = get(address, path, headers).await?;
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

async fn connect((host, port): &(String, u16)) -> Result<TcpStream, String> {
    TcpStream::connect((host.as_str(), *port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

/// The status of the answer.
async fn get(address: &(String, u16), path: &str, headers: &[(String, String)]) -> Result<u16, String> {
    let (host, port) = address;
    let context = |error: &dyn std::fmt::Display| format!("Get \"http://{host}:{port}{path}\": {error}");
    let stream = connect(address).await.map_err(|error| context(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| context(&error))?;
    let mut request =
        http::Request::get(path).body(Empty::<bytes::Bytes>::new()).map_err(|error| context(&error))?;
    *request.headers_mut() = headers_of(host, *port, headers).map_err(|error| context(&error))?;
    let mut exchange = std::pin::pin!(sender.send_request(request));
    // The connection makes progress only while it is polled; it ends with this probe. A server that
    // answers and closes ends it in the same moment the answer arrives.
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    };
    answer.map(|answer| answer.status().as_u16()).map_err(|error| context(&error))
}

/// What a probe says of itself where its headers say nothing else. A name may come several times; an empty value takes what is
/// said without being asked away.
fn headers_of(host: &str, port: u16, asked: &[(String, String)]) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in asked {
        headers.append(HeaderName::try_from(name.as_str())?, HeaderValue::try_from(value.as_str())?);
    }
    let agent = concat!("kube-probe/clawbernetes-", env!("CARGO_PKG_VERSION"));
    for (name, value) in [(HOST, &*format!("{host}:{port}")), (USER_AGENT, agent), (ACCEPT, "*/*")] {
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
        ProbeTarget::Http { address, path: "/healthz".to_owned(), headers: vec![], any_status }
    }

    async fn http(answer: &'static str) -> Result<(), String> {
        over_network(&target(server(answer).await, false), Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn a_status_below_400_is_success_and_others_are_named() {
        assert_eq!(http("HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
        assert_eq!(http("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await, Ok(()));
        let error = http("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap_err();
        assert_eq!(error, "HTTP probe failed with statuscode: 503");
        let busy = server("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(over_network(&target(busy, true), Duration::from_secs(5)).await, Ok(()), "any will do");
    }

    #[tokio::test]
    async fn garbage_and_silence_fail() {
        assert!(http("not http at all\r\n\r\n").await.is_err());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
        let error = over_network(&target(address, true), Duration::from_millis(50)).await.unwrap_err();
        assert!(error.contains("no answer"), "{error}");
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_fails() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
        assert_eq!(over_network(&ProbeTarget::Tcp(address.clone()), Duration::from_secs(5)).await, Ok(()));
        drop(listener);
        assert!(over_network(&ProbeTarget::Tcp(address), Duration::from_secs(5)).await.is_err());
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
            let headers = headers_of("10.88.0.2", 80, &asked).unwrap();
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
        assert!(headers_of("a", 1, &[("no header".to_owned(), String::new())]).is_err());
    }
}
