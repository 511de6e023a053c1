//! Workloads that keep pods running, and the templates they make them from.

use claw_schemas::selector::LabelSelector;
use serde_json::Value;

use super::{
    amount, each, ephemeral,
    faults::{Faults, Path},
    immutable, is_empty, is_zero, meta, names, not_negative, one_of, percent, pod, share, text,
};

const SPEC: &str = "spec";

pub(super) fn deployment(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new[SPEC], &Path::Root.field(SPEC));
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(&spec[field], &path.field(field), faults);
    }
    let deadline = &spec["progressDeadlineSeconds"];
    not_negative(deadline, &path.field("progressDeadlineSeconds"), faults);
    let ready_seconds = spec["minReadySeconds"].as_i64().unwrap_or(0);
    if deadline.as_i64().is_some_and(|seconds| seconds >= 0 && seconds <= ready_seconds) {
        faults.invalid(
            &path.field("progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
    selector_and_template(spec, "Deployment", path, faults);
    strategy(&spec["strategy"], &path.field("strategy"), faults);
    same_selector(old, spec, path, faults);
}

pub(super) fn replica_set(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new[SPEC], &Path::Root.field(SPEC));
    for field in ["replicas", "minReadySeconds"] {
        not_negative(&spec[field], &path.field(field), faults);
    }
    selector_and_template(spec, "ReplicaSet", path, faults);
    same_selector(old, spec, path, faults);
}

pub(super) fn daemon_set(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new[SPEC], &Path::Root.field(SPEC));
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        not_negative(&spec[field], &path.field(field), faults);
    }
    selector_and_template(spec, "DaemonSet", path, faults);
    daemon_strategy(&spec["updateStrategy"], &path.field("updateStrategy"), faults);
    same_selector(old, spec, path, faults);
}

pub(super) fn stateful_set(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new[SPEC], &Path::Root.field(SPEC));
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(&spec[field], &path.field(field), faults);
    }
    let ordinals = &path.field("ordinals");
    not_negative(&spec["ordinals"]["start"], &ordinals.field("start"), faults);
    selector_and_template(spec, "StatefulSet", path, faults);
    let management = &spec["podManagementPolicy"];
    if !matches!(text(management), "OrderedReady" | "Parallel") {
        let why = "must be 'OrderedReady' or 'Parallel'";
        faults.invalid(&path.field("podManagementPolicy"), management, why);
    }
    stateful_strategy(&spec["updateStrategy"], &path.field("updateStrategy"), faults);
    let retention = &path.field("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let policy = &spec["persistentVolumeClaimRetentionPolicy"][field];
        one_of(policy, &["Delete", "Retain"], &retention.field(field), faults);
    }
    if let Some(old) = old
        && without(&old[SPEC], STATEFUL_MUTABLE) != without(spec, STATEFUL_MUTABLE)
    {
        faults.forbidden(path, STATEFUL_UPDATE);
    }
}

/// What may change in a StatefulSet.
const STATEFUL_MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const STATEFUL_UPDATE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// A ReplicationController selects by a plain map of labels.
pub(super) fn replication_controller(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new[SPEC], &Path::Root.field(SPEC));
    for field in ["replicas", "minReadySeconds"] {
        not_negative(&spec[field], &path.field(field), faults);
    }
    let (selector, selector_path) = (&spec["selector"], &path.field("selector"));
    match selector.as_object().filter(|selector| !selector.is_empty()) {
        None => faults.required(selector_path, ""),
        Some(selector) => {
            let labels = &spec["template"]["metadata"]["labels"];
            if selector.iter().any(|(key, value)| labels[key] != *value) {
                mismatch(labels, path, faults);
            }
        }
    }
    template(&spec["template"], &path.field("template"), faults);
    always_restarts(&spec["template"]["spec"], "ReplicationController", &path.field("template"), faults);
}

pub(super) fn pod_template(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    template(&new["template"], &Path::Root.field("template"), faults);
}

/// An object without some of its fields.
pub(super) fn without(object: &Value, fields: &[&str]) -> Value {
    let mut rest = object.clone();
    if let Some(members) = rest.as_object_mut() {
        members.retain(|name, _| !fields.contains(&name.as_str()));
    }
    rest
}

/// Which pods belong to a workload never changes.
fn same_selector(old: Option<&Value>, spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    if let Some(old) = old {
        immutable(&old[SPEC], spec, "selector", path, faults);
    }
}

fn selector_and_template(spec: &Value, kind: &str, path: &Path<'_>, faults: &mut Faults) {
    let template_path = &path.field("template");
    let labels = &spec["template"]["metadata"]["labels"];
    if let Some(selector) = selector(&spec["selector"], kind, &path.field("selector"), faults)
        && !selector.matches_with(|key| labels[key].as_str())
    {
        mismatch(labels, path, faults);
    }
    template(&spec["template"], template_path, faults);
    always_restarts(&spec["template"]["spec"], kind, template_path, faults);
}

fn mismatch(labels: &Value, path: &Path<'_>, faults: &mut Faults) {
    let template = &path.field("template");
    let meta = &template.field("metadata");
    faults.invalid(&meta.field("labels"), labels, "`selector` does not match template `labels`");
}

/// Metadata and pod of a template.
pub(super) fn template(template: &Value, path: &Path<'_>, faults: &mut Faults) {
    let meta_path = &path.field("metadata");
    meta::labels(&template["metadata"]["labels"], &meta_path.field("labels"), faults);
    meta::annotations(&template["metadata"]["annotations"], &meta_path.field("annotations"), faults);
    pod::spec(&template["spec"], &path.field("spec"), faults);
    let why = "ephemeral containers not allowed in pod template";
    ephemeral::none(&template["spec"], &path.field("spec"), why, faults);
}

/// Pods that are replaced when they end have no end of their own.
fn always_restarts(pod: &Value, kind: &str, template: &Path<'_>, faults: &mut Faults) {
    let path = &template.field("spec");
    if matches!(text(&pod["restartPolicy"]), "OnFailure" | "Never") {
        faults.unsupported(&path.field("restartPolicy"), &pod["restartPolicy"], &["Always"]);
    }
    if !pod["activeDeadlineSeconds"].is_null() {
        let why = format_args!("activeDeadlineSeconds in {kind} is not Supported");
        faults.forbidden(&path.field("activeDeadlineSeconds"), why);
    }
}

/// The selector, if there is one to match the template with.
fn selector(value: &Value, kind: &str, path: &Path<'_>, faults: &mut Faults) -> Option<LabelSelector> {
    if value.is_null() {
        faults.required(path, "");
        return None;
    }
    let before = faults.count();
    label_selector(value, path, faults);
    if faults.count() > before {
        return None;
    }
    let selector = LabelSelector::from_meta(&serde_json::from_value(value.clone()).ok()?).ok()?;
    if selector.is_empty() {
        faults.invalid(path, value, format_args!("empty selector is invalid for {}", kind.to_lowercase()));
        return None;
    }
    Some(selector)
}

/// A structured label selector, here or in an affinity.
pub(super) fn label_selector(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    meta::labels(&value["matchLabels"], &path.field("matchLabels"), faults);
    each(&value["matchExpressions"], &path.field("matchExpressions"), |expression, path| {
        if let Err(why) = names::qualified(text(&expression["key"])) {
            faults.invalid(&path.field("key"), &expression["key"], why);
        }
        let has_values = expression["values"].as_array().is_some_and(|values| !values.is_empty());
        let values = &path.field("values");
        match text(&expression["operator"]) {
            "In" | "NotIn" if !has_values => {
                faults.required(values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if has_values => {
                faults
                    .forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let why = "not a valid selector operator";
                faults.invalid(&path.field("operator"), &expression["operator"], why);
            }
        }
    });
}

fn strategy(strategy: &Value, path: &Path<'_>, faults: &mut Faults) {
    let rolling = &strategy["rollingUpdate"];
    let rolling_path = &path.field("rollingUpdate");
    match text(&strategy["type"]) {
        "Recreate" if !rolling.is_null() => {
            faults.forbidden(rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" if rolling.is_null() => {
            faults.required(rolling_path, "this should be defaulted and never be nil");
        }
        "RollingUpdate" => {
            for field in ["maxUnavailable", "maxSurge"] {
                amount(&rolling[field], &rolling_path.field(field), faults);
            }
            let unavailable = &rolling["maxUnavailable"];
            if is_zero(unavailable) && is_zero(&rolling["maxSurge"]) {
                let why = "may not be 0 when `maxSurge` is 0";
                faults.invalid(&rolling_path.field("maxUnavailable"), unavailable, why);
            }
            if percent(unavailable).is_some_and(|percent| percent > 100) {
                let why = "must not be greater than 100%";
                faults.invalid(&rolling_path.field("maxUnavailable"), unavailable, why);
            }
        }
        "Recreate" => {}
        _ if is_empty(&strategy["type"]) => faults.required(&path.field("type"), ""),
        _ => faults.unsupported(&path.field("type"), &strategy["type"], &["Recreate", "RollingUpdate"]),
    }
}

fn daemon_strategy(strategy: &Value, path: &Path<'_>, faults: &mut Faults) {
    match text(&strategy["type"]) {
        "OnDelete" => {}
        "RollingUpdate" => {
            let (rolling, path) = (&strategy["rollingUpdate"], &path.field("rollingUpdate"));
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            share(unavailable, &path.field("maxUnavailable"), faults);
            share(surge, &path.field("maxSurge"), faults);
            match (is_zero(unavailable), is_zero(surge)) {
                (true, true) => {
                    faults.required(&path.field("maxUnavailable"), "cannot be 0 when maxSurge is 0");
                }
                (false, false) => {
                    let why = "may not be set when maxUnavailable is non-zero";
                    faults.invalid(&path.field("maxSurge"), surge, why);
                }
                _ => {}
            }
        }
        _ => faults.unsupported(&path.field("type"), &strategy["type"], &["OnDelete", "RollingUpdate"]),
    }
}

fn stateful_strategy(strategy: &Value, path: &Path<'_>, faults: &mut Faults) {
    let (rolling, rolling_path) = (&strategy["rollingUpdate"], &path.field("rollingUpdate"));
    match text(&strategy["type"]) {
        "OnDelete" if !rolling.is_null() => {
            faults.invalid(rolling_path, rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            not_negative(&rolling["partition"], &rolling_path.field("partition"), faults);
            let unavailable = &rolling["maxUnavailable"];
            share(unavailable, &rolling_path.field("maxUnavailable"), faults);
            if is_zero(unavailable) {
                faults.invalid(&rolling_path.field("maxUnavailable"), unavailable, "cannot be 0");
            }
        }
        "" => faults.required(&path.field("type"), ""),
        _ => faults.invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}
