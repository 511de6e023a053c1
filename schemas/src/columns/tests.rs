//! What `kubectl get` prints, in full, for objects in the states that people ask about.

mod kinds;

use serde_json::json;

use super::*;
use crate::Registry;

const NOW: &str = "2026-01-02T12:00:00Z";
const CREATED: &str = "2026-01-02T11:57:55Z"; // 2m5s ago

/// The line that `-o wide` prints, cells joined by ` | `.
fn line(api_version: &str, kind: &str, object: &Value) -> String {
    let registry = Registry::builtin();
    let descriptor = registry.kind(api_version, kind).unwrap();
    let cells = descriptor.cells.of(object, NOW.parse().unwrap());
    assert_eq!(cells.len(), descriptor.columns.len(), "as many cells as columns");
    let read = descriptor.row().read(object.to_string().as_bytes()).unwrap();
    let from_read = descriptor.cells.of(&read, NOW.parse().unwrap());
    assert_eq!(from_read, cells, "the cells look at more than the kind says");
    let texts: Vec<String> =
        cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect();
    texts.join(" | ")
}

fn header(api_version: &str, kind: &str) -> String {
    let registry = Registry::builtin();
    let columns = &registry.kind(api_version, kind).unwrap().columns;
    let shown = |wide: i32| {
        let names: Vec<_> =
            columns.iter().filter(|c| c.priority == wide).map(|c| c.name.to_uppercase()).collect();
        names.join(" ")
    };
    format!("{} + {}", shown(0), shown(1))
}

fn meta() -> Value {
    json!({"name": "x", "creationTimestamp": CREATED})
}

#[test]
fn headers_are_those_of_kubectl() {
    for (api_version, kind, expected) in [
        ("v1", "Pod", "NAME READY STATUS RESTARTS AGE + IP NODE NOMINATED NODE READINESS GATES"),
        (
            "v1",
            "Node",
            "NAME STATUS ROLES AGE VERSION + INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME",
        ),
        ("v1", "Namespace", "NAME STATUS AGE + "),
        ("v1", "ConfigMap", "NAME DATA AGE + "),
        ("v1", "Secret", "NAME TYPE DATA AGE + "),
        ("v1", "Event", "LAST SEEN TYPE REASON OBJECT MESSAGE + SUBOBJECT SOURCE FIRST SEEN COUNT NAME"),
        ("apps/v1", "Deployment", "NAME READY UP-TO-DATE AVAILABLE AGE + CONTAINERS IMAGES SELECTOR"),
        ("apps/v1", "ReplicaSet", "NAME DESIRED CURRENT READY AGE + CONTAINERS IMAGES SELECTOR"),
        ("coordination.k8s.io/v1", "Lease", "NAME HOLDER AGE + "),
        ("v1", "Service", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE + SELECTOR"),
        ("v1", "Endpoints", "NAME ENDPOINTS AGE + "),
        ("discovery.k8s.io/v1", "EndpointSlice", "NAME ADDRESSTYPE PORTS ENDPOINTS AGE + "),
        ("v1", "ServiceAccount", "NAME SECRETS AGE + "),
        ("v1", "ResourceQuota", "NAME REQUEST LIMIT AGE + "),
        ("v1", "LimitRange", "NAME CREATED AT + "),
        (
            "v1",
            "PersistentVolume",
            "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON AGE + VOLUMEMODE",
        ),
        (
            "v1",
            "PersistentVolumeClaim",
            "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE + VOLUMEMODE",
        ),
        ("v1", "PodTemplate", "NAME CONTAINERS IMAGES POD LABELS + "),
        ("v1", "ReplicationController", "NAME DESIRED CURRENT READY AGE + CONTAINERS IMAGES SELECTOR"),
        (
            "apps/v1",
            "DaemonSet",
            "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE + CONTAINERS IMAGES SELECTOR",
        ),
        ("apps/v1", "StatefulSet", "NAME READY AGE + CONTAINERS IMAGES"),
        ("apps/v1", "ControllerRevision", "NAME CONTROLLER REVISION AGE + "),
        ("batch/v1", "Job", "NAME STATUS COMPLETIONS DURATION AGE + CONTAINERS IMAGES SELECTOR"),
        (
            "batch/v1",
            "CronJob",
            "NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST SCHEDULE AGE + CONTAINERS IMAGES SELECTOR",
        ),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "NAME REFERENCE TARGETS MINPODS MAXPODS REPLICAS AGE + ",
        ),
        (
            "clawbernetes.io/v1",
            "KernelJob",
            "NAME OP DEVICE GFLOP/S STATE AGE + NODE MODEL RUNS MEDIAN ATTEMPTS PROGRESS",
        ),
        (
            "clawbernetes.io/v1",
            "DeviceCheck",
            "NAME DEVICE NODE MODEL LEVEL VERDICT AGE + PROGRESS OBJECTION",
        ),
        (
            "clawbernetes.io/v1",
            "DevicePolicy",
            "NAME LEVEL DEVICES FIT NOT FIT UNCHECKED AGE + RUNNING CLASS HOLD BACK EFFECT",
        ),
        ("policy/v1", "PodDisruptionBudget", "NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE + "),
        ("scheduling.k8s.io/v1", "PriorityClass", "NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY + "),
        (
            "storage.k8s.io/v1",
            "StorageClass",
            "NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE + ",
        ),
        ("networking.k8s.io/v1", "NetworkPolicy", "NAME POD-SELECTOR AGE + "),
        ("networking.k8s.io/v1", "Ingress", "NAME CLASS HOSTS ADDRESS PORTS AGE + "),
        ("networking.k8s.io/v1", "IngressClass", "NAME CONTROLLER PARAMETERS AGE + "),
        ("networking.k8s.io/v1", "IPAddress", "NAME PARENTREF + "),
        ("resource.k8s.io/v1", "ResourceSlice", "NAME NODE DRIVER POOL AGE + "),
        ("resource.k8s.io/v1", "DeviceClass", "NAME AGE + "),
        ("resource.k8s.io/v1", "ResourceClaim", "NAME STATE AGE + "),
        ("resource.k8s.io/v1", "ResourceClaimTemplate", "NAME AGE + "),
        ("resource.k8s.io/v1beta2", "DeviceTaintRule", "NAME AGE + "),
        ("rbac.authorization.k8s.io/v1", "Role", "NAME CREATED AT + "),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", "NAME ROLE AGE + USERS GROUPS SERVICEACCOUNTS"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", "NAME CREATED AT + "),
        (
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            "NAME ROLE AGE + USERS GROUPS SERVICEACCOUNTS",
        ),
        (
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            "NAME AGE SIGNERNAME REQUESTOR REQUESTEDDURATION CONDITION + ",
        ),
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "NAME WEBHOOKS AGE + "),
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "NAME WEBHOOKS AGE + "),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "NAME VALIDATIONS PARAMKIND AGE + "),
        ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", "NAME MUTATIONS PARAMKIND AGE + "),
        (
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicyBinding",
            "NAME POLICYNAME PARAMREF AGE + ",
        ),
    ] {
        assert_eq!(header(api_version, kind), expected);
    }
}

/// A pod with two containers and these statuses; everything else is the same in all cases.
fn pod(spec: Value, status: Value) -> Value {
    let mut spec = spec;
    spec["containers"] = json!([{"name": "a"}, {"name": "b"}]);
    json!({"metadata": meta(), "spec": spec, "status": status})
}

fn running(ready: bool) -> Value {
    json!({"ready": ready, "restartCount": 0, "state": {"running": {"startedAt": CREATED}}})
}

fn waiting(reason: &str) -> Value {
    json!({"ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}})
}

fn ended(exit_code: i32, reason: &str) -> Value {
    json!({"ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": exit_code, "reason": reason}}})
}

/// (READY, STATUS) of a pod.
fn ready_and_status(pod: &Value) -> String {
    let line = line("v1", "Pod", pod);
    let mut cells = line.split(" | ").skip(1);
    format!("{} {}", cells.next().unwrap(), cells.next().unwrap())
}

#[test]
fn a_pod_line_is_complete() {
    let object = pod(
        json!({"nodeName": "n1", "readinessGates": [{"conditionType": "g"}, {"conditionType": "h"}]}),
        json!({
            "phase": "Running",
            "podIP": "10.0.0.7",
            "conditions": [{"type": "g", "status": "True"}],
            "containerStatuses": [
                {"ready": true, "restartCount": 2, "state": {"running": {}},
                 "lastState": {"terminated": {"finishedAt": "2026-01-02T11:58:00Z"}}},
                {"ready": false, "restartCount": 1, "state": {"running": {}},
                 "lastState": {"terminated": {"finishedAt": "2026-01-02T11:00:00Z"}}},
            ],
        }),
    );
    assert_eq!(
        line("v1", "Pod", &object),
        "x | 1/2 | Running | 3 (2m ago) | 2m5s | 10.0.0.7 | n1 | <none> | 1/2"
    );
}

#[test]
fn the_status_of_a_pod_is_what_its_containers_are_up_to() {
    let cases = [
        (json!({"phase": "Pending"}), "0/2 Pending"),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            "0/2 SchedulingGated",
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [waiting("ContainerCreating"), waiting("ContainerCreating")]}),
            "0/2 ContainerCreating",
        ),
        (json!({"phase": "Running", "containerStatuses": [running(true), running(true)]}), "2/2 Running"),
        (
            json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff"), running(true)]}),
            "1/2 CrashLoopBackOff",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [waiting("ImagePullBackOff"), ended(1, "Error")]}),
            "0/2 ImagePullBackOff",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed"), ended(0, "Completed")]}),
            "0/2 Completed",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended(1, "Error"), ended(0, "Completed")]}),
            "0/2 Error",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended(137, "OOMKilled"), running(true)]}),
            "1/2 OOMKilled",
        ),
        (json!({"phase": "Failed", "containerStatuses": [ended(3, "")]}), "0/2 ExitCode:3"),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
            "0/2 Signal:9",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), running(true)],
                   "conditions": [{"type": "Ready", "status": "True"}]}),
            "1/2 Running",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), running(true)]}),
            "1/2 NotReady",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "0/2 Evicted"),
    ];
    for (status, expected) in cases {
        assert_eq!(ready_and_status(&pod(json!({}), status.clone())), expected, "{status}");
    }
}

#[test]
fn initialization_is_told_step_by_step() {
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}]});
    let named = |name: &str, mut status: Value| {
        status["name"] = name.into();
        status
    };
    let cases = [
        (json!([waiting("PodInitializing"), waiting("PodInitializing")]), "0/2 Init:0/2"),
        (json!([named("i", ended(0, "Completed")), named("j", running(false))]), "0/2 Init:1/2"),
        (json!([waiting("CrashLoopBackOff")]), "0/2 Init:CrashLoopBackOff"),
        (json!([ended(1, "Error")]), "0/2 Init:Error"),
        (json!([ended(2, "")]), "0/2 Init:ExitCode:2"),
    ];
    for (init, expected) in cases {
        let status = json!({
            "phase": "Pending",
            "initContainerStatuses": init,
            "containerStatuses": [waiting("PodInitializing"), waiting("PodInitializing")],
        });
        assert_eq!(ready_and_status(&pod(spec.clone(), status)), expected, "{init}");
    }
    let done = json!({
        "phase": "Running",
        "initContainerStatuses": [ended(0, "Completed"), ended(0, "Completed")],
        "containerStatuses": [running(true), running(true)],
    });
    assert_eq!(ready_and_status(&pod(spec, done)), "2/2 Running");
}

#[test]
fn a_sidecar_counts_among_the_containers() {
    let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}]});
    let status = json!({
        "phase": "Running",
        "initContainerStatuses": [{"name": "s", "ready": true, "started": true, "restartCount": 4, "state": {"running": {}}}],
        "containerStatuses": [running(true), running(true)],
    });
    let line = line("v1", "Pod", &pod(spec, status));
    assert!(line.starts_with("x | 3/3 | Running | 4 | "), "{line}");
}

#[test]
fn a_pod_that_is_deleted_terminates_unless_it_has_ended_or_its_node_is_lost() {
    for (status, expected) in [
        (json!({"phase": "Running", "containerStatuses": [running(true), running(true)]}), "2/2 Terminating"),
        (json!({"phase": "Running", "reason": "NodeLost"}), "0/2 Unknown"),
        (json!({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}), "0/2 Completed"),
    ] {
        let mut object = pod(json!({}), status);
        object["metadata"]["deletionTimestamp"] = NOW.into();
        assert_eq!(ready_and_status(&object), expected);
    }
}

#[test]
fn workloads_count_their_pods() {
    let spec = json!({
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]},
        "template": {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:2"}]}},
    });
    let status = json!({"replicas": 4, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2});
    let object = json!({"metadata": meta(), "spec": spec, "status": status});
    assert_eq!(
        line("apps/v1", "Deployment", &object),
        "x | 2/3 | 1 | 2 | 2m5s | a,b | a:1,b:2 | app=web,tier in (a,b)"
    );
    assert_eq!(
        line("apps/v1", "ReplicaSet", &object),
        "x | 3 | 4 | 2 | 2m5s | a,b | a:1,b:2 | app=web,tier in (a,b)"
    );
    let bare = json!({"metadata": meta(), "spec": {"replicas": 1}});
    assert_eq!(line("apps/v1", "Deployment", &bare), "x | 0/1 | 0 | 0 | 2m5s |  |  | <error>");
}

#[test]
fn nodes_tell_readiness_roles_and_addresses() {
    let mut object = json!({
        "metadata": {"name": "x", "creationTimestamp": CREATED, "labels": {
            "node-role.kubernetes.io/gpu": "", "node-role.kubernetes.io/control-plane": "", "other": "1",
        }},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
            "addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v0.1.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "claw://0.1"},
        },
    });
    assert_eq!(
        line("v1", "Node", &object),
        "x | Ready,SchedulingDisabled | control-plane,gpu | 2m5s | v0.1.0 | 10.0.0.1 | <none> | Debian | 6.1 | claw://0.1"
    );
    object["status"]["conditions"][1]["status"] = "Unknown".into();
    assert!(line("v1", "Node", &object).starts_with("x | NotReady,"));
    let bare = json!({"metadata": meta()});
    assert_eq!(
        line("v1", "Node", &bare),
        "x | Unknown | <none> | 2m5s |  | <none> | <none> | <unknown> | <unknown> | <unknown>"
    );
}

#[test]
fn the_small_kinds_print_their_essence() {
    for (kind, object, expected) in [
        ("Namespace", json!({"metadata": meta(), "status": {"phase": "Active"}}), "x | Active | 2m5s"),
        (
            "ConfigMap",
            json!({"metadata": meta(), "data": {"a": "1"}, "binaryData": {"b": "", "c": ""}}),
            "x | 3 | 2m5s",
        ),
        ("Secret", json!({"metadata": meta(), "type": "Opaque", "data": {"a": ""}}), "x | Opaque | 1 | 2m5s"),
    ] {
        assert_eq!(line("v1", kind, &object), expected);
    }
    let lease = json!({"metadata": meta(), "spec": {"holderIdentity": "me"}});
    assert_eq!(line("coordination.k8s.io/v1", "Lease", &lease), "x | me | 2m5s");
}

#[test]
fn events_tell_when_in_all_three_ways() {
    let about = json!({"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"});
    let classic = json!({
        "metadata": meta(), "involvedObject": about, "type": "Warning", "reason": "BackOff", "message": " again\n",
        "source": {"component": "kubelet", "host": "n1"}, "count": 4,
        "firstTimestamp": CREATED, "lastTimestamp": "2026-01-02T11:59:30Z",
    });
    assert_eq!(
        line("v1", "Event", &classic),
        "30s | Warning | BackOff | pod/p | spec.containers{c} | kubelet, n1 | again | 2m5s | 4 | x"
    );
    let modern = json!({
        "metadata": meta(), "involvedObject": {"kind": "Node"}, "type": "Normal", "reason": "R", "message": "m",
        "reportingComponent": "scheduler", "eventTime": "2026-01-02T11:59:00.000000Z",
    });
    assert_eq!(line("v1", "Event", &modern), "60s | Normal | R | node |  | scheduler | m | 60s | 1 | x");
    let series = json!({
        "metadata": meta(), "involvedObject": {"kind": "Node"}, "type": "Normal", "reason": "R", "message": "m",
        "reportingComponent": "scheduler", "eventTime": "2026-01-02T11:59:00.000000Z",
        "series": {"count": 9, "lastObservedTime": "2026-01-02T11:59:55.000000Z"},
    });
    assert_eq!(line("v1", "Event", &series), "5s | Normal | R | node |  | scheduler | m | 60s | 9 | x");
}
