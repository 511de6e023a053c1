//! What objects look like after defaulting.

use std::sync::LazyLock;

use claw_schemas::Registry;

use super::*;

/// One for all tests, so that each schema is compiled once.
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

fn defaulted(api_version: &str, kind: &str, mut object: Value) -> Value {
    let registry = &*REGISTRY;
    let descriptor = registry.kind(api_version, kind).unwrap();
    assert_eq!(descriptor.compiled().check(&object), claw_schemas::schema::Report::default());
    descriptor.compiled().normalize(&mut object);
    for fill in [apply, admit] {
        fill(descriptor, &mut object);
        let once = object.clone();
        fill(descriptor, &mut object);
        assert_eq!(object, once, "defaulting twice must change nothing");
    }
    assert_eq!(descriptor.compiled().check(&object), claw_schemas::schema::Report::default());
    object
}

#[test]
fn a_bare_deployment_says_everything_afterwards() {
    let object = defaulted(
        "apps/v1",
        "Deployment",
        json!({
            "metadata": {"name": "web", "creationTimestamp": null},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {},
                "template": {
                    "metadata": {"labels": {"app": "web"}, "creationTimestamp": null},
                    "spec": {"containers": [{"name": "web", "image": "nginx", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": 0.5}}}]},
                },
            },
            "status": {},
        }),
    );
    assert_eq!(
        object,
        json!({
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "restartPolicy": "Always",
                        "dnsPolicy": "ClusterFirst",
                        "schedulerName": "default-scheduler",
                        "terminationGracePeriodSeconds": 30,
                        "securityContext": {},
                        "containers": [{
                            "name": "web",
                            "image": "nginx",
                            "imagePullPolicy": "Always",
                            "terminationMessagePath": "/dev/termination-log",
                            "terminationMessagePolicy": "File",
                            "resources": {"limits": {"cpu": "500m"}},
                            "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        }],
                    },
                },
            },
            "status": {},
        })
    );
}

#[test]
fn what_a_manifest_says_stays() {
    let object = defaulted(
        "apps/v1",
        "Deployment",
        json!({"spec": {
            "replicas": 0,
            "revisionHistoryLimit": 0,
            "strategy": {"type": "Recreate"},
            "template": {"spec": {"restartPolicy": "Always", "terminationGracePeriodSeconds": 0, "containers": []}},
        }}),
    );
    assert_eq!(object["spec"]["replicas"], 0);
    assert_eq!(object["spec"]["revisionHistoryLimit"], 0);
    assert_eq!(object["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 0);
}

#[test]
fn a_pod_gets_requests_tolerations_and_a_status() {
    let object = defaulted(
        "v1",
        "Pod",
        json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{
                "name": "c",
                "image": "busybox:1.36",
                "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "1"}},
            }]},
        }),
    );
    let spec = &object["spec"];
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(spec["containers"][0]["resources"]["requests"], json!({"cpu": "1", "memory": "64Mi"}));
    assert_eq!(spec["enableServiceLinks"], true);
    let keys: Vec<_> = spec["tolerations"].as_array().unwrap().iter().map(|t| t["key"].clone()).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    assert_eq!(object["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
}

#[test]
fn a_pod_that_tolerates_everything_gets_no_more_tolerations() {
    let tolerations = json!([{"operator": "Exists"}]);
    let object = defaulted("v1", "Pod", json!({"spec": {"containers": [], "tolerations": tolerations}}));
    assert_eq!(object["spec"]["tolerations"], tolerations);
}

#[test]
fn qos_classes_follow_requests_and_limits() {
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "100m"}}), "Burstable"),
        (json!({"limits": {"cpu": "100m"}}), "Burstable"),
        (json!({"limits": {"nvidia.com/gpu": "1"}}), "BestEffort"),
        (json!({"limits": {"cpu": "100m", "memory": "1Gi"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "1000m", "memory": "1Gi"}, "requests": {"cpu": "1"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}), "Burstable"),
    ] {
        let object = defaulted(
            "v1",
            "Pod",
            json!({"spec": {"containers": [{"name": "c", "image": "i:1", "resources": resources}]}}),
        );
        assert_eq!(object["status"]["qosClass"], class, "{resources}");
    }
}

#[test]
fn probes_volumes_and_references_are_completed() {
    let object = defaulted(
        "v1",
        "Pod",
        json!({"spec": {
            "containers": [{
                "name": "c",
                "image": "i:1",
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
                "readinessProbe": {"tcpSocket": {"port": "web"}, "failureThreshold": 7},
            }],
            "volumes": [
                {"name": "scratch"},
                {"name": "config", "configMap": {"name": "c"}},
                {"name": "secret", "secret": {"secretName": "s", "defaultMode": 256}},
                {"name": "host", "hostPath": {"path": "/tmp"}},
            ],
        }}),
    );
    let container = &object["spec"]["containers"][0];
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(
        container["livenessProbe"],
        json!({
            "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
        })
    );
    assert_eq!(container["readinessProbe"]["failureThreshold"], 7);
    assert_eq!(
        object["spec"]["volumes"],
        json!([
            {"name": "scratch", "emptyDir": {}},
            {"name": "config", "configMap": {"name": "c", "defaultMode": 420}},
            {"name": "secret", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "host", "hostPath": {"path": "/tmp", "type": ""}},
        ])
    );
}

#[test]
fn string_data_of_a_secret_overwrites_data() {
    let object =
        defaulted("v1", "Secret", json!({"data": {"a": "b2xk", "b": "Yg=="}, "stringData": {"a": "new"}}));
    assert_eq!(object, json!({"type": "Opaque", "data": {"a": "bmV3", "b": "Yg=="}}));
}

#[test]
fn a_namespace_holds_itself_until_it_is_being_deleted() {
    let live = defaulted("v1", "Namespace", json!({"metadata": {"name": "team"}}));
    assert_eq!(live["metadata"]["labels"]["kubernetes.io/metadata.name"], "team");
    assert_eq!(live["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(live["status"]["phase"], "Active");
    let dying = defaulted(
        "v1",
        "Namespace",
        json!({
            "metadata": {"name": "team", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {},
            "status": {"phase": "Terminating"},
        }),
    );
    assert_eq!(dying["spec"], json!({}));
    assert_eq!(dying["status"]["phase"], "Terminating");
}

#[test]
fn host_network_takes_the_ports_of_the_host() {
    let object = defaulted(
        "v1",
        "Pod",
        json!({"spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]}]}}),
    );
    assert_eq!(object["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
}

#[test]
fn the_other_kinds_say_everything_too() {
    let meta = json!({"name": "x", "uid": "u"});
    for (api_version, kind, object, pointer, expected) in [
        (
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 80}]}}),
            "/spec/ports/0",
            json!({"port": 80, "protocol": "TCP", "targetPort": 80}),
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"type": "NodePort"}}),
            "/spec/externalTrafficPolicy",
            json!("Cluster"),
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"sessionAffinity": "ClientIP"}}),
            "/spec/sessionAffinityConfig/clientIP/timeoutSeconds",
            json!(10_800),
        ),
        ("v1", "Service", json!({"spec": {"clusterIPs": ["None"]}}), "/spec/clusterIP", json!("None")),
        (
            "v1",
            "ReplicationController",
            json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}),
            "/spec/selector",
            json!({"a": "b"}),
        ),
        (
            "v1",
            "PersistentVolume",
            json!({"spec": {}}),
            "/spec/persistentVolumeReclaimPolicy",
            json!("Retain"),
        ),
        ("v1", "PersistentVolumeClaim", json!({"spec": {}}), "/status/phase", json!("Pending")),
        (
            "v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "1"}, "max": {"memory": "1Gi"}}]}}),
            "/spec/limits/0/defaultRequest",
            json!({"cpu": "1", "memory": "1Gi"}),
        ),
        (
            "apps/v1",
            "DaemonSet",
            json!({"spec": {}}),
            "/spec/updateStrategy/rollingUpdate",
            json!({"maxUnavailable": 1, "maxSurge": 0}),
        ),
        (
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"volumeClaimTemplates": [{"apiVersion": "v9", "metadata": {"name": "d"}}]}}),
            "/spec/volumeClaimTemplates/0",
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "d"}, "spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}),
        ),
        ("batch/v1", "Job", json!({"spec": {}}), "/spec/completions", json!(1)),
        ("batch/v1", "Job", json!({"spec": {"parallelism": 3}}), "/spec/completions", json!(null)),
        (
            "batch/v1",
            "Job",
            json!({"spec": {"backoffLimitPerIndex": 1}}),
            "/spec/backoffLimit",
            json!(i32::MAX),
        ),
        ("batch/v1", "CronJob", json!({"spec": {}}), "/spec/successfulJobsHistoryLimit", json!(3)),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"behavior": {}}}),
            "/spec/behavior/scaleUp/stabilizationWindowSeconds",
            json!(0),
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"egress": [{}]}}),
            "/spec/policyTypes",
            json!(["Ingress", "Egress"]),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            json!({"subjects": [{"kind": "Group", "name": "g"}, {"kind": "ServiceAccount", "name": "s"}]}),
            "/subjects",
            json!([{"kind": "Group", "name": "g", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount", "name": "s"}]),
        ),
        (
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            json!({"webhooks": [{"name": "w", "clientConfig": {"service": {"name": "s", "namespace": "n"}}}]}),
            "/webhooks/0/clientConfig/service/port",
            json!(443),
        ),
        (
            "resource.k8s.io/v1",
            "ResourceClaim",
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {}}]}}}),
            "/spec/devices/requests/0/exactly",
            json!({"allocationMode": "ExactCount", "count": 1}),
        ),
        (
            "clawbernetes.io/v1",
            "KernelJob",
            json!({"spec": {"warmups": 3, "volumes": [{"name": "w", "configMap": {"name": "w"}}, {"name": "s"}]}}),
            "/spec",
            json!({
                "runs": 1, "warmups": 3, "backoffLimit": 2, "runTimeoutSeconds": 600,
                "volumes": [{"name": "w", "configMap": {"name": "w", "defaultMode": 0o644}}, {"name": "s", "emptyDir": {}}],
            }),
        ),
        (
            "clawbernetes.io/v1",
            "DeviceCheck",
            json!({"spec": {"device": {"pool": "n", "name": "gpu-a"}}}),
            "/spec",
            json!({
                "device": {"driver": "gpu.clawbernetes.io", "pool": "n", "name": "gpu-a"},
                "level": "Quick", "timeoutSeconds": 900,
            }),
        ),
        (
            "clawbernetes.io/v1",
            "DevicePolicy",
            json!({"spec": {"holdBack": false}}),
            "/spec",
            json!({
                "level": "Quick", "timeoutSeconds": 900, "effect": "NoSchedule", "holdBack": false,
                "maxParallel": 16, "maxParallelPerNode": 1,
            }),
        ),
    ] {
        let mut object = object;
        object["metadata"] = meta.clone();
        let object = defaulted(api_version, kind, object);
        let found = object.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{kind} {pointer}");
    }
}

#[test]
fn taints_of_devices_are_stamped_when_they_are_new_or_do_something_else() {
    let rule = REGISTRY.kind("resource.k8s.io/v1beta2", "DeviceTaintRule").unwrap();
    let spec = |taint: Value| json!({"spec": {"taint": taint}});
    let stamped = |old: Option<Value>, new: Value| {
        let mut new = spec(new);
        stamp(rule, old.map(spec).as_ref(), &mut new, || "now".to_owned());
        new["spec"]["taint"]["timeAdded"].take()
    };
    let old = || Some(json!({"key": "k", "effect": "None", "timeAdded": "then"}));
    assert_eq!(stamped(None, json!({"effect": "None"})), "now");
    assert_eq!(stamped(None, json!({"effect": "None", "timeAdded": "then"})), "then");
    assert_eq!(stamped(old(), json!({"key": "l", "effect": "None", "timeAdded": "then"})), "then");
    assert_eq!(stamped(old(), json!({"key": "k", "effect": "NoExecute", "timeAdded": "then"})), "now");
    assert_eq!(stamped(old(), json!({"key": "k", "effect": "NoExecute", "timeAdded": "later"})), "later");
    assert_eq!(stamped(old(), json!({"key": "k", "effect": "None"})), "now");

    let slice = REGISTRY.kind("resource.k8s.io/v1", "ResourceSlice").unwrap();
    let taints = json!([{"effect": "NoExecute"}, {"effect": "NoSchedule", "timeAdded": "then"}]);
    let mut new = json!({"spec": {"devices": [{"name": "a"}, {"name": "b", "taints": taints}]}});
    stamp(slice, None, &mut new, || "now".to_owned());
    let taints = &new["spec"]["devices"][1]["taints"];
    assert_eq!((&taints[0]["timeAdded"], &taints[1]["timeAdded"]), (&json!("now"), &json!("then")));
}

#[test]
fn an_update_inherits_what_was_given_to_a_service() {
    let kind = REGISTRY.kind("v1", "Service").unwrap();
    let inherited = |old: Value, new: Value| {
        let (old, mut new) = (json!({"spec": old}), json!({"spec": new}));
        inherit(kind, &old, &mut new);
        new["spec"].take()
    };
    let old = json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]});
    assert_eq!(inherited(old.clone(), json!({})), old);
    assert_eq!(
        inherited(old.clone(), json!({"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.9"]})),
        json!({"type": "ClusterIP", "clusterIP": "10.96.0.8"})
    );
    let mut external = old.clone();
    external["type"] = "ExternalName".into();
    assert_eq!(inherited(old, external), json!({"type": "ExternalName"}));

    let ports = |port: Value| json!({"type": "NodePort", "ports": [port]});
    let open = json!({"port": 80, "protocol": "TCP", "nodePort": 30080});
    assert_eq!(inherited(ports(open.clone()), ports(json!({"port": 80}))), ports(open.clone()));
    let closed = inherited(ports(open.clone()), json!({"type": "ClusterIP", "ports": [open]}));
    assert_eq!(closed["ports"], json!([{"port": 80, "protocol": "TCP"}]));
}
