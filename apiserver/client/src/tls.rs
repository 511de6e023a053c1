//! rustls configuration from an [`Endpoint`], and the connections both wires share.

use std::{path::Path, sync::Arc, time::Duration};

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, WantsVerifier,
    client::{
        WantsClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tracing::warn;

use crate::{
    credentials::FILE_SECONDS,
    endpoint::{CertificateFiles, ClientCertificate, Endpoint, Trust},
    error::ConfigError,
    network::Connector,
};

/// Bundles of authorities, where the usual systems keep them.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Long enough for a connection around the world with two lost packets (1 s + 2 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle HTTP/2 connection is pinged this often, so that a dead one is noticed within
/// `PING_INTERVAL` + `PING_TIMEOUT`: 20 s, half of the 40 s after which a silent node is given up.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What one HTTP/2 stream may have in flight: 256 KiB keeps 20 MB/s over 13 ms.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What a connection may have in flight: 64 streams that nobody reads must not stall the others.
const CONNECTION_WINDOW_BYTES: u32 = 64 * STREAM_WINDOW_BYTES;

/// Which versions of HTTP to offer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    /// HTTP/2 or HTTP/1.1, as the server prefers.
    Any,
    /// HTTP/2 alone, as gRPC needs.
    Two,
    /// HTTP/1.1 alone, whose connections can become something else.
    One,
}

/// A pooling, reconnecting HTTP client with request bodies of type `B`.
pub(crate) type Pool<B> = Client<HttpsConnector<Connector>, B>;

/// The connections to one server. When the files of our certificate are replaced, new requests go over new connections.
pub(crate) struct Connections<B> {
    endpoint: Endpoint,
    http: Http,
    current: Mutex<Current<B>>,
}

struct Current<B> {
    pool: Pool<B>,
    certificate: Option<ClientCertificate>,
    /// When the files are to be looked at again.
    until: Instant,
}

impl<B> Connections<B>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    /// Connections are made when needed.
    pub fn new(endpoint: &Endpoint, http: Http) -> Result<Self, ConfigError> {
        let (certificate, until) = (endpoint.certificate.clone(), Instant::now() + FILE_SECONDS);
        let current = Current { pool: pool(endpoint, http)?, certificate, until };
        Ok(Self { endpoint: endpoint.clone(), http, current: Mutex::new(current) })
    }

    /// The client to send a request with.
    pub fn pool(&self) -> Pool<B> {
        let mut current = self.current.lock();
        if let Some(files) = &self.endpoint.certificate_files
            && Instant::now() >= current.until
        {
            current.until = Instant::now() + FILE_SECONDS;
            // They are being replaced, perhaps; what we have may be good for a while yet.
            if let Err(error) = self.renew(files, &mut current) {
                warn!(%error, "a client certificate cannot be read again; going on with the one before");
            }
        }
        current.pool.clone()
    }

    /// A client of its own for a request that takes its connection over.
    pub fn upgradable(&self) -> Result<Pool<B>, ConfigError> {
        let certificate = self.current.lock().certificate.clone();
        pool(&Endpoint { certificate, ..self.endpoint.clone() }, Http::One)
    }

    /// The server does not accept who we are: what is in the files may be newer.
    pub fn doubt(&self) {
        self.current.lock().until = Instant::now();
    }

    fn renew(&self, files: &CertificateFiles, current: &mut Current<B>) -> Result<(), ConfigError> {
        let read = |what, path: &Path| {
            std::fs::read(path).map_err(|source| ConfigError::Read { what, path: path.to_owned(), source })
        };
        let certificate = Some(ClientCertificate {
            chain_pem: read("the client certificate", &files.chain)?,
            key_pem: read("the client key", &files.key)?,
        });
        if certificate != current.certificate {
            let endpoint = Endpoint { certificate, ..self.endpoint.clone() };
            current.pool = pool(&endpoint, self.http)?;
            current.certificate = endpoint.certificate;
        }
        Ok(())
    }
}

fn pool<B>(endpoint: &Endpoint, http: Http) -> Result<Pool<B>, ConfigError>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(PING_INTERVAL));
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(client_config(endpoint)?).https_or_http();
    if let Some(name) = &endpoint.server_name {
        let name = ServerName::try_from(name.clone()).map_err(|_| {
            ConfigError::field("tls-server-name", format!("\"{name}\" is neither a host name nor an address"))
        })?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let tcp = match &endpoint.network {
        Some(network) => Connector::Brought(Arc::clone(network)),
        None => Connector::Machine(tcp),
    };
    let connector = match http {
        Http::Any => builder.enable_all_versions().wrap_connector(tcp),
        Http::Two => builder.enable_http2().wrap_connector(tcp),
        Http::One => builder.enable_http1().wrap_connector(tcp),
    };
    Ok(Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_only(http == Http::Two || endpoint.network.as_ref().is_some_and(|network| network.is_http2()))
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector))
}

fn client_config(endpoint: &Endpoint) -> Result<ClientConfig, ConfigError> {
    let (provider, builder) = builder();
    let builder = match &endpoint.trust {
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::Roots(pem) => builder.with_root_certificates(roots("certificate-authority", pem)?),
        Trust::CaSha256(digest) => judged(builder, Some(*digest), provider),
        Trust::Anything => judged(builder, None, provider),
    };
    match &endpoint.certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(certificate) => {
            let (chain, key) = parse_identity(certificate)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                ConfigError::field(
                    "client-certificate",
                    format!("certificate and key do not make a pair: {error}"),
                )
            })
        }
    }
}

/// For who asks whether a server answers, and not who it is: any certificate will do.
pub fn trust_anything() -> ClientConfig {
    let (provider, builder) = builder();
    judged(builder, None, provider).with_no_client_auth()
}

fn builder() -> (Arc<CryptoProvider>, ConfigBuilder<ClientConfig, WantsVerifier>) {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions");
    (provider, builder)
}

fn judged(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    authority: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    builder.dangerous().with_custom_certificate_verifier(Arc::new(Judge { authority, provider }))
}

fn parse_identity(
    certificate: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConfigError> {
    let chain = certificates("client-certificate", &certificate.chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.key_pem)
        .map_err(|error| ConfigError::field("client-key", format!("not a private key in PEM: {error}")))?;
    Ok((chain, key))
}

fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ConfigError::field(field, format!("damaged PEM: {error}")))?;
    if found.is_empty() {
        return Err(ConfigError::field(field, "holds no certificate; expected PEM, BEGIN CERTIFICATE"));
    }
    Ok(found)
}

fn roots(field: &'static str, pem: &[u8]) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(field, pem)? {
        store.add(certificate).map_err(|error| ConfigError::field(field, error.to_string()))?;
    }
    Ok(store)
}

/// The authorities that this system trusts.
///
/// # Errors
/// When it has no bundle of them.
pub fn system_roots() -> Result<RootCertStore, ConfigError> {
    let pem = SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok()).ok_or_else(|| {
        ConfigError::field(
            "certificate-authority",
            "is not set, and this system has no bundle of authorities",
        )
    })?;
    let mut store = RootCertStore::empty();
    // Bundles in the field hold the odd certificate that no parser accepts; the others still count.
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    Ok(store)
}

/// Judges certificates other than by a bundle of authorities; always checks that the server holds
/// the key of the certificate it shows.
#[derive(Debug)]
struct Judge {
    /// SHA-256 of the authority that must have signed; `None` believes everybody.
    authority: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl Judge {
    fn signed_by(
        &self,
        authority: [u8; 32],
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = chain
            .iter()
            .find(|certificate| Sha256::digest(certificate)[..] == authority)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(leaf, chain, name, &[], now)
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.authority {
            None => Ok(ServerCertVerified::assertion()),
            Some(authority) => self.signed_by(authority, leaf, chain, name, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
