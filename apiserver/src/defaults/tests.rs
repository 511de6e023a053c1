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
    apply(descriptor, &mut object);
    admit(descriptor, &mut object);
    let once = object.clone();
    assert_eq!(descriptor.compiled().check(&object), claw_schemas::schema::Report::default());
    apply(descriptor, &mut object);
    admit(descriptor, &mut object);
    assert_eq!(object, once, "defaulting twice must change nothing");
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
    assert_eq!(spec["priority"], 0);
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
