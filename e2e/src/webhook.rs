//! A program that a cluster asks about writes, beside the story that drives the cluster.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use claw_apiserver::pki::{Pki, server_names};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::TlsAcceptor;

type Answer = dyn Fn(&Value) -> Value + Send + Sync;

/// A webhook that answers reviews, of admission or of conversion, until it is dropped.
pub struct Webhook {
    /// Where it is.
    pub url: String,
    /// Whom to trust about it, as a `caBundle`.
    pub bundle: String,
    _runtime: Runtime,
}

impl Webhook {
    /// Starts one that answers each request by `answer`, which gives the response but for its uid. Its certificates go to
    /// `folder`.
    ///
    /// # Panics
    /// When there is no port or no folder for it.
    pub fn start(folder: &Path, answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let pki = Pki::open(folder, &server_names(address, None)).expect("the folder is writable");
        let acceptor = TlsAcceptor::from(Arc::new(tls(&pki)));
        let runtime = Runtime::new().expect("threads can be started");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("there is a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        runtime.spawn(serve(listener, acceptor, Arc::new(answer)));
        let bundle = STANDARD.encode(pki.authority().certificate());
        Self { url: format!("https://127.0.0.1:{port}/"), bundle, _runtime: runtime }
    }
}

fn tls(pki: &Pki) -> ServerConfig {
    let leaf = pki.server();
    let certificate = leaf.certificate_der().expect("it was just made");
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("it was just made");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together")
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, answer: Arc<Answer>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request| reviewed(request, answer.clone()));
            let serving = hyper::server::conn::http1::Builder::new();
            let _ = serving.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn reviewed(
    request: Request<Incoming>,
    answer: Arc<Answer>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut response = answer(&review["request"]);
    response["uid"] = review["request"]["uid"].clone();
    let review = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    Ok(Response::new(Full::new(review.to_string().into())))
}
