//! How to reach one server: its address, whom to trust, who we are. Both wires are made from it.
//!
//! Must never know: what is asked of the server.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{Uri, uri::Scheme};

use crate::{error::ConfigError, network::Network};

/// How long a request may take, watches and logs aside. kubectl's own figure is 32 s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(32);

/// Where a server is and how to speak to it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `https://127.0.0.1:6443`, optionally with a path that precedes every other.
    pub server: String,
    /// How to know that it is the right one.
    pub trust: Trust,
    /// Name to expect in the server's certificate, when not the one in `server`.
    pub server_name: Option<String>,
    /// Certificate to show to the server.
    pub certificate: Option<ClientCertificate>,
    /// Where `certificate` was read; read again once a minute, since certificates in files rotate.
    pub certificate_files: Option<CertificateFiles>,
    /// Token to send to the server; never sent over plain HTTP.
    pub token: Option<Token>,
    /// Limit of one request.
    pub request_timeout: Duration,
    /// Name and version of the program, for the server's log.
    pub user_agent: String,
    /// What connections are opened over; `None`: the machine's TCP.
    pub network: Option<Arc<dyn Network>>,
}

/// Which server certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those that the operating system's authorities signed.
    System,
    /// Those that an authority of this PEM bundle signed.
    Roots(Vec<u8>),
    /// Those signed by the authority whose certificate (DER) has this SHA-256, which the server
    /// sends along. For a first contact, where only a short text can be copied by hand.
    CaSha256([u8; 32]),
    /// All of them. The connection is private, but nobody knows with whom.
    Anything,
}

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Leaf first.
    pub chain_pem: Vec<u8>,
    /// PKCS#8, PKCS#1 or SEC 1.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCertificate(…)")
    }
}

/// Where a certificate and its key are, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Leaf first.
    pub chain: PathBuf,
    /// PKCS#8, PKCS#1 or SEC 1.
    pub key: PathBuf,
}

/// A bearer token, or where to read one that may change.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// The token itself.
    Text(String),
    /// A file that holds it; read again once a minute, since tokens in files rotate.
    File(PathBuf),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Token(…)"),
            Self::File(path) => write!(f, "Token({})", path.display()),
        }
    }
}

impl Endpoint {
    /// A server, known by the system's authorities, to which we are nobody.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            trust: Trust::System,
            server_name: None,
            certificate: None,
            certificate_files: None,
            token: None,
            request_timeout: REQUEST_TIMEOUT,
            user_agent: concat!("clawbernetes/", env!("CARGO_PKG_VERSION")).to_owned(),
            network: None,
        }
    }

    /// `host:port` of the server; `None` if its address is no address.
    pub fn authority(&self) -> Option<String> {
        let uri: Uri = self.server.parse().ok()?;
        let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 });
        Some(format!("{}:{port}", uri.host()?))
    }

    /// The same, trusting what this says.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// The same, showing a certificate.
    #[must_use]
    pub fn certificate(mut self, chain_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        self.certificate = Some(ClientCertificate { chain_pem: chain_pem.into(), key_pem: key_pem.into() });
        self
    }

    /// The same, sending a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Text(token.into()));
        self
    }

    /// The same, over another network.
    #[must_use]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = Some(network);
        self
    }

    /// The same, with another limit of one request.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The server's address, checked: scheme, authority and path without a trailing slash.
    pub(crate) fn base(&self) -> Result<Base, ConfigError> {
        let wrong = |why: String| ConfigError::field("server", why);
        let text = if self.server.contains("://") {
            self.server.clone()
        } else {
            format!("https://{}", self.server)
        };
        let uri: Uri = text.parse().map_err(|error| {
            wrong(format!("\"{}\" is not a URL ({error}); write it as https://HOST:PORT", self.server))
        })?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => {
                return Err(wrong(format!(
                    "\"{}\" has a scheme other than https; write it as https://HOST:PORT",
                    self.server
                )));
            }
        };
        let authority = uri.authority().ok_or_else(|| {
            wrong(format!("\"{}\" names no host; write it as https://HOST:PORT", self.server))
        })?;
        let origin = format!("{}://{authority}", if tls { "https" } else { "http" });
        Ok(Base { origin, path: uri.path().trim_end_matches('/').to_owned(), tls })
    }
}

/// A checked server address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// `https://HOST:PORT`
    pub origin: String,
    /// Empty, or `/prefix`.
    pub path: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_url_or_a_host_and_port() {
        let base = |server: &str| Endpoint::new(server).base();
        assert_eq!(base("127.0.0.1:6443").unwrap().origin, "https://127.0.0.1:6443");
        assert_eq!(base("https://[::1]:6443/").unwrap().origin, "https://[::1]:6443");
        let proxied = base("https://gate.example.com/clusters/a/").unwrap();
        assert_eq!(
            (proxied.origin.as_str(), proxied.path.as_str()),
            ("https://gate.example.com", "/clusters/a")
        );
        assert!(!base("http://127.0.0.1:8001").unwrap().tls);
    }

    #[test]
    fn what_is_no_server_is_refused_with_the_form_to_write() {
        for server in ["ftp://x", "https://", "https://a b", ""] {
            let error = Endpoint::new(server).base().unwrap_err().to_string();
            assert!(
                error.starts_with("server: ") && error.contains("https://HOST:PORT"),
                "{server}: {error}"
            );
        }
    }

    #[test]
    fn secrets_do_not_reach_logs() {
        let endpoint = Endpoint::new("x").certificate("chain", "the key").token("the token");
        let printed = format!("{endpoint:?}");
        assert!(!printed.contains("the"), "{printed}");
    }
}
