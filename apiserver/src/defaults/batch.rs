//! Defaults of jobs.

use super::{Object, Value, child, existing, is_unset, items, text, value, workload};

/// By which a job finds its pods.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

pub(super) fn job(object: &mut Object) {
    let spec = child(object, "spec");
    if !spec.contains_key("parallelism") && !spec.contains_key("completions") {
        value(spec, "completions", 1);
    }
    value(spec, "parallelism", 1);
    let retries = if spec.contains_key("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    value(spec, "backoffLimit", retries);
    value(spec, "suspend", false);
    value(spec, "manualSelector", false);
    text(spec, "completionMode", "NonIndexed");
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    text(spec, "podReplacementPolicy", replacement);
    job_template(spec);
    let labels = spec["template"]["metadata"].get("labels").cloned();
    workload::label_like_template(object, labels);
    child(object, "status");
}

/// Gives a job the selector that only its own pods match, unless the user insists on another.
pub(super) fn admit(object: &mut Object) {
    let (uid, name) = (meta_text(object, "uid"), meta_text(object, "name"));
    let spec = child(object, "spec");
    if spec.get("manualSelector") != Some(&Value::Bool(true)) && !uid.is_empty() {
        generate_selector(spec, &uid, &name);
    }
}

fn meta_text(object: &Object, field: &str) -> String {
    let text = object.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// The labels by which it selects, too.
fn generate_selector(spec: &mut Object, uid: &str, name: &str) {
    let labels = child(child(child(spec, "template"), "metadata"), "labels");
    for (keys, value) in [(UID_LABELS, uid), (NAME_LABELS, name)] {
        for key in keys {
            labels.insert(key.to_owned(), value.into());
        }
    }
    if is_unset(spec.get("selector")) {
        child(child(spec, "selector"), "matchLabels").insert(UID_LABELS[0].to_owned(), uid.into());
    }
}

pub(super) fn cron_job(object: &mut Object) {
    let spec = child(object, "spec");
    text(spec, "concurrencyPolicy", "Allow");
    value(spec, "suspend", false);
    value(spec, "successfulJobsHistoryLimit", 3);
    value(spec, "failedJobsHistoryLimit", 1);
    let template = child(spec, "jobTemplate");
    child(template, "metadata");
    job_template(child(template, "spec"));
    child(object, "status");
}

/// What jobs and templates of jobs share.
fn job_template(spec: &mut Object) {
    workload::template(spec);
    let Some(policy) = existing(spec, "podFailurePolicy") else { return };
    for rule in items(policy, "rules") {
        items(rule, "onPodConditions").for_each(|pattern| text(pattern, "status", "True"));
    }
}
