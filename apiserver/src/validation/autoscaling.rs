//! Autoscalers: what is scaled, within which bounds, by which measure.

use serde_json::Value;

use super::{
    at_least, each,
    faults::{Faults, Path},
    is_empty, names, one_of, required_one_of, text,
};

/// Longest time that a decision may look back on, in seconds.
const WINDOW_S_MAX: i64 = 3600;
/// Longest period of a policy, in seconds.
const PERIOD_S_MAX: i64 = 1800;

/// Kinds of metrics, and the field that describes each.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub(super) fn horizontal_pod_autoscaler(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    at_least(1, &spec["minReplicas"], &path.field("minReplicas"), faults);
    let (least, most) =
        (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if most < 1 {
        faults.invalid(&path.field("maxReplicas"), &most.into(), "must be greater than 0");
    }
    if most < least {
        let why = "must be greater than or equal to `minReplicas`";
        faults.invalid(&path.field("maxReplicas"), &most.into(), why);
    }
    reference(&spec["scaleTargetRef"], &path.field("scaleTargetRef"), faults);
    each(&spec["metrics"], &path.field("metrics"), |one, path| metric(one, path, faults));
    let behavior = &path.field("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        rules(&spec["behavior"][direction], &behavior.field(direction), faults);
    }
}

fn reference(reference: &Value, path: &Path<'_>, faults: &mut Faults) {
    for field in ["kind", "name"] {
        super::named(names::path_segment, &reference[field], &path.field(field), faults);
    }
}

fn metric(metric: &Value, path: &Path<'_>, faults: &mut Faults) {
    let known = SOURCES.map(|(name, _)| name);
    required_one_of(&metric["type"], &known, &path.field("type"), faults);
    for (name, field) in SOURCES {
        let (source, path) = (&metric[field], &path.field(field));
        if metric["type"] == name {
            if source.is_object() {
                self::source(name, source, path, faults);
            } else {
                faults.required(path, "must populate information for the given metric source");
            }
        } else if source.is_object() {
            faults.forbidden(path, "must populate the given metric source only");
        }
    }
}

fn source(kind: &str, source: &Value, path: &Path<'_>, faults: &mut Faults) {
    let is_resource = matches!(kind, "Resource" | "ContainerResource");
    if is_resource && is_empty(&source["name"]) {
        faults.required(&path.field("name"), "must specify a resource name");
    }
    if kind == "ContainerResource" && is_empty(&source["container"]) {
        faults.required(&path.field("container"), "must specify a container");
    }
    if !is_resource {
        let metric = &path.field("metric");
        super::named(names::path_segment, &source["metric"]["name"], &metric.field("name"), faults);
    }
    if kind == "Object" {
        reference(&source["describedObject"], &path.field("describedObject"), faults);
    }
    target(&source["target"], is_resource, &path.field("target"), faults);
}

fn target(target: &Value, is_resource: bool, path: &Path<'_>, faults: &mut Faults) {
    let types = ["AverageValue", "Utilization", "Value"];
    if is_empty(&target["type"]) {
        faults.required(&path.field("type"), "must specify a metric target type");
    } else if !types.contains(&text(&target["type"])) {
        let why = "must be either Utilization, Value, or AverageValue";
        faults.invalid(&path.field("type"), &target["type"], why);
    }
    let share = &target["averageUtilization"];
    if share.as_i64().is_some_and(|share| share < 1) {
        faults.invalid(&path.field("averageUtilization"), share, "must be greater than 0");
    }
    for field in ["value", "averageValue"] {
        let amount = text(&target[field]).parse::<claw_schemas::quantity::Quantity>();
        if amount.is_ok_and(|amount| amount.milli() <= 0) {
            faults.invalid(&path.field(field), &target[field], "must be positive");
        }
    }
    let given = |field: &str| !target[field].is_null();
    if is_resource {
        match (given("averageUtilization"), given("averageValue")) {
            (false, false) => {
                let why = "must set either a target raw value or a target utilization";
                faults.required(&path.field("averageUtilization"), why);
            }
            (true, true) => {
                let why = "may not set both a target raw value and a target utilization";
                faults.forbidden(&path.field("averageValue"), why);
            }
            _ => {}
        }
    } else if !given("value") && !given("averageValue") {
        let why = "must set either a target value or a target average value";
        faults.required(&path.field("averageValue"), why);
    }
}

fn rules(rules: &Value, path: &Path<'_>, faults: &mut Faults) {
    if rules.is_null() {
        return;
    }
    let window = &rules["stabilizationWindowSeconds"];
    let window_path = &path.field("stabilizationWindowSeconds");
    super::not_negative(window, window_path, faults);
    at_most(WINDOW_S_MAX, window, window_path, faults);
    one_of(&rules["selectPolicy"], &["Disabled", "Max", "Min"], &path.field("selectPolicy"), faults);
    let policies = &path.field("policies");
    if super::len(&rules["policies"]) == 0 {
        faults.required(policies, "must specify at least one Policy");
    }
    each(&rules["policies"], policies, |policy, path| {
        one_of(&policy["type"], &["Percent", "Pods"], &path.field("type"), faults);
        for field in ["value", "periodSeconds"] {
            if policy[field].as_i64().unwrap_or(0) <= 0 {
                faults.invalid(&path.field(field), &policy[field], "must be greater than zero");
            }
        }
        at_most(PERIOD_S_MAX, &policy["periodSeconds"], &path.field("periodSeconds"), faults);
    });
}

fn at_most(most: i64, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    if value.as_i64().is_some_and(|number| number > most) {
        faults.invalid(path, value, format_args!("must be less than or equal to {most}"));
    }
}
