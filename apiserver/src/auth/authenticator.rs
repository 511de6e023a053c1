//! Who is asking: a client certificate, a bearer token, or nobody.

use std::time::SystemTime;

use claw_schemas::{ApiError, status::Reason};
use http::{HeaderMap, header};
use rustls_pki_types::CertificateDer;

use super::{AUTHENTICATED, BOOTSTRAPPERS, Identity, JoinTokens, MASTERS, random::digest};
use crate::pki::{ADMIN_USER, Facts};

/// What the TLS handshake of a connection proved. The chain is verified by then.
pub struct Peer {
    certificate: Option<(Identity, SystemTime)>,
}

impl Peer {
    /// The peer of a connection, from the certificates it showed.
    pub fn from_certificates(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let leaf = chain.and_then(<[_]>::first);
        let certificate = leaf.and_then(|leaf| match Facts::read(leaf) {
            Ok(facts) => {
                let mut groups = facts.organizations;
                groups.push(AUTHENTICATED.to_owned());
                Some((Identity { user: facts.common_name, groups }, facts.not_after))
            }
            Err(error) => {
                tracing::warn!(%error, "a client certificate has no readable subject");
                None
            }
        });
        Self { certificate }
    }

    /// A peer that showed no certificate.
    pub const fn unknown() -> Self {
        Self { certificate: None }
    }
}

/// Recognises certificates and tokens.
pub struct Authenticator {
    /// Digest, so that comparing takes the same time for every guess.
    admin_token: [u8; 32],
    join_tokens: JoinTokens,
}

impl Authenticator {
    /// Recognises this administrator's token, and join tokens.
    pub fn new(admin_token: &str, join_tokens: JoinTokens) -> Self {
        Self { admin_token: digest(admin_token.as_bytes()), join_tokens }
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
                self.token(token).await
            }
        }
    }

    async fn token(&self, token: &str) -> Result<Identity, ApiError> {
        if digest(token.as_bytes()) == self.admin_token {
            let groups = vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()];
            return Ok(Identity { user: ADMIN_USER.to_owned(), groups });
        }
        let join_token = self.join_tokens.find(token).await?;
        let id = join_token.ok_or_else(|| {
            unauthorized(
                "the bearer token is not known here; it is mistyped, expired, used up or of another cluster",
            )
        })?;
        let groups = vec![BOOTSTRAPPERS.to_owned(), AUTHENTICATED.to_owned()];
        Ok(Identity { user: format!("{}{id}", super::BOOTSTRAP_USER_PREFIX), groups })
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
    use super::*;

    #[test]
    fn only_bearer_tokens_are_read() {
        assert_eq!(bearer(b"Bearer abc"), Some("abc"));
        assert_eq!(bearer(b"bearer  abc "), Some("abc"));
        for wrong in [&b"Basic abc"[..], b"Bearer", b"Bearer ", b"abc", b"\xff\xfe x"] {
            assert_eq!(bearer(wrong), None);
        }
    }
}
