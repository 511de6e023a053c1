//! Who is asking, and what they may do.
//!
//! [`Authenticator`] turns a client certificate or a bearer token into an [`Identity`], which [`impersonate`] may change
//! into another; an [`Authorizer`] decides what that identity may do.
//!
//! | module | owns |
//! |---|---|
//! | `authenticator`, `join_tokens`, `service_accounts` | what proves who somebody is |
//! | `action` | what somebody wants to do, and how a refusal reads |
//! | `access` | the order of the rules: masters, nodes, roles |
//! | `nodes` | what a node may do (pure) |
//! | `rbac` | roles and bindings |
//! | `impersonate` | acting as somebody else |
//!
//! Must never know: HTTP beyond its headers, what objects are for.

mod access;
mod action;
mod authenticator;
mod identity;
pub mod impersonate;
mod join_tokens;
mod nodes;
mod random;
pub mod rbac;
pub mod service_accounts;

pub use access::Access;
pub use action::{Action, Authorizer, What};
pub use authenticator::{Authenticator, Peer};
pub use identity::{Identity, Who};
pub use join_tokens::{JoinTokens, new_join_token};
pub use nodes::BoundPods;
pub(crate) use nodes::refers_to_secrets;
pub(crate) use random::{digest, random_hex, sha256_hex};

/// Group of everyone who is somebody.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everyone who showed no credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group of node agents.
pub const NODES: &str = "system:nodes";
/// Group of machines that hold a join token and nothing else.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
/// Group whose members may do everything.
pub const MASTERS: &str = "system:masters";
/// Group of all service accounts. Those of one namespace are also in the group of this name, a colon, and its name.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// What the user name of a machine with a join token begins with; the token's id follows.
pub const BOOTSTRAP_USER_PREFIX: &str = "system:bootstrap:";
/// User name of everybody who shows no credentials.
pub const ANONYMOUS: &str = "system:anonymous";
