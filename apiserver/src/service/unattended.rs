//! Kinds that are stored and validated while nobody acts on them yet. Who makes such an object is told so: by a warning,
//! and by a condition where the kind has conditions. A controller that arrives takes its line out of the table.

use claw_schemas::{Descriptor, schema::time_text};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The condition that says whether somebody acts on the object.
const CONDITION: &str = "ControllerAvailable";
const REASON: &str = "NoController";

/// Where else than in a warning it is said.
#[derive(Clone, Copy, PartialEq)]
enum Also {
    Condition,
    Nowhere,
}
use Also::{Condition, Nowhere};

/// (group, kind, where else it is said, what is missing)
static UNATTENDED: &[(&str, &str, Also, &str)] = &[
    ("", "PersistentVolume", Nowhere, "nothing binds or mounts PersistentVolumes"),
    (
        "",
        "PersistentVolumeClaim",
        Condition,
        "nothing provisions or binds volumes for PersistentVolumeClaims",
    ),
    ("", "ReplicationController", Condition, "no controller for ReplicationControllers runs"),
    ("apps", "DaemonSet", Condition, "no controller for DaemonSets runs"),
    ("apps", "StatefulSet", Condition, "no controller for StatefulSets runs"),
    ("autoscaling", "HorizontalPodAutoscaler", Condition, "no controller for HorizontalPodAutoscalers runs"),
    ("batch", "CronJob", Nowhere, "no controller for CronJobs runs"),
    ("batch", "Job", Condition, "no controller for Jobs runs"),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        Nowhere,
        "no signer acts on CertificateSigningRequests",
    ),
    ("networking.k8s.io", "Ingress", Nowhere, "no controller serves Ingresses"),
    ("networking.k8s.io", "IngressClass", Nowhere, "no controller serves Ingresses"),
    ("networking.k8s.io", "NetworkPolicy", Nowhere, "NetworkPolicies are not enforced"),
    ("storage.k8s.io", "StorageClass", Nowhere, "nothing provisions volumes"),
];

fn entry(kind: &Descriptor) -> Option<(Also, String)> {
    let entry = UNATTENDED.iter().find(|(group, name, ..)| *group == kind.group && *name == kind.kind)?;
    Some((entry.2, format!("{} in this release; the object is stored and validated only", entry.3)))
}

/// What to warn about whoever makes an object of this kind.
pub(super) fn warning(kind: &Descriptor) -> Option<String> {
    entry(kind).map(|(_, message)| message)
}

/// Sets the condition on a new object.
pub(super) fn mark(kind: &Descriptor, object: &mut Value) {
    let Some((Condition, message)) = entry(kind) else { return };
    object["status"]["conditions"] = json!([{
        "type": CONDITION,
        "status": "False",
        "reason": REASON,
        "message": message,
        "lastTransitionTime": time_text(Timestamp::now()),
    }]);
}

#[cfg(test)]
mod tests {
    use claw_schemas::{Registry, schema::Report};

    use super::*;

    #[test]
    fn every_line_names_a_served_kind_and_conditions_fit_its_schema() {
        let registry = Registry::builtin();
        for (group, name, also, _) in UNATTENDED {
            let kind = registry.stored().find(|kind| kind.group == *group && kind.kind == *name).unwrap();
            let mut object = json!({});
            mark(kind, &mut object);
            assert_eq!(object["status"].is_object(), *also == Condition, "{name}");
            assert_eq!(kind.compiled().check(&object), Report::default(), "{name}");
            // A kind that has conditions uses them, but for requests, whose conditions are decisions.
            let status = kind.compiled().root().field("status");
            let has_conditions = status.and_then(|status| status.field("conditions")).is_some();
            assert_eq!(has_conditions && *name != "CertificateSigningRequest", *also == Condition, "{name}");
        }
    }

    #[test]
    fn kinds_that_somebody_acts_on_are_left_alone() {
        let registry = Registry::builtin();
        let pods = registry.kind("v1", "Pod").unwrap();
        let mut object = json!({});
        mark(pods, &mut object);
        assert_eq!((object, warning(pods)), (json!({}), None));
    }
}
