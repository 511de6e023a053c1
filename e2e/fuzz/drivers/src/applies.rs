//! Server-side apply against upstream's written rules, in a model that knows nothing but leaves.
//!
//! The model is an object of plain fields: which value each has, and which managers own it. Its rules are those of KEP-555:
//! an applier owns what it names; changing what another owns is a conflict, which force decides; what an applier no longer
//! names goes unless another owns it; whoever updates owns what it changed, alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use claw_apiserver::fields::{self, Entry, Manager, Operation, Refusal, Scope, Subject};
use claw_schemas::schema::Schema;
use serde_json::{Map, Value, json};

use crate::tape::Tape;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let text = json!({"type": "string"});
    let pair = json!({"type": "object", "properties": {"a": text, "b": text}});
    let item = json!({"type": "object", "properties": {"name": text, "a": text, "b": text}});
    Schema::compile(&json!({"type": "object", "properties": {
        "apiVersion": text, "kind": text, "metadata": {"type": "object", "properties": {"name": text}},
        "spec": {"type": "object", "properties": {
            "a": text, "b": text, "pair": pair,
            "map": {"type": "object", "additionalProperties": text},
            "items": {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            "set": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
            "whole": {"type": "array", "items": text},
        }},
    }}))
});

/// Where a leaf stands: `spec/items/x/a`.
type Leaf = String;
type Leaves = BTreeMap<Leaf, String>;

/// An item of a list is a leaf by itself, whose value is its name; so is a value of a set.
const PLACES: [&str; 13] = [
    "a",
    "b",
    "pair/a",
    "pair/b",
    "map/x",
    "map/y",
    "items/x/a",
    "items/x/b",
    "items/y/a",
    "items/y",
    "set/x",
    "set/y",
    "whole",
];

#[derive(Clone, Default)]
struct Model {
    live: Leaves,
    owners: BTreeMap<String, BTreeSet<Leaf>>,
}

impl Model {
    /// The leaves that stand against an apply, each with its owner.
    fn conflicts(&self, who: &str, config: &Leaves) -> BTreeSet<(String, Leaf)> {
        let changed = |leaf: &&Leaf| self.live.get(*leaf).is_some_and(|live| Some(live) != config.get(*leaf));
        let changed: Vec<&Leaf> = config.keys().filter(changed).collect();
        let of = |(owner, owned): (&String, &BTreeSet<Leaf>)| {
            changed
                .iter()
                .filter(|leaf| owned.contains(**leaf))
                .map(|leaf| (owner.clone(), (*leaf).clone()))
                .collect::<Vec<_>>()
        };
        self.owners.iter().filter(|(owner, _)| *owner != who).flat_map(of).collect()
    }

    fn apply(&mut self, who: &str, config: &Leaves) {
        for (owner, leaf) in self.conflicts(who, config) {
            self.owners.get_mut(&owner).map(|owned| owned.remove(&leaf));
        }
        let named: BTreeSet<Leaf> = config.keys().cloned().collect();
        let last = self.owners.insert(who.to_owned(), named.clone()).unwrap_or_default();
        self.live.extend(config.clone());
        for gone in last.difference(&named) {
            self.give_up(gone);
        }
    }

    /// Takes away what nobody owns any more. With an item goes what is in it, whoever owns that.
    fn give_up(&mut self, leaf: &str) {
        if self.owners.values().any(|owned| owned.contains(leaf)) {
            return;
        }
        let below = format!("{leaf}/");
        let is_gone = |own: &Leaf| own == leaf || own.starts_with(&below);
        self.live.retain(|own, _| !is_gone(own));
        self.owners.values_mut().for_each(|owned| owned.retain(|own| !is_gone(own)));
    }

    fn update(&mut self, who: &str, new: &Leaves) {
        let changed: Vec<Leaf> = new
            .iter()
            .filter(|(leaf, value)| self.live.get(*leaf) != Some(value))
            .map(|(leaf, _)| leaf.clone())
            .collect();
        let gone: Vec<Leaf> = self.live.keys().filter(|leaf| !new.contains_key(*leaf)).cloned().collect();
        for owned in self.owners.values_mut() {
            owned.retain(|leaf| !changed.contains(leaf) && !gone.contains(leaf));
        }
        self.owners.entry(who.to_owned()).or_default().extend(changed);
        self.live = new.clone();
    }
}

/// Some writes by some managers, side by side with the model.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let (mut live, mut entries, mut model) = (Value::Null, Vec::<Entry>::new(), Model::default());
    let mut turns = 0;
    while tape.more(turns, 8) {
        turns += 1;
        let who = tape.pick(&["a", "b", "c"]);
        let config = leaves(&mut tape);
        // Nobody owning anything means an object from before there were owners, which has rules of its own.
        if model.owners.values().all(BTreeSet::is_empty) && !live.is_null() {
            return;
        }
        if tape.below(4) == 3 {
            (live, entries) = updated(&live, entries, who, &config, &mut model);
        } else {
            let force = tape.flag();
            (live, entries) = applied(&live, entries, who, &config, force, &mut model);
        }
        assert_eq!(flat(&live), model.live, "after {who} wrote {config:?}");
        assert_eq!(owners(&entries), kept(&model), "after {who} wrote {config:?}");
    }
}

fn subject() -> Subject<'static> {
    Subject { schema: &SCHEMA, scope: Scope::Main, builtin: true }
}

fn manager(name: &str, operation: Operation) -> Manager {
    Manager { name: name.to_owned(), operation, api_version: "v1".to_owned(), subresource: String::new() }
}

fn applied(
    live: &Value,
    entries: Vec<Entry>,
    who: &str,
    config: &Leaves,
    force: bool,
    model: &mut Model,
) -> (Value, Vec<Entry>) {
    let expected = model.conflicts(who, config);
    match fields::apply(
        &subject(),
        live,
        &object(config),
        entries.clone(),
        &manager(who, Operation::Apply),
        force,
        "t",
    ) {
        Ok(done) => {
            assert!(force || expected.is_empty(), "{who} passed {expected:?} over");
            model.apply(who, config);
            (done.object, done.entries)
        }
        Err(Refusal::Conflicts(conflicts)) => {
            let found = conflicts.into_iter().map(|one| (tag(&one.manager), place(&one.path)));
            assert!(!force, "{who} was refused for all its force");
            assert_eq!(found.collect::<BTreeSet<_>>(), expected, "{who} wants {config:?} of {live}");
            (live.clone(), entries)
        }
        Err(Refusal::Fault(fault)) => panic!("{who} wants {config:?}: {fault}"),
    }
}

fn updated(
    live: &Value,
    mut entries: Vec<Entry>,
    who: &str,
    config: &Leaves,
    model: &mut Model,
) -> (Value, Vec<Entry>) {
    let new = object(config);
    fields::track(&subject(), live, &new, &mut entries, &manager(who, Operation::Update), "t");
    model.update(&format!("{who}-update"), config);
    (new, entries)
}

/// The name by which the model knows a manager.
fn tag(manager: &Manager) -> String {
    match manager.operation {
        Operation::Apply => manager.name.clone(),
        Operation::Update => format!("{}-update", manager.name),
    }
}

fn leaves(tape: &mut Tape<'_>) -> Leaves {
    let mut leaves = Leaves::new();
    while tape.more(leaves.len(), 7) {
        let place = tape.pick(&PLACES);
        let value = match place.split('/').collect::<Vec<_>>()[..] {
            ["items" | "set", name] => name.to_owned(),
            _ => tape.pick(&["0", "1", "2"]).to_owned(),
        };
        leaves.insert(format!("spec/{place}"), value);
        if let ["items", name, _] = place.split('/').collect::<Vec<_>>()[..] {
            leaves.insert(format!("spec/items/{name}"), name.to_owned());
        }
    }
    // The name of an item is a leaf of its own, too.
    let items: Vec<String> = leaves.keys().filter(|leaf| is_item(leaf)).cloned().collect();
    for item in items {
        let name = item.rsplit('/').next().unwrap_or_default().to_owned();
        leaves.insert(format!("{item}/name"), name);
    }
    leaves
}

fn is_item(leaf: &str) -> bool {
    leaf.starts_with("spec/items/") && leaf.split('/').count() == 3
}

/// The object that has these leaves.
fn object(leaves: &Leaves) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}});
    for (leaf, value) in leaves {
        let steps: Vec<&str> = leaf.split('/').collect();
        match steps[1..] {
            ["items", _] => {}
            ["items", name, field] => item(&mut object["spec"]["items"], name)[field] = json!(value),
            ["set", name] => list(&mut object["spec"]["set"]).push(json!(name)),
            ["whole"] => object["spec"]["whole"] = json!([value]),
            [field] => object["spec"][field] = json!(value),
            [field, inner] => object["spec"][field][inner] = json!(value),
            _ => unreachable!("{leaf} is no place"),
        }
    }
    object
}

fn list(value: &mut Value) -> &mut Vec<Value> {
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it was made a list")
}

fn item<'v>(value: &'v mut Value, name: &str) -> &'v mut Value {
    let items = list(value);
    let at = items.iter().position(|item| item["name"] == name).unwrap_or_else(|| {
        items.push(json!({"name": name}));
        items.len() - 1
    });
    &mut items[at]
}

/// The leaves of an object.
fn flat(object: &Value) -> Leaves {
    let mut leaves = Leaves::new();
    for (field, value) in object["spec"].as_object().unwrap_or(&Map::new()) {
        let at = format!("spec/{field}");
        match (field.as_str(), value) {
            ("items", Value::Array(items)) => {
                for item in items {
                    let name = item["name"].as_str().unwrap_or_default();
                    leaves.insert(format!("{at}/{name}"), name.to_owned());
                    fields_of(&format!("{at}/{name}"), item, &mut leaves);
                }
            }
            ("set", Value::Array(items)) => {
                let names = items.iter().filter_map(Value::as_str);
                leaves.extend(names.map(|name| (format!("{at}/{name}"), name.to_owned())));
            }
            ("whole", value) => drop(leaves.insert(at, value[0].as_str().unwrap_or_default().to_owned())),
            (_, Value::Object(_)) => fields_of(&at, value, &mut leaves),
            (_, value) => drop(leaves.insert(at, value.as_str().unwrap_or_default().to_owned())),
        }
    }
    leaves
}

fn fields_of(at: &str, value: &Value, leaves: &mut Leaves) {
    for (name, value) in value.as_object().into_iter().flatten() {
        leaves.insert(format!("{at}/{name}"), value.as_str().unwrap_or_default().to_owned());
    }
}

/// The leaf at the end of a path.
fn place(path: &[fields::Element]) -> Leaf {
    let steps = path.iter().map(|element| match element {
        fields::Element::Field(name) => name.to_string(),
        fields::Element::Key(keys) => {
            keys.first().and_then(|(_, leaf)| leaf.0.as_str()).unwrap_or_default().to_owned()
        }
        fields::Element::Value(leaf) => leaf.0.as_str().unwrap_or_default().to_owned(),
        fields::Element::Index(index) => index.to_string(),
    });
    steps.collect::<Vec<_>>().join("/")
}

/// Who owns which leaves. That somebody owns a container says nothing of a leaf.
fn owners(entries: &[Entry]) -> BTreeMap<String, BTreeSet<Leaf>> {
    let is_leaf =
        |leaf: &Leaf| !["spec", "spec/pair", "spec/map", "spec/items", "spec/set"].contains(&&**leaf);
    let of = |entry: &Entry| entry.set().paths().iter().map(|path| place(path)).filter(is_leaf).collect();
    entries
        .iter()
        .map(|entry| (tag(&entry.manager), of(entry)))
        .filter(|(_, owned): &(_, BTreeSet<_>)| !owned.is_empty())
        .collect()
}

fn kept(model: &Model) -> BTreeMap<String, BTreeSet<Leaf>> {
    model.owners.clone().into_iter().filter(|(_, owned)| !owned.is_empty()).collect()
}
