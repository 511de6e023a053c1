//! Laws that hold for every set, and for every object and configuration.

use std::sync::LazyLock;

use claw_schemas::schema::Schema;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{compare::compare, extract::named, merge::merge, *};

/// A kind with a part of every form.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let text = json!({"type": "string"});
    let pair = json!({"type": "object", "properties": {"a": text, "b": text}});
    let item =
        json!({"type": "object", "properties": {"name": text, "port": {"type": "integer"}, "in": pair}});
    Schema::compile(&json!({"type": "object", "properties": {
        "apiVersion": text, "kind": text,
        "metadata": {"type": "object", "properties": {
            "name": text,
            "labels": {"type": "object", "additionalProperties": text},
        }},
        "spec": {"type": "object", "properties": {
            "leaf": text,
            "pair": pair,
            "whole": {"type": "object", "additionalProperties": text, "x-kubernetes-map-type": "atomic"},
            "list": {"type": "array", "items": text},
            "set": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
            "items": {
                "type": "array", "items": item,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            },
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
    }}))
});

fn subject() -> Subject<'static> {
    Subject { schema: &SCHEMA, scope: Scope::Main, builtin: false }
}

fn manager(name: &str) -> Manager {
    Manager {
        name: name.into(),
        operation: Operation::Apply,
        api_version: "v1".into(),
        subresource: String::new(),
    }
}

fn text() -> impl Strategy<Value = Value> {
    (0..3_u8).prop_map(|n| json!(n.to_string()))
}

fn maybe(
    name: &'static str,
    value: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Option<(String, Value)>> {
    prop::option::of(value.prop_map(move |value| (name.to_owned(), value)))
}

fn object(fields: Vec<Option<(String, Value)>>) -> Value {
    Value::Object(fields.into_iter().flatten().collect())
}

fn map() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-c]", text(), 0..3)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn pair() -> impl Strategy<Value = Value> {
    (maybe("a", text()), maybe("b", text())).prop_map(|(a, b)| object(vec![a, b]))
}

fn set_list() -> impl Strategy<Value = Value> {
    prop::collection::vec("[a-d]", 0..4).prop_map(|mut list| {
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|one| seen.insert(one.clone()));
        json!(list)
    })
}

/// Items with names of their own, in any order.
fn items() -> impl Strategy<Value = Value> {
    let item = (maybe("port", (0..2).prop_map(|n: i32| json!(n))), maybe("in", pair()));
    let whole = |(name, (port, inner))| object(vec![Some(("name".to_owned(), json!(name))), port, inner]);
    prop::collection::btree_map("[a-d]", item, 0..4)
        .prop_map(move |items| items.into_iter().map(whole).collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(Value::Array)
}

fn config() -> impl Strategy<Value = Value> {
    let spec = (
        maybe("leaf", text()),
        maybe("pair", pair()),
        maybe("whole", map()),
        maybe("list", set_list()),
        maybe("set", set_list()),
        maybe("items", items()),
        maybe("free", map()),
    );
    let spec = spec.prop_map(|(a, b, c, d, e, f, g)| object(vec![a, b, c, d, e, f, g]));
    (maybe("labels", map()), maybe("spec", spec)).prop_map(|(labels, spec)| {
        let metadata = object(vec![Some(("name".to_owned(), json!("x"))), labels]);
        object(vec![Some(("metadata".to_owned(), metadata)), spec])
    })
}

fn fields() -> impl Strategy<Value = Set> {
    let element = prop_oneof![
        "[a-c]".prop_map(|name| Element::field(&name)),
        "[a-b]".prop_map(|name| Element::key([("name", json!(name))])),
        (0..3_i64).prop_map(|n| Element::Value(Leaf(json!(n)))),
    ];
    prop::collection::vec(prop::collection::vec(element, 1..4), 0..8).prop_map(|paths| {
        let mut set = Set::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

/// Who owns what after some appliers forced their configurations in turn.
fn history(configs: &[Value]) -> (Value, Vec<Entry>) {
    let start = (Value::Null, Vec::new());
    configs.iter().enumerate().fold(start, |(live, entries), (n, config)| {
        let who = manager(["a", "b", "c"][n % 3]);
        let done = apply(&subject(), &live, config, entries, &who, true, "t").unwrap();
        (done.object, done.entries)
    })
}

/// The object without containers that are empty: they are neither there nor not there to an owner.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), bare(value)));
            Value::Object(fields.filter(|(_, value)| !is_hollow(value)).collect())
        }
        Value::Array(items) => items.iter().map(bare).collect(),
        leaf => leaf.clone(),
    }
}

fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sets_obey_the_laws_of_sets(a in fields(), b in fields(), c in fields()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.intersection(&b.union(&c)), a.intersection(&b).union(&a.intersection(&c)));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.union(&a), a.clone());
        prop_assert!(a.difference(&a).is_empty());
    }

    #[test]
    fn sets_are_their_members(a in fields(), b in fields()) {
        let mut again = Set::default();
        a.paths().iter().for_each(|path| again.insert(path));
        prop_assert_eq!(&again, &a);
        for path in a.union(&b).paths() {
            prop_assert_eq!(a.intersection(&b).contains(&path), a.contains(&path) && b.contains(&path));
            prop_assert_eq!(a.difference(&b).contains(&path), a.contains(&path) && !b.contains(&path));
        }
    }

    #[test]
    fn sets_survive_their_stored_form_and_are_looked_up_in_it(a in fields(), b in fields()) {
        let stored = b.to_text();
        prop_assert_eq!(Set::from_text(&stored), Ok(b.clone()));
        prop_assert_eq!(a.touches(&stored), !a.intersection(&b).is_empty());
        prop_assert_eq!(a.is_within(&stored), a.difference(&b).is_empty());
    }

    #[test]
    fn merging_is_idempotent_and_nothing_is_lost(live in config(), wanted in config()) {
        let root = Some(SCHEMA.root());
        let once = merge(&live, &wanted, root);
        prop_assert_eq!(&merge(&once, &wanted, root), &once);
        prop_assert_eq!(&merge(&live, &live, root), &live);
        prop_assert!(compare(&subject(), &live, &once).removed.is_empty());
    }

    #[test]
    fn comparing_finds_what_changed_and_only_that(old in config(), new in config()) {
        let changes = compare(&subject(), &old, &new);
        prop_assert!(compare(&subject(), &old, &old).is_empty());
        prop_assert!(changes.changed.intersection(&changes.removed).is_empty());
        let back = compare(&subject(), &new, &old);
        let touched = |changes: &compare::Changes| changes.changed.union(&changes.removed);
        prop_assert_eq!(touched(&changes), touched(&back));
    }

    #[test]
    fn an_applier_gets_what_it_asks_for_and_owns_it(history_of in prop::collection::vec(config(), 0..4), wanted in config()) {
        let (live, entries) = history(&history_of);
        let done = apply(&subject(), &live, &wanted, entries, &manager("z"), true, "t").unwrap();
        let again = merge(&done.object, &wanted, Some(SCHEMA.root()));
        prop_assert_eq!(&again, &done.object);
        let owned = named(&subject(), &wanted);
        let own = done.entries.iter().find(|entry| entry.manager.name == "z");
        prop_assert_eq!(own.map(|entry| entry.set().into_owned()).unwrap_or_default(), owned);
    }

    #[test]
    fn applying_twice_is_applying_once(history_of in prop::collection::vec(config(), 0..4), wanted in config()) {
        let (live, entries) = history(&history_of);
        let once = apply(&subject(), &live, &wanted, entries, &manager("z"), true, "t").unwrap();
        // An object of which nobody owns anything counts as one from before there were owners, as upstream has it.
        prop_assume!(!once.entries.is_empty());
        let twice = apply(&subject(), &once.object, &wanted, once.entries.clone(), &manager("z"), false, "later").unwrap();
        prop_assert_eq!(&twice.object, &once.object);
        prop_assert_eq!(&twice.entries, &once.entries);
    }

    #[test]
    fn without_force_nothing_of_others_changes(history_of in prop::collection::vec(config(), 1..4), wanted in config()) {
        let (live, entries) = history(&history_of);
        match apply(&subject(), &live, &wanted, entries.clone(), &manager("z"), false, "t") {
            Err(Refusal::Conflicts(conflicts)) => {
                for conflict in conflicts {
                    let owner = entries.iter().find(|entry| entry.manager == conflict.manager);
                    prop_assert!(owner.is_some_and(|entry| entry.set().contains(&conflict.path)));
                }
            }
            Err(Refusal::Fault(fault)) => prop_assert!(false, "{fault}"),
            Ok(done) => {
                let changed = compare(&subject(), &live, &done.object).changed;
                prop_assert!(entries.iter().all(|entry| !entry.owns_any(&changed)));
            }
        }
    }

    #[test]
    fn what_the_last_owner_gives_up_goes(wanted in config()) {
        let (live, entries) = history(&[wanted]);
        // As above.
        prop_assume!(!entries.is_empty());
        let nothing = json!({"metadata": {"name": "x"}});
        let done = apply(&subject(), &live, &nothing, entries, &manager("a"), false, "t").unwrap();
        prop_assert_eq!(bare(&done.object), bare(&nothing));
        prop_assert!(done.entries.is_empty());
    }

    #[test]
    fn what_two_ask_for_stays_when_one_gives_it_up(wanted in config()) {
        let (live, entries) = history(&[wanted.clone(), wanted]);
        let nothing = json!({"metadata": {"name": "x"}});
        let done = apply(&subject(), &live, &nothing, entries, &manager("a"), false, "t").unwrap();
        prop_assert_eq!(bare(&done.object), bare(&live));
    }
}
