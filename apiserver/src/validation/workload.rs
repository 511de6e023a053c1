//! Deployments and ReplicaSets.

use claw_schemas::selector::LabelSelector;
use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    is_empty, meta, names, not_negative, pod, text,
};

pub(super) fn deployment(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
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
    selector_and_template(spec, "deployment", path, faults);
    strategy(&spec["strategy"], &path.field("strategy"), faults);
}

pub(super) fn replica_set(spec: &Value, path: &Path<'_>, faults: &mut Faults) {
    for field in ["replicas", "minReadySeconds"] {
        not_negative(&spec[field], &path.field(field), faults);
    }
    selector_and_template(spec, "replicaset", path, faults);
}

/// Which pods belong to a workload never changes.
pub(super) fn same_selector(old: &Value, new: &Value, path: &Path<'_>, faults: &mut Faults) {
    if old["selector"] != new["selector"] {
        faults.invalid(&path.field("selector"), &new["selector"], "field is immutable");
    }
}

fn selector_and_template(spec: &Value, kind: &str, path: &Path<'_>, faults: &mut Faults) {
    let template = &spec["template"];
    let template_path = &path.field("template");
    let template_meta = &template_path.field("metadata");
    let labels = &template_meta.field("labels");
    if let Some(selector) = selector(&spec["selector"], kind, &path.field("selector"), faults) {
        let of = |key: &str| template["metadata"]["labels"][key].as_str();
        if !selector.matches_with(of) {
            let value = &template["metadata"]["labels"];
            faults.invalid(labels, value, "`selector` does not match template `labels`");
        }
    }
    meta::labels(&template["metadata"]["labels"], labels, faults);
    meta::annotations(&template["metadata"]["annotations"], &template_meta.field("annotations"), faults);
    let pod_path = &template_path.field("spec");
    pod::spec(&template["spec"], pod_path, faults);
    let restart = &template["spec"]["restartPolicy"];
    if matches!(text(restart), "OnFailure" | "Never") {
        faults.unsupported(&pod_path.field("restartPolicy"), restart, &["Always"]);
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let why = format_args!("activeDeadlineSeconds in {} is not Supported", workload_name(kind));
        faults.forbidden(&pod_path.field("activeDeadlineSeconds"), why);
    }
}

fn workload_name(kind: &str) -> &'static str {
    if kind == "deployment" { "Deployment" } else { "ReplicaSet" }
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
        faults.invalid(path, value, format_args!("empty selector is invalid for {kind}"));
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

/// A number of pods, or a share of them.
fn amount(value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if value.is_string() && percent(value).is_none() {
        let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
        faults.invalid(path, value, why);
    }
    not_negative(value, path, faults);
}

fn percent(value: &Value) -> Option<u32> {
    let digits = value.as_str()?.strip_suffix('%')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn is_zero(value: &Value) -> bool {
    value.as_i64() == Some(0) || percent(value) == Some(0)
}
