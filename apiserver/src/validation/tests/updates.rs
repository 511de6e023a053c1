//! What may not change once it is, and what may.

use super::{sound::object, *};

/// Changes one place of a sound object and tells what is said.
fn change(kind: &str, pointer: &str, value: &Value) -> Vec<String> {
    let (api_version, old) = object(kind);
    let mut new = prepared(REGISTRY.kind(api_version, kind).unwrap(), &old);
    set(&mut new, pointer, value);
    faults_of_update(api_version, kind, &old, &new)
}

#[test]
fn what_is_settled_stays() {
    let other = json!({"matchLabels": {"app": "b"}});
    for (kind, pointer, value, expected) in [
        (
            "DaemonSet",
            "/spec/selector",
            other.clone(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable",
        ),
        (
            "StatefulSet",
            "/spec/serviceName",
            json!("b"),
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas'",
        ),
        (
            "StatefulSet",
            "/spec/podManagementPolicy",
            json!("Parallel"),
            "spec: Forbidden: updates to statefulset spec",
        ),
        ("Job", "/spec/completions", json!(5), "spec.completions: Invalid value: 5: field is immutable"),
        ("Job", "/spec/template/spec/containers/0/image", json!("i:2"), "spec.template: Invalid value"),
        (
            "Job",
            "/spec/completionMode",
            json!("Indexed"),
            "spec.completionMode: Invalid value: \"Indexed\": field is immutable",
        ),
        (
            "EndpointSlice",
            "/addressType",
            json!("IPv6"),
            "addressType: Invalid value: \"IPv6\": field is immutable",
        ),
        (
            "ControllerRevision",
            "/data",
            json!({"a": 2}),
            "data: Invalid value: {\"a\":2}: field is immutable",
        ),
        ("PriorityClass", "/value", json!(6), "value: Forbidden: may not be changed in an update."),
        (
            "StorageClass",
            "/parameters",
            json!({"a": "b"}),
            "parameters: Forbidden: updates to parameters are forbidden.",
        ),
        ("PersistentVolume", "/spec/hostPath/path", json!("/e"), "spec.persistentvolumesource: Forbidden"),
        (
            "PersistentVolumeClaim",
            "/spec/accessModes",
            json!(["ReadOnlyMany"]),
            "spec: Forbidden: spec is immutable after creation except",
        ),
        (
            "PersistentVolumeClaim",
            "/spec/resources/requests/storage",
            json!("2Gi"),
            "spec: Forbidden: spec is immutable after creation except",
        ),
        ("ResourceQuota", "/spec/scopes", json!(["Terminating"]), "spec.scopes: Invalid value"),
        (
            "IngressClass",
            "/spec/controller",
            json!("a.b/d"),
            "spec.controller: Invalid value: \"a.b/d\": field is immutable",
        ),
        ("IPAddress", "/spec/parentRef/name", json!("t"), "spec.parentRef: Invalid value"),
        (
            "ResourceSlice",
            "/spec/nodeName",
            json!("m"),
            "spec.nodeName: Invalid value: \"m\": field is immutable",
        ),
        (
            "ResourceSlice",
            "/spec/pool/name",
            json!("q"),
            "spec.pool.name: Invalid value: \"q\": field is immutable",
        ),
        ("ResourceClaim", "/spec/devices/requests/0/exactly/count", json!(2), "spec: Invalid value"),
        ("ResourceClaimTemplate", "/spec/metadata", json!({"labels": {"a": "b"}}), "spec: Invalid value"),
        ("KernelJob", "/spec/operations/1/axis", json!(0), "spec.operations: Invalid value"),
        (
            "KernelJob",
            "/spec/backoffLimit",
            json!(3),
            "spec.backoffLimit: Invalid value: 3: field is immutable",
        ),
        ("KernelJob", "/spec/device", Value::Null, "spec.device: Invalid value"),
        ("KernelJob", "/spec/activeDeadlineSeconds", json!(0), "spec.activeDeadlineSeconds: Invalid value"),
        ("DeviceCheck", "/spec/device/name", json!("gpu-b"), "spec.device: Invalid value"),
        (
            "DeviceCheck",
            "/spec/level",
            json!("Quick"),
            "spec.level: Invalid value: \"Quick\": field is immutable",
        ),
        ("DeviceCheck", "/spec/minimums", json!({}), "spec.minimums: Invalid value"),
        ("RoleBinding", "/roleRef/name", json!("q"), "roleRef: Invalid value"),
        ("ClusterRoleBinding", "/roleRef/name", json!("q"), "roleRef: Invalid value"),
    ] {
        let faults = change(kind, pointer, &value);
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{kind} {pointer}: {faults:#?}");
    }
}

#[test]
fn what_is_not_settled_may_change() {
    for (kind, pointer, value) in [
        ("StatefulSet", "/spec/replicas", json!(5)),
        ("StatefulSet", "/spec/template/spec/containers/0/image", json!("i:2")),
        ("DaemonSet", "/spec/template/spec/containers/0/image", json!("i:2")),
        ("Job", "/spec/parallelism", json!(5)),
        ("Job", "/spec/suspend", json!(true)),
        ("Job", "/spec/backoffLimit", json!(1)),
        ("DeviceCheck", "/spec/ttlSecondsAfterFinished", json!(5)),
        ("DevicePolicy", "/spec/level", json!("Full")),
        ("DevicePolicy", "/spec/minimums", json!({})),
        ("KernelJob", "/spec/suspend", json!(true)),
        ("KernelJob", "/spec/ttlSecondsAfterFinished", json!(0)),
        ("KernelJob", "/spec/activeDeadlineSeconds", json!(7)),
        ("KernelJob", "/spec/inputs/0/values", json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.5])),
        ("PersistentVolumeClaim", "/spec/volumeName", json!("v")),
        ("PersistentVolumeClaim", "/spec/storageClassName", json!("fast")),
        ("PersistentVolume", "/spec/persistentVolumeReclaimPolicy", json!("Delete")),
        ("PriorityClass", "/description", json!("d")),
        ("StorageClass", "/allowVolumeExpansion", json!(true)),
        ("RoleBinding", "/subjects", json!([])),
        ("ResourceSlice", "/spec/devices", json!([])),
        ("DeviceTaintRule", "/spec/taint/effect", json!("None")),
        ("DeviceTaintRule", "/spec/deviceSelector", json!({})),
        ("DeviceTaintRule", "/spec/deviceSelector", Value::Null),
        ("ResourceQuota", "/spec/hard", json!({"pods": "9"})),
    ] {
        assert_eq!(change(kind, pointer, &value), Vec::<String>::new(), "{kind} {pointer}");
    }
}

#[test]
fn a_bound_claim_grows_and_does_not_shrink() {
    let (api_version, mut old) = object("PersistentVolumeClaim");
    old["spec"]["resources"]["requests"]["storage"] = "5Gi".into();
    old["status"] = json!({"phase": "Bound", "capacity": {"storage": "5Gi"}});
    let resized = |size: &str| {
        let mut new = old.clone();
        new["spec"]["resources"]["requests"]["storage"] = size.into();
        faults_of_update(api_version, "PersistentVolumeClaim", &old, &new)
    };
    assert_eq!(resized("9Gi"), Vec::<String>::new());
    assert_eq!(
        resized("1Gi"),
        ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
    );
}

#[test]
fn a_suspended_job_may_still_be_told_where_to_run() {
    let (api_version, mut old) = object("Job");
    old["spec"]["suspend"] = true.into();
    let mut new = prepared(REGISTRY.kind(api_version, "Job").unwrap(), &old);
    new["spec"]["template"]["spec"]["nodeSelector"] = json!({"gpu": "yes"});
    assert_eq!(faults_of_update(api_version, "Job", &old, &new), Vec::<String>::new());
    old["status"] = json!({"startTime": "2026-01-02T03:04:05Z"});
    let faults = faults_of_update(api_version, "Job", &old, &new);
    assert!(faults[0].starts_with("spec.template: Invalid value"), "{faults:#?}");
}

#[test]
fn an_indexed_job_that_works_all_at_once_may_grow() {
    let (api_version, mut old) = object("Job");
    for (field, value) in
        [("completionMode", json!("Indexed")), ("completions", json!(2)), ("parallelism", json!(2))]
    {
        old["spec"][field] = value;
    }
    let mut new = old.clone();
    new["spec"]["completions"] = 4.into();
    new["spec"]["parallelism"] = 4.into();
    assert_eq!(faults_of_update(api_version, "Job", &old, &new), Vec::<String>::new());
    new["spec"]["parallelism"] = 3.into();
    assert_eq!(
        faults_of_update(api_version, "Job", &old, &new),
        ["spec.completions: Invalid value: 4: field is immutable"]
    );
}

#[test]
fn a_decision_about_a_request_is_made_once() {
    let (api_version, old) = object("CertificateSigningRequest");
    let with = |conditions: Value| {
        let mut object = old.clone();
        object["status"] = json!({"conditions": conditions});
        object
    };
    let approved = with(json!([{"type": "Approved", "status": "True"}]));
    let judged =
        |old: &Value, new: &Value| faults_of_update(api_version, "CertificateSigningRequest", old, new);
    assert_eq!(judged(&old, &approved), Vec::<String>::new());
    assert_eq!(
        judged(&approved, &with(json!([]))),
        ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
    );
    let both = with(json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]));
    assert!(judged(&approved, &both)[0].ends_with("Approved and Denied conditions are mutually exclusive"));
    let unsure = with(json!([{"type": "Approved", "status": "Unknown"}]));
    assert_eq!(
        judged(&old, &unsure),
        ["status.conditions[0].status: Unsupported value: \"Unknown\": supported values: \"True\""]
    );
}
