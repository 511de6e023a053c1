//! What the built-in identities may do, until roles come as objects.
//!
//! Administrators may do everything, node agents what [`node_may`] lists, and everybody else nothing. The
//! [`Authorizer`] trait is the seam where role-based rules will take this module's place.

use claw_client::ResourceRef;
use claw_schemas::{ApiError, status::Reason};

use super::{Authorizer, Identity, MASTERS};

/// Namespace of the leases that nodes may hold.
const NODE_LEASES: &str = "kube-node-lease";

/// The fixed rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuiltinAuthorizer;

impl Authorizer for BuiltinAuthorizer {
    fn authorize(&self, who: &Identity, verb: &str, resource: &ResourceRef) -> Result<(), ApiError> {
        let allowed = who.is_in(MASTERS) || who.node().is_some_and(|node| node_may(node, verb, resource));
        if allowed { Ok(()) } else { Err(forbidden(who, verb, resource)) }
    }
}

/// What a node agent may do: read what its pods need, write about itself. Pod statuses come through its
/// session, where the server checks that the pod is bound to the node.
fn node_may(node: &str, verb: &str, resource: &ResourceRef) -> bool {
    let read = matches!(verb, "get" | "list" | "watch");
    let write = matches!(verb, "create" | "update" | "patch");
    let name = resource.name.as_deref();
    match (resource.group.as_str(), resource.plural.as_str(), resource.subresource.as_deref()) {
        ("", "pods" | "namespaces" | "nodes", None) if read => true,
        ("", "nodes", Some("status")) if verb == "get" => true,
        ("", "nodes", None | Some("status")) => matches!(verb, "update" | "patch") && name == Some(node),
        // One by one and by name: a node has no business with a list of all secrets.
        ("", "configmaps" | "secrets", None) => matches!(verb, "get" | "watch") && name.is_some(),
        ("", "events", None) => write,
        ("coordination.k8s.io", "leases", None) => {
            resource.namespace.as_deref() == Some(NODE_LEASES)
                && (name == Some(node) && (write || verb == "get") || name.is_none() && verb == "create")
        }
        _ => false,
    }
}

/// The words Kubernetes uses: clients and people match on them.
fn forbidden(who: &Identity, verb: &str, resource: &ResourceRef) -> ApiError {
    let name = resource.name.as_deref().unwrap_or_default();
    let mut plural = resource.plural.clone();
    if let Some(subresource) = &resource.subresource {
        plural = format!("{plural}/{subresource}");
    }
    let qualified = if resource.group.is_empty() {
        resource.plural.clone()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    };
    let about = if name.is_empty() { qualified } else { format!("{qualified} \"{name}\"") };
    let place = match &resource.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    ApiError::new(
        Reason::Forbidden,
        format!(
            "{about} is forbidden: User \"{}\" cannot {verb} resource \"{plural}\" in API group \"{}\" {place}",
            who.user, resource.group
        ),
    )
    .about(&resource.group, &resource.plural, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(plural: &str) -> ResourceRef {
        ResourceRef::collection("", "v1", plural).in_namespace("default")
    }

    fn may(who: &Identity, verb: &str, resource: &ResourceRef) -> bool {
        BuiltinAuthorizer.authorize(who, verb, resource).is_ok()
    }

    #[test]
    fn administrators_may_do_everything_and_strangers_nothing() {
        let admin = Identity { user: "kubernetes-admin".to_owned(), groups: vec![MASTERS.to_owned()] };
        let stranger =
            Identity { user: "eve".to_owned(), groups: vec![super::super::AUTHENTICATED.to_owned()] };
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"] {
            assert!(may(&admin, verb, &core("secrets")));
            assert!(!may(&stranger, verb, &core("pods")));
        }
    }

    #[test]
    fn a_node_reads_what_pods_need_and_writes_only_about_itself() {
        let node = Identity::of_node("gpu-02");
        assert!(may(&node, "get", &core("secrets").named("token")));
        assert!(!may(&node, "list", &core("secrets")));
        assert!(!may(&node, "get", &core("secrets")));
        assert!(may(&node, "watch", &core("pods")));
        assert!(!may(&node, "delete", &core("pods").named("web")));
        assert!(!may(&node, "update", &core("pods").named("web").sub("status")));
        assert!(may(&node, "create", &core("events")));
        let nodes = ResourceRef::collection("", "v1", "nodes");
        assert!(may(&node, "patch", &nodes.clone().named("gpu-02").sub("status")));
        assert!(!may(&node, "patch", &nodes.clone().named("gpu-03").sub("status")));
        assert!(!may(&node, "delete", &nodes.named("gpu-02")));
        let leases = ResourceRef::collection("coordination.k8s.io", "v1", "leases");
        assert!(may(&node, "update", &leases.clone().in_namespace(NODE_LEASES).named("gpu-02")));
        assert!(!may(&node, "update", &leases.clone().in_namespace(NODE_LEASES).named("gpu-03")));
        assert!(!may(&node, "update", &leases.in_namespace("kube-system").named("gpu-02")));
    }

    #[test]
    fn a_node_name_without_the_group_is_nothing() {
        let impostor = Identity { user: "system:node:gpu-02".to_owned(), groups: Vec::new() };
        assert!(!may(&impostor, "get", &core("pods")));
    }

    #[test]
    fn a_denial_names_user_verb_and_resource() {
        let node = Identity::of_node("gpu-02");
        let error = BuiltinAuthorizer
            .authorize(&node, "update", &core("pods").named("web").sub("status"))
            .unwrap_err();
        assert_eq!(error.code, 403);
        assert_eq!(
            error.message,
            "pods \"web\" is forbidden: User \"system:node:gpu-02\" cannot update resource \"pods/status\" in API group \"\" in the namespace \"default\""
        );
    }
}
