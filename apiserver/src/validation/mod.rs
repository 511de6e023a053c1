//! Says what is wrong with an object, field by field, in the words that `kube-apiserver` uses.
//!
//! Pure: looks only at the object and, on updates, at the one it replaces. Objects come here well typed
//! ([`claw_schemas::schema::Schema::check`]) and with their defaults filled in. A part that an update leaves as it was
//! is not judged again, so that a rule of today never locks an object of yesterday.
//!
//! Must never know: who asks, and what else is stored.

mod admission;
mod autoscaling;
mod batch;
mod certificates;
pub(crate) mod common;
mod config;
mod container;
mod cron;
mod device;
mod device_check;
mod env;
mod ephemeral;
mod event;
pub(crate) mod faults;
mod kernel_job;
mod limits;
mod meta;
pub(crate) mod names;
mod networking;
mod pod;
mod pod_update;
mod policy;
mod probe;
mod quota;
mod rbac;
mod resources;
mod scheduling;
mod service;
mod small;
mod storage;
mod volume;
mod workload;

use claw_schemas::{Descriptor, api, status::Cause};
use serde_json::Value;

use self::{
    common::{
        amount, at_least, between, conditions, distinct, each, fits, immutable, is_empty, is_set, is_zero,
        len, named, not_negative, one_of, optional_one_of, percent, port, port_number, required_one_of,
        share, text,
    },
    faults::Faults,
};
use crate::custom;

/// Judges an object, and what it changes where it replaces an old one.
type Judge = fn(old: Option<&Value>, new: &Value, faults: &mut Faults);

const ADMISSION: &str = "admissionregistration.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";

/// Kinds with rules beyond those about metadata.
static JUDGES: &[(&str, &str, Judge)] = &[
    ("", "Pod", pod::judge),
    ("", "Event", event::core),
    ("events.k8s.io", "Event", event::newer),
    ("", "Node", small::node),
    ("coordination.k8s.io", "Lease", small::lease),
    ("", "ConfigMap", config::config_map),
    ("", "Secret", config::secret),
    ("", "Namespace", small::namespace),
    ("apps", "Deployment", workload::deployment),
    ("apps", "ReplicaSet", workload::replica_set),
    ("apps", "DaemonSet", workload::daemon_set),
    ("apps", "StatefulSet", workload::stateful_set),
    ("apps", "ControllerRevision", small::controller_revision),
    ("batch", "Job", batch::job),
    ("batch", "CronJob", batch::cron_job),
    ("", "Service", service::service),
    ("", "Endpoints", service::endpoints),
    ("discovery.k8s.io", "EndpointSlice", service::endpoint_slice),
    ("", "ResourceQuota", quota::resource_quota),
    ("", "LimitRange", limits::limit_range),
    ("", "PersistentVolume", storage::volume),
    ("", "PersistentVolumeClaim", storage::claim),
    ("", "PodTemplate", workload::pod_template),
    ("", "ReplicationController", workload::replication_controller),
    ("autoscaling", "HorizontalPodAutoscaler", autoscaling::horizontal_pod_autoscaler),
    ("policy", "PodDisruptionBudget", policy::pod_disruption_budget),
    ("scheduling.k8s.io", "PriorityClass", policy::priority_class),
    ("storage.k8s.io", "StorageClass", storage::class),
    (NETWORKING, "NetworkPolicy", networking::network_policy),
    (NETWORKING, "Ingress", networking::ingress::ingress),
    (NETWORKING, "IngressClass", networking::ingress::class),
    (NETWORKING, "IPAddress", networking::ip_address),
    (RBAC, "Role", rbac::role),
    (RBAC, "ClusterRole", rbac::cluster_role),
    (RBAC, "RoleBinding", rbac::role_binding),
    (RBAC, "ClusterRoleBinding", rbac::cluster_role_binding),
    ("certificates.k8s.io", "CertificateSigningRequest", certificates::signing_request),
    (ADMISSION, "ValidatingWebhookConfiguration", admission::webhooks),
    (ADMISSION, "MutatingWebhookConfiguration", admission::webhooks),
    (ADMISSION, "ValidatingAdmissionPolicy", admission::policy::policy),
    (ADMISSION, "ValidatingAdmissionPolicyBinding", admission::policy::binding),
    (ADMISSION, "MutatingAdmissionPolicy", admission::policy::mutating),
    (ADMISSION, "MutatingAdmissionPolicyBinding", admission::policy::mutating_binding),
    (RESOURCE, "ResourceSlice", device::slice::slice),
    (RESOURCE, "DeviceClass", device::class),
    (RESOURCE, "ResourceClaim", device::claim),
    (RESOURCE, "ResourceClaimTemplate", device::claim_template),
    (RESOURCE, "DeviceTaintRule", device::taints::rule),
    (api::GROUP, "KernelJob", kernel_job::judge),
    (api::GROUP, "DeviceCheck", device_check::check),
    (api::GROUP, "DevicePolicy", device_check::policy),
    (custom::GROUP, "CustomResourceDefinition", custom::judge),
];

fn judge_of(kind: &Descriptor) -> Option<Judge> {
    let is_it = |(group, name, _): &&(&str, &str, Judge)| *group == kind.group && *name == kind.kind;
    JUDGES.iter().find(is_it).map(|(_, _, judge)| *judge)
}

/// What is wrong with a new object; empty when nothing is.
pub fn create(kind: &Descriptor, object: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    meta::metadata(kind, &object["metadata"], &mut faults);
    if let Some(judge) = judge_of(kind) {
        judge(None, object, &mut faults);
    }
    faults.into_causes()
}

/// What is wrong with an object that replaces `old`; empty when nothing is.
pub fn update(kind: &Descriptor, old: &Value, new: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    if old["metadata"] != new["metadata"] {
        meta::metadata(kind, &new["metadata"], &mut faults);
    }
    if let Some(judge) = judge_of(kind).filter(|_| changes_what_is_wanted(old, new)) {
        judge(Some(old), new, &mut faults);
    }
    if kind.group == custom::GROUP && old["status"] != new["status"] {
        custom::judge_status(new, &mut faults);
    }
    if kind.group == "certificates.k8s.io" && old["status"] != new["status"] {
        certificates::status(&old["status"], &new["status"], &mut faults);
    }
    if kind.group == RESOURCE && kind.kind == "DeviceTaintRule" && old["status"] != new["status"] {
        device::taints::status(&new["status"], &mut faults);
    }
    if kind.group == api::GROUP && old["status"] != new["status"] {
        kernel_job::status(&new["status"], &mut faults);
    }
    faults.into_causes()
}

/// What is wrong with a pod that gets ephemeral containers in the place of `old`; empty when nothing is.
pub fn ephemeral_containers(old: &Value, new: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    pod::with_ephemeral(old, new, &mut faults);
    faults.into_causes()
}

/// Whether two objects differ in more than their metadata and their status: in what somebody wants.
pub fn changes_what_is_wanted(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old != new };
    let wanted = |name: &&String| !matches!(name.as_str(), "metadata" | "status");
    old.keys().chain(new.keys()).filter(wanted).any(|name| old.get(name) != new.get(name))
}

#[cfg(test)]
mod garbage;
#[cfg(test)]
mod tests;
