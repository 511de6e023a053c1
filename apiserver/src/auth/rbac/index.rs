//! All roles and bindings, indexed by who they are about. Pure: objects go in, answers come out.
//!
//! A ClusterRole with an aggregation rule has the rules of every ClusterRole that its selectors choose, as of the last
//! change applied: what a controller writes into the object for people to read is not waited for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

use claw_schemas::selector::LabelSelector;
use k8s_openapi::{
    api::rbac::v1::{AggregationRule, PolicyRule, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Deserialize;

use crate::auth::Identity;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// What user names of service accounts begin with.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Namespace, empty for the cluster, and name.
type Place = (Box<str>, Box<str>);
type Rules = Arc<[PolicyRule]>;

/// The four kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Role,
    ClusterRole,
    Binding,
}

/// The plurals, in the order in which they are listed at start.
pub const PLURALS: [(&str, Kind); 4] = [
    ("roles", Kind::Role),
    ("clusterroles", Kind::ClusterRole),
    ("rolebindings", Kind::Binding),
    ("clusterrolebindings", Kind::Binding),
];

/// What is read of any of them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stored {
    metadata: ObjectMeta,
    rules: Option<Vec<PolicyRule>>,
    aggregation_rule: Option<AggregationRule>,
    subjects: Option<Vec<Subject>>,
    role_ref: Option<RoleRef>,
}

struct ClusterRole {
    own: Rules,
    labels: BTreeMap<String, String>,
    /// `None` without an aggregation rule.
    selectors: Option<Vec<LabelSelector>>,
    /// What counts: its own rules, or those it aggregates.
    rules: Rules,
}

struct Binding {
    subjects: Vec<String>,
    role: RoleRef,
}

/// A binding that gives somebody rules.
pub struct Grant<'a> {
    pub namespace: &'a str,
    pub binding: &'a str,
    pub role: &'a RoleRef,
    /// As the index writes subjects: `User "x"`, `Group "y"`.
    pub subject: &'a str,
    /// `None` when the role does not exist.
    pub rules: Option<&'a Rules>,
}

/// Roles and bindings of a cluster.
#[derive(Default)]
pub struct Index {
    roles: HashMap<Place, Rules>,
    cluster_roles: BTreeMap<Box<str>, ClusterRole>,
    bindings: HashMap<Place, Binding>,
    /// Subject → namespace → bindings.
    by_subject: HashMap<String, BTreeMap<Box<str>, BTreeSet<Box<str>>>>,
}

impl Index {
    /// Takes over an object as it is now. What does not parse grants nothing.
    pub fn put(&mut self, kind: Kind, namespace: &str, name: &str, json: &[u8]) {
        let stored: Stored = serde_json::from_slice(json).unwrap_or_else(|error| {
            tracing::error!(%error, namespace, name, "a stored role or binding does not parse");
            Stored::default()
        });
        let rules: Rules = stored.rules.unwrap_or_default().into();
        match kind {
            Kind::Role => {
                self.roles.insert((namespace.into(), name.into()), rules);
            }
            Kind::ClusterRole => {
                let selectors = stored.aggregation_rule.map(|rule| {
                    let all = rule.cluster_role_selectors.unwrap_or_default();
                    all.iter().filter_map(|one| LabelSelector::from_meta(one).ok()).collect()
                });
                let labels = stored.metadata.labels.unwrap_or_default();
                let role = ClusterRole { own: rules.clone(), labels, selectors, rules };
                self.cluster_roles.insert(name.into(), role);
                self.aggregate();
            }
            Kind::Binding => {
                self.remove_binding(namespace, name);
                if let Some(role) = stored.role_ref {
                    self.add_binding(namespace, name, &stored.subjects.unwrap_or_default(), role);
                }
            }
        }
    }

    /// Forgets an object.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        match kind {
            Kind::Role => drop(self.roles.remove(&(namespace.into(), name.into()))),
            Kind::ClusterRole => {
                self.cluster_roles.remove(name);
                self.aggregate();
            }
            Kind::Binding => self.remove_binding(namespace, name),
        }
    }

    /// Shows every grant that concerns somebody in a namespace (empty: in the cluster), until told to stop.
    pub fn each_grant<T>(
        &self,
        who: &Identity,
        namespace: &str,
        mut look: impl FnMut(&Grant<'_>) -> ControlFlow<T>,
    ) -> Option<T> {
        let user = subject_text("User", &who.user);
        let groups = who.groups.iter().map(|group| subject_text("Group", group));
        for subject in std::iter::once(user).chain(groups) {
            let Some(places) = self.by_subject.get(&subject) else { continue };
            let scopes = if namespace.is_empty() { &[""][..] } else { &["", namespace] };
            for scope in scopes {
                for binding in places.get(*scope).into_iter().flatten() {
                    let found = self.grant(scope, binding, &subject).map(|grant| look(&grant));
                    if let Some(ControlFlow::Break(answer)) = found {
                        return Some(answer);
                    }
                }
            }
        }
        None
    }

    /// The rules of a Role, or of a ClusterRole where there is no namespace.
    pub fn role(&self, namespace: Option<&str>, name: &str) -> Option<&Rules> {
        match namespace {
            None => self.cluster_roles.get(name).map(|role| &role.rules),
            Some(namespace) => self.roles.get(&(namespace.into(), name.into())),
        }
    }

    fn grant<'a>(&'a self, namespace: &'a str, binding: &'a str, subject: &'a str) -> Option<Grant<'a>> {
        let role = &self.bindings.get(&(namespace.into(), binding.into()))?.role;
        let rules = match role.kind.as_str() {
            "ClusterRole" => self.role(None, &role.name),
            "Role" if !namespace.is_empty() => self.role(Some(namespace), &role.name),
            _ => None,
        };
        Some(Grant { namespace, binding, role, subject, rules })
    }

    fn add_binding(&mut self, namespace: &str, name: &str, subjects: &[Subject], role: RoleRef) {
        let subjects: Vec<String> = subjects.iter().filter_map(|one| subject_of(one, namespace)).collect();
        for subject in &subjects {
            let places = self.by_subject.entry(subject.clone()).or_default();
            places.entry(namespace.into()).or_default().insert(name.into());
        }
        self.bindings.insert((namespace.into(), name.into()), Binding { subjects, role });
    }

    fn remove_binding(&mut self, namespace: &str, name: &str) {
        let Some(binding) = self.bindings.remove(&(namespace.into(), name.into())) else { return };
        for subject in &binding.subjects {
            let Some(places) = self.by_subject.get_mut(subject) else { continue };
            if let Some(names) = places.get_mut(namespace) {
                names.remove(name);
                if names.is_empty() {
                    places.remove(namespace);
                }
            }
            if places.is_empty() {
                self.by_subject.remove(subject);
            }
        }
    }

    /// Works out what every aggregating role has. An aggregating role may itself be chosen by another, so it goes
    /// on until nothing changes; rules only ever get more, so it ends.
    fn aggregate(&mut self) {
        let names: Vec<Box<str>> = self.cluster_roles.keys().cloned().collect();
        for role in self.cluster_roles.values_mut() {
            role.rules = if role.selectors.is_some() { Rules::default() } else { role.own.clone() };
        }
        loop {
            let mut changed = false;
            for name in &names {
                let Some(rules) = self.union(name) else { continue };
                let Some(role) = self.cluster_roles.get_mut(name) else { continue };
                if rules.len() != role.rules.len() {
                    role.rules = rules.into();
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// The rules that a role aggregates right now, each once. `None` when it aggregates nothing.
    fn union(&self, name: &str) -> Option<Vec<PolicyRule>> {
        let selectors = self.cluster_roles.get(name)?.selectors.as_ref()?;
        let mut rules: Vec<PolicyRule> = Vec::new();
        for (other, role) in &self.cluster_roles {
            if **other == *name || !selectors.iter().any(|selector| selector.matches(&role.labels)) {
                continue;
            }
            for rule in role.rules.iter() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        Some(rules)
    }
}

fn subject_text(kind: &str, name: &str) -> String {
    format!("{kind} \"{name}\"")
}

/// A subject as the index knows it. A service account is the user that its tokens are.
fn subject_of(subject: &Subject, namespace: &str) -> Option<String> {
    match subject.kind.as_str() {
        "User" | "Group" => Some(subject_text(&subject.kind, &subject.name)),
        "ServiceAccount" => {
            let of = subject.namespace.as_deref().filter(|of| !of.is_empty()).unwrap_or(namespace);
            Some(subject_text("User", &format!("{SERVICE_ACCOUNT_PREFIX}{of}:{}", subject.name)))
        }
        _ => None,
    }
}
