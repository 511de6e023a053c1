//! Defaults of workloads and of the templates in them.

use serde_json::json;

use super::{Object, Value, child, existing, items, pod, storage, text, value};

pub(super) fn deployment(object: &mut Object) {
    let spec = child(object, "spec");
    value(spec, "replicas", 1);
    value(spec, "revisionHistoryLimit", 10);
    value(spec, "progressDeadlineSeconds", 600);
    let strategy = child(spec, "strategy");
    text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        value(rolling, "maxUnavailable", "25%");
        value(rolling, "maxSurge", "25%");
    }
    template(spec);
    child(object, "status");
}

pub(super) fn replica_set(object: &mut Object) {
    let spec = child(object, "spec");
    value(spec, "replicas", 1);
    template(spec);
    value(child(object, "status"), "replicas", 0);
}

pub(super) fn daemon_set(object: &mut Object) {
    let spec = child(object, "spec");
    value(spec, "revisionHistoryLimit", 10);
    let strategy = child(spec, "updateStrategy");
    text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        value(rolling, "maxUnavailable", 1);
        value(rolling, "maxSurge", 0);
    }
    template(spec);
    let status = child(object, "status");
    for count in ["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"] {
        value(status, count, 0);
    }
}

pub(super) fn stateful_set(object: &mut Object) {
    let spec = child(object, "spec");
    value(spec, "replicas", 1);
    value(spec, "revisionHistoryLimit", 10);
    text(spec, "podManagementPolicy", "OrderedReady");
    value(spec, "serviceName", "");
    let strategy = child(spec, "updateStrategy");
    text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        value(child(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = child(spec, "persistentVolumeClaimRetentionPolicy");
    text(retention, "whenDeleted", "Retain");
    text(retention, "whenScaled", "Retain");
    template(spec);
    for claim in items(spec, "volumeClaimTemplates") {
        // Nothing else can stand here, whatever it says.
        claim.insert("apiVersion".to_owned(), "v1".into());
        claim.insert("kind".to_owned(), "PersistentVolumeClaim".into());
        child(claim, "metadata");
        storage::claim(claim);
    }
    let status = child(object, "status");
    value(status, "replicas", 0);
    value(status, "availableReplicas", 0);
}

/// Without a selector it is about the pods that it makes; without labels it is labelled as they are.
pub(super) fn replication_controller(object: &mut Object) {
    let spec = child(object, "spec");
    value(spec, "replicas", 1);
    template(spec);
    let labels = spec["template"]["metadata"].get("labels").cloned();
    if let Some(labels) = &labels
        && existing(spec, "selector").is_none_or(|selector| selector.is_empty())
    {
        spec.insert("selector".to_owned(), labels.clone());
    }
    label_like_template(object, labels);
    value(child(object, "status"), "replicas", 0);
}

pub(super) fn pod_template(object: &mut Object) {
    template(object);
}

/// Gives an object without labels those of its template.
pub(super) fn label_like_template(object: &mut Object, labels: Option<Value>) {
    let metadata = child(object, "metadata");
    if let Some(labels) = labels
        && existing(metadata, "labels").is_none_or(|labels| labels.is_empty())
    {
        metadata.insert("labels".to_owned(), labels);
    }
}

pub(super) fn template(spec: &mut Object) {
    let template = child(spec, "template");
    template.entry("metadata").or_insert_with(|| json!({}));
    pod::spec(child(template, "spec"));
}
