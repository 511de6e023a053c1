//! How lists and structures of the built-in types are merged: facts that the JSON schemas of `k8s-openapi` lack.
//!
//! Source: the `patchStrategy`, `patchMergeKey`, `+listType`, `+listMapKey`, `+mapType` and `+structType` markers in
//! `k8s.io/api` (release 1.36) and `k8s.io/apimachinery` (`meta/v1`). A test holds every entry against the served
//! types, so that a misspelt one fails.

/// How one field is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeRule {
    /// Strategic merge combines the items of this list instead of replacing it.
    pub merge: bool,
    /// Strategic merge replaces this structure instead of merging into it.
    pub replace: bool,
    /// Strategic merge drops the fields that `$retainKeys` does not name.
    pub retain_keys: bool,
    /// The field by which strategic merge recognises an item; `None` where the items are plain values.
    pub merge_key: Option<&'static str>,
    /// How server-side apply owns the list.
    pub list: Option<ListType>,
    /// Server-side apply owns the map or structure as a whole.
    pub atomic_map: bool,
}

/// How server-side apply owns a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    Atomic,
    /// Value by value.
    Set,
    /// Item by item, told apart by these fields.
    Map(&'static [&'static str]),
}

const NOTHING: MergeRule = MergeRule {
    merge: false,
    replace: false,
    retain_keys: false,
    merge_key: None,
    list: None,
    atomic_map: false,
};

const ATOMIC: MergeRule = MergeRule { list: Some(ListType::Atomic), ..NOTHING };
const SET: MergeRule = MergeRule { list: Some(ListType::Set), ..NOTHING };
const MERGED_SET: MergeRule = MergeRule { merge: true, ..SET };
const ATOMIC_MAP: MergeRule = MergeRule { atomic_map: true, ..NOTHING };
const REPLACED: MergeRule = MergeRule { replace: true, ..NOTHING };
const RETAINED: MergeRule = MergeRule { retain_keys: true, ..NOTHING };

/// A list told apart by fields for server-side apply only.
const fn map(keys: &'static [&'static str]) -> MergeRule {
    MergeRule { list: Some(ListType::Map(keys)), ..NOTHING }
}

/// A list merged by `keys[0]`, which server-side apply tells apart by all of `keys`.
const fn merged(keys: &'static [&'static str]) -> MergeRule {
    MergeRule { merge: true, merge_key: Some(keys[0]), ..map(keys) }
}

/// As [`merged`], and each item keeps only what `$retainKeys` names.
const fn retained(keys: &'static [&'static str]) -> MergeRule {
    MergeRule { retain_keys: true, ..merged(keys) }
}

/// Strategic merge knows a key, server-side apply takes the list as a whole.
const fn merged_but_atomic(key: &'static str) -> MergeRule {
    MergeRule { merge: true, merge_key: Some(key), ..ATOMIC }
}

/// (type, field, rule), sorted, for everything but atomic lists.
static RULES: &[(&str, &str, MergeRule)] = &[
    ("AllocatedDeviceStatus", "conditions", map(&["type"])),
    ("CertificateSigningRequestStatus", "conditions", map(&["type"])),
    ("Container", "env", merged(&["name"])),
    ("Container", "ports", merged(&["containerPort", "protocol"])),
    ("Container", "volumeDevices", merged(&["devicePath"])),
    ("Container", "volumeMounts", merged(&["mountPath"])),
    ("ContainerRestartRuleOnExitCodes", "values", SET),
    ("ContainerStatus", "allocatedResourcesStatus", merged(&["name"])),
    ("ContainerStatus", "volumeMounts", merged(&["mountPath"])),
    ("DaemonSetStatus", "conditions", merged(&["type"])),
    ("DeploymentSpec", "strategy", RETAINED),
    ("DeploymentStatus", "conditions", merged(&["type"])),
    ("DeviceTaintRuleStatus", "conditions", merged(&["type"])),
    ("Endpoint", "addresses", SET),
    ("EphemeralContainer", "env", merged(&["name"])),
    ("EphemeralContainer", "ports", merged(&["containerPort", "protocol"])),
    ("EphemeralContainer", "volumeDevices", merged(&["devicePath"])),
    ("EphemeralContainer", "volumeMounts", merged(&["mountPath"])),
    ("HorizontalPodAutoscalerStatus", "conditions", merged(&["type"])),
    ("JobStatus", "conditions", merged_but_atomic("type")),
    ("MutatingAdmissionPolicySpec", "matchConditions", merged(&["name"])),
    ("MutatingAdmissionPolicySpec", "variables", merged(&["name"])),
    ("MutatingWebhook", "matchConditions", merged(&["name"])),
    ("MutatingWebhookConfiguration", "webhooks", merged(&["name"])),
    ("NamespaceStatus", "conditions", merged(&["type"])),
    ("NodeAllocatableResourceClaimStatus", "containers", SET),
    ("NodeSpec", "podCIDRs", MERGED_SET),
    ("NodeStatus", "addresses", merged(&["type"])),
    ("NodeStatus", "conditions", merged(&["type"])),
    ("ObjectMeta", "finalizers", MERGED_SET),
    ("ObjectMeta", "ownerReferences", merged(&["uid"])),
    ("PersistentVolumeClaimStatus", "conditions", merged(&["type"])),
    ("PodDisruptionBudgetSpec", "selector", REPLACED),
    ("PodDisruptionBudgetStatus", "conditions", merged(&["type"])),
    ("PodFailurePolicyOnExitCodesRequirement", "values", SET),
    ("PodSpec", "containers", merged(&["name"])),
    ("PodSpec", "ephemeralContainers", merged(&["name"])),
    ("PodSpec", "hostAliases", merged(&["ip"])),
    ("PodSpec", "imagePullSecrets", merged(&["name"])),
    ("PodSpec", "initContainers", merged(&["name"])),
    ("PodSpec", "nodeSelector", ATOMIC_MAP),
    ("PodSpec", "resourceClaims", retained(&["name"])),
    ("PodSpec", "schedulingGates", merged(&["name"])),
    ("PodSpec", "topologySpreadConstraints", merged(&["topologyKey", "whenUnsatisfiable"])),
    ("PodSpec", "volumes", retained(&["name"])),
    ("PodStatus", "conditions", merged(&["type"])),
    ("PodStatus", "hostIPs", merged_but_atomic("ip")),
    ("PodStatus", "nodeAllocatableResourceClaimStatuses", merged(&["resourceClaimName"])),
    ("PodStatus", "podIPs", merged(&["ip"])),
    ("PodStatus", "resourceClaimStatuses", retained(&["name"])),
    ("ReplicaSetStatus", "conditions", merged(&["type"])),
    ("ReplicationControllerSpec", "selector", ATOMIC_MAP),
    ("ReplicationControllerStatus", "conditions", merged(&["type"])),
    ("ResourceClaimStatus", "devices", map(&["driver", "device", "pool", "shareID"])),
    ("ResourceClaimStatus", "reservedFor", merged(&["uid"])),
    ("ResourceRequirements", "claims", map(&["name"])),
    ("ResourceStatus", "resources", map(&["resourceID"])),
    ("ServiceAccount", "secrets", merged(&["name"])),
    ("ServiceSpec", "ports", merged(&["port", "protocol"])),
    ("ServiceSpec", "selector", ATOMIC_MAP),
    ("ServiceStatus", "conditions", merged(&["type"])),
    ("StatefulSetStatus", "conditions", merged(&["type"])),
    ("UncountedTerminatedPods", "failed", SET),
    ("UncountedTerminatedPods", "succeeded", SET),
    ("ValidatingAdmissionPolicyBindingSpec", "validationActions", SET),
    ("ValidatingAdmissionPolicySpec", "matchConditions", merged(&["name"])),
    ("ValidatingAdmissionPolicySpec", "variables", merged(&["name"])),
    ("ValidatingAdmissionPolicyStatus", "conditions", map(&["type"])),
    ("ValidatingWebhook", "matchConditions", merged(&["name"])),
    ("ValidatingWebhookConfiguration", "webhooks", merged(&["name"])),
];

/// (type, its lists that are replaced and owned as a whole), sorted.
static ATOMIC_LISTS: &[(&str, &[&str])] = &[
    ("AggregationRule", &["clusterRoleSelectors"]),
    ("Capabilities", &["add", "drop"]),
    ("CapacityRequestPolicy", &["validValues"]),
    ("CephFSPersistentVolumeSource", &["monitors"]),
    ("CephFSVolumeSource", &["monitors"]),
    ("CertificateSigningRequestSpec", &["groups", "usages"]),
    ("ClusterRole", &["rules"]),
    ("ClusterRoleBinding", &["subjects"]),
    ("ConfigMapProjection", &["items"]),
    ("ConfigMapVolumeSource", &["items"]),
    ("Container", &["args", "command", "envFrom", "resizePolicy", "restartPolicyRules"]),
    ("ContainerImage", &["names"]),
    ("CronJobStatus", &["active"]),
    ("Device", &["bindingConditions", "bindingFailureConditions", "consumesCounters", "taints"]),
    ("DeviceAllocationConfiguration", &["requests"]),
    ("DeviceAllocationResult", &["config", "results"]),
    ("DeviceAttribute", &["bools", "ints", "strings", "versions"]),
    ("DeviceClaim", &["config", "constraints", "requests"]),
    ("DeviceClaimConfiguration", &["requests"]),
    ("DeviceClassSpec", &["config", "selectors"]),
    ("DeviceConstraint", &["requests"]),
    ("DeviceRequest", &["firstAvailable"]),
    ("DeviceRequestAllocationResult", &["bindingConditions", "bindingFailureConditions", "tolerations"]),
    ("DeviceSubRequest", &["selectors", "tolerations"]),
    ("DownwardAPIProjection", &["items"]),
    ("DownwardAPIVolumeSource", &["items"]),
    ("EndpointHints", &["forNodes", "forZones"]),
    ("EndpointSlice", &["endpoints", "ports"]),
    ("EndpointSubset", &["addresses", "notReadyAddresses", "ports"]),
    ("Endpoints", &["subsets"]),
    ("EphemeralContainer", &["args", "command", "envFrom", "resizePolicy", "restartPolicyRules"]),
    ("ExactDeviceRequest", &["selectors", "tolerations"]),
    ("ExecAction", &["command"]),
    ("FCVolumeSource", &["targetWWNs", "wwids"]),
    ("HPAScalingRules", &["policies"]),
    ("HTTPGetAction", &["httpHeaders"]),
    ("HTTPIngressRuleValue", &["paths"]),
    ("HorizontalPodAutoscalerSpec", &["metrics"]),
    ("HorizontalPodAutoscalerStatus", &["currentMetrics"]),
    ("HostAlias", &["hostnames"]),
    ("IPBlock", &["except"]),
    ("ISCSIPersistentVolumeSource", &["portals"]),
    ("ISCSIVolumeSource", &["portals"]),
    ("IngressLoadBalancerIngress", &["ports"]),
    ("IngressLoadBalancerStatus", &["ingress"]),
    ("IngressSpec", &["rules", "tls"]),
    ("IngressTLS", &["hosts"]),
    ("LabelSelector", &["matchExpressions"]),
    ("LabelSelectorRequirement", &["values"]),
    ("LimitRangeSpec", &["limits"]),
    ("LinuxContainerUser", &["supplementalGroups"]),
    ("LoadBalancerIngress", &["ports"]),
    ("LoadBalancerStatus", &["ingress"]),
    ("MatchResources", &["excludeResourceRules", "resourceRules"]),
    ("MutatingAdmissionPolicySpec", &["mutations"]),
    ("MutatingWebhook", &["admissionReviewVersions", "rules"]),
    ("NamedRuleWithOperations", &["apiGroups", "apiVersions", "operations", "resourceNames", "resources"]),
    ("NamespaceSpec", &["finalizers"]),
    ("NetworkDeviceData", &["ips"]),
    ("NetworkPolicyEgressRule", &["ports", "to"]),
    ("NetworkPolicyIngressRule", &["from", "ports"]),
    ("NetworkPolicySpec", &["egress", "ingress", "policyTypes"]),
    ("NodeAffinity", &["preferredDuringSchedulingIgnoredDuringExecution"]),
    ("NodeSelector", &["nodeSelectorTerms"]),
    ("NodeSelectorRequirement", &["values"]),
    ("NodeSelectorTerm", &["matchExpressions", "matchFields"]),
    ("NodeSpec", &["taints"]),
    ("NodeStatus", &["declaredFeatures", "images", "runtimeHandlers", "volumesAttached", "volumesInUse"]),
    ("ObjectMeta", &["managedFields"]),
    ("PersistentVolumeClaimSpec", &["accessModes"]),
    ("PersistentVolumeClaimStatus", &["accessModes"]),
    ("PersistentVolumeSpec", &["accessModes", "mountOptions"]),
    (
        "PodAffinity",
        &[
            "preferredDuringSchedulingIgnoredDuringExecution",
            "requiredDuringSchedulingIgnoredDuringExecution",
        ],
    ),
    ("PodAffinityTerm", &["matchLabelKeys", "mismatchLabelKeys", "namespaces"]),
    (
        "PodAntiAffinity",
        &[
            "preferredDuringSchedulingIgnoredDuringExecution",
            "requiredDuringSchedulingIgnoredDuringExecution",
        ],
    ),
    ("PodDNSConfig", &["nameservers", "options", "searches"]),
    ("PodExtendedResourceClaimStatus", &["requestMappings"]),
    ("PodFailurePolicy", &["rules"]),
    ("PodFailurePolicyRule", &["onPodConditions"]),
    ("PodSecurityContext", &["supplementalGroups", "sysctls"]),
    ("PodSpec", &["readinessGates", "tolerations"]),
    ("PodStatus", &["containerStatuses", "ephemeralContainerStatuses", "initContainerStatuses"]),
    ("PolicyRule", &["apiGroups", "nonResourceURLs", "resourceNames", "resources", "verbs"]),
    ("ProjectedVolumeSource", &["sources"]),
    ("RBDPersistentVolumeSource", &["monitors"]),
    ("RBDVolumeSource", &["monitors"]),
    ("ResourceQuotaSpec", &["scopes"]),
    ("ResourceSliceSpec", &["devices", "sharedCounters"]),
    ("Role", &["rules"]),
    ("RoleBinding", &["subjects"]),
    ("RuleWithOperations", &["apiGroups", "apiVersions", "operations", "resources"]),
    ("ScopeSelector", &["matchExpressions"]),
    ("ScopedResourceSelectorRequirement", &["values"]),
    ("SecretProjection", &["items"]),
    ("SecretVolumeSource", &["items"]),
    ("ServiceAccount", &["imagePullSecrets"]),
    ("ServiceSpec", &["clusterIPs", "externalIPs", "ipFamilies", "loadBalancerSourceRanges"]),
    ("StatefulSetSpec", &["volumeClaimTemplates"]),
    ("StorageClass", &["allowedTopologies", "mountOptions"]),
    ("SuccessPolicy", &["rules"]),
    ("TopologySelectorLabelRequirement", &["values"]),
    ("TopologySelectorTerm", &["matchLabelExpressions"]),
    ("TopologySpreadConstraint", &["matchLabelKeys"]),
    ("TypeChecking", &["expressionWarnings"]),
    ("ValidatingAdmissionPolicySpec", &["auditAnnotations", "validations"]),
    ("ValidatingWebhook", &["admissionReviewVersions", "rules"]),
];

/// Structures that server-side apply owns as a whole.
static ATOMIC_STRUCTURES: &[&str] = &[
    "ConfigMapKeySelector",
    "EndpointAddress",
    "EndpointPort",
    "FileKeySelector",
    "LabelSelector",
    "LocalObjectReference",
    "MatchResources",
    "NamedRuleWithOperations",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "OwnerReference",
    "ParamKind",
    "ParamRef",
    "ResourceFieldSelector",
    "RoleRef",
    "ScopeSelector",
    "SecretKeySelector",
    "SecretReference",
    "ServiceBackendPort",
    "Subject",
    "TopologySelectorTerm",
    "TypedLocalObjectReference",
    "Variable",
    "autoscaling.v1.CrossVersionObjectReference",
    "discovery.v1.EndpointPort",
];

/// (type, key field of a list of it, what an item that leaves it out means), sorted.
static KEY_DEFAULTS: &[(&str, &str, &str)] =
    &[("ContainerPort", "protocol", "TCP"), ("ServicePort", "protocol", "TCP")];

/// Types whose bare names another group or version has too.
static QUALIFIED: [&str; 10] = [
    "apiextensions.v1.ServiceReference",
    "apiextensions.v1.WebhookClientConfig",
    "autoscaling.v1.CrossVersionObjectReference",
    "autoscaling.v1.HorizontalPodAutoscaler",
    "autoscaling.v1.HorizontalPodAutoscalerSpec",
    "autoscaling.v1.HorizontalPodAutoscalerStatus",
    "discovery.v1.EndpointPort",
    "events.v1.Event",
    "events.v1.EventSeries",
    "resource.v1.ResourceClaim",
];

/// The name by which tables know a built-in type: `PodSpec` for `io.k8s.api.core.v1.PodSpec`, with group and version
/// where that would be ambiguous. Other types have no rules here.
pub(crate) fn bare_name(definition: &str) -> Option<&str> {
    let path = definition.strip_prefix("io.k8s.")?;
    let own = ["api.", "apiextensions-apiserver.pkg.apis."];
    let qualified = own.iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
    if QUALIFIED.contains(&qualified) { Some(qualified) } else { path.rsplit('.').next() }
}

/// The rule of a field, by its type's name in the schema (`io.k8s.api.core.v1.PodSpec`) and its own.
pub fn rule(definition: &str, field: &str) -> Option<&'static MergeRule> {
    let owner = bare_name(definition)?;
    if let Ok(index) = RULES.binary_search_by(|(of, name, _)| (*of, *name).cmp(&(owner, field))) {
        return Some(&RULES[index].2);
    }
    let index = ATOMIC_LISTS.binary_search_by(|(of, _)| (*of).cmp(owner)).ok()?;
    ATOMIC_LISTS[index].1.contains(&field).then_some(&ATOMIC)
}

/// Whether server-side apply owns a structure of that type as a whole.
pub fn is_atomic_structure(definition: &str) -> bool {
    bare_name(definition).is_some_and(|name| ATOMIC_STRUCTURES.binary_search(&name).is_ok())
}

/// What an item of a list means that leaves out a field by which items are told apart. `definition` is the type of the
/// items.
pub(super) fn key_default(definition: &str, key: &str) -> Option<&'static str> {
    let owner = bare_name(definition)?;
    let found = KEY_DEFAULTS.iter().find(|(of, name, _)| (*of, *name) == (owner, key));
    found.map(|(_, _, default)| *default)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    /// Bare type name → schema, over all served kinds.
    fn served_types() -> BTreeMap<String, Value> {
        let mut types = BTreeMap::new();
        for kind in crate::kinds::all() {
            let mut schema = kind.schema.document();
            let definitions = schema["$defs"].take().as_object().cloned().unwrap_or_default();
            let root = (schema["title"].as_str().unwrap_or_default().to_owned(), schema);
            for (name, definition) in definitions.into_iter().chain([root]) {
                types.insert(bare_name(&name).unwrap_or(&name).to_owned(), definition);
            }
        }
        types
    }

    #[test]
    fn every_rule_names_a_field_of_a_served_type() {
        let types = served_types();
        let lists = ATOMIC_LISTS.iter().flat_map(|(of, names)| names.iter().map(move |name| (*of, *name)));
        let missing: Vec<_> = RULES
            .iter()
            .map(|(of, name, _)| (*of, *name))
            .chain(lists)
            .filter(|(of, name)| types.get(*of).is_none_or(|schema| schema["properties"][*name].is_null()))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
        for name in ATOMIC_STRUCTURES {
            assert!(types.contains_key(*name), "{name}");
        }
        for (of, name, _) in KEY_DEFAULTS {
            assert!(types[*of]["properties"][*name].is_object(), "{of}.{name}");
        }
    }

    /// Rules, and the numbers of protobuf, go by the bare name: what shares one must be versions of one type.
    #[test]
    fn types_that_share_a_name_have_the_same_fields() {
        let mut known = BTreeMap::<String, BTreeSet<String>>::new();
        for kind in crate::kinds::all() {
            let schema = kind.schema.document();
            for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
                let bare = bare_name(name).unwrap_or(name).to_owned();
                let fields = definition["properties"].as_object().into_iter().flatten();
                let fields: BTreeSet<String> = fields.map(|(field, _)| field.clone()).collect();
                assert_eq!(*known.entry(bare).or_insert_with(|| fields.clone()), fields, "{name}");
            }
        }
    }

    #[test]
    fn merge_keys_are_fields_of_the_items() {
        let types = served_types();
        for (of, name, rule) in RULES {
            let Some(ListType::Map(keys)) = rule.list else { continue };
            let reference = types[*of]["properties"][*name]["items"]["$ref"].as_str().unwrap_or_default();
            let item = &types[bare_name(reference.trim_start_matches("#/$defs/")).unwrap_or_default()];
            for key in keys {
                assert!(item["properties"][*key].is_object(), "{of}.{name} has no key {key}");
            }
        }
    }

    #[test]
    fn tables_are_sorted_for_the_binary_search() {
        assert!(RULES.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
        assert!(ATOMIC_LISTS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(ATOMIC_STRUCTURES.is_sorted());
    }

    #[test]
    fn types_of_others_have_no_rules() {
        assert!(rule("com.example.PodSpec", "containers").is_none());
    }
}
