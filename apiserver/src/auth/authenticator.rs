//! Who is asking: a client certificate, a bearer token, or nobody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use claw_schemas::{ApiError, status::Reason};
use http::{HeaderMap, header};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{
    AUTHENTICATED, BOOTSTRAPPERS, Identity, JoinTokens, MASTERS,
    random::digest,
    service_accounts::{ISSUER, ServiceAccounts},
};
use crate::pki::{ADMIN_USER, Facts};

/// What the TLS handshake of a connection proved. The chain is verified by then.
pub struct Peer {
    certificate: Option<(Identity, SystemTime)>,
    /// Whether somebody has asked by this connection who was recognised.
    is_known: AtomicBool,
}

impl Peer {
    /// The peer of a connection, from the certificates it showed.
    pub fn from_certificates(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let leaf = chain.and_then(<[_]>::first);
        let certificate = leaf.and_then(|leaf| match Facts::read(leaf) {
            Ok(facts) => {
                let mut groups = facts.organizations;
                groups.push(AUTHENTICATED.to_owned());
                Some((Identity::new(facts.common_name, groups), facts.not_after))
            }
            Err(error) => {
                tracing::warn!(%error, "a client certificate has no readable subject");
                None
            }
        });
        Self { certificate, is_known: AtomicBool::new(false) }
    }

    /// A peer whose identity was proven in another way than by TLS, as good as a certificate until `not_after`.
    pub const fn proven(identity: Identity, not_after: SystemTime) -> Self {
        Self { certificate: Some((identity, not_after)), is_known: AtomicBool::new(false) }
    }

    /// A peer that showed no certificate.
    pub const fn unknown() -> Self {
        Self { certificate: None, is_known: AtomicBool::new(false) }
    }

    /// Whether it is somebody: by its certificate, or by the token of a request that came before.
    pub fn is_known(&self) -> bool {
        self.certificate.is_some() || self.is_known.load(Ordering::Relaxed)
    }
}

/// Recognises certificates and tokens.
pub struct Authenticator {
    /// Digest, so that comparing takes the same time for every guess.
    admin_token: [u8; 32],
    admin: Identity,
    join_tokens: JoinTokens,
    service_accounts: Arc<ServiceAccounts>,
}

impl Authenticator {
    /// Recognises this administrator's token, join tokens, and tokens of service accounts.
    pub fn new(admin_token: &str, join_tokens: JoinTokens, service_accounts: Arc<ServiceAccounts>) -> Self {
        let admin = Identity::of(ADMIN_USER, &[MASTERS, AUTHENTICATED]);
        Self { admin_token: digest(admin_token.as_bytes()), admin, join_tokens, service_accounts }
    }

    /// Who sends a request. A certificate counts before a token; a token that is not known is an error, not
    /// nobody.
    ///
    /// # Errors
    /// `Unauthorized`, or that tokens cannot be looked up.
    pub async fn authenticate(&self, peer: &Peer, headers: &HeaderMap) -> Result<Identity, ApiError> {
        if let Some((identity, not_after)) = &peer.certificate {
            // It was valid at the handshake, but a connection can outlive it.
            return if SystemTime::now() < *not_after {
                Ok(identity.clone())
            } else {
                Err(unauthorized(format!("the client certificate of \"{}\" has expired", identity.user)))
            };
        }
        match headers.get(header::AUTHORIZATION) {
            None => Ok(Identity::anonymous()),
            Some(value) => {
                let token = bearer(value.as_bytes())
                    .ok_or_else(|| unauthorized("the Authorization header must be \"Bearer TOKEN\""))?;
                let who = self.token(token).await?;
                peer.is_known.store(true, Ordering::Relaxed);
                Ok(who)
            }
        }
    }

    async fn token(&self, token: &str) -> Result<Identity, ApiError> {
        if digest(token.as_bytes()) == self.admin_token {
            return Ok(self.admin.clone());
        }
        let audience = [ISSUER.to_owned()];
        if let Some((who, _)) = self.service_accounts.review(token, &audience, Timestamp::now()).await? {
            return Ok(who);
        }
        let join_token = self.join_tokens.find(token).await?;
        let id = join_token.ok_or_else(|| {
            unauthorized(
                "the bearer token is not known here; it is mistyped, expired, used up, revoked or of another cluster",
            )
        })?;
        let user = format!("{}{id}", super::BOOTSTRAP_USER_PREFIX);
        Ok(Identity::of(&user, &[BOOTSTRAPPERS, AUTHENTICATED]))
    }
}

/// The token of `Bearer x`; the scheme's case does not matter.
fn bearer(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn unauthorized(message: impl Into<String>) -> ApiError {
    ApiError::new(Reason::Unauthorized, message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use claw_schemas::Registry;

    use super::*;
    use crate::{
        auth::{Access, service_accounts::SigningKey},
        service::ObjectService,
        store,
    };

    async fn authenticator() -> Authenticator {
        let store = store::memory();
        let access = Access::start(store.clone()).await.unwrap();
        let service = ObjectService::new(store.clone(), Registry::builtin(), access);
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let accounts = ServiceAccounts::new(SigningKey::from_pem(&pem).unwrap(), store);
        Authenticator::new("secret", JoinTokens::new(Arc::new(service)), Arc::new(accounts))
    }

    fn peer(not_after: SystemTime) -> Peer {
        Peer::proven(Identity::of_node("gpu-02"), not_after)
    }

    fn with_token(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[tokio::test]
    async fn a_connection_does_not_outlive_its_certificate() {
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        let authenticator = authenticator().await;
        let live = authenticator.authenticate(&peer(now + hour), &HeaderMap::new()).await.unwrap();
        assert_eq!(live.node(), Some("gpu-02"));
        let error = authenticator.authenticate(&peer(now - hour), &HeaderMap::new()).await.unwrap_err();
        assert_eq!(error.code, 401);
        assert!(error.message.contains("has expired"), "{error}");
    }

    #[tokio::test]
    async fn without_a_certificate_the_token_decides() {
        let authenticator = authenticator().await;
        let ask = async |headers: HeaderMap| authenticator.authenticate(&Peer::unknown(), &headers).await;
        assert!(ask(HeaderMap::new()).await.unwrap().is_anonymous());
        assert_eq!(ask(with_token("Bearer secret")).await.unwrap().user, ADMIN_USER);
        for wrong in
            ["Bearer secre", "Bearer secret2", "Basic secret", "secret", "Bearer abcdef.0123456789abcdef"]
        {
            assert_eq!(ask(with_token(wrong)).await.unwrap_err().code, 401, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_certificate_counts_before_a_token() {
        let peer = peer(SystemTime::now() + Duration::from_secs(3600));
        let who = authenticator().await.authenticate(&peer, &with_token("Bearer secret")).await.unwrap();
        assert_eq!(who.node(), Some("gpu-02"));
    }

    #[test]
    fn only_bearer_tokens_are_read() {
        assert_eq!(bearer(b"Bearer abc"), Some("abc"));
        assert_eq!(bearer(b"bearer  abc "), Some("abc"));
        for wrong in [&b"Basic abc"[..], b"Bearer", b"Bearer ", b"abc", b"\xff\xfe x"] {
            assert_eq!(bearer(wrong), None);
        }
    }
}
