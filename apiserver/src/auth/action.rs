//! What somebody wants to do, who decides about it, and how a refusal reads.
//!
//! Must never know: where rules come from.

use std::sync::Arc;

use claw_client::ResourceRef;
use claw_schemas::{ApiError, selector::FieldSelector, status::Reason};
use k8s_openapi::api::rbac::v1::PolicyRule;

use super::Identity;

/// One deed: a verb on objects, or on a path that is not about objects.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `impersonate`, ...
    pub verb: &'a str,
    /// On what.
    pub what: What<'a>,
    /// Of a collection, only objects with these fields.
    pub fields: Option<&'a FieldSelector>,
}

/// What a deed is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// Objects. Empty parts are absent ones.
    Objects {
        /// Empty for the core group.
        group: &'a str,
        /// Lower-case plural.
        plural: &'a str,
        /// `status`, `scale`, ...
        subresource: &'a str,
        /// Empty at the cluster scope, and for all namespaces at once.
        namespace: &'a str,
        /// Empty for a collection.
        name: &'a str,
    },
    /// A path outside of the objects: `/version`, `/apis`.
    Path(&'a str),
}

/// Decides before anything is read or written.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether somebody may do something.
    fn allows(&self, who: &Identity, action: &Action<'_>) -> bool;

    /// Why [`Self::allows`] says what it says, for people.
    fn explain(&self, _who: &Identity, _action: &Action<'_>) -> String {
        String::new()
    }

    /// All rules that hold for somebody in a namespace; an empty one means the cluster.
    fn rules(&self, _who: &Identity, _namespace: &str) -> Vec<Arc<[PolicyRule]>> {
        Vec::new()
    }

    /// The rules of a Role in a namespace, or of a ClusterRole without one. `None` when there is no such role.
    fn role(&self, _namespace: Option<&str>, _name: &str) -> Option<Arc<[PolicyRule]>> {
        None
    }
}

impl<'a> Action<'a> {
    /// A verb on objects.
    pub fn on(verb: &'a str, resource: &'a ResourceRef) -> Self {
        let text = |part: &'a Option<String>| part.as_deref().unwrap_or_default();
        let (mut namespace, name) = (text(&resource.namespace), text(&resource.name));
        // A namespace is in itself: who administers one may read it.
        if resource.group.is_empty() && resource.plural == "namespaces" {
            namespace = name;
        }
        let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
        let subresource = text(&resource.subresource);
        Self { verb, what: What::Objects { group, plural, subresource, namespace, name }, fields: None }
    }

    /// The same on those objects of the collection that have these fields. Objects of one name are a question about
    /// that name.
    #[must_use]
    pub fn selecting(mut self, fields: &'a FieldSelector) -> Self {
        self.fields = Some(fields);
        if let What::Objects { name, .. } = &mut self.what
            && name.is_empty()
        {
            *name = fields.pinned("metadata.name").unwrap_or_default();
        }
        self
    }

    /// The value that a field must have.
    pub fn pinned(&self, field: &str) -> Option<&'a str> {
        self.fields?.pinned(field)
    }

    /// Where the objects are; empty in the cluster, and for paths.
    pub const fn namespace(&self) -> &'a str {
        match self.what {
            What::Objects { namespace, .. } => namespace,
            What::Path(_) => "",
        }
    }

    /// A verb on a path.
    pub const fn at(verb: &'a str, path: &'a str) -> Self {
        Self { verb, what: What::Path(path), fields: None }
    }

    /// The refusal: the words that Kubernetes uses, since clients and people match on them, then `why`.
    pub fn forbidden(&self, who: &Identity, why: &str) -> ApiError {
        let (user, verb) = (&who.user, self.verb);
        let (group, plural, subresource, namespace, name) = match self.what {
            What::Objects { group, plural, subresource, namespace, name } => {
                (group, plural, subresource, namespace, name)
            }
            What::Path(path) => {
                let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\": {why}");
                return ApiError::new(Reason::Forbidden, message);
            }
        };
        let dot = if group.is_empty() { "" } else { "." };
        let quoted = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let resource = joined(plural, subresource);
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{namespace}\"")
        };
        let message = format!(
            "{plural}{dot}{group}{quoted} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}: {why}"
        );
        ApiError::new(Reason::Forbidden, message).about(group, plural, name)
    }
}

/// `pods/log`, or `pods`.
pub(super) fn joined(plural: &str, subresource: &str) -> String {
    if subresource.is_empty() { plural.to_owned() } else { format!("{plural}/{subresource}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_user_verb_and_resource() {
        let node = Identity::of_node("gpu-02");
        let web =
            ResourceRef::collection("", "v1", "pods").in_namespace("default").named("web").sub("status");
        let error = Action::on("update", &web).forbidden(&node, "because");
        assert_eq!(error.code, 403);
        assert_eq!(
            error.message,
            "pods \"web\" is forbidden: User \"system:node:gpu-02\" cannot update resource \"pods/status\" in API group \"\" in the namespace \"default\": because"
        );
        let roles = ResourceRef::collection("rbac.authorization.k8s.io", "v1", "clusterroles");
        assert_eq!(
            Action::on("list", &roles).forbidden(&node, "because").message,
            "clusterroles.rbac.authorization.k8s.io is forbidden: User \"system:node:gpu-02\" cannot list resource \"clusterroles\" in API group \"rbac.authorization.k8s.io\" at the cluster scope: because"
        );
        assert_eq!(
            Action::at("get", "/metrics").forbidden(&node, "because").message,
            "forbidden: User \"system:node:gpu-02\" cannot get path \"/metrics\": because"
        );
    }

    #[test]
    fn a_namespace_is_in_itself() {
        let resource = ResourceRef::collection("", "v1", "namespaces").named("a");
        let What::Objects { namespace, name, .. } = Action::on("get", &resource).what else { panic!() };
        assert_eq!((namespace, name), ("a", "a"));
    }
}
