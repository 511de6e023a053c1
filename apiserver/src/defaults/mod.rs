//! Fills in what a manifest may leave out, so that stored objects say everything explicitly.
//!
//! Source of the values: the API reference of each kind ("Defaults to ...") and what `kube-apiserver` stores.
//! Pure: looks only at the object. Runs on create and on every update, before validation, on objects that
//! [`claw_schemas::schema::Schema::normalize`] has brought into stored form. Applying it twice changes nothing.
//!
//! Must never know: who asks, and what else is stored.

mod admission;
mod batch;
mod device;
mod device_check;
mod kernel_job;
mod networking;
mod pod;
mod qos;
mod scaling;
mod service;
mod storage;
mod workload;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use claw_schemas::{Descriptor, api};
use serde_json::{Map, Value, json};

use crate::custom;

type Object = Map<String, Value>;

/// Fills in one kind.
type Filler = fn(&mut Object);

/// Kinds that have defaults.
static FILLERS: &[(&str, &str, Filler)] = &[
    ("", "Pod", pod::pod),
    ("", "Node", node),
    ("", "Secret", secret),
    ("", "Namespace", namespace),
    ("apps", "Deployment", workload::deployment),
    ("apps", "ReplicaSet", workload::replica_set),
    ("apps", "DaemonSet", workload::daemon_set),
    ("apps", "StatefulSet", workload::stateful_set),
    ("", "ReplicationController", workload::replication_controller),
    ("", "PodTemplate", workload::pod_template),
    ("batch", "Job", batch::job),
    ("batch", "CronJob", batch::cron_job),
    ("", "Service", service::service),
    ("", "Endpoints", service::endpoints),
    ("discovery.k8s.io", "EndpointSlice", service::endpoint_slice),
    ("", "LimitRange", scaling::limit_range),
    ("autoscaling", "HorizontalPodAutoscaler", scaling::horizontal_pod_autoscaler),
    ("policy", "PodDisruptionBudget", scaling::pod_disruption_budget),
    ("scheduling.k8s.io", "PriorityClass", scaling::priority_class),
    ("", "PersistentVolume", storage::volume),
    ("", "PersistentVolumeClaim", storage::claim),
    ("storage.k8s.io", "StorageClass", storage::class),
    ("networking.k8s.io", "NetworkPolicy", networking::network_policy),
    ("networking.k8s.io", "Ingress", networking::ingress),
    ("networking.k8s.io", "IngressClass", networking::ingress_class),
    ("rbac.authorization.k8s.io", "RoleBinding", role_binding),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", role_binding),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", admission::validating_webhooks),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", admission::mutating_webhooks),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", admission::policy),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", admission::policy_binding),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", admission::mutating_policy),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", admission::policy_binding),
    ("resource.k8s.io", "ResourceClaim", device::claim),
    ("resource.k8s.io", "ResourceClaimTemplate", device::claim_template),
    (api::GROUP, "KernelJob", kernel_job::kernel_job),
    (api::GROUP, "DeviceCheck", device_check::check),
    (api::GROUP, "DevicePolicy", device_check::policy),
    (custom::GROUP, "CustomResourceDefinition", custom::defaults),
];

/// Fills in the defaults of a kind.
pub fn apply(kind: &Descriptor, object: &mut Value) {
    let Value::Object(object) = object else { return };
    let filler = FILLERS.iter().find(|(group, name, _)| *group == kind.group && *name == kind.kind);
    if let Some((_, _, fill)) = filler {
        fill(object);
    }
}

/// What an update that says nothing about it keeps of the object it replaces. Runs before [`apply`].
pub fn inherit(kind: &Descriptor, old: &Value, new: &mut Value) {
    let Value::Object(new) = new else { return };
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => pod::inherit(&old["spec"], child(new, "spec")),
        ("", "Service") => service::inherit(&old["spec"], child(new, "spec")),
        // What was asked for, and by whom, stays: only the answer changes.
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            new.insert("spec".to_owned(), old["spec"].clone());
        }
        _ => {}
    }
}

/// Fills in what is not for the writer to say, and so is nobody's own in `managedFields`: what upstream leaves to
/// admission and to the storage of a kind. Runs after [`apply`].
pub fn admit(kind: &Descriptor, object: &mut Value) {
    let Value::Object(object) = object else { return };
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => pod::admit(object),
        ("", "Namespace") => hold_namespace(object),
        ("batch", "Job") => batch::admit(object),
        _ => {}
    }
}

/// Stamps taints of devices with the time of the write, as far as the writer says none: those that are new, and, of a rule,
/// one that has another effect now. Runs beside [`admit`]; `now` is asked if something is to be stamped.
pub fn stamp(kind: &Descriptor, old: Option<&Value>, new: &mut Value, now: impl Fn() -> String) {
    if kind.group == "resource.k8s.io" {
        match &*kind.kind {
            "DeviceTaintRule" => device::stamp_rule(old, new, now),
            "ResourceSlice" => device::stamp_slice(new, now),
            _ => {}
        }
    }
}

/// The quality-of-service class of a pod with this spec.
pub(crate) fn qos_class(spec: &Object) -> &'static str {
    qos::class(spec)
}

/// Users and groups are names in RBAC's own group, accounts are objects of the core group.
fn role_binding(object: &mut Object) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    text(child(object, "roleRef"), "apiGroup", GROUP);
    for subject in items(object, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            text(subject, "apiGroup", GROUP);
        }
    }
}

/// A namespace says its own name in a label.
fn namespace(object: &mut Object) {
    let name = object.get("metadata").and_then(|meta| meta.get("name")).cloned();
    if let Some(name) = name.filter(|name| name.as_str().is_some_and(|name| !name.is_empty())) {
        child(child(object, "metadata"), "labels").insert("kubernetes.io/metadata.name".to_owned(), name);
    }
    child(object, "spec");
    text(child(object, "status"), "phase", "Active");
}

/// A namespace holds on to itself until its contents are gone.
fn hold_namespace(object: &mut Object) {
    let deleting = object.get("metadata").is_some_and(|meta| meta.get("deletionTimestamp").is_some());
    let spec = child(object, "spec");
    if !deleting && is_unset(spec.get("finalizers")) {
        spec.insert("finalizers".to_owned(), json!(["kubernetes"]));
    }
}

/// What a node does not reserve is allocatable.
fn node(object: &mut Object) {
    child(object, "spec");
    let status = child(object, "status");
    if let Some(capacity) = status.get("capacity").cloned() {
        status.entry("allocatable").or_insert(capacity);
    }
}

/// `stringData` is for writing only: its texts overwrite the keys of `data`.
fn secret(object: &mut Object) {
    text(object, "type", "Opaque");
    let Some(Value::Object(plain)) = object.remove("stringData") else { return };
    if plain.is_empty() {
        return;
    }
    let data = child(object, "data");
    for (key, value) in plain {
        data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
    }
}

/// Absent, or the zero value that means the same.
fn is_unset(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// Sets a text that is absent or empty.
fn text(object: &mut Object, name: &str, default: &str) {
    if is_unset(object.get(name)) {
        object.insert(name.to_owned(), default.into());
    }
}

/// Sets a value that is absent; zero and empty mean what they say.
fn value(object: &mut Object, name: &str, default: impl Into<Value>) {
    object.entry(name).or_insert_with(|| default.into());
}

/// Sets a number that is absent or zero.
fn positive(object: &mut Object, name: &str, default: i64) {
    if object.get(name).is_none_or(|number| number.as_i64() == Some(0)) {
        object.insert(name.to_owned(), default.into());
    }
}

/// The object under a name, made if absent. Checked objects hold no other type there.
fn child<'o>(object: &'o mut Object, name: &str) -> &'o mut Object {
    let slot = object.entry(name).or_insert_with(|| Value::Object(Object::new()));
    if !slot.is_object() {
        *slot = Value::Object(Object::new());
    }
    slot.as_object_mut().expect("just made an object")
}

/// The object under a name, if there is one.
fn existing<'o>(object: &'o mut Object, name: &str) -> Option<&'o mut Object> {
    object.get_mut(name)?.as_object_mut()
}

/// The objects in the list under a name.
fn items<'o>(object: &'o mut Object, name: &str) -> impl Iterator<Item = &'o mut Object> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests;
