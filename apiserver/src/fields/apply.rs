//! Ownership by apply: a manager says in full what it wants of an object, and owns just that.

use std::collections::BTreeMap;

use claw_schemas::schema::Place;
use serde_json::Value;

use super::{
    compare::{Changes, compare},
    element::Path,
    extract::{self, Fault},
    managers::{Entry, Manager},
    merge::merge,
    prune::{Last, prune},
    set::Set,
    subject::Subject,
    track::{before_apply, take},
    versions::{Lack, Versions},
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

/// Why an apply does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It is not to be.
    Refused(Refusal),
    /// An object is needed in another version first.
    Lacks(Box<Lack>),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Box<Lack>> for Halt {
    fn from(lack: Box<Lack>) -> Self {
        Self::Lacks(lack)
    }
}

/// Applies a configuration over the live object (`Null` when there is none), where everybody wrote in one version. With
/// `force`, fields change owners.
///
/// # Errors
/// A list whose items cannot be told apart, or conflicts.
pub fn apply(
    subject: &Subject<'_>,
    live: &Value,
    config: &Value,
    entries: Vec<Entry>,
    manager: &Manager,
    force: bool,
    now: &str,
) -> Result<Applied, Refusal> {
    let applied = apply_in(&Versions::alone(*subject), live, config, entries, manager, force, now);
    applied.map_err(|halt| match halt {
        Halt::Refused(refusal) => refusal,
        Halt::Lacks(_) => unreachable!("nothing is converted where there is one version"),
    })
}

/// As [`apply()`], with managers who wrote in other versions.
///
/// # Errors
/// The same, or what is to be converted first.
pub fn apply_in(
    versions: &Versions<'_>,
    live: &Value,
    config: &Value,
    mut entries: Vec<Entry>,
    manager: &Manager,
    force: bool,
    now: &str,
) -> Result<Applied, Halt> {
    let (subject, own) = (&versions.subject, manager.api_version.as_str());
    let root: Option<Place<'_>> = Some(subject.schema.root());
    extract::check(config, root).map_err(Refusal::Fault)?;
    versions.reconcile(own, &mut entries);
    if entries.is_empty() && !live.is_null() {
        entries.extend(before_apply(subject, live, manager, now));
    }
    let set = extract::named(subject, config);
    let (last, since) = replace_set(&mut entries, manager, set.clone());
    let mut object = if live.is_null() { config.clone() } else { merge(live, config, root) };
    if !last.set.is_empty() && (last.version != own || !last.set.difference(&set).is_empty()) {
        // What names the object has no owner, and is asked for all the same.
        let mut owned = BTreeMap::from([(own.to_owned(), extract::children(config, root))]);
        for entry in &entries {
            owned.entry(entry.manager.api_version.clone()).or_default().add(entry.set().into_owned());
        }
        object = prune(versions, own, &object, &last, owned)?;
    }
    let changes = compare(subject, live, &object);
    let unchanged = changes.is_empty() && last.version == own && last.set == set;
    let changes = versions.changes(own, &mut entries, (live, &object), changes)?;
    settle(&mut entries, manager, &changes, force).map_err(Refusal::Conflicts)?;
    if let Some(own) = entries.iter_mut().find(|entry| entry.manager.is(manager)) {
        own.time = if unchanged && since.is_some() { since } else { Some(now.to_owned()) };
    }
    entries.retain(|entry| !entry.is_empty());
    Ok(Applied { object, entries })
}

/// Makes a set what the manager owns. Gives back what it owned before, and since when.
fn replace_set(entries: &mut Vec<Entry>, manager: &Manager, set: Set) -> (Last, Option<String>) {
    match entries.iter_mut().find(|entry| entry.manager.is(manager)) {
        Some(entry) => {
            let (last, since) = (entry.set().into_owned(), entry.time.take());
            entry.own(set);
            // An applier may come back with another version.
            let before = std::mem::replace(&mut entry.manager, manager.clone());
            (Last { set: last, version: before.api_version }, since)
        }
        None => {
            entries.push(Entry::new(manager.clone(), None, set));
            (Last { set: Set::default(), version: manager.api_version.clone() }, None)
        }
    }
}

/// Takes what changed from the other managers, or says what stands against it. `changes` are told by version.
fn settle(
    entries: &mut [Entry],
    manager: &Manager,
    changes: &BTreeMap<String, Changes>,
    force: bool,
) -> Result<(), Vec<Conflict>> {
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !entry.manager.is(manager)) {
        let Some(changes) = changes.get(&entry.manager.api_version) else { continue };
        if !force && entry.owns_any(&changes.changed) {
            let paths = entry.set().intersection(&changes.changed).paths();
            conflicts.extend(paths.into_iter().map(|path| Conflict { manager: entry.manager.clone(), path }));
        }
        take(entry, &changes.changed);
        take(entry, &changes.removed);
    }
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    if conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
}
