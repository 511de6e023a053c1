//! Which names a definition gets, and what its status says: a pure function of all definitions.
//!
//! A name that a definition has been given stays its own. Of those that ask for the same free name, the oldest gets it.
//! What a definition asks for and does not get leaves it out of service, or, once it is in service, with the names it had.

use std::collections::BTreeSet;

use claw_schemas::Registry;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::definition::{Definition, set_condition};

/// What becomes of one definition.
pub(crate) struct Planned {
    /// The definition as it is.
    pub object: Value,
    /// The status that it is to have.
    pub status: Value,
    /// Names under which it is served; `None` when it is not.
    pub names: Option<Value>,
}

impl Planned {
    /// What the definition says.
    pub fn definition(&self) -> Definition<'_> {
        Definition(&self.object)
    }
}

/// The names taken within one group.
#[derive(Default)]
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// What somebody else in the group has: built-in kinds, and the accepted names of other definitions.
    fn by_others(
        definition: Definition<'_>,
        builtin: &Registry,
        accepted: &[(String, String, Value)],
    ) -> Self {
        let mut taken = Self::default();
        for kind in builtin.iter().filter(|kind| kind.group == definition.group()) {
            let short = kind.short_names.iter().map(ToString::to_string);
            taken.resources.extend(short.chain([kind.plural.to_string(), kind.singular.to_string()]));
            taken.kinds.extend([kind.kind.to_string(), kind.list_kind()]);
        }
        for (group, name, names) in accepted {
            if group == definition.group() && name != definition.name() {
                taken.add(names);
            }
        }
        taken
    }

    fn add(&mut self, names: &Value) {
        let text = |field: &str| names[field].as_str().unwrap_or_default().to_owned();
        let short = names["shortNames"].as_array().into_iter().flatten();
        self.resources.extend(short.filter_map(Value::as_str).map(str::to_owned));
        self.resources.extend([text("plural"), text("singular")]);
        self.kinds.extend([text("kind"), text("listKind")]);
    }
}

/// Plans for all definitions, oldest first.
pub(crate) fn plan(mut objects: Vec<Value>, builtin: &Registry, now: Timestamp) -> Vec<Planned> {
    objects.sort_by(|a, b| {
        let age = |object| (Definition(object).created(), Definition(object).name());
        age(a).cmp(&age(b))
    });
    let accepted = |object: &Value| {
        let definition = Definition(object);
        let names = object["status"]["acceptedNames"].clone();
        (definition.group().to_owned(), definition.name().to_owned(), names)
    };
    let mut accepted: Vec<(String, String, Value)> = objects.iter().map(accepted).collect();
    let mut plans = Vec::new();
    for (index, object) in objects.into_iter().enumerate() {
        let taken = Taken::by_others(Definition(&object), builtin, &accepted);
        let (status, established) = settle(Definition(&object), &taken, now);
        accepted[index].2 = status["acceptedNames"].clone();
        let names = established.then(|| status["acceptedNames"].clone());
        plans.push(Planned { object, status, names });
    }
    plans
}

/// The status of a definition, and whether its kind is served.
fn settle(definition: Definition<'_>, taken: &Taken, now: Timestamp) -> (Value, bool) {
    let mut status = definition.0["status"].clone();
    let conflict = settle_names(definition, taken, &mut status);
    let accepted = match &conflict {
        None => ("NamesAccepted", true, "NoConflicts", "no conflicts found"),
        Some((reason, message)) => ("NamesAccepted", false, *reason, message.as_str()),
    };
    set_condition(&mut status, accepted, now);
    let established = conflict.is_none() || definition.is("Established");
    let condition = if established {
        ("Established", true, "InitialNamesAccepted", "the initial names have been accepted")
    } else {
        ("Established", false, "NotAccepted", "not all names are accepted")
    };
    set_condition(&mut status, condition, now);
    status["observedGeneration"] = definition.generation().into();
    (status, established)
}

/// Accepts of the wished names what is free. Gives the first conflict as a reason and a sentence.
fn settle_names(
    definition: Definition<'_>,
    taken: &Taken,
    status: &mut Value,
) -> Option<(&'static str, String)> {
    let wished = definition.names();
    let mut accepted = status["acceptedNames"].clone();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut conflict = None;
    let mut refuse = |reason: &'static str, name: &str| {
        conflict.get_or_insert((reason, format!("\"{name}\" is already in use")));
    };
    let text = |field: &str| wished[field].as_str().unwrap_or_default();
    for (field, names, reason) in [
        ("plural", &taken.resources, "PluralConflict"),
        ("singular", &taken.resources, "SingularConflict"),
        ("kind", &taken.kinds, "KindConflict"),
        ("listKind", &taken.kinds, "ListKindConflict"),
    ] {
        match text(field) {
            "" => {}
            name if names.contains(name) => refuse(reason, name),
            name => accepted[field] = name.into(),
        }
    }
    let short: Vec<&str> =
        wished["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match short.iter().find(|name| taken.resources.contains(**name)) {
        Some(name) => refuse("ShortNamesConflict", name),
        None => take_list(&mut accepted, "shortNames", &wished["shortNames"]),
    }
    take_list(&mut accepted, "categories", &wished["categories"]);
    status["acceptedNames"] = accepted;
    conflict
}

fn take_list(accepted: &mut Value, field: &str, wished: &Value) {
    let Some(names) = accepted.as_object_mut() else { return };
    match wished.as_array().filter(|list| !list.is_empty()) {
        Some(_) => names.insert(field.to_owned(), wished.clone()),
        None => names.remove(field),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(group: &str, plural: &str, kind: &str, short: &[&str], created: &str) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.{group}"), "creationTimestamp": created, "generation": 1},
            "spec": {"group": group, "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
                "shortNames": short,
            }},
            "status": {"acceptedNames": {"plural": "", "kind": ""}, "conditions": [], "storedVersions": ["v1"]},
        })
    }

    fn outcome(objects: &[Value]) -> Vec<(String, bool, String)> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let plans = plan(objects.to_vec(), &Registry::builtin(), now);
        let reason = |planned: &Planned| {
            let conditions = planned.status["conditions"].as_array().unwrap();
            conditions.iter().find(|c| c["type"] == "NamesAccepted").unwrap()["reason"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        plans.iter().map(|p| (p.definition().name().to_owned(), p.names.is_some(), reason(p))).collect()
    }

    #[test]
    fn the_older_of_two_gets_a_name_that_both_want() {
        let young = definition("a.example", "gadgets", "Gadget", &["ga"], "2026-01-02T00:00:00Z");
        let old = definition("a.example", "things", "Gadget", &[], "2026-01-01T00:00:00Z");
        let elsewhere = definition("b.example", "gadgets", "Gadget", &["ga"], "2026-01-03T00:00:00Z");
        assert_eq!(
            outcome(&[young, old, elsewhere]),
            [
                ("things.a.example".to_owned(), true, "NoConflicts".to_owned()),
                ("gadgets.a.example".to_owned(), false, "SingularConflict".to_owned()),
                ("gadgets.b.example".to_owned(), true, "NoConflicts".to_owned()),
            ]
        );
    }

    #[test]
    fn a_name_once_accepted_is_kept_against_an_older_definition() {
        let mut young = definition("a.example", "gadgets", "Gadget", &["x"], "2026-01-02T00:00:00Z");
        young["status"]["acceptedNames"] = young["spec"]["names"].clone();
        let old = definition("a.example", "things", "Thing", &["x"], "2026-01-01T00:00:00Z");
        assert_eq!(
            outcome(&[young, old])[0],
            ("things.a.example".to_owned(), false, "ShortNamesConflict".to_owned())
        );
    }

    #[test]
    fn no_definition_takes_the_place_of_a_built_in_kind() {
        let thief = definition("apps", "deployments", "Deployment", &[], "2026-01-02T00:00:00Z");
        assert_eq!(outcome(&[thief])[0], ("deployments.apps".to_owned(), false, "PluralConflict".to_owned()));
    }

    #[test]
    fn planning_twice_changes_nothing() {
        let mut object = definition("a.example", "gadgets", "Gadget", &["ga"], "2026-01-02T00:00:00Z");
        let status = |object: &Value, now: &str| {
            plan(vec![object.clone()], &Registry::builtin(), now.parse().unwrap()).remove(0).status
        };
        let first = status(&object, "2026-01-01T00:00:00Z");
        object["status"] = first.clone();
        let second = status(&object, "2027-01-01T00:00:00Z");
        assert_eq!(second, first);
    }
}
