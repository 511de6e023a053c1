//! Roles and bindings. Whether somebody may give what they say is not asked here.

use serde_json::Value;

use super::{
    each,
    faults::{Faults, Path},
    is_empty, len, named, names, text,
    workload::label_selector,
};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    rules(&new["rules"], true, faults);
}

pub(super) fn cluster_role(_: Option<&Value>, new: &Value, faults: &mut Faults) {
    rules(&new["rules"], false, faults);
    let aggregation = &new["aggregationRule"];
    let (root, selectors) = (&Path::Root.field("aggregationRule"), &aggregation["clusterRoleSelectors"]);
    if !aggregation.is_null() && len(selectors) == 0 {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        faults.required(&root.field("clusterRoleSelectors"), why);
    }
    each(selectors, &root.field("clusterRoleSelectors"), |selector, path| {
        label_selector(selector, path, faults);
    });
}

fn rules(rules: &Value, namespaced: bool, faults: &mut Faults) {
    each(rules, &Path::Root.field("rules"), |rule, path| {
        if len(&rule["verbs"]) == 0 {
            faults.required(&path.field("verbs"), "verbs must contain at least one value");
        }
        if len(&rule["nonResourceURLs"]) > 0 {
            urls(rule, namespaced, &path.field("nonResourceURLs"), faults);
            return;
        }
        if len(&rule["apiGroups"]) == 0 {
            faults.required(&path.field("apiGroups"), "resource rules must supply at least one api group");
        }
        if len(&rule["resources"]) == 0 {
            faults.required(&path.field("resources"), "resource rules must supply at least one resource");
        }
    });
}

fn urls(rule: &Value, namespaced: bool, path: &Path<'_>, faults: &mut Faults) {
    let urls = &rule["nonResourceURLs"];
    if namespaced {
        faults.invalid(path, urls, "namespaced rules cannot apply to non-resource URLs");
    }
    if ["apiGroups", "resources", "resourceNames"].iter().any(|field| len(&rule[*field]) > 0) {
        faults.invalid(path, urls, "rules cannot apply to both regular resources and non-resource URLs");
    }
}

pub(super) fn role_binding(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    binding(old, new, &["Role", "ClusterRole"], faults);
}

pub(super) fn cluster_role_binding(old: Option<&Value>, new: &Value, faults: &mut Faults) {
    binding(old, new, &["ClusterRole"], faults);
}

fn binding(old: Option<&Value>, new: &Value, kinds: &[&str], faults: &mut Faults) {
    let (role, path) = (&new["roleRef"], &Path::Root.field("roleRef"));
    super::one_of(&role["apiGroup"], &[GROUP], &path.field("apiGroup"), faults);
    super::one_of(&role["kind"], kinds, &path.field("kind"), faults);
    named(names::path_segment, &role["name"], &path.field("name"), faults);
    let namespaced = kinds.len() > 1;
    each(&new["subjects"], &Path::Root.field("subjects"), |one, path| subject(one, namespaced, path, faults));
    if old.is_some_and(|old| old["roleRef"] != *role) {
        faults.invalid(path, role, "cannot change roleRef");
    }
}

fn subject(subject: &Value, namespaced: bool, path: &Path<'_>, faults: &mut Faults) {
    let (name, group) = (&subject["name"], &subject["apiGroup"]);
    if is_empty(name) {
        faults.required(&path.field("name"), "");
    }
    match text(&subject["kind"]) {
        "ServiceAccount" => {
            super::fits(names::dns_subdomain, name, &path.field("name"), faults);
            if !is_empty(group) {
                faults.unsupported(&path.field("apiGroup"), group, &[""]);
            }
            if !namespaced && is_empty(&subject["namespace"]) {
                faults.required(&path.field("namespace"), "");
            }
        }
        "User" | "Group" => super::one_of(group, &[GROUP], &path.field("apiGroup"), faults),
        _ => {
            let kinds = ["ServiceAccount", "User", "Group"];
            faults.unsupported(&path.field("kind"), &subject["kind"], &kinds);
        }
    }
}
