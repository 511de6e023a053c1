//! What a node may do: read what its pods need, write about itself.
//!
//! Pure. Which pods are bound to it, [`BoundPods`] says; what they refer to is read from the pods themselves at the
//! moment of the question, which a node asks a few times for each pod that it starts.

use bytes::Bytes;
use claw_schemas::gpu;
use serde_json::Value;

use super::{Action, action::What};

/// Namespace of the leases that nodes may hold.
const LEASES: &str = "kube-node-lease";

/// Knows which pods are bound to a node.
pub trait BoundPods: Send + Sync + 'static {
    /// The pods of a namespace that are bound to a node, as stored.
    fn bound_pods(&self, node: &str, namespace: &str) -> Vec<Bytes>;
}

/// Whether a node may do something.
pub fn may(node: &str, action: &Action<'_>, pods: Option<&dyn BoundPods>) -> bool {
    let What::Objects { group, plural, subresource, namespace, name } = action.what else { return false };
    let read = matches!(action.verb, "get" | "list" | "watch");
    let write = matches!(action.verb, "create" | "update" | "patch");
    let change = matches!(action.verb, "update" | "patch");
    let bound = |holds: &dyn Fn(&Value) -> bool| {
        let pods = pods.map(|pods| pods.bound_pods(node, namespace)).unwrap_or_default();
        pods.iter().any(|pod| serde_json::from_slice(pod).is_ok_and(|pod: Value| holds(&pod)))
    };
    let uses = |kind: Kind| !name.is_empty() && bound(&|pod| refers(&pod["spec"], kind, Some(name)));
    let runs_as = || !name.is_empty() && bound(&|pod| pod["spec"]["serviceAccountName"] == name);
    match (group, plural, subresource) {
        ("", "namespaces" | "services", "") | ("discovery.k8s.io", "endpointslices", "") => read,
        ("", "nodes", "" | "status") => name == node && (read || change),
        // What it may create is looked at when it is known: mirrors of what it runs by itself.
        ("", "pods", "") if action.verb == "create" => name.is_empty(),
        ("", "pods", "") if name.is_empty() => read && action.pinned("spec.nodeName") == Some(node),
        ("", "pods", "") => {
            (read || action.verb == "delete") && bound(&|pod| pod["metadata"]["name"] == name)
        }
        ("", "pods", "status") => change && bound(&|pod| pod["metadata"]["name"] == name),
        // One by one and by name: a node has no business with a list of all secrets.
        ("", "configmaps", "") => read && uses(Kind::ConfigMap),
        ("", "secrets", "") => read && uses(Kind::Secret),
        ("", "persistentvolumeclaims", "") => read && uses(Kind::Claim),
        ("resource.k8s.io", "resourceclaims", "") => {
            action.verb == "get" && !name.is_empty() && bound(&|pod| uses_claim(pod, name))
        }
        // What it may change there is looked at when it is known: its own devices.
        ("resource.k8s.io", "resourceclaims", "status") => {
            change && !name.is_empty() && bound(&|pod| uses_claim(pod, name))
        }
        ("", "serviceaccounts", "") => action.verb == "get" && runs_as(),
        ("", "serviceaccounts", "token") => action.verb == "create" && runs_as(),
        ("" | "events.k8s.io", "events", "") => write,
        ("coordination.k8s.io", "leases", "") => {
            namespace == LEASES
                && (name == node && (write || action.verb == "get")
                    || name.is_empty() && action.verb == "create")
        }
        ("resource.k8s.io", "resourceslices", "") => {
            let own = matches!(action.verb, "get" | "delete") || write;
            name == gpu::slice_name(node) && own || name.is_empty() && action.verb == "create"
        }
        _ => false,
    }
}

/// Why a node may not.
pub fn refusal(node: &str, action: &Action<'_>) -> String {
    match action.what {
        What::Objects {
            plural: "configmaps" | "secrets" | "persistentvolumeclaims" | "serviceaccounts" | "resourceclaims",
            ..
        } => {
            format!("no pod that is bound to node \"{node}\" refers to it")
        }
        What::Objects { plural: "pods", .. } => {
            format!("a node has access to the pods bound to it, and lists them with spec.nodeName={node}")
        }
        _ => {
            format!(
                "node \"{node}\" has access to itself, its lease, its devices, its events and what its pods refer to"
            )
        }
    }
}

/// Whether a pod uses a ResourceClaim: one that it names, or one that was made for it.
fn uses_claim(pod: &Value, name: &str) -> bool {
    let lists = [&pod["spec"]["resourceClaims"], &pod["status"]["resourceClaimStatuses"]];
    lists.into_iter().filter_map(Value::as_array).flatten().any(|claim| claim["resourceClaimName"] == name)
}

/// What a pod may refer to from anywhere in its spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret,
    ConfigMap,
    Claim,
}

/// Whether a pod's spec refers to any Secret.
pub fn refers_to_secrets(spec: &Value) -> bool {
    refers(spec, Kind::Secret, None)
}

/// Whether a part of a pod's spec refers to an object, or to any of the kind, wherever in it references may stand. Keys that users choose
/// (labels of nodes, names of resources) have plain values, which refer to nothing.
fn refers(spec: &Value, kind: Kind, name: Option<&str>) -> bool {
    match spec {
        Value::Array(items) => items.iter().any(|item| refers(item, kind, name)),
        Value::Object(fields) => {
            fields.iter().any(|(field, value)| names(field, value, kind, name) || refers(value, kind, name))
        }
        _ => false,
    }
}

/// Whether one field is a reference.
fn names(field: &str, value: &Value, kind: Kind, name: Option<&str>) -> bool {
    let is = |found: &Value| name.map_or(!found.is_null(), |name| found == name);
    match (kind, field) {
        (Kind::Secret, "secret") => is(&value["secretName"]) || is(&value["name"]),
        (Kind::Secret, "secretRef" | "secretKeyRef" | "nodePublishSecretRef") => is(&value["name"]),
        (Kind::Secret, "imagePullSecrets") => {
            value.as_array().into_iter().flatten().any(|secret| is(&secret["name"]))
        }
        (Kind::Secret, "azureFile") => is(&value["secretName"]),
        (Kind::ConfigMap, "configMap" | "configMapRef" | "configMapKeyRef") => is(&value["name"]),
        (Kind::Claim, "persistentVolumeClaim") => is(&value["claimName"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use claw_client::ResourceRef;
    use claw_schemas::selector::FieldSelector;
    use serde_json::json;

    use super::*;

    /// One pod in `default` on `gpu-02`.
    struct Web;

    impl BoundPods for Web {
        fn bound_pods(&self, node: &str, namespace: &str) -> Vec<Bytes> {
            if (node, namespace) != ("gpu-02", "default") {
                return Vec::new();
            }
            let container = json!({
                "name": "c",
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "env-map"}}],
            });
            let pod = json!({"metadata": {"name": "web"}, "spec": {
                "serviceAccountName": "bot",
                "nodeSelector": {"secret": "chosen", "serviceAccountName": "chosen"},
                "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [container],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "volume-secret"}},
                    {"name": "b", "projected": {"sources": [{"configMap": {"name": "projected-map"}}]}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
                ],
                "resourceClaims": [
                    {"name": "own", "resourceClaimName": "gpu"}, {"name": "made", "resourceClaimTemplateName": "one"},
                ],
            }, "status": {"resourceClaimStatuses": [{"name": "made", "resourceClaimName": "web-made-x"}]}});
            vec![pod.to_string().into()]
        }
    }

    fn core(plural: &str) -> ResourceRef {
        ResourceRef::collection("", "v1", plural).in_namespace("default")
    }

    fn may_at(node: &str, verb: &str, resource: &ResourceRef) -> bool {
        may(node, &Action::on(verb, resource), Some(&Web))
    }

    #[test]
    fn a_node_reads_what_its_pods_refer_to_and_nothing_else() {
        for (plural, name, expected) in [
            ("secrets", "env-secret", true),
            ("secrets", "volume-secret", true),
            ("secrets", "pull", true),
            ("secrets", "other", false),
            ("secrets", "chosen", false),
            ("secrets", "env-map", false),
            ("configmaps", "env-map", true),
            ("configmaps", "projected-map", true),
            ("configmaps", "volume-secret", false),
            ("persistentvolumeclaims", "data", true),
            ("serviceaccounts", "bot", true),
            ("serviceaccounts", "default", false),
            ("serviceaccounts", "chosen", false),
            ("pods", "web", true),
            ("pods", "db", false),
        ] {
            let resource = core(plural).named(name);
            assert_eq!(may_at("gpu-02", "get", &resource), expected, "{plural} {name}");
            assert!(!may_at("gpu-03", "get", &resource), "{plural} {name}");
            assert_eq!(may_at("gpu-02", "delete", &resource), name == "web", "{plural} {name}");
            assert!(!may_at("gpu-02", "list", &core(plural)));
        }
        assert!(!may_at("gpu-02", "get", &core("secrets").named("pull").in_namespace("other")));
        assert!(may_at("gpu-02", "create", &core("serviceaccounts").named("bot").sub("token")));
        assert!(!may_at("gpu-02", "create", &core("serviceaccounts").named("default").sub("token")));
        assert!(!may("gpu-02", &Action::on("get", &core("secrets").named("pull")), None));
    }

    #[test]
    fn a_node_reads_the_claims_of_its_pods_and_writes_none() {
        let claims =
            ResourceRef::collection("resource.k8s.io", "v1", "resourceclaims").in_namespace("default");
        for (name, expected) in [("gpu", true), ("web-made-x", true), ("one", false), ("other", false)] {
            let claim = claims.clone().named(name);
            assert_eq!(may_at("gpu-02", "get", &claim), expected, "{name}");
            assert!(!may_at("gpu-03", "get", &claim) && !may_at("gpu-02", "patch", &claim), "{name}");
            let status = claim.sub("status");
            assert_eq!(may_at("gpu-02", "update", &status), expected, "{name}");
            assert!(!may_at("gpu-03", "update", &status) && !may_at("gpu-02", "delete", &status), "{name}");
        }
        assert!(!may_at("gpu-02", "list", &claims) && !may_at("gpu-02", "get", &claims));
    }

    #[test]
    fn a_node_lists_its_own_pods_only() {
        let list = |selector: &str| {
            let selector = FieldSelector::parse(selector).unwrap();
            may("gpu-02", &Action::on("watch", &core("pods")).selecting(&selector), Some(&Web))
        };
        assert!(list("spec.nodeName=gpu-02"));
        assert!(!list("spec.nodeName=gpu-03") && !list("") && !list("spec.nodeName!=gpu-02"));
    }

    #[test]
    fn a_node_writes_only_about_itself() {
        let nodes = ResourceRef::collection("", "v1", "nodes");
        let leases = ResourceRef::collection("coordination.k8s.io", "v1", "leases");
        let leases = |namespace: &str, name: &str| leases.clone().in_namespace(namespace).named(name);
        let slices = ResourceRef::collection("resource.k8s.io", "v1", "resourceslices");
        let slice = |node: &str| slices.clone().named(&gpu::slice_name(node));
        for (verb, resource, expected) in [
            ("create", core("events"), true),
            ("patch", nodes.clone().named("gpu-02").sub("status"), true),
            ("patch", nodes.clone().named("gpu-02"), true),
            ("patch", nodes.clone().named("gpu-03").sub("status"), false),
            ("delete", nodes.named("gpu-02"), false),
            ("patch", core("pods").named("web").sub("status"), true),
            ("patch", core("pods").named("db").sub("status"), false),
            ("patch", core("pods").named("web"), false),
            ("create", core("pods"), true),
            ("update", leases(LEASES, "gpu-02"), true),
            ("update", leases(LEASES, "gpu-03"), false),
            ("update", leases("kube-system", "gpu-02"), false),
            ("create", slices.clone(), true),
            ("list", slices.clone(), false),
            ("get", slice("gpu-02"), true),
            ("update", slice("gpu-02"), true),
            ("delete", slice("gpu-02"), true),
            ("update", slice("gpu-03"), false),
            ("delete", slices.clone().named("gpu-02"), false),
        ] {
            assert_eq!(may_at("gpu-02", verb, &resource), expected, "{verb} {resource:?}");
        }
    }
}
