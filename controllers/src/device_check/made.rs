//! What a check makes: the claim on its device, and the pod that looks at it.
//!
//! The claim bears every taint: a device that is kept from everybody is looked at to find out whether it still must be. The pod has no rights,
//! as those of kernel jobs, waits until the device is free, and asks for nothing else: whoever needs the room has it.

use claw_graph::{
    order::Backend,
    qualification::{Level, VERB},
};
use claw_runtime::owner;
use claw_schemas::{
    api::{CHECK_LABEL, CHECK_PRIORITY, DeviceCheck, DeviceFacts, IMAGE},
    gpu,
};
use k8s_openapi::api::{core::v1::Pod, resource::v1::ResourceClaim};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::NAMESPACE;
use crate::workers::WORKER;

/// The program, in the image of workers.
const PROGRAM: &str = "/clawbernetes";

/// The claim of the pod, and the request in it.
const DEVICE: &str = "device";

/// A worker that is told to stop has nothing to finish.
const GRACE_SECONDS: i64 = 5;

/// What looking may take when the check does not say.
const TIMEOUT_SECONDS_DEFAULT: i32 = 900;

/// The claim on the device with these facts, and on no other.
pub fn claim(check: &DeviceCheck, facts: &DeviceFacts) -> ResourceClaim {
    // A JSON string is one of CEL.
    let (driver, uuid) = (json!(check.spec.device.driver), json!(facts.uuid));
    let is_it = format!("device.attributes[{driver}].uuid == {uuid}");
    let exactly = json!({
        "deviceClassName": gpu::ANY_CLASS,
        "selectors": [{"cel": {"expression": is_it}}],
        "tolerations": [{"operator": "Exists"}],
    });
    typed(json!({
        "metadata": metadata(check),
        "spec": {"devices": {"requests": [{"name": DEVICE, "exactly": exactly}]}},
    }))
}

/// The pod that looks at it, by that way.
pub fn pod(check: &DeviceCheck, facts: &DeviceFacts, backend: Backend) -> Pod {
    let level = check.spec.level.as_deref().and_then(Level::of).unwrap_or_default();
    let here = json!({"key": "metadata.name", "operator": "In", "values": [facts.node]});
    let on_node = json!({"nodeSelectorTerms": [{"matchFields": [here]}]});
    typed(json!({
        "metadata": metadata(check),
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "activeDeadlineSeconds": check.spec.timeout_seconds.unwrap_or(TIMEOUT_SECONDS_DEFAULT),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "priorityClassName": CHECK_PRIORITY,
            "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": on_node}},
            "resourceClaims": [{"name": DEVICE, "resourceClaimName": name(check)}],
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": WORKER,
                "image": IMAGE,
                "command": [PROGRAM, VERB, level.name(), backend.name()],
                "terminationMessagePolicy": "File",
                "resources": {"claims": [{"name": DEVICE}]},
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    }))
}

fn metadata(check: &DeviceCheck) -> Value {
    json!({
        "name": name(check),
        "namespace": NAMESPACE,
        "labels": {CHECK_LABEL: name(check)},
        "ownerReferences": [owner::reference_to(check)],
    })
}

fn name(check: &DeviceCheck) -> &str {
    check.metadata.name.as_deref().unwrap_or_default()
}

fn typed<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("it is written as one of its kind is")
}
