//! Disruption budgets and priorities.

use serde_json::Value;

use super::{
    faults::{Faults, Path},
    one_of, optional_one_of, share, text,
    workload::label_selector,
};

/// Greatest priority that users may give.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;
/// The classes that the system itself brings.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub(super) fn pod_disruption_budget(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (spec, path) = (&new["spec"], &Path::Root.field("spec"));
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        faults.invalid(path, spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        share(&spec[field], &path.field(field), faults);
    }
    label_selector(&spec["selector"], &path.field("selector"), faults);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    let policy_path = &path.field("unhealthyPodEvictionPolicy");
    optional_one_of(&spec["unhealthyPodEvictionPolicy"], &policies, policy_path, faults);
}

pub(super) fn priority_class(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    let (name, value) = (text(&new["metadata"]["name"]), new["value"].as_i64().unwrap_or(0));
    if name.starts_with("system-") {
        let known = SYSTEM_CLASSES.contains(&(name, value)) && new["globalDefault"] != true;
        if !known {
            let meta = &Path::Root.field("metadata");
            let why = "priority class names with 'system-' prefix are reserved for system use only";
            faults.forbidden(&meta.field("name"), why);
        }
    } else if value > USER_PRIORITY_MAX {
        let why = format_args!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        faults.forbidden(&Path::Root.field("value"), why);
    }
    let policies = ["Never", "PreemptLowerPriority"];
    one_of(&new["preemptionPolicy"], &policies, &Path::Root.field("preemptionPolicy"), faults);
    for field in ["value", "preemptionPolicy"] {
        if old.is_some_and(|old| old[field] != new[field]) {
            faults.forbidden(&Path::Root.field(field), "may not be changed in an update.");
        }
    }
}
