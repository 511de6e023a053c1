//! Certificates for nodes: the first against a one-time token, later ones against the one before.

use std::{sync::Arc, time::Duration};

use claw_schemas::{
    ApiError,
    proto::{JoinRequest, JoinResponse, RenewRequest},
    status::Reason,
};

use super::{hub::Hub, session::node_of};
use crate::{
    auth::{BOOTSTRAP_USER_PREFIX, BOOTSTRAPPERS, Identity, JoinTokens},
    pki::Authority,
};

/// The length of a DNS name, which a node's name is.
const NAME_LETTERS_MAX: usize = 253;

/// Signs certificates of nodes.
#[derive(Clone)]
pub struct Join {
    hub: Arc<Hub>,
    tokens: JoinTokens,
    authority: Arc<Authority>,
    /// How long a certificate is good.
    life: Duration,
}

impl Join {
    /// Signs with this authority, for holders of these tokens, what is good for so long.
    pub fn new(hub: Arc<Hub>, tokens: JoinTokens, authority: Arc<Authority>, life: Duration) -> Self {
        Self { hub, tokens, authority, life }
    }

    /// Admits a machine. The token is used up last, when everything else is in order, and only the call that
    /// uses it up gets a certificate.
    ///
    /// # Errors
    /// `Forbidden` without a join token, `Conflict` when the name is in use, `BadRequest` for a bad request.
    pub async fn join(&self, who: &Identity, request: JoinRequest) -> Result<JoinResponse, ApiError> {
        let token = who.user.strip_prefix(BOOTSTRAP_USER_PREFIX).filter(|_| who.is_in(BOOTSTRAPPERS));
        let token = token.ok_or_else(|| {
            ApiError::new(
                Reason::Forbidden,
                format!("User \"{}\" has no join token: joining needs one, as the bearer token", who.user),
            )
        })?;
        let name = &request.node_name;
        check_name(name)?;
        if self.hub.is_served(name) {
            return Err(ApiError::new(
                Reason::Conflict,
                format!("node \"{name}\" is in the cluster and connected; give this machine another name"),
            ));
        }
        let response = self.issue(&request.certificate_request, name)?;
        self.tokens.consume(token).await?;
        tracing::info!(node = name, "a machine joined");
        Ok(response)
    }

    /// Gives a node a new certificate.
    ///
    /// # Errors
    /// `Forbidden` to everyone but nodes, `BadRequest` for a bad request.
    pub fn renew(&self, who: &Identity, request: &RenewRequest) -> Result<JoinResponse, ApiError> {
        self.issue(&request.certificate_request, &node_of(who)?)
    }

    fn issue(&self, request: &[u8], node: &str) -> Result<JoinResponse, ApiError> {
        let certificate_chain =
            self.authority.sign_node(request, node, self.life).map_err(ApiError::bad_request)?;
        Ok(JoinResponse { certificate_chain, ca_bundle: self.authority.certificate().to_owned() })
    }
}

/// Node names are DNS subdomains (RFC 1123), in lower case.
fn check_name(name: &str) -> Result<(), ApiError> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= NAME_LETTERS_MAX && name.split('.').all(is_label) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "node name \"{name}\" must be a lower-case DNS name: letters, digits, '-' and '.', at most {NAME_LETTERS_MAX}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_dns_names() {
        for good in ["a", "gpu-02", "gpu-02.rack1.example.com"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "GPU", "a_b", "-a", "a-", "a..b", "a/b", &"a".repeat(254)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
