//! The server's authorizer: administrators may do everything, nodes what is theirs, and everybody what roles say.

use std::sync::{Arc, OnceLock};

use k8s_openapi::api::rbac::v1::PolicyRule;
use tokio_util::sync::CancellationToken;

use super::{
    Action, Authorizer, Identity,
    nodes::{self, BoundPods},
    rbac::{Rbac, escalation},
};
use crate::store::{Store, StoreError};

/// Who may do what, by groups, bindings of pods, and roles.
pub struct Access {
    rbac: Rbac,
    pods: OnceLock<Arc<dyn BoundPods>>,
}

impl Access {
    /// Over the roles of a store. Nodes have no pods yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        Ok(Arc::new(Self { rbac: Rbac::start(store).await?, pods: OnceLock::new() }))
    }

    /// Says which pods are bound to which node. The first call counts: whoever knows it is itself a user of the
    /// service that this authorizer guards, so it can only come after it.
    pub fn set_pods(&self, pods: Arc<dyn BoundPods>) {
        let _ = self.pods.set(pods);
    }

    /// See [`Rbac::follow`].
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        self.rbac.follow(stop).await;
    }

    fn node_may(&self, who: &Identity, action: &Action<'_>) -> bool {
        who.node().is_some_and(|node| nodes::may(node, action, self.pods.get().map(|pods| &**pods)))
    }
}

impl Authorizer for Access {
    fn allows(&self, who: &Identity, action: &Action<'_>) -> bool {
        who.is_master() || self.node_may(who, action) || self.rbac.allows(who, action)
    }

    fn explain(&self, who: &Identity, action: &Action<'_>) -> String {
        if who.is_master() {
            return "allowed to everyone in the group \"system:masters\"".to_owned();
        }
        match who.node() {
            Some(node) if self.node_may(who, action) => format!("allowed to node \"{node}\""),
            Some(node) if !self.rbac.allows(who, action) => nodes::refusal(node, action),
            _ => self.rbac.explain(who, action),
        }
    }

    fn rules(&self, who: &Identity, namespace: &str) -> Vec<Arc<[PolicyRule]>> {
        if who.is_master() {
            return vec![escalation::everything().into()];
        }
        self.rbac.rules(who, namespace)
    }

    fn role(&self, namespace: Option<&str>, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.rbac.role(namespace, name)
    }
}
