//! Programs that the server asks, over real TLS: they answer documents with documents, and remember what they were asked.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::world::parse;

type Answers = dyn Fn(&Value) -> futures::future::BoxFuture<'static, Bytes> + Send + Sync;

/// A running program.
pub struct Program {
    pub url: String,
    /// The certificate that it shows, as a `caBundle`.
    pub bundle: String,
    asked: Mutex<Vec<Value>>,
    connections: AtomicUsize,
    answers: Box<Answers>,
}

impl Program {
    /// Starts a program that answers at once.
    pub async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Arc<Self> {
        Self::start_with(move |asked| {
            let bytes = Bytes::from(answer(asked).to_string());
            Box::pin(async move { bytes })
        })
        .await
    }

    /// Starts a program that answers with what it likes, when it likes.
    pub async fn start_with(
        answers: impl Fn(&Value) -> futures::future::BoxFuture<'static, Bytes> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let program = Arc::new(Self {
            url: format!("https://localhost:{}/ask", listener.local_addr().unwrap().port()),
            bundle: STANDARD.encode(cert.pem()),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            answers: Box::new(answers),
        });
        tokio::spawn(program.clone().serve(listener, TlsAcceptor::from(Arc::new(config))));
        program
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((stream, _)) = listener.accept().await {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (program, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = |request| program.clone().answer(request);
                let serving = hyper::server::conn::http1::Builder::new();
                let _ = serving.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
    ) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
        let asked = parse(&request.into_body().collect().await.unwrap().to_bytes());
        self.asked.lock().push(asked.clone());
        Ok(hyper::Response::new(Full::new((self.answers)(&asked).await)))
    }

    /// How a configuration names it.
    pub fn client_config(&self) -> Value {
        json!({"url": self.url, "caBundle": self.bundle})
    }

    /// What it was asked, the first first.
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().clone()
    }

    /// How often somebody connected to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}
