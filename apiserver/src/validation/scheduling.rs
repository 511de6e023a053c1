//! Where a pod may run: tolerations, affinity, spreading.

use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    is_empty, names, one_of, text, workload,
};

/// What a taint does, and a toleration undoes.
pub(super) const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];

pub(super) fn tolerations(tolerations: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(tolerations, path, |toleration, path| {
        let (key, operator, value) = (&toleration["key"], &toleration["operator"], &toleration["value"]);
        if !is_empty(key)
            && let Err(why) = names::qualified(text(key))
        {
            faults.invalid(&path.field("key"), key, why);
        }
        if is_empty(key) && operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            faults.invalid(&path.field("operator"), operator, why);
        }
        match text(operator) {
            "" | "Equal" => {
                if let Err(why) = names::label_value(text(value)) {
                    faults.invalid(&path.field("operator"), value, why);
                }
            }
            "Exists" if !is_empty(value) => {
                let why = "value must be empty when `operator` is 'Exists'";
                faults.invalid(&path.field("operator"), value, why);
            }
            "Exists" => {}
            _ => faults.unsupported(&path.field("operator"), operator, &["Equal", "Exists"]),
        }
        effect(toleration, path, faults);
    });
}

fn effect(toleration: &Value, path: &Path<'_>, faults: &mut Faults) {
    let effect = &toleration["effect"];
    if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        faults.invalid(&path.field("effect"), effect, why);
    }
    if !is_empty(effect) {
        one_of(effect, &EFFECTS, &path.field("effect"), faults);
    }
}

pub(super) fn affinity(affinity: &Value, path: &Path<'_>, faults: &mut Faults) {
    node_affinity(&affinity["nodeAffinity"], &path.field("nodeAffinity"), faults);
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = &path.field(kind);
        let required = &path.field("requiredDuringSchedulingIgnoredDuringExecution");
        each(&affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"], required, |term, path| {
            pod_term(term, path, faults);
        });
        let preferred = &path.field("preferredDuringSchedulingIgnoredDuringExecution");
        each(&affinity[kind]["preferredDuringSchedulingIgnoredDuringExecution"], preferred, |term, path| {
            weight(&term["weight"], &path.field("weight"), faults);
            pod_term(&term["podAffinityTerm"], &path.field("podAffinityTerm"), faults);
        });
    }
}

fn node_affinity(affinity: &Value, path: &Path<'_>, faults: &mut Faults) {
    let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"];
    let required_path = &path.field("requiredDuringSchedulingIgnoredDuringExecution");
    let terms = &required_path.field("nodeSelectorTerms");
    if required.is_object() && required["nodeSelectorTerms"].as_array().is_none_or(Vec::is_empty) {
        faults.required(terms, "must have at least one node selector term");
    }
    each(&required["nodeSelectorTerms"], terms, |term, path| node_term(term, path, faults));
    let preferred = &path.field("preferredDuringSchedulingIgnoredDuringExecution");
    each(&affinity["preferredDuringSchedulingIgnoredDuringExecution"], preferred, |term, path| {
        weight(&term["weight"], &path.field("weight"), faults);
        node_term(&term["preference"], &path.field("preference"), faults);
    });
}

fn node_term(term: &Value, path: &Path<'_>, faults: &mut Faults) {
    for list in ["matchExpressions", "matchFields"] {
        each(&term[list], &path.field(list), |expression, path| {
            let values = expression["values"].as_array().map_or(0, Vec::len);
            let values_path = &path.field("values");
            match text(&expression["operator"]) {
                "In" | "NotIn" if values == 0 => {
                    faults.required(values_path, "must be specified when `operator` is 'In' or 'NotIn'");
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    faults.forbidden(values_path, why);
                }
                "Gt" | "Lt" if values != 1 => {
                    let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    faults.required(values_path, why);
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                _ => {
                    let why = "not a valid selector operator";
                    faults.invalid(&path.field("operator"), &expression["operator"], why);
                }
            }
            if let Err(why) = names::qualified(text(&expression["key"])) {
                faults.invalid(&path.field("key"), &expression["key"], why);
            }
        });
    }
}

fn pod_term(term: &Value, path: &Path<'_>, faults: &mut Faults) {
    topology_key(&term["topologyKey"], &path.field("topologyKey"), faults);
    for selector in ["labelSelector", "namespaceSelector"] {
        workload::label_selector(&term[selector], &path.field(selector), faults);
    }
}

fn topology_key(key: &Value, path: &Path<'_>, faults: &mut Faults) {
    if is_empty(key) {
        faults.required(path, "can not be empty");
    } else if let Err(why) = names::qualified(text(key)) {
        faults.invalid(path, key, why);
    }
}

fn weight(weight: &Value, path: &Path<'_>, faults: &mut Faults) {
    if !(1..=100).contains(&weight.as_i64().unwrap_or(0)) {
        faults.invalid(path, weight, "must be in the range 1-100");
    }
}

pub(super) fn spread(constraints: &Value, path: &Path<'_>, faults: &mut Faults) {
    each(constraints, path, |constraint, path| {
        if constraint["maxSkew"].as_i64().unwrap_or(0) <= 0 {
            faults.invalid(&path.field("maxSkew"), &constraint["maxSkew"], "must be greater than zero");
        }
        topology_key(&constraint["topologyKey"], &path.field("topologyKey"), faults);
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        one_of(&constraint["whenUnsatisfiable"], &actions, &path.field("whenUnsatisfiable"), faults);
        workload::label_selector(&constraint["labelSelector"], &path.field("labelSelector"), faults);
    });
}
