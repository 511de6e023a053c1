//! What a job makes: the order of its worker, a template for the claim on its device, and the pod of a try.
//!
//! The worker has no rights: it is whom its image says, nobody where a node has that, with no capabilities, a root that it cannot write, and no
//! token. Scratch volumes are everybody's. Folders of the machine (`hostPath`) are not: only where an output goes to one it is root,
//! still without capabilities, so that it may write what root owns and nothing else.
//!
//! Must never know: when any of it is made.

use std::{collections::BTreeSet, path::Path};

use claw_graph::order::Order;
use claw_runtime::owner;
use claw_schemas::api::{
    IMAGE, JOB_FINALIZER, JOB_LABEL, KernelDevice, KernelJob, KernelJobAttempt, KernelJobSpec, places,
};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Volume},
    resource::v1::ResourceClaimTemplate,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::attempts;
use crate::workers::WORKER;

/// The key of the order, and so its file.
const ORDER_KEY: &str = "order.json";

/// The claim on the device, and the request in it.
const DEVICE: &str = "device";

/// A worker that is told to stop has nothing to finish.
const GRACE_SECONDS: i64 = 5;

/// The order, as its worker reads it.
pub fn order_map(job: &KernelJob, order: &Order) -> ConfigMap {
    let text = serde_json::to_string(order).expect("an order has no keys but strings");
    typed(json!({
        "metadata": metadata(job, order_map_name(job)),
        "immutable": true,
        "data": {ORDER_KEY: text},
    }))
}

fn order_map_name(job: &KernelJob) -> String {
    format!("{}-order", name(job))
}

/// What a claim on the device is made from; none where no class is named.
pub fn claim_template(job: &KernelJob) -> Option<ResourceClaimTemplate> {
    let device = job.spec.device.as_ref()?;
    let class = device.class.as_ref()?;
    let selector = |expression: &String| json!({"cel": {"expression": expression}});
    let selectors: Vec<Value> = device.selectors.iter().map(selector).collect();
    let exactly = json!({"deviceClassName": class, "selectors": selectors});
    Some(typed(json!({
        "metadata": metadata(job, claim_template_name(job)),
        "spec": {"spec": {"devices": {"requests": [{"name": DEVICE, "exactly": exactly}]}}},
    })))
}

fn claim_template_name(job: &KernelJob) -> String {
    format!("{}-device", name(job))
}

/// The pod of a try, which may run for so many seconds.
pub fn pod(job: &KernelJob, attempt: &KernelJobAttempt, seconds_max: Option<i64>) -> Pod {
    let spec = &job.spec;
    let claims = claims(spec.device.as_ref());
    let volumes = Volumes::of(job);
    let mut resources = json!(spec.resources.clone().unwrap_or_default());
    if claims {
        resources["claims"] = json!([{"name": DEVICE}]);
    }
    let claim = json!([{"name": DEVICE, "resourceClaimTemplateName": claim_template_name(job)}]);
    let mut metadata = metadata(job, attempt.pod.clone());
    metadata["labels"] = json!({JOB_LABEL: name(job)});
    metadata["finalizers"] = json!([JOB_FINALIZER]);
    typed(json!({
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "activeDeadlineSeconds": seconds_max,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "nodeSelector": spec.node_selector,
            "tolerations": spec.tolerations,
            "priorityClassName": spec.priority_class_name,
            "affinity": affinity(job),
            "resourceClaims": claims.then_some(claim),
            "securityContext": identity(spec),
            "volumes": volumes.volumes,
            "containers": [{
                "name": WORKER,
                "image": IMAGE,
                "terminationMessagePolicy": "File",
                "resources": resources,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": volumes.mounts,
            }],
        },
    }))
}

fn claims(device: Option<&KernelDevice>) -> bool {
    device.is_some_and(|device| device.class.is_some())
}

/// Whom the worker runs as, where that is not for its image to say.
fn identity(spec: &KernelJobSpec) -> Value {
    let mut identity = json!({"seccompProfile": {"type": "RuntimeDefault"}});
    if writes_to_machine(spec) {
        identity["runAsUser"] = json!(0);
        identity["runAsGroup"] = json!(0);
    }
    identity
}

fn writes_to_machine(spec: &KernelJobSpec) -> bool {
    let written = written(spec);
    spec.volumes.iter().any(|volume| volume.host_path.is_some() && written.contains(volume.name.as_str()))
}

/// The volumes that outputs go to.
fn written(spec: &KernelJobSpec) -> BTreeSet<&str> {
    spec.outputs.iter().filter_map(|output| output.volume.as_ref()).map(|place| place.name.as_str()).collect()
}

/// Rather not where a try has failed before.
fn affinity(job: &KernelJob) -> Value {
    let attempts = job.status.as_ref().map_or(&[][..], |status| &status.attempts);
    let nodes = attempts::nodes_to_avoid(attempts);
    if nodes.is_empty() {
        return Value::Null;
    }
    let elsewhere = json!({"key": "metadata.name", "operator": "NotIn", "values": nodes});
    json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchFields": [elsewhere]}},
    ]}})
}

/// The pod's volumes, and where its container has them.
struct Volumes {
    volumes: Vec<Value>,
    mounts: Vec<Value>,
}

impl Volumes {
    fn of(job: &KernelJob) -> Self {
        let spec = &job.spec;
        let mut all = Self { volumes: Vec::new(), mounts: Vec::new() };
        let written = written(spec);
        for volume in &spec.volumes {
            let read_only = !written.contains(volume.name.as_str());
            all.mounts.push(json!({"name": volume.name, "mountPath": places::volume(&volume.name), "readOnly": read_only}));
            all.volumes.push(json!(volume));
        }
        let order = json!({"configMap": {"name": order_map_name(job)}});
        all.add(spec, "order", order, json!(Path::new(places::ORDER).parent()));
        for (number, input) in spec.inputs.iter().enumerate() {
            let Some(of) = &input.config_map else { continue };
            let source = json!({"configMap": {"name": of.name, "items": [{"key": of.key, "path": of.key}]}});
            all.add(spec, &format!("input-{number}"), source, json!(places::input(number)));
        }
        all
    }

    /// One that the job itself does not name.
    fn add(&mut self, spec: &KernelJobSpec, name: &str, mut volume: Value, path: Value) {
        let name = free_name(&spec.volumes, name);
        self.mounts.push(json!({"name": name, "mountPath": path, "readOnly": true}));
        volume["name"] = json!(name);
        self.volumes.push(volume);
    }
}

/// The name, or something like it, that no volume of the job has.
fn free_name(taken: &[Volume], name: &str) -> String {
    let mut name = format!("kernel-job-{name}");
    while taken.iter().any(|volume| volume.name == name) {
        name.push_str("-x");
    }
    name
}

fn metadata(job: &KernelJob, name: String) -> Value {
    json!({
        "name": name,
        "namespace": job.metadata.namespace,
        "ownerReferences": [owner::reference_to(job)],
    })
}

fn name(job: &KernelJob) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

fn typed<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("it is written as one of its kind is")
}
