//! One row, or a few, of each kind.

use super::*;

/// Each object gets the usual metadata; the lines leave out its name.
fn lines(api_version: &str, kind: &str, cases: &[(Value, &str)]) {
    for (object, expected) in cases {
        let mut object = object.clone();
        for (field, value) in meta().as_object().unwrap() {
            object["metadata"][field] = value.clone();
        }
        assert_eq!(line(api_version, kind, &object), format!("x | {expected}"), "{object}");
    }
}

fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "a", "tier": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], "nodeSelector": {"gpu": "yes"}},
    })
}

#[test]
fn services_show_where_they_are_reached() {
    lines(
        "v1",
        "Service",
        &[
            (
                json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.7"], "selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]}}),
                "ClusterIP | 10.96.0.7 | <none> | 80/TCP,53:30053/UDP | 2m5s | a=b",
            ),
            (
                json!({"spec": {"type": "ExternalName", "externalName": "example.com"}}),
                "ExternalName | <none> | example.com | <none> | 2m5s | <none>",
            ),
            (
                json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"]}}),
                "LoadBalancer | 10.96.0.7 | <pending> | <none> | 2m5s | <none>",
            ),
            (
                json!({"spec": {"type": "LoadBalancer", "externalIPs": ["192.0.2.9"]}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb"}]}}}),
                "LoadBalancer | <none> | 192.0.2.1,lb,192.0.2.9 | <none> | 2m5s | <none>",
            ),
        ],
    );
    lines(
        "v1",
        "Endpoints",
        &[
            (json!({}), "<none> | 2m5s"),
            (
                json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 81}]}]}),
                "10.0.0.1:80,[fd00::1]:80,10.0.0.1:81 + 1 more... | 2m5s",
            ),
            (json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}), "10.0.0.1 | 2m5s"),
        ],
    );
    lines(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        &[
            (json!({"addressType": "IPv4"}), "IPv4 | <unset> | <unset> | 2m5s"),
            (
                json!({"addressType": "IPv4", "ports": [{"port": 80}, {}], "endpoints": [{"addresses": ["10.0.0.1", "10.0.0.2"]}, {"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.4"]}]}),
                "IPv4 | 80,* | 10.0.0.1,10.0.0.2,10.0.0.3 + 1 more... | 2m5s",
            ),
        ],
    );
}

#[test]
fn workloads_show_how_far_they_are() {
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": template()});
    let status = json!({"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3, "updatedNumberScheduled": 2, "numberAvailable": 1, "readyReplicas": 2});
    let object = json!({"spec": spec, "status": status});
    lines(
        "apps/v1",
        "DaemonSet",
        &[(object.clone(), "5 | 4 | 3 | 2 | 1 | gpu=yes | 2m5s | c | i:1 | app=a")],
    );
    lines("apps/v1", "StatefulSet", &[(object, "2/3 | 2m5s | c | i:1")]);
    lines(
        "v1",
        "ReplicationController",
        &[(
            json!({"spec": {"replicas": 2, "selector": {"app": "a"}, "template": template()}}),
            "2 | 0 | 0 | 2m5s | c | i:1 | app=a",
        )],
    );
    lines("v1", "PodTemplate", &[(json!({"template": template()}), "c | i:1 | app=a,tier=b")]);
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true});
    lines(
        "apps/v1",
        "ControllerRevision",
        &[
            (
                json!({"metadata": {"ownerReferences": [owner]}, "revision": 3}),
                "statefulset.apps/web | 3 | 2m5s",
            ),
            (json!({}), "<none> | 0 | 2m5s"),
        ],
    );
    lines(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        &[(
            json!({
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9, "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
                    {"type": "Pods", "pods": {"target": {"averageValue": "10"}}},
                    {"type": "External", "external": {"target": {"value": "5"}}},
                ]},
                "status": {"currentReplicas": 4, "currentMetrics": [{"type": "Resource", "resource": {"current": {"averageUtilization": 12}}}]},
            }),
            "Deployment/web | cpu: 12%/80%,<unknown>/10 + 1 more... | 1 | 9 | 4 | 2m5s",
        )],
    );
}

#[test]
fn jobs_show_their_state_and_how_long_they_took() {
    let job = |spec: Value, status: Value| json!({"spec": spec, "status": status});
    let is = |condition: &str, status: &str| json!({"startTime": CREATED, "conditions": [{"type": condition, "status": status}]});
    lines(
        "batch/v1",
        "Job",
        &[
            (
                job(
                    json!({"completions": 3, "template": template(), "selector": {"matchLabels": {"u": "1"}}}),
                    json!({"succeeded": 1, "startTime": CREATED}),
                ),
                "Running | 1/3 | 2m5s | 2m5s | c | i:1 | u=1",
            ),
            (
                job(
                    json!({"parallelism": 4}),
                    json!({"conditions": [{"type": "Complete", "status": "True"}], "startTime": CREATED, "completionTime": "2026-01-02T11:58:00Z"}),
                ),
                "Complete | 0/1 of 4 | 5s | 2m5s |  |  | <error>",
            ),
            (job(json!({}), is("Failed", "True")), "Failed | 0/1 | 2m5s | 2m5s |  |  | <error>"),
            (job(json!({}), is("Suspended", "True")), "Suspended | 0/1 | 2m5s | 2m5s |  |  | <error>"),
            (
                job(json!({}), is("ControllerAvailable", "False")),
                "NoController | 0/1 | 2m5s | 2m5s |  |  | <error>",
            ),
        ],
    );
    lines(
        "batch/v1",
        "CronJob",
        &[(
            json!({
                "spec": {"schedule": "*/5 * * * *", "suspend": false, "jobTemplate": {"spec": {"template": template()}}},
                "status": {"active": [{}], "lastScheduleTime": "2026-01-02T11:59:30Z"},
            }),
            "*/5 * * * * | <none> | False | 1 | 30s | 2m5s | c | i:1 | <none>",
        )],
    );
}

#[test]
fn limits_and_budgets_show_what_is_left() {
    lines(
        "v1",
        "ResourceQuota",
        &[(
            json!({"status": {"hard": {"pods": "10", "requests.cpu": "4", "limits.cpu": "8"}, "used": {"pods": "3"}}}),
            "pods: 3/10, requests.cpu: 0/4 | limits.cpu: 0/8 | 2m5s",
        )],
    );
    lines("v1", "LimitRange", &[(json!({}), CREATED)]);
    lines("v1", "ServiceAccount", &[(json!({"secrets": [{"name": "a"}]}), "1 | 2m5s")]);
    lines(
        "policy/v1",
        "PodDisruptionBudget",
        &[(
            json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}}),
            "50% | N/A | 2 | 2m5s",
        )],
    );
    lines(
        "scheduling.k8s.io/v1",
        "PriorityClass",
        &[(
            json!({"value": 7, "globalDefault": true, "preemptionPolicy": "Never"}),
            "7 | true | 2m5s | Never",
        )],
    );
}

#[test]
fn volumes_show_their_claims_and_claims_their_volumes() {
    lines(
        "v1",
        "PersistentVolume",
        &[(
            json!({
                "spec": {"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "n", "name": "c"}, "storageClassName": "fast", "volumeMode": "Filesystem"},
                "status": {"phase": "Bound"},
            }),
            "5Gi | RWO,RWX | Retain | Bound | n/c | fast | <unset> |  | 2m5s | Filesystem",
        )],
    );
    lines(
        "v1",
        "PersistentVolumeClaim",
        &[
            (
                json!({"spec": {"volumeMode": "Block"}, "status": {"phase": "Pending"}}),
                "Pending |  |  |  |  | <unset> | 2m5s | Block",
            ),
            (
                json!({"spec": {"volumeName": "v", "storageClassName": "fast"}, "status": {"phase": "Bound", "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOncePod"]}}),
                "Bound | v | 5Gi | RWOP | fast | <unset> | 2m5s | <unset>",
            ),
        ],
    );
    let class = json!({"metadata": meta(), "provisioner": "p"});
    assert_eq!(
        line("storage.k8s.io/v1", "StorageClass", &class),
        "x | p | Delete | Immediate | false | 2m5s"
    );
    let mut default = class;
    default["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    assert!(line("storage.k8s.io/v1", "StorageClass", &default).starts_with("x (default) | p"));
}

#[test]
fn networking_shows_who_gets_in() {
    let group = "networking.k8s.io/v1";
    lines(
        group,
        "NetworkPolicy",
        &[
            (json!({"spec": {"podSelector": {"matchLabels": {"app": "a"}}}}), "app=a | 2m5s"),
            (json!({"spec": {"podSelector": {}}}), "<none> | 2m5s"),
        ],
    );
    lines(
        group,
        "Ingress",
        &[
            (json!({"spec": {}}), "<none> | * |  | 80 | 2m5s"),
            (
                json!({
                    "spec": {"ingressClassName": "i", "tls": [{}], "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]},
                    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
                }),
                "i | a,b,c + 1 more... | 192.0.2.1 | 80, 443 | 2m5s",
            ),
        ],
    );
    lines(
        group,
        "IngressClass",
        &[
            (json!({"spec": {"controller": "example.com/c"}}), "example.com/c | <none> | 2m5s"),
            (
                json!({"spec": {"controller": "c/c", "parameters": {"apiGroup": "g", "kind": "K", "name": "n"}}}),
                "c/c | K.g/n | 2m5s",
            ),
        ],
    );
    lines(
        group,
        "IPAddress",
        &[(
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "d", "name": "web"}}}),
            "services/d/web",
        )],
    );
}

#[test]
fn devices_show_where_they_are_and_whose() {
    let group = "resource.k8s.io/v1";
    lines(
        group,
        "ResourceSlice",
        &[(json!({"spec": {"nodeName": "n", "driver": "d", "pool": {"name": "p"}}}), "n | d | p | 2m5s")],
    );
    lines(
        group,
        "ResourceClaim",
        &[
            (json!({}), "pending | 2m5s"),
            (json!({"status": {"allocation": {}, "reservedFor": [{}]}}), "allocated,reserved | 2m5s"),
            (
                json!({"metadata": {"deletionTimestamp": CREATED}, "status": {"allocation": {}}}),
                "deleted,allocated | 2m5s",
            ),
        ],
    );
    lines(group, "DeviceClass", &[(json!({}), "2m5s")]);
}

#[test]
fn rules_about_rules_show_their_essence() {
    lines("rbac.authorization.k8s.io/v1", "ClusterRole", &[(json!({}), CREATED)]);
    lines(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        &[(
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "User", "name": "v"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
            "Role/r | 2m5s | u, v |  | n/s",
        )],
    );
    let request = |status: Value| json!({"spec": {"signerName": "s/s", "username": "u", "expirationSeconds": 600}, "status": status});
    lines(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        &[
            (request(json!({})), "2m5s | s/s | u | 10m | Pending"),
            (
                request(json!({"conditions": [{"type": "Approved"}], "certificate": "AAAA"})),
                "2m5s | s/s | u | 10m | Approved,Issued",
            ),
        ],
    );
    let group = "admissionregistration.k8s.io/v1";
    lines(group, "MutatingWebhookConfiguration", &[(json!({"webhooks": [{}, {}]}), "2 | 2m5s")]);
    lines(
        group,
        "ValidatingAdmissionPolicy",
        &[
            (json!({"spec": {"validations": [{}]}}), "1 | <unset> | 2m5s"),
            (
                json!({"spec": {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}}),
                "0 | v1/ConfigMap | 2m5s",
            ),
        ],
    );
    lines(group, "MutatingAdmissionPolicy", &[(json!({"spec": {"mutations": [{}]}}), "1 | <unset> | 2m5s")]);
    lines(
        group,
        "ValidatingAdmissionPolicyBinding",
        &[
            (json!({"spec": {"policyName": "p"}}), "p | <unset> | 2m5s"),
            (json!({"spec": {"policyName": "p", "paramRef": {"name": "c"}}}), "p | */c | 2m5s"),
        ],
    );
}

#[test]
fn kernel_jobs_show_what_they_calculate_on_what_and_how_fast() {
    let job = |operations: &[&str], status: Value| {
        let operations: Vec<Value> = operations.iter().map(|op| json!({"name": "a", "op": op})).collect();
        json!({"spec": {"operations": operations, "runs": 10}, "status": status})
    };
    let attempts = json!([
        {"pod": "x-0", "node": "n1", "device": "cuda:0", "model": "H100"},
        {"pod": "x-1", "node": "n2", "device": "vulkan:1", "model": "B"},
    ]);
    let complete = json!({
        "phase": "Complete", "attempts": attempts, "progress": "run 10 of 10",
        "figures": {"runs": 10, "secondsMedian": 0.012_34, "gflopsPerSecond": 4_567.8},
    });
    let holds = |condition: &str| json!({"conditions": [{"type": condition, "status": "True"}]});
    let nothing = "<none> | <none> | 0/10 | <none> | 0 | <none>";
    lines(
        "clawbernetes.io/v1",
        "KernelJob",
        &[
            (
                job(&["MatMul", "Add", "Softmax"], complete),
                "Softmax+2 | vulkan:1 | 4568 | Complete | 2m5s | n2 | B | 10/10 | 12.3ms | 2 | run 10 of 10",
            ),
            (
                job(
                    &["MatMul"],
                    json!({"phase": "Running", "attempts": [{"pod": "x-0"}], "figures": {"runs": 3, "secondsMedian": 1.5, "gflopsPerSecond": 0.0123}}),
                ),
                "MatMul | <none> | 0.0123 | Running | 2m5s | <none> | <none> | 3/10 | 1.50s | 1 | <none>",
            ),
            (job(&[], json!({})), &format!("<none> | <none> | <none> | Pending | 2m5s | {nothing}")),
            (
                job(&["Exp"], holds("Suspended")),
                &format!("Exp | <none> | <none> | Suspended | 2m5s | {nothing}"),
            ),
            (job(&["Exp"], holds("Failed")), &format!("Exp | <none> | <none> | Failed | 2m5s | {nothing}")),
            (
                json!({"metadata": {"deletionTimestamp": CREATED}, "spec": {}, "status": {"phase": "Running"}}),
                "<none> | <none> | <none> | Terminating | 2m5s | <none> | <none> | 0/1 | <none> | 0 | <none>",
            ),
        ],
    );
}

#[test]
fn device_checks_show_what_was_found_and_what_speaks_against_the_device() {
    let check = |status: Value| json!({"spec": {"device": {"driver": "d", "pool": "n1", "name": "gpu-a"}, "level": "Full"}, "status": status});
    let device = json!({"node": "n1", "uuid": "GPU-A", "model": "H100"});
    let findings = json!([
        {"check": "Memory", "passed": true, "words": "all well"},
        {"check": "Copy", "passed": false, "words": "too slow"},
    ]);
    let failed =
        json!([{"type": "Failed", "status": "True", "reason": "DeviceGone", "message": "it is gone"}]);
    lines(
        "clawbernetes.io/v1",
        "DeviceCheck",
        &[
            (check(json!({})), "gpu-a | n1 | <none> | Full | Pending | 2m5s | <none> | <none>"),
            (
                check(json!({"device": device, "phase": "Running", "progress": "memory: ones"})),
                "gpu-a | n1 | H100 | Full | Running | 2m5s | memory: ones | <none>",
            ),
            (
                check(
                    json!({"device": device, "phase": "Complete", "verdict": "NotFit", "findings": findings}),
                ),
                "gpu-a | n1 | H100 | Full | NotFit | 2m5s | <none> | too slow",
            ),
            (
                check(json!({"device": device, "conditions": failed})),
                "gpu-a | n1 | H100 | Full | Failed | 2m5s | <none> | it is gone",
            ),
        ],
    );
}

#[test]
fn device_policies_show_how_many_devices_are_fit() {
    lines(
        "clawbernetes.io/v1",
        "DevicePolicy",
        &[
            (
                json!({"spec": {"deviceClassName": "gpu.nvidia.com", "effect": "None", "holdBack": false}, "status": {
                    "devices": 4, "fit": 2, "notFit": 1, "unchecked": 1, "running": 1,
                }}),
                "Quick | 4 | 2 | 1 | 1 | 2m5s | 1 | gpu.nvidia.com | false | None",
            ),
            (
                json!({"spec": {"level": "Full"}}),
                "Full | 0 | 0 | 0 | 0 | 2m5s | 0 | <none> | true | NoSchedule",
            ),
        ],
    );
}
