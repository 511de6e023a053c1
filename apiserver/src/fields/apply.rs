//! Ownership by apply: a manager says in full what it wants of an object, and owns just that.

use claw_schemas::schema::Place;
use serde_json::Value;

use super::{
    compare::{Changes, compare},
    element::Path,
    extract::{self, Fault},
    managers::{Entry, Manager},
    merge::merge,
    prune::prune,
    set::Set,
    subject::Subject,
    track::{before_apply, take},
};

/// An object after an apply.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The object, without defaults for what is new.
    pub object: Value,
    /// Who owns what now.
    pub entries: Vec<Entry>,
}

/// A field that somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub manager: Manager,
    /// Which.
    pub path: Path,
}

/// Why a configuration is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It makes no sense.
    Fault(Fault),
    /// It would change fields that others own.
    Conflicts(Vec<Conflict>),
}

/// Applies a configuration over the live object (`Null` when there is none). With `force`, fields change owners.
///
/// # Errors
/// A list whose items cannot be told apart, or conflicts.
pub fn apply(
    subject: &Subject<'_>,
    live: &Value,
    config: &Value,
    mut entries: Vec<Entry>,
    manager: &Manager,
    force: bool,
    now: &str,
) -> Result<Applied, Refusal> {
    let root: Option<Place<'_>> = Some(subject.schema.root());
    extract::check(config, root).map_err(Refusal::Fault)?;
    if entries.is_empty() && !live.is_null() {
        entries.extend(before_apply(subject, live, manager, now));
    }
    let set = extract::named(subject, config);
    let (last, since) = replace_set(&mut entries, manager, set.clone());
    let mut object = if live.is_null() { config.clone() } else { merge(live, config, root) };
    if !last.difference(&set).is_empty() {
        // What names the object has no owner, and is asked for all the same.
        let asked = extract::children(config, root);
        let owned = entries.iter().fold(asked, |all, entry| all.union(&entry.set()));
        object = prune(subject, object, &last, &owned);
    }
    let changes = compare(subject, live, &object);
    settle(&mut entries, manager, &changes, force).map_err(Refusal::Conflicts)?;
    if let Some(own) = entries.iter_mut().find(|entry| entry.manager.is(manager)) {
        let unchanged = changes.is_empty() && last == set && since.is_some();
        own.time = if unchanged { since } else { Some(now.to_owned()) };
    }
    entries.retain(|entry| !entry.is_empty());
    Ok(Applied { object, entries })
}

/// Makes a set what the manager owns. Gives back what it owned before, and since when.
fn replace_set(entries: &mut Vec<Entry>, manager: &Manager, set: Set) -> (Set, Option<String>) {
    match entries.iter_mut().find(|entry| entry.manager.is(manager)) {
        Some(entry) => {
            let last = (entry.set().into_owned(), entry.time.take());
            entry.own(set);
            // An applier may come back with another version.
            entry.manager.clone_from(manager);
            last
        }
        None => {
            entries.push(Entry::new(manager.clone(), None, set));
            (Set::default(), None)
        }
    }
}

/// Takes what changed from the other managers, or says what stands against it.
fn settle(
    entries: &mut [Entry],
    manager: &Manager,
    changes: &Changes,
    force: bool,
) -> Result<(), Vec<Conflict>> {
    let others = || entries.iter().filter(|entry| !entry.manager.is(manager));
    if !force {
        let mut conflicts = Vec::new();
        for entry in others().filter(|entry| entry.owns_any(&changes.changed)) {
            let paths = entry.set().intersection(&changes.changed).paths();
            let of = |path| Conflict { manager: entry.manager.clone(), path };
            conflicts.extend(paths.into_iter().map(of));
        }
        if !conflicts.is_empty() {
            conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
            return Err(conflicts);
        }
    }
    for entry in entries.iter_mut().filter(|entry| !entry.manager.is(manager)) {
        take(entry, &changes.changed);
        take(entry, &changes.removed);
    }
    Ok(())
}
