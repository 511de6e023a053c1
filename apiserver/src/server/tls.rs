//! TLS of the one port: rustls over ring, client certificates welcome but not demanded.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::TlsAcceptor;

use crate::{
    error::Error,
    pki::{Authority, Pki},
};

/// Name of HTTP/2 in ALPN.
pub const ALPN_HTTP2: &[u8] = b"h2";
/// Name of HTTP/1.1 in ALPN.
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Names the cryptography for everything in this process that asks rustls for its default. A second call, by
/// another server in the same process, changes nothing.
pub fn install_provider() {
    let _ = ring::default_provider().install_default();
}

/// The certificate the server shows; replaceable while it runs.
#[derive(Clone)]
pub struct Certificates {
    current: Arc<ArcSwap<CertifiedKey>>,
}

impl Certificates {
    /// Shows the certificate of a folder.
    pub fn new(pki: &Pki) -> Result<Self, Error> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(certified_key(pki)?)) })
    }

    /// Shows another one from now on; connections that are open keep the old one.
    pub fn replace(&self, pki: &Pki) -> Result<(), Error> {
        self.current.store(Arc::new(certified_key(pki)?));
        Ok(())
    }

    /// Accepts TLS with these certificates, and client certificates of this authority.
    pub fn acceptor(&self, authority: &Authority) -> Result<TlsAcceptor, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate_der().clone())?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

/// The leaf and, behind it, the authority: a machine that joins knows only the authority's hash, and finds
/// what to check it against in the chain.
fn certified_key(pki: &Pki) -> Result<CertifiedKey, Error> {
    let leaf = pki.server();
    let certificate = leaf
        .certificate_der()
        .ok_or_else(|| rustls::Error::General("the server's certificate does not parse".to_owned()))?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())
        .map_err(|error| rustls::Error::General(format!("the server's key does not parse: {error}")))?;
    let chain = vec![certificate, pki.authority().certificate_der().clone()];
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}
