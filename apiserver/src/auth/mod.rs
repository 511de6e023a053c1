//! Who is asking, and what they may do.

use claw_client::ResourceRef;
use claw_schemas::ApiError;

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
        Self { user: format!("system:{component}"), groups: vec!["system:masters".to_owned()] }
    }

    /// The name of the node this identity is, if it is one.
    pub fn node(&self) -> Option<&str> {
        self.user.strip_prefix("system:node:").filter(|_| self.groups.iter().any(|g| g == "system:nodes"))
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
