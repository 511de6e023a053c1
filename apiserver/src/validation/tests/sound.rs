//! A sound object of each kind, for others to spoil.

use super::*;

/// A pod template whose pods end, or do not.
pub(super) fn template(restart: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "i:1"}]},
    })
}

fn webhook() -> Value {
    json!({
        "name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"service": {"name": "s", "namespace": "n"}},
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}],
    })
}

/// A sound object of a kind, all but its metadata.
fn sound(kind: &str) -> (&'static str, Value) {
    let selector = json!({"matchLabels": {"app": "a"}});
    match kind {
        "Service" => ("v1", json!({"spec": {"ports": [{"port": 80}], "selector": {"app": "a"}}})),
        "Endpoints" => {
            ("v1", json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}))
        }
        "EndpointSlice" => (
            "discovery.k8s.io/v1",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        ),
        "ServiceAccount" => ("v1", json!({})),
        "ResourceQuota" => (
            "v1",
            json!({"spec": {"hard": {"pods": "3", "count/jobs.batch": "2", "requests.nvidia.com/gpu": "1"}}}),
        ),
        "LimitRange" => ("v1", json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}})),
        "PersistentVolume" => (
            "v1",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/d"}}}),
        ),
        "PersistentVolumeClaim" => (
            "v1",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        "PodTemplate" => ("v1", json!({"template": template("Always")})),
        "ReplicationController" => ("v1", json!({"spec": {"template": template("Always")}})),
        "DaemonSet" => ("apps/v1", json!({"spec": {"selector": selector, "template": template("Always")}})),
        "StatefulSet" => ("apps/v1", json!({"spec": {"selector": selector, "template": template("Always")}})),
        "ControllerRevision" => ("apps/v1", json!({"revision": 1, "data": {"a": 1}})),
        "Job" => ("batch/v1", json!({"spec": {"template": template("Never")}})),
        "CronJob" => (
            "batch/v1",
            json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template("OnFailure")}}}}),
        ),
        "KernelJob" => (
            "clawbernetes.io/v1",
            json!({"spec": {
                "inputs": [
                    {"name": "a", "dtype": "f32", "shape": [2, 3], "values": [1, 2, 3, 4, 5, 6.5]},
                    {"name": "b", "dtype": "f32", "shape": [3, 4], "configMap": {"name": "weights", "key": "b.npy"}},
                ],
                "operations": [
                    {"name": "product", "op": "MatMul", "inputs": ["a", "b"]},
                    {"name": "p", "op": "Softmax", "inputs": ["product"]},
                ],
                "outputs": [{"value": "p", "volume": {"name": "results", "path": "p.npy"}}],
                "volumes": [{"name": "results", "hostPath": {"path": "/r"}}],
                "device": {"class": "gpu", "selectors": ["device.capacity['gpu.clawbernetes.io'].memory.isGreaterThan(quantity('40Gi'))"]},
                "resources": {"limits": {"memory": "1Gi"}},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "activeDeadlineSeconds": 60,
            }}),
        ),
        "DeviceCheck" => (
            "clawbernetes.io/v1",
            json!({"spec": {
                "device": {"driver": "gpu.clawbernetes.io", "pool": "n", "name": "gpu-a"},
                "level": "Full", "minimums": {"copyBytesPerSecond": "2T"}, "ttlSecondsAfterFinished": 60,
            }}),
        ),
        "DevicePolicy" => (
            "clawbernetes.io/v1",
            json!({"spec": {
                "deviceClassName": "gpu.nvidia.com",
                "selectors": ["device.attributes['gpu.clawbernetes.io'].productName.contains('H100')"],
                "nodeSelector": {"pool": "training"},
                "recheckAfterSeconds": 604_800, "minimums": {"copyBytesPerSecond": "2T"}, "effect": "NoExecute",
            }}),
        ),
        "HorizontalPodAutoscaler" => (
            "autoscaling/v2",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "behavior": {"scaleDown": {}}}}),
        ),
        "PodDisruptionBudget" => ("policy/v1", json!({"spec": {"minAvailable": 1, "selector": selector}})),
        "PriorityClass" => ("scheduling.k8s.io/v1", json!({"value": 5})),
        "StorageClass" => ("storage.k8s.io/v1", json!({"provisioner": "example.com/p"})),
        "NetworkPolicy" => (
            "networking.k8s.io/v1",
            json!({"spec": {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]}]}}),
        ),
        "Ingress" => (
            "networking.k8s.io/v1",
            json!({"spec": {"rules": [{"host": "*.a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"name": "http"}}}}]}}]}}),
        ),
        "IngressClass" => ("networking.k8s.io/v1", json!({"spec": {"controller": "a.b/c"}})),
        "IPAddress" => (
            "networking.k8s.io/v1",
            json!({"spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "d"}}}),
        ),
        "ResourceSlice" => (
            "resource.k8s.io/v1",
            json!({"spec": {"driver": "d.io", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "g", "attributes": {"model": {"string": "H100"}}}]}}),
        ),
        "DeviceClass" => {
            ("resource.k8s.io/v1", json!({"spec": {"selectors": [{"cel": {"expression": "true"}}]}}))
        }
        "ResourceClaim" => (
            "resource.k8s.io/v1",
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}),
        ),
        "ResourceClaimTemplate" => (
            "resource.k8s.io/v1",
            json!({"spec": {"spec": {"devices": {"requests": [{"name": "r", "firstAvailable": [{"name": "a", "deviceClassName": "gpu"}]}]}}}}),
        ),
        "DeviceTaintRule" => (
            "resource.k8s.io/v1beta2",
            json!({"spec": {
                "deviceSelector": {"driver": "d.io", "pool": "a/b", "device": "g"},
                "taint": {"key": "d.io/hot", "value": "yes", "effect": "NoExecute", "timeAdded": "2026-01-02T03:04:05Z"},
            }}),
        ),
        "Role" => (RBAC_V1, json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})),
        "ClusterRole" => (RBAC_V1, json!({"rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}]})),
        "RoleBinding" => (
            RBAC_V1,
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
        ),
        "ClusterRoleBinding" => (
            RBAC_V1,
            json!({"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "Group", "name": "g"}]}),
        ),
        "CertificateSigningRequest" => (
            "certificates.k8s.io/v1",
            json!({"spec": {"signerName": "example.com/s", "usages": ["client auth"], "request": REQUEST}}),
        ),
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            ("admissionregistration.k8s.io/v1", json!({"webhooks": [webhook()]}))
        }
        "ValidatingAdmissionPolicy" => (
            "admissionregistration.k8s.io/v1",
            json!({"spec": {"matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}, "validations": [{"expression": "true"}]}}),
        ),
        "MutatingAdmissionPolicy" => (
            "admissionregistration.k8s.io/v1",
            json!({"spec": {
                "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}],
            }}),
        ),
        "MutatingAdmissionPolicyBinding" => {
            ("admissionregistration.k8s.io/v1", json!({"spec": {"policyName": "p"}}))
        }
        "ValidatingAdmissionPolicyBinding" => (
            "admissionregistration.k8s.io/v1",
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"], "paramRef": {"name": "n", "parameterNotFoundAction": "Deny"}}}),
        ),
        other => panic!("no sound {other}"),
    }
}

const RBAC_V1: &str = "rbac.authorization.k8s.io/v1";
/// A PEM block of the right type; what is in it is not looked at.
const REQUEST: &str =
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KQUFBQQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

/// A sound object with its metadata.
pub(super) fn object(kind: &str) -> (&'static str, Value) {
    let (api_version, mut object) = sound(kind);
    let name = if kind == "IPAddress" { "10.96.0.9" } else { "x" };
    object["metadata"] = json!({"name": name, "uid": "u-1"});
    if REGISTRY.kind(api_version, kind).unwrap().namespaced() {
        object["metadata"]["namespace"] = "d".into();
    }
    (api_version, object)
}
