//! Who is asking, and what they may do.
//!
//! [`Authenticator`] turns a client certificate or a bearer token into an [`Identity`]; an [`Authorizer`]
//! decides what that identity may do. Neither reads objects on the way, but for bootstrap tokens, which are
//! Secrets.

mod authenticator;
mod authorizer;
mod join_tokens;
mod random;

use claw_client::ResourceRef;
use claw_schemas::ApiError;

pub use authenticator::{Authenticator, Peer};
pub use authorizer::BuiltinAuthorizer;
pub use join_tokens::{JoinTokens, new_join_token};
pub(crate) use random::{random_hex, sha256_hex};

/// Group of everyone who is somebody.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of node agents.
pub const NODES: &str = "system:nodes";
/// Group of machines that hold a join token and nothing else.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
/// Group whose members may do everything.
pub const MASTERS: &str = "system:masters";

/// What the user name of a machine with a join token begins with; the token's id follows.
pub const BOOTSTRAP_USER_PREFIX: &str = "system:bootstrap:";
/// User name of everybody who shows no credentials.
const ANONYMOUS: &str = "system:anonymous";

/// An authenticated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `kubernetes-admin`, `system:node:gpu-02`, ...
    pub user: String,
    /// `system:masters`, `system:nodes`, ...
    pub groups: Vec<String>,
}

impl Identity {
    /// The server acting for itself, and controllers that run inside it.
    pub fn loopback(component: &str) -> Self {
        Self { user: format!("system:{component}"), groups: vec![MASTERS.to_owned()] }
    }

    /// The agent of a node.
    pub fn of_node(name: &str) -> Self {
        Self { user: format!("system:node:{name}"), groups: vec![NODES.to_owned(), AUTHENTICATED.to_owned()] }
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self { user: ANONYMOUS.to_owned(), groups: vec!["system:unauthenticated".to_owned()] }
    }

    /// Whether it showed no credentials.
    pub fn is_anonymous(&self) -> bool {
        self.user == ANONYMOUS
    }

    /// The name of the node this identity is, if it is one.
    pub fn node(&self) -> Option<&str> {
        self.user.strip_prefix("system:node:").filter(|_| self.is_in(NODES))
    }

    /// Whether it belongs to a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }
}

/// Decides before anything is read or written.
pub trait Authorizer: Send + Sync + 'static {
    /// `verb` is one of get, list, watch, create, update, patch, delete, deletecollection.
    ///
    /// # Errors
    /// `Forbidden`, in a sentence that names user, verb and resource.
    fn authorize(&self, who: &Identity, verb: &str, resource: &ResourceRef) -> Result<(), ApiError>;
}
