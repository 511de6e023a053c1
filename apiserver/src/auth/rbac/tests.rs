//! Decisions over a store that changes, and what holds for all rules.

use claw_client::ResourceRef;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    index::{Index, Kind},
    rules::tests::rule,
    *,
};
use crate::{
    auth::action::What,
    store::{self, Change, Draft, Expect, Write},
};

fn draft(object: &Value) -> Draft {
    let mut bytes = object.to_string().into_bytes();
    bytes.pop();
    bytes.extend_from_slice(br#","r":""}"#);
    let revision_at = bytes.len() - 2;
    Draft { bytes, revision_at }
}

async fn put(store: &dyn Store, plural: &str, namespace: &str, name: &str, object: &Value) {
    let key = Key::object(GROUP, plural, namespace, name);
    let expect = store.get(&key).await.unwrap().map_or(Expect::Absent, |old| Expect::Revision(old.revision));
    store.commit(vec![Write { key, expect, change: Change::Put(draft(object)) }]).await.unwrap();
}

async fn delete(store: &dyn Store, plural: &str, namespace: &str, name: &str) {
    let key = Key::object(GROUP, plural, namespace, name);
    let expect = Expect::Revision(store.get(&key).await.unwrap().unwrap().revision);
    store.commit(vec![Write { key, expect, change: Change::Delete(draft(&json!({"x": 1}))) }]).await.unwrap();
}

fn binding(role_kind: &str, role: &str, subject: &Value) -> Value {
    json!({"roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role}, "subjects": [subject]})
}

fn reader() -> Value {
    json!({"rules": [rule("get,list", "-", "pods", "")]})
}

fn pods(namespace: &str) -> ResourceRef {
    ResourceRef::collection("", "v1", "pods").in_namespace(namespace)
}

#[tokio::test]
async fn a_decision_knows_every_committed_role_and_binding() {
    let store = store::memory();
    let rbac = Rbac::start(store.clone()).await.unwrap();
    let eve = Identity::of("eve", &[]);
    let resource = pods("default");
    let may = |who: &Identity| rbac.allows(who, &Action::on("list", &resource));
    assert!(!may(&eve));
    put(&*store, "roles", "default", "reader", &reader()).await;
    assert!(!may(&eve));
    let to_eve = json!({"kind": "User", "name": "eve", "apiGroup": GROUP});
    put(&*store, "rolebindings", "default", "eve-reads", &binding("Role", "reader", &to_eve)).await;
    assert!(may(&eve));
    assert!(!rbac.allows(&eve, &Action::on("list", &pods("other"))));
    assert_eq!(
        rbac.explain(&eve, &Action::on("list", &resource)),
        "RBAC: allowed by RoleBinding \"eve-reads/default\" of Role \"reader\" to User \"eve\""
    );
    delete(&*store, "roles", "default", "reader").await;
    assert!(!may(&eve));
    let why = rbac.explain(&eve, &Action::on("list", &resource));
    assert!(why.contains("role.rbac.authorization.k8s.io \"reader\" not found"), "{why}");
    put(&*store, "roles", "default", "reader", &reader()).await;
    assert!(may(&eve));
    delete(&*store, "rolebindings", "default", "eve-reads").await;
    assert!(!may(&eve));
}

#[tokio::test]
async fn a_binding_that_changes_hands_leaves_nothing_behind() {
    let store = store::memory();
    put(&*store, "clusterroles", "", "reader", &reader()).await;
    let account = json!({"kind": "ServiceAccount", "name": "bot"});
    put(&*store, "rolebindings", "a", "b", &binding("ClusterRole", "reader", &account)).await;
    let rbac = Rbac::start(store.clone()).await.unwrap();
    let bot = Identity::of("system:serviceaccount:a:bot", &[]);
    let devs = Identity::of("eve", &["devs"]);
    let resource = pods("a");
    let list = Action::on("list", &resource);
    assert!(rbac.allows(&bot, &list) && !rbac.allows(&devs, &list));
    let group = json!({"kind": "Group", "name": "devs", "apiGroup": GROUP});
    put(&*store, "rolebindings", "a", "b", &binding("ClusterRole", "reader", &group)).await;
    assert!(!rbac.allows(&bot, &list) && rbac.allows(&devs, &list));
    assert_eq!(rbac.rules(&devs, "a").len(), 1);
    assert!(rbac.rules(&devs, "").is_empty() && rbac.rules(&bot, "a").is_empty());
}

#[tokio::test]
async fn a_cluster_binding_holds_in_every_namespace_and_a_role_of_one_in_no_other() {
    let store = store::memory();
    put(&*store, "clusterroles", "", "reader", &reader()).await;
    put(&*store, "roles", "a", "reader", &json!({"rules": [rule("*", "*", "*", "")]})).await;
    let group = json!({"kind": "Group", "name": "devs", "apiGroup": GROUP});
    put(&*store, "clusterrolebindings", "", "all", &binding("ClusterRole", "reader", &group)).await;
    put(&*store, "clusterrolebindings", "", "odd", &binding("Role", "reader", &group)).await;
    let rbac = Rbac::start(store).await.unwrap();
    let devs = Identity::of("eve", &["devs"]);
    for namespace in ["a", "b"] {
        assert!(rbac.allows(&devs, &Action::on("list", &pods(namespace))));
        assert!(!rbac.allows(&devs, &Action::on("delete", &pods(namespace))));
    }
    assert!(rbac.allows(&devs, &Action::on("list", &ResourceRef::collection("", "v1", "pods"))));
}

#[tokio::test]
async fn the_default_roles_come_to_what_their_parts_say() {
    let store = store::memory();
    for default in bootstrap::defaults() {
        put(&*store, default.plural, "", &default.name, &default.object).await;
    }
    let rbac = Rbac::start(store.clone()).await.unwrap();
    let rules = |name| rbac.role(None, name).unwrap();
    let (admin, edit, view) = (rules("admin"), rules("edit"), rules("view"));
    assert!(rules::missing(edit.iter(), &view).is_empty());
    assert!(rules::missing(admin.iter(), &edit).is_empty());
    assert!(!rules::missing(view.iter(), &edit).is_empty());
    let mut own = json!({"rules": [rule("get", "example.com", "gadgets", "")]});
    own["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] = json!("true");
    put(&*store, "clusterroles", "", "gadgets", &own).await;
    assert_eq!(rules("admin").len(), admin.len() + 1);
    delete(&*store, "clusterroles", "", "gadgets").await;
    assert_eq!(rules("admin").len(), admin.len());
    let anybody = Identity::of("eve", &[crate::auth::AUTHENTICATED]);
    assert!(rbac.allows(&anybody, &Action::at("get", "/apis/apps/v1")));
    assert!(!rbac.allows(&anybody, &Action::at("get", "/metrics")));
    assert!(!rbac.allows(&Identity::anonymous(), &Action::at("get", "/apis")));
    assert!(rbac.allows(&Identity::anonymous(), &Action::at("get", "/version")));
}

fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let verbs = prop::collection::vec(word(&["get", "list", "delete", "*"]), 1..3);
    let groups = prop::collection::vec(word(&["", "apps", "*"]), 1..3);
    let resources = prop::collection::vec(word(&["pods", "pods/log", "*/scale", "secrets", "*"]), 1..3);
    let names = prop::option::of(prop::collection::vec(word(&["a", "b"]), 1..3));
    (verbs, groups, resources, names).prop_map(|(verbs, groups, resources, resource_names)| PolicyRule {
        verbs,
        api_groups: Some(groups),
        resources: Some(resources),
        resource_names,
        non_resource_urls: None,
    })
}

/// Every deed that the words above can be about.
fn deeds() -> Vec<Action<'static>> {
    let mut all = Vec::new();
    for verb in ["get", "list", "delete", "create"] {
        for group in ["", "apps", "batch"] {
            for (plural, subresource) in
                [("pods", ""), ("pods", "log"), ("pods", "scale"), ("secrets", ""), ("x", "y")]
            {
                for name in ["", "a", "b", "c"] {
                    let what = What::Objects { group, plural, subresource, namespace: "default", name };
                    all.push(Action { verb, what, fields: None });
                }
            }
        }
    }
    all
}

/// The numbers of those that some rule allows.
fn allowed(rules: &[PolicyRule]) -> Vec<usize> {
    let is_allowed = |deed: &Action<'_>| rules.iter().any(|rule| rules::allows(rule, deed));
    deeds().iter().enumerate().filter(|(_, deed)| is_allowed(deed)).map(|(number, _)| number).collect()
}

proptest! {
    #[test]
    fn more_rules_never_allow_less(some in prop::collection::vec(any_rule(), 0..4), more in any_rule()) {
        let before = allowed(&some);
        let after = allowed(&[some, vec![more]].concat());
        prop_assert!(before.iter().all(|deed| after.contains(deed)));
    }

    #[test]
    fn rules_that_lack_nothing_allow_everything_wanted(
        held in prop::collection::vec(any_rule(), 0..4),
        wanted in prop::collection::vec(any_rule(), 0..3),
    ) {
        let lacking = rules::missing(held.iter(), &wanted);
        let (may, would) = (allowed(&held), allowed(&wanted));
        if lacking.is_empty() {
            prop_assert!(would.iter().all(|deed| may.contains(deed)));
        }
        let completed = allowed(&[held, lacking].concat());
        prop_assert!(would.iter().all(|deed| completed.contains(deed)));
    }

    #[test]
    fn an_aggregated_role_allows_what_its_parts_allow_together(
        parts in prop::collection::vec((any_rule(), any::<bool>()), 0..5),
    ) {
        let mut index = Index::default();
        let whole = json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "true"}}]}});
        index.put(Kind::ClusterRole, "", "whole", whole.to_string().as_bytes());
        for (number, (rule, is_part)) in parts.iter().enumerate() {
            let part = json!({"metadata": {"labels": {"part": is_part.to_string()}}, "rules": [rule]});
            index.put(Kind::ClusterRole, "", &format!("part-{number}"), part.to_string().as_bytes());
        }
        let chosen: Vec<PolicyRule> =
            parts.into_iter().filter(|(_, is_part)| *is_part).map(|(rule, _)| rule).collect();
        prop_assert_eq!(allowed(index.role(None, "whole").unwrap()), allowed(&chosen));
    }
}
