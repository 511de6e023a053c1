//! An authenticated user.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use super::{ANONYMOUS, AUTHENTICATED, MASTERS, NODES, UNAUTHENTICATED};

/// Who somebody is. Cheap to clone: a connection proves it once and every request carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(Arc<Who>);

/// What is known of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// `kubernetes-admin`, `system:node:gpu-02`, ...
    pub user: String,
    /// `system:masters`, `system:nodes`, ...
    pub groups: Vec<String>,
    /// Empty where users have none.
    pub uid: String,
    /// What else the credential says, by key.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Whether it is in [`MASTERS`]: asked by every request.
    is_master: bool,
}

impl Identity {
    /// A user in groups.
    pub fn new(user: impl Into<String>, groups: Vec<String>) -> Self {
        let is_master = groups.iter().any(|group| group == MASTERS);
        Self(Arc::new(Who { user: user.into(), groups, is_master, ..Who::default() }))
    }

    /// The same from literals.
    pub fn of(user: &str, groups: &[&str]) -> Self {
        Self::new(user, groups.iter().map(|group| (*group).to_owned()).collect())
    }

    /// The same user with a uid, and what else is known.
    #[must_use]
    pub fn with(mut self, uid: impl Into<String>, extra: BTreeMap<String, Vec<String>>) -> Self {
        let who = Arc::make_mut(&mut self.0);
        who.uid = uid.into();
        who.extra = extra;
        self
    }

    /// The server acting for itself, and controllers that run inside it.
    pub fn loopback(component: &str) -> Self {
        Self::new(format!("system:{component}"), vec![MASTERS.to_owned()])
    }

    /// The agent of a node.
    pub fn of_node(name: &str) -> Self {
        Self::new(format!("system:node:{name}"), vec![NODES.to_owned(), AUTHENTICATED.to_owned()])
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::of(ANONYMOUS, &[UNAUTHENTICATED])
    }

    /// Whether it showed no credentials.
    pub fn is_anonymous(&self) -> bool {
        self.user == ANONYMOUS
    }

    /// Whether it may do everything.
    pub fn is_master(&self) -> bool {
        self.is_master
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

impl Deref for Identity {
    type Target = Who;

    fn deref(&self) -> &Who {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_without_the_group_is_nothing() {
        assert_eq!(Identity::of_node("gpu-02").node(), Some("gpu-02"));
        assert_eq!(Identity::of("system:node:gpu-02", &[]).node(), None);
    }

    #[test]
    fn the_group_makes_the_master() {
        assert!(Identity::loopback("x").is_master());
        assert!(!Identity::of("system:masters", &[AUTHENTICATED]).is_master());
    }
}
