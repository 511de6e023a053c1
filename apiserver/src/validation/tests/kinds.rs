//! What is said when one thing in a sound object is not.

use super::{
    sound::{object, template},
    *,
};

const KINDS: [&str; 42] = [
    "Service",
    "Endpoints",
    "EndpointSlice",
    "ServiceAccount",
    "ResourceQuota",
    "LimitRange",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodTemplate",
    "ReplicationController",
    "DaemonSet",
    "StatefulSet",
    "ControllerRevision",
    "Job",
    "CronJob",
    "KernelJob",
    "DeviceCheck",
    "DevicePolicy",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "PriorityClass",
    "StorageClass",
    "NetworkPolicy",
    "Ingress",
    "IngressClass",
    "IPAddress",
    "ResourceSlice",
    "DeviceClass",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "DeviceTaintRule",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "CertificateSigningRequest",
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

#[test]
fn a_sound_object_of_each_kind_passes_and_stays_sound_unchanged() {
    for kind in KINDS {
        let (api_version, object) = object(kind);
        assert_eq!(faults_of(api_version, kind, &object), Vec::<String>::new(), "{kind}");
        assert_eq!(faults_of_update(api_version, kind, &object, &object), Vec::<String>::new(), "{kind}");
    }
}

/// Spoils a sound object at one place for each case, and looks for what is said.
pub(super) fn spoil(kind: &str, cases: &[(&str, Value, &str)]) {
    for (pointer, value, expected) in cases {
        let (api_version, mut object) = object(kind);
        set(&mut object, pointer, value);
        let faults = faults_of(api_version, kind, &object);
        assert!(
            faults.iter().any(|fault| fault.starts_with(expected)),
            "{kind} {pointer} {value}, wanted {expected}: {faults:#?}"
        );
    }
}

#[test]
fn broken_services_are_named() {
    spoil(
        "Service",
        &[
            (
                "/metadata/name",
                json!("1web"),
                "metadata.name: Invalid value: \"1web\": a DNS-1035 label must consist",
            ),
            ("/spec/ports", json!([]), "spec.ports: Required value"),
            (
                "/spec/ports",
                json!([{"port": 1}, {"port": 2, "name": "b"}]),
                "spec.ports[0].name: Required value",
            ),
            (
                "/spec/ports",
                json!([{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]),
                "spec.ports[1].name: Duplicate value: \"a\"",
            ),
            (
                "/spec/ports",
                json!([{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]),
                "spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}",
            ),
            (
                "/spec/ports",
                json!([{"port": 1, "targetPort": "a b"}]),
                "spec.ports[0].targetPort: Invalid value: \"a b\"",
            ),
            (
                "/spec/ports",
                json!([{"port": 1, "nodePort": 30000}]),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                "/spec/ports",
                json!([{"port": 1, "protocol": "ICMP"}]),
                "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                "/spec/type",
                json!("Magic"),
                "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
            ("/spec/type", json!("ExternalName"), "spec.externalName: Required value"),
            ("/spec/sessionAffinity", json!("Often"), "spec.sessionAffinity: Unsupported value: \"Often\""),
            (
                "/spec/sessionAffinityConfig",
                json!({"clientIP": {"timeoutSeconds": 5}}),
                "spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None",
            ),
            (
                "/spec/externalIPs",
                json!(["127.0.0.1"]),
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range",
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["10.0.0.0/8"]),
                "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                "/spec/ipFamilyPolicy",
                json!("RequireDualStack"),
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
            (
                "/spec/clusterIP",
                json!("x"),
                "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address",
            ),
        ],
    );
    let (api_version, mut headless) = object("Service");
    headless["spec"] = json!({"clusterIP": "None"});
    assert_eq!(faults_of(api_version, "Service", &headless), Vec::<String>::new(), "needs no ports");
    spoil(
        "EndpointSlice",
        &[
            ("/addressType", json!(null), "addressType: Required value"),
            (
                "/endpoints",
                json!([{"addresses": []}]),
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ),
            (
                "/endpoints",
                json!([{"addresses": ["::1"]}]),
                "endpoints[0].addresses[0]: Invalid value: \"::1\": must be a valid IPv4 address",
            ),
            ("/ports", json!([{"port": 1}, {"port": 2}]), "ports[1].name: Duplicate value: \"\""),
        ],
    );
    spoil(
        "Endpoints",
        &[(
            "/subsets",
            json!([{}]),
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
        )],
    );
}

#[test]
fn broken_workloads_are_named() {
    spoil(
        "StatefulSet",
        &[
            (
                "/metadata/name",
                json!("a.b"),
                "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label",
            ),
            (
                "/spec/selector",
                json!({}),
                "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
            ),
            ("/spec/updateStrategy", json!({"type": "Never"}), "spec.updateStrategy: Invalid value"),
            (
                "/spec/persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Sell"}),
                "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Sell\"",
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ),
        ],
    );
    spoil(
        "DaemonSet",
        &[
            (
                "/spec/template/metadata/labels",
                json!({}),
                "spec.template.metadata.labels: Invalid value: {}: `selector` does not match template `labels`",
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": 0}}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"maxSurge": 1}}),
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ),
        ],
    );
    spoil(
        "ReplicationController",
        &[
            ("/spec/selector", json!({"app": "b"}), "spec.template.metadata.labels: Invalid value"),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
        ],
    );
    spoil(
        "Job",
        &[
            (
                "/spec/parallelism",
                json!(-1),
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec",
                json!({"completionMode": "Indexed", "parallelism": 2, "template": template("Never")}),
                "spec.completions: Required value: when completion mode is Indexed",
            ),
            (
                "/spec/selector",
                json!({"matchLabels": {"a": "b"}}),
                "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` not auto-generated",
            ),
            (
                "/spec/backoffLimitPerIndex",
                json!(1),
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            ),
            (
                "/spec/podFailurePolicy",
                json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}}]}),
                "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
            ),
            (
                "/spec/podFailurePolicy",
                json!({"rules": [{"action": "Ignore"}]}),
                "spec.podFailurePolicy.rules[0]: Invalid value",
            ),
            (
                "/spec/managedBy",
                json!("me"),
                "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path",
            ),
        ],
    );
    spoil(
        "CronJob",
        &[
            ("/metadata/name", json!("x".repeat(53)), "metadata.name: Invalid value: \"xxx"),
            ("/spec/schedule", json!(""), "spec.schedule: Required value"),
            (
                "/spec/schedule",
                json!("TZ=UTC * * * * *"),
                "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
            (
                "/spec/timeZone",
                json!("Local"),
                "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone",
            ),
            ("/spec/timeZone", json!("a b"), "spec.timeZone: Invalid value: \"a b\": unknown time zone a b"),
            (
                "/spec/concurrencyPolicy",
                json!("Maybe"),
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ),
            (
                "/spec/jobTemplate/spec/selector",
                json!({}),
                "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
            ),
        ],
    );
}

#[test]
fn broken_limits_are_named() {
    spoil(
        "ResourceQuota",
        &[
            (
                "/spec/hard",
                json!({"gpus": "1"}),
                "spec.hard[gpus]: Invalid value: \"gpus\": must be a standard resource for quota",
            ),
            (
                "/spec/hard",
                json!({"pods": "-1"}),
                "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                "/spec/scopes",
                json!(["Sometimes"]),
                "spec.scopes: Invalid value: [\"Sometimes\"]: unsupported scope",
            ),
            (
                "/spec/scopes",
                json!(["BestEffort"]),
                "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
            ),
            (
                "/spec/scopeSelector",
                json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}),
                "spec.scopeSelector.matchExpressions[0].values: Required value",
            ),
        ],
    );
    spoil(
        "LimitRange",
        &[
            (
                "/spec/limits",
                json!([{"type": "Pod", "default": {"cpu": "1"}}]),
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ),
            (
                "/spec/limits",
                json!([{"type": "Pod"}, {"type": "Pod"}]),
                "spec.limits[1].type: Duplicate value: \"Pod\"",
            ),
            (
                "/spec/limits",
                json!([{"type": "Lorry"}]),
                "spec.limits[0].type: Invalid value: \"Lorry\": must be a standard limit type or fully qualified",
            ),
            (
                "/spec/limits",
                json!([{"type": "PersistentVolumeClaim"}]),
                "spec.limits[0]: Required value: either minimum or maximum storage value is required",
            ),
            (
                "/spec/limits",
                json!([{"type": "Container", "default": {"cpu": "2"}, "max": {"cpu": "1"}}]),
                "spec.limits[0].default[cpu]: Invalid value: \"2\": default value 2 is greater than max value 1",
            ),
            (
                "/spec/limits",
                json!([{"type": "Container", "maxLimitRequestRatio": {"cpu": "500m"}}]),
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            ),
        ],
    );
    spoil(
        "HorizontalPodAutoscaler",
        &[
            (
                "/spec/minReplicas",
                json!(0),
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            ),
            ("/spec/maxReplicas", json!(0), "spec.maxReplicas: Invalid value: 0: must be greater than 0"),
            ("/spec/scaleTargetRef/name", json!(""), "spec.scaleTargetRef.name: Required value"),
            (
                "/spec/metrics",
                json!([{"type": "Resource"}]),
                "spec.metrics[0].resource: Required value: must populate information for the given metric source",
            ),
            (
                "/spec/metrics",
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]),
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            ),
            (
                "/spec/behavior/scaleDown",
                json!({"stabilizationWindowSeconds": 4000}),
                "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600",
            ),
        ],
    );
    spoil(
        "PodDisruptionBudget",
        &[
            (
                "/spec/minAvailable",
                json!("150%"),
                "spec.minAvailable: Invalid value: \"150%\": must not be greater than 100%",
            ),
            (
                "/spec/unhealthyPodEvictionPolicy",
                json!("Spare"),
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Spare\"",
            ),
        ],
    );
    spoil(
        "PriorityClass",
        &[
            (
                "/metadata/name",
                json!("system-mine"),
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only",
            ),
            (
                "/preemptionPolicy",
                json!("Always"),
                "preemptionPolicy: Unsupported value: \"Always\": supported values: \"Never\", \"PreemptLowerPriority\"",
            ),
        ],
    );
}

#[test]
fn broken_volumes_are_named() {
    spoil(
        "PersistentVolume",
        &[
            ("/spec/accessModes", json!([]), "spec.accessModes: Required value"),
            (
                "/spec/capacity",
                json!({"storage": "0"}),
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            (
                "/spec/nfs",
                json!({"server": "s", "path": "/"}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "/spec/hostPath/path",
                json!("/a/../b"),
                "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            ),
            (
                "/spec/volumeMode",
                json!("Tape"),
                "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
            ),
        ],
    );
    spoil(
        "PersistentVolumeClaim",
        &[
            (
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "ReadWriteOnce"]),
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ),
            ("/spec/resources", json!({}), "spec.resources[storage]: Required value"),
            (
                "/spec/storageClassName",
                json!("A"),
                "spec.storageClassName: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
            ),
        ],
    );
    spoil(
        "StorageClass",
        &[
            ("/provisioner", json!(""), "provisioner: Required value"),
            (
                "/volumeBindingMode",
                json!("Later"),
                "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            ),
        ],
    );
}

#[test]
fn broken_networking_is_named() {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let path = |path: Value| json!([{"http": {"paths": [path]}}]);
    spoil(
        "NetworkPolicy",
        &[
            (
                "/spec/egress",
                json!([{"to": [{}]}]),
                "spec.egress[0].to[0]: Required value: must specify a peer",
            ),
            (
                "/spec/egress",
                json!([{"to": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]),
                "spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                "/spec/egress",
                json!([{"to": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]),
                "spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value",
            ),
            (
                "/spec/ingress",
                json!([{"ports": [{"port": 9, "endPort": 5}]}]),
                "spec.ingress[0].ports[0].endPort: Invalid value: 5: must be greater than or equal to `port`",
            ),
            (
                "/spec/policyTypes",
                json!(["Sideways"]),
                "spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Egress\", \"Ingress\"",
            ),
        ],
    );
    spoil(
        "Ingress",
        &[
            ("/spec", json!({}), "spec: Invalid value"),
            (
                "/spec/rules/0/host",
                json!("10.0.0.1"),
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ),
            (
                "/spec/rules/0/host",
                json!("a.*.b"),
                "spec.rules[0].host: Invalid value: \"a.*.b\": a wildcard DNS-1123 subdomain must start with",
            ),
            (
                "/spec/rules",
                path(json!({"path": "/", "backend": backend})),
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (
                "/spec/rules",
                path(json!({"path": "/a//b", "pathType": "Exact", "backend": backend})),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
            ),
            (
                "/spec/rules",
                path(json!({"path": "/", "pathType": "Exact", "backend": {}})),
                "spec.rules[0].http.paths[0].backend: Required value: resource or service backend is required",
            ),
            (
                "/spec/rules",
                path(
                    json!({"path": "/", "pathType": "Exact", "backend": {"service": {"name": "s", "port": {}}}}),
                ),
                "spec.rules[0].http.paths[0].backend.service.port: Required value: port name or number is required",
            ),
            ("/spec/rules", json!([{"http": {"paths": []}}]), "spec.rules[0].http.paths: Required value"),
        ],
    );
    spoil(
        "IngressClass",
        &[(
            "/spec/parameters",
            json!({"kind": "K", "name": "n", "scope": "Namespace"}),
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        )],
    );
    spoil(
        "IPAddress",
        &[
            (
                "/metadata/name",
                json!("ten"),
                "metadata.name: Invalid value: \"ten\": must be a valid IP address in canonical form",
            ),
            ("/spec/parentRef/name", json!(""), "spec.parentRef.name: Required value"),
        ],
    );
}

#[test]
fn broken_devices_are_named() {
    spoil(
        "ResourceSlice",
        &[
            ("/spec/driver", json!(""), "spec.driver: Required value"),
            (
                "/spec/nodeName",
                json!(null),
                "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
            ),
            (
                "/spec/pool/resourceSliceCount",
                json!(0),
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            ),
            (
                "/spec/devices",
                json!([{"name": "a"}, {"name": "a"}]),
                "spec.devices[1].name: Duplicate value: \"a\"",
            ),
            (
                "/spec/devices",
                json!([{"name": "a", "attributes": {"x": {}}}]),
                "spec.devices[0].attributes[x]: Required value: exactly one value must be specified",
            ),
            (
                "/spec/devices",
                json!([{"name": "a", "attributes": {"0": {"int": 1}}}]),
                "spec.devices[0].attributes[0]: Invalid value: \"0\": a valid C identifier must start with",
            ),
        ],
    );
    let request = |request: Value| json!({"requests": [request]});
    spoil(
        "ResourceClaim",
        &[
            (
                "/spec/devices",
                request(json!({"name": "r"})),
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            ),
            (
                "/spec/devices",
                request(json!({"name": "r", "exactly": {}})),
                "spec.devices.requests[0].exactly.deviceClassName: Required value",
            ),
            (
                "/spec/devices",
                request(
                    json!({"name": "r", "exactly": {"deviceClassName": "g", "allocationMode": "All", "count": 2}}),
                ),
                "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            ),
            (
                "/spec/devices/constraints",
                json!([{"requests": ["q"], "matchAttribute": "a/b"}]),
                "spec.devices.constraints[0].requests[0]: Invalid value: \"q\": must be the name of a request in the claim",
            ),
            ("/spec/devices/config", json!([{}]), "spec.devices.config[0].opaque: Required value"),
            (
                "/spec/devices/requests/0/exactly/selectors",
                json!([{"cel": {"expression": "device.driver =="}}]),
                "spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: \"device.driver ==\": compilation failed",
            ),
            (
                "/spec/devices/requests/0/exactly/selectors",
                json!([{"cel": {"expression": "device.driver"}}]),
                "spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: \"device.driver\": compilation failed: must evaluate to bool",
            ),
            (
                "/spec/devices/requests/0/exactly/selectors",
                json!([{"cel": {"expression": "1".repeat(10_241)}}]),
                "spec.devices.requests[0].exactly.selectors[0].cel.expression: Too long",
            ),
        ],
    );
}

#[test]
fn broken_rules_about_rules_are_named() {
    spoil(
        "Role",
        &[
            ("/metadata/name", json!("a/b"), "metadata.name: Invalid value: \"a/b\": may not contain '/'"),
            (
                "/rules/0/apiGroups",
                json!([]),
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            ),
            (
                "/rules/0/nonResourceURLs",
                json!(["/x"]),
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            ),
        ],
    );
    spoil(
        "ClusterRole",
        &[(
            "/aggregationRule",
            json!({}),
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required",
        )],
    );
    spoil(
        "RoleBinding",
        &[
            (
                "/roleRef/kind",
                json!("Group"),
                "roleRef.kind: Unsupported value: \"Group\": supported values: \"Role\", \"ClusterRole\"",
            ),
            (
                "/subjects/0/apiGroup",
                json!("x"),
                "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
            ),
            (
                "/subjects/1/apiGroup",
                json!("x"),
                "subjects[1].apiGroup: Unsupported value: \"x\": supported values: \"\"",
            ),
        ],
    );
    spoil(
        "CertificateSigningRequest",
        &[
            (
                "/spec/request",
                json!("AAAA"),
                "spec.request: Invalid value: \"AAAA\": PEM block type must be CERTIFICATE REQUEST",
            ),
            (
                "/spec/signerName",
                json!("me"),
                "spec.signerName: Invalid value: \"me\": must be a fully qualified domain and path",
            ),
            (
                "/spec/signerName",
                json!("kubernetes.io/legacy-unknown"),
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed",
            ),
            ("/spec/usages", json!(["flying"]), "spec.usages[0]: Unsupported value: \"flying\""),
            ("/spec/usages", json!(["any", "any"]), "spec.usages[1]: Duplicate value: \"any\""),
            (
                "/spec/expirationSeconds",
                json!(60),
                "spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 600 seconds",
            ),
        ],
    );
    spoil(
        "MutatingWebhookConfiguration",
        &[
            (
                "/webhooks/0/admissionReviewVersions",
                json!(["v9"]),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
            ),
            (
                "/webhooks/0/clientConfig",
                json!({}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                "/webhooks/0/clientConfig",
                json!({"url": "http://x"}),
                "webhooks[0].clientConfig.url: Invalid value: \"http://x\": 'https' is the only allowed URL scheme",
            ),
            (
                "/webhooks/0/timeoutSeconds",
                json!(31),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                "/webhooks/0/sideEffects",
                json!(""),
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                "/webhooks/0/rules/0/operations",
                json!(["*", "CREATE"]),
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
            ),
            (
                "/webhooks/0/matchConditions",
                json!([{"name": "a"}]),
                "webhooks[0].matchConditions[0].expression: Required value",
            ),
            (
                "/webhooks/0/reinvocationPolicy",
                json!("Twice"),
                "webhooks[0].reinvocationPolicy: Unsupported value: \"Twice\"",
            ),
        ],
    );
    spoil(
        "ValidatingAdmissionPolicy",
        &[
            ("/spec/matchConstraints", json!(null), "spec.matchConstraints: Required value"),
            (
                "/spec/validations",
                json!([]),
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            ),
            (
                "/spec/variables",
                json!([{"name": "a-b", "expression": "1"}]),
                "spec.variables[0].name: Invalid value: \"a-b\": name is not a valid CEL identifier",
            ),
        ],
    );
    spoil(
        "ValidatingAdmissionPolicyBinding",
        &[
            ("/spec/validationActions", json!([]), "spec.validationActions: Required value"),
            ("/spec/paramRef", json!({"name": "n"}), "spec.paramRef.parameterNotFoundAction: Required value"),
            (
                "/spec/paramRef",
                json!({"parameterNotFoundAction": "Deny"}),
                "spec.paramRef: Required value: one of name or selector must be specified",
            ),
        ],
    );
    spoil(
        "MutatingAdmissionPolicy",
        &[
            (
                "/spec/mutations",
                json!([]),
                "spec.mutations: Required value: mutations must contain at least one item",
            ),
            ("/spec/reinvocationPolicy", json!(null), "spec.reinvocationPolicy: Required value"),
            (
                "/spec/reinvocationPolicy",
                json!("Often"),
                "spec.reinvocationPolicy: Unsupported value: \"Often\": supported values: \"IfNeeded\", \"Never\"",
            ),
            (
                "/spec/matchConstraints/resourceRules",
                json!([]),
                "spec.matchConstraints.resourceRules: Required value",
            ),
            (
                "/spec/matchConstraints/resourceRules/0/operations",
                json!(["CREATE", "DELETE"]),
                "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            ),
            ("/spec/mutations/0/patchType", json!(""), "spec.mutations[0].patchType: Required value"),
            (
                "/spec/mutations/0/patchType",
                json!("Merge"),
                "spec.mutations[0].patchType: Unsupported value: \"Merge\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
            ),
            (
                "/spec/mutations/0/applyConfiguration",
                json!(null),
                "spec.mutations[0].applyConfiguration: Required value: must be specified when patchType is ApplyConfiguration",
            ),
            (
                "/spec/mutations/0/jsonPatch",
                json!({"expression": "[]"}),
                "spec.mutations[0].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration",
            ),
            (
                "/spec/mutations/0/applyConfiguration/expression",
                json!("[]"),
                "spec.mutations[0].applyConfiguration.expression: Invalid value: \"[]\": compilation failed: must evaluate to Object",
            ),
            (
                "/spec/variables",
                json!([{"name": "a", "expression": "Object{}"}]),
                "spec.variables[0].expression: Invalid value: \"Object{}\": compilation failed: undeclared reference to 'Object'",
            ),
        ],
    );
    spoil(
        "MutatingAdmissionPolicyBinding",
        &[
            ("/spec/policyName", json!(""), "spec.policyName: Required value"),
            (
                "/spec/matchResources",
                json!({"resourceRules": [{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}),
                "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\"",
            ),
        ],
    );
    spoil("ControllerRevision", &[("/data", json!(null), "data: Required value: data is mandatory")]);
}
