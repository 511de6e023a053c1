//! Each rule against an object that is sound but for one thing.

mod device_checks;
mod kernel_jobs;
mod kinds;
mod sound;
mod taints;
mod updates;

use std::sync::LazyLock;

use claw_schemas::Registry;
use serde_json::json;

use super::*;
use crate::defaults;

/// One for all tests, so that each schema is compiled once.
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

/// The faults of a new object, each as `field: message`.
fn faults_of(api_version: &str, kind: &str, object: &Value) -> Vec<String> {
    let registry = &*REGISTRY;
    let descriptor = registry.kind(api_version, kind).unwrap();
    print(create(descriptor, &prepared(descriptor, object)))
}

fn faults_of_update(api_version: &str, kind: &str, old: &Value, new: &Value) -> Vec<String> {
    let registry = &*REGISTRY;
    let descriptor = registry.kind(api_version, kind).unwrap();
    print(update(descriptor, &prepared(descriptor, old), &prepared(descriptor, new)))
}

/// As the service has it when it validates.
fn prepared(descriptor: &Descriptor, object: &Value) -> Value {
    let mut object = object.clone();
    assert_eq!(descriptor.compiled().check(&object), claw_schemas::schema::Report::default());
    descriptor.compiled().normalize(&mut object);
    defaults::apply(descriptor, &mut object);
    defaults::admit(descriptor, &mut object);
    object
}

fn print(causes: Vec<Cause>) -> Vec<String> {
    causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

/// Sets a value below a JSON pointer, making objects on the way; null removes.
fn set(object: &mut Value, pointer: &str, value: &Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let mut place = object;
    for step in parent.split('/').skip(1) {
        place = match step.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[step],
        };
    }
    match (name.parse::<usize>(), value) {
        (Ok(index), _) => place[index] = value.clone(),
        (_, Value::Null) => drop(place.as_object_mut().unwrap().remove(name)),
        _ => place[name] = value.clone(),
    }
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [{
                "name": "c",
                "image": "i:1",
                "ports": [{"containerPort": 80, "name": "http"}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "2"}},
                "livenessProbe": {"httpGet": {"port": "http"}},
            }],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    })
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        },
    })
}

#[test]
fn sound_objects_pass() {
    for (api_version, kind, object) in [
        ("v1", "Pod", pod()),
        ("apps/v1", "Deployment", deployment()),
        ("apps/v1", "ReplicaSet", deployment()),
        ("v1", "Namespace", json!({"metadata": {"name": "team-1"}})),
        (
            "v1",
            "Node",
            json!({"metadata": {"name": "n.example.com"}, "spec": {"taints": [{"key": "a/b", "effect": "NoSchedule"}]}}),
        ),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": {"name": "c", "namespace": "d"}, "data": {"a.b": "c"}, "binaryData": {"b": "AAAA"}}),
        ),
        ("v1", "Secret", json!({"metadata": {"name": "c", "namespace": "d"}, "stringData": {"a": "b"}})),
        (
            "v1",
            "Event",
            json!({"metadata": {"name": "e", "namespace": "d"}, "involvedObject": {"namespace": "d", "name": "x"}}),
        ),
        (
            "coordination.k8s.io/v1",
            "Lease",
            json!({"metadata": {"name": "l", "namespace": "d"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}),
        ),
    ] {
        let object = if kind == "ReplicaSet" {
            let mut object = object;
            set(&mut object, "/spec/strategy", &Value::Null);
            object
        } else {
            object
        };
        assert_eq!(faults_of(api_version, kind, &object), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn each_broken_field_of_a_pod_is_named_in_the_words_of_upstream() {
    let long = "x".repeat(64);
    let cases = [
        ("/metadata/name", json!(null), "metadata.name: Required value: name or generateName is required"),
        (
            "/metadata/name",
            json!("Pod_1"),
            "metadata.name: Invalid value: \"Pod_1\": a lowercase RFC 1123 subdomain must consist",
        ),
        (
            "/metadata/labels",
            json!({"a b": "x"}),
            "metadata.labels: Invalid value: \"a b\": name part must consist of",
        ),
        ("/metadata/labels", json!({"a": long}), "metadata.labels: Invalid value: \"xxxxxxxx"),
        (
            "/metadata/annotations",
            json!({"a": "x".repeat(262_144)}),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        (
            "/metadata/ownerReferences",
            json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": ""}]),
            "metadata.ownerReferences[0].uid: Invalid value: \"\": uid must not be empty",
        ),
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        ("/spec/containers/0/name", json!(null), "spec.containers[0].name: Required value"),
        (
            "/spec/containers/0/name",
            json!("A"),
            "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist",
        ),
        ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
        (
            "/spec/containers/0/image",
            json!(" i"),
            "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
        ),
        (
            "/spec/containers/0/imagePullPolicy",
            json!("Sometimes"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 0}]),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 70000}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "protocol": "ICMP"}]),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]),
            "spec.containers[0].ports[1].hostPort: Duplicate value: 5",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "x", "mountPath": "/x"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "v", "mountPath": ""}]),
            "spec.containers[0].volumeMounts[0].mountPath: Required value",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}]),
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "v", "mountPath": "/x", "subPath": "a/../../b"}]),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"a/../../b\": must not contain '..'",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A=B"}]),
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of:",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.dream"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.dream\": error converting fieldPath: field label not supported: spec.dream",
        ),
        (
            "/spec/containers/0/envFrom",
            json!([{"configMapRef": {}}]),
            "spec.containers[0].envFrom[0].configMapRef.name: Required value",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"cpu": "-1"}}),
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"gpu": "1"}}),
            "spec.containers[0].resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"nvidia.com/gpu": "500m"}}),
            "spec.containers[0].resources.limits[nvidia.com/gpu]: Invalid value: \"500m\": must be an integer",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": "1"}}),
            "spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to nvidia.com/gpu limit of 2",
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"nvidia.com/gpu": "1"}}),
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}),
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"exec": {"command": ["a"]}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"exec": {"command": []}}),
            "spec.containers[0].livenessProbe.exec.command: Required value",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"tcpSocket": {"port": 0}}),
            "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({"preStop": {}}),
            "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "c", "image": "i"}]),
            "spec.initContainers[0].name: Duplicate value: \"c\"",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}}}]),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            "/spec/ephemeralContainers",
            json!([{"name": "e", "image": "i"}]),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            "/spec/containers/0/restartPolicyRules",
            json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]),
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "i", "restartPolicy": "Often"}]),
            "spec.initContainers[0].restartPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "i", "restartPolicy": "Never", "restartPolicyRules": [
                {"action": "Stop", "exitCodes": {"operator": "In", "values": [1]}}]}]),
            "spec.initContainers[0].restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\"",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "i", "restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart"}]}]),
            "spec.initContainers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "i", "restartPolicy": "Never", "restartPolicyRules": [
                {"action": "Restart", "exitCodes": {"operator": "Near", "values": [1]}}]}]),
            "spec.initContainers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Near\": supported values: \"In\", \"NotIn\"",
        ),
        (
            "/spec/restartPolicy",
            json!("Often"),
            "spec.restartPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        (
            "/spec/dnsPolicy",
            json!("None"),
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
        ),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(-1),
            "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/spec/activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            "/spec/nodeName",
            json!("N_1"),
            "spec.nodeName: Invalid value: \"N_1\": a lowercase RFC 1123 subdomain",
        ),
        (
            "/spec/nodeSelector",
            json!({"a": "-"}),
            "spec.nodeSelector: Invalid value: \"-\": a valid label must be",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v"}, {"name": "v"}]),
            "spec.volumes[1].name: Duplicate value: \"v\"",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "configMap": {}}]),
            "spec.volumes[0].configMap.name: Required value",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}]),
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "/etc"}]}}]),
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"/etc\": must be a relative path",
        ),
        (
            "/spec/tolerations",
            json!([{"operator": "Equal"}]),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
        ),
        (
            "/spec/tolerations",
            json!([{"key": "a", "operator": "Exists", "value": "x"}]),
            "spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
        ),
        (
            "/spec/tolerations",
            json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]),
            "spec.tolerations[0].effect: Invalid value: null: effect must be 'NoExecute' when `tolerationSeconds` is set",
        ),
        (
            "/spec/affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        (
            "/spec/affinity",
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "podAffinityTerm": {"topologyKey": "a"}}]}}),
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
        ),
        (
            "/spec/topologySpreadConstraints",
            json!([{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            "/spec/schedulingGates",
            json!([{"name": "a"}, {"name": "a"}]),
            "spec.schedulingGates[1].name: Duplicate value: \"a\"",
        ),
        (
            "/spec/hostAliases",
            json!([{"ip": "localhost"}]),
            "spec.hostAliases[0].ip: Invalid value: \"localhost\": must be a valid IP address",
        ),
        (
            "/spec/securityContext",
            json!({"runAsUser": -5}),
            "spec.securityContext.runAsUser: Invalid value: -5: must be between 0 and 2147483647, inclusive",
        ),
        (
            "/spec/securityContext",
            json!({"seccompProfile": {"type": "Strict"}}),
            "spec.securityContext.seccompProfile.type: Unsupported value: \"Strict\"",
        ),
        (
            "/spec/securityContext",
            json!({"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "a"}}),
            "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"a\": can only be set when",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"seccompProfile": {"type": "Localhost"}}),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../a"}}),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \"../a\": must not",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut object = pod();
        set(&mut object, pointer, &value);
        let faults = faults_of("v1", "Pod", &object);
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{pointer} {value}: {faults:#?}");
    }
}

#[test]
fn each_broken_field_of_a_deployment_is_named() {
    let cases = [
        ("/spec/replicas", json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ("/spec/selector", json!(null), "spec.selector: Required value"),
        (
            "/spec/selector",
            json!({}),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            "/spec/selector/matchLabels",
            json!({"app": "other"}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (
            "/spec/selector/matchExpressions",
            json!([{"key": "a", "operator": "In"}]),
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            "/spec/selector/matchExpressions",
            json!([{"key": "a", "operator": "Like"}]),
            "spec.selector.matchExpressions[0].operator: Invalid value: \"Like\": not a valid selector operator",
        ),
        (
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            "/spec/template/spec/containers/0/name",
            json!(""),
            "spec.template.spec.containers[0].name: Required value",
        ),
        (
            "/spec/strategy",
            json!({"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "/spec/strategy",
            json!({"type": "BlueGreen"}),
            "spec.strategy.type: Unsupported value: \"BlueGreen\": supported values: \"Recreate\", \"RollingUpdate\"",
        ),
        (
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ),
        (
            "/spec/strategy",
            json!({"rollingUpdate": {"maxUnavailable": "150%"}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"150%\": must not be greater than 100%",
        ),
        (
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": "lots"}}),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"lots\": a valid percent string",
        ),
        (
            "/spec/minReadySeconds",
            json!(600),
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut object = deployment();
        set(&mut object, pointer, &value);
        let faults = faults_of("apps/v1", "Deployment", &object);
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{pointer} {value}: {faults:#?}");
    }
}

#[test]
fn each_broken_field_of_the_small_kinds_is_named() {
    let meta = json!({"name": "x", "namespace": "d"});
    let cases = [
        (
            "v1",
            "Namespace",
            json!({"metadata": {"name": "a.b"}}),
            "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label",
        ),
        (
            "v1",
            "Namespace",
            json!({"metadata": {"name": "a", "namespace": "b"}}),
            "metadata.namespace: Forbidden: not allowed on this type",
        ),
        (
            "v1",
            "Node",
            json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "Explode"}]}}),
            "spec.taints[0].effect: Unsupported value: \"Explode\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\"",
        ),
        (
            "v1",
            "Node",
            json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoExecute", "value": "v"}]}}),
            "spec.taints[1]: Duplicate value:",
        ),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": meta, "data": {"a b": ""}}),
            "data[a b]: Invalid value: \"a b\": a valid config key",
        ),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": meta, "data": {"a": ""}, "binaryData": {"a": ""}}),
            "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
        ),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": meta, "data": {"a": "x".repeat(1_048_577)}}),
            ": Too long: may not be more than 1048576 bytes",
        ),
        ("v1", "Secret", json!({"metadata": meta, "data": {"../a": ""}}), "data[../a]: Invalid value"),
        (
            "v1",
            "Secret",
            json!({"metadata": meta, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "data[tls.key]: Required value",
        ),
        (
            "v1",
            "Secret",
            json!({"metadata": meta, "data": {"a": "A".repeat(1_400_000)}}),
            "data: Too long: may not be more than 1048576 bytes",
        ),
        (
            "v1",
            "Event",
            json!({"metadata": meta, "involvedObject": {"namespace": "other"}}),
            "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace",
        ),
        (
            "v1",
            "Event",
            json!({"metadata": meta, "involvedObject": {"namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingInstance": "i", "action": "A", "reason": "R"}),
            "reportingComponent: Required value",
        ),
        (
            "coordination.k8s.io/v1",
            "Lease",
            json!({"metadata": meta, "spec": {"leaseDurationSeconds": 0}}),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "coordination.k8s.io/v1",
            "Lease",
            json!({"metadata": meta, "spec": {"leaseTransitions": -1}}),
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        ),
    ];
    for (api_version, kind, object, expected) in cases {
        let faults = faults_of(api_version, kind, &object);
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{kind}: {faults:#?}");
    }
}

#[test]
fn a_generated_name_is_judged_by_its_beginning() {
    let mut object = pod();
    object["metadata"] = json!({"generateName": "web-", "namespace": "default"});
    assert_eq!(faults_of("v1", "Pod", &object), Vec::<String>::new());
    object["metadata"]["generateName"] = "Web-".into();
    assert!(faults_of("v1", "Pod", &object)[0].starts_with("metadata.generateName: Invalid value: \"Web-\""));
}

#[test]
fn a_pod_changes_only_where_it_may() {
    let allowed = [
        ("/spec/containers/0/image", json!("i:2")),
        ("/spec/activeDeadlineSeconds", json!(60)),
        ("/metadata/labels", json!({"a": "b"})),
        ("/spec/tolerations", json!([{"key": "gpu", "operator": "Exists"}])),
    ];
    for (pointer, value) in allowed {
        let mut new = pod();
        set(&mut new, pointer, &value);
        assert_eq!(faults_of_update("v1", "Pod", &pod(), &new), Vec::<String>::new(), "{pointer}");
    }
    let mut new = pod();
    set(&mut new, "/spec/containers/0/env", &json!([{"name": "A", "value": "1"}]));
    set(&mut new, "/spec/nodeName", &json!("n2"));
    let faults = faults_of_update("v1", "Pod", &pod(), &new);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
    ));
    assert!(faults[0].ends_with("changed: spec.containers[0].env, spec.nodeName"), "{}", faults[0]);

    let mut new = pod();
    set(&mut new, "/spec/containers/0", &json!({"name": "d", "image": "i"}));
    assert!(!faults_of_update("v1", "Pod", &pod(), &new).is_empty());
    let mut more = pod();
    more["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "d", "image": "i"}));
    assert_eq!(
        faults_of_update("v1", "Pod", &pod(), &more),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

#[test]
fn tolerations_and_gates_of_a_pod_change_one_way() {
    let with = |field: &str, value: Value| {
        let mut object = pod();
        object["spec"][field] = value;
        object
    };
    let tolerating = with(
        "tolerations",
        json!([{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]),
    );
    let longer = with(
        "tolerations",
        json!([{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}]),
    );
    assert_eq!(faults_of_update("v1", "Pod", &tolerating, &longer), Vec::<String>::new());
    let gone = with("tolerations", json!([]));
    assert!(faults_of_update("v1", "Pod", &tolerating, &gone)[0].starts_with("spec.tolerations: Forbidden"));

    let gated = with("schedulingGates", json!([{"name": "a"}, {"name": "b"}]));
    let fewer = with("schedulingGates", json!([{"name": "b"}]));
    assert_eq!(faults_of_update("v1", "Pod", &gated, &fewer), Vec::<String>::new());
    assert!(
        faults_of_update("v1", "Pod", &fewer, &gated)[0].starts_with("spec.schedulingGates[0]: Forbidden")
    );
    let mut narrowed = gated.clone();
    narrowed["spec"]["nodeSelector"] = json!({"gpu": "yes"});
    assert_eq!(faults_of_update("v1", "Pod", &gated, &narrowed), Vec::<String>::new());
    let widened = &faults_of_update("v1", "Pod", &narrowed, &gated)[0];
    assert!(widened.ends_with("changed: spec.nodeSelector"), "{widened}");
}

#[test]
fn the_affinity_of_a_gated_pod_can_only_be_narrowed() {
    let gated = |terms: &[&[&str]]| {
        let demand = |key: &&str| json!({"key": key, "operator": "Exists"});
        let term = |keys: &&[&str]| json!({"matchExpressions": keys.iter().map(demand).collect::<Vec<_>>()});
        let terms: Vec<Value> = terms.iter().map(term).collect();
        let mut object = pod();
        object["spec"]["schedulingGates"] = json!([{"name": "a"}]);
        if !terms.is_empty() {
            let required = json!({"nodeSelectorTerms": terms});
            object["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                required;
        }
        object
    };
    let may =
        |old: &[&[&str]], new: &[&[&str]]| faults_of_update("v1", "Pod", &gated(old), &gated(new)).is_empty();
    assert!(may(&[], &[&["gpu"]]) && may(&[&["gpu"]], &[&["gpu", "ssd"]]));
    assert!(!may(&[&["gpu"]], &[]) && !may(&[&["gpu", "ssd"]], &[&["gpu"]]));
    assert!(!may(&[&["gpu"]], &[&["gpu"], &["ssd"]]));
    let mut apart = gated(&[]);
    let rule =
        json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}});
    apart["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!([rule]);
    assert!(!faults_of_update("v1", "Pod", &apart, &gated(&[])).is_empty());
}

#[test]
fn the_selector_of_a_workload_never_changes() {
    let mut new = deployment();
    new["spec"]["selector"]["matchLabels"]["app"] = "other".into();
    new["spec"]["template"]["metadata"]["labels"]["app"] = "other".into();
    for kind in ["Deployment", "ReplicaSet"] {
        assert_eq!(
            faults_of_update("apps/v1", kind, &deployment(), &new),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"]
        );
    }
}

#[test]
fn immutable_data_stay() {
    let of = |data: &str, immutable: bool| json!({"metadata": {"name": "c", "namespace": "d"}, "data": {"a": data}, "immutable": immutable});
    assert_eq!(
        faults_of_update("v1", "ConfigMap", &of("AAAA", false), &of("BBBB", true)),
        Vec::<String>::new()
    );
    for kind in ["ConfigMap", "Secret"] {
        assert_eq!(
            faults_of_update("v1", kind, &of("AAAA", true), &of("BBBB", false)),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }
    let mut typed = of("AAAA", false);
    typed["type"] = "example.com/token".into();
    assert_eq!(
        faults_of_update("v1", "Secret", &of("AAAA", false), &typed),
        ["type: Invalid value: \"example.com/token\": field is immutable"]
    );
}

#[test]
fn what_an_update_leaves_alone_is_not_judged_again() {
    let mut old = pod();
    set(&mut old, "/spec/containers/0/image", &json!(""));
    let mut new = old.clone();
    new["status"] = json!({"phase": "Running", "qosClass": "Burstable"});
    assert_eq!(faults_of_update("v1", "Pod", &old, &new), Vec::<String>::new());
}

#[test]
fn one_object_yields_a_bounded_number_of_faults_of_bounded_size() {
    let mut object = pod();
    object["spec"]["containers"] = (0..500).map(|_| json!({"name": "A".repeat(10_000)})).collect();
    let faults = faults_of("v1", "Pod", &object);
    assert_eq!(faults.len(), 50);
    assert!(faults.iter().all(|fault| fault.len() < 2000));
}

fn changed_ephemeral(old: Value, new: Value) -> Vec<String> {
    let with = |list: Value| {
        let mut object = pod();
        object["spec"]["ephemeralContainers"] = list;
        prepared(REGISTRY.kind("v1", "Pod").unwrap(), &object)
    };
    let causes = super::ephemeral_containers(&with(old), &with(new));
    causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

#[test]
fn ephemeral_containers_come_and_stay_as_they_are() {
    let one = json!({"name": "a", "image": "i", "resources": {}, "stdin": true, "tty": true});
    let two = json!({"name": "b", "image": "i", "targetContainerName": "c"});
    assert_eq!(changed_ephemeral(json!([one]), json!([two, one])), Vec::<String>::new());
    let mut other = one.clone();
    other["image"] = "j".into();
    for (old, new, expected) in [
        (json!([one]), json!([two]), "existing ephemeral containers \"a\" may not be removed"),
        (json!([one]), json!([other]), "existing ephemeral containers \"a\" may not be changed"),
        (json!([]), json!([{"name": "c", "image": "i"}]), "Duplicate value: \"c\""),
        (json!([]), json!([{"name": "a"}]), "spec.ephemeralContainers[0].image: Required value"),
        (
            json!([]),
            json!([{"name": "a", "image": "i", "ports": [{"containerPort": 1}]}]),
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!([]),
            json!([{"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}}}]),
            "resources: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!([]),
            json!([{"name": "a", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}]),
            "livenessProbe: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!([]),
            json!([{"name": "a", "image": "i", "targetContainerName": "nobody"}]),
            "targetContainerName: Not found: \"nobody\"",
        ),
    ] {
        let faults = changed_ephemeral(old, new.clone());
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{new}: {faults:#?}");
    }
}
