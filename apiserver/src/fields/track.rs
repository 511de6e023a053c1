//! Ownership by writing: whoever changes a field by anything but apply owns it, alone.

use serde_json::Value;

use super::{
    compare::compare,
    managers::{self, BEFORE_APPLY, Entry, Manager},
    set::Set,
    subject::Subject,
    versions::{Lack, Versions},
};

/// Settles who owns what after `manager` wrote `new` over `old`, or made it (`old` is `Null`), where everybody wrote in one
/// version. Says whether anything that can be owned has changed.
pub fn track(
    subject: &Subject<'_>,
    old: &Value,
    new: &Value,
    entries: &mut Vec<Entry>,
    manager: &Manager,
    now: &str,
) -> bool {
    track_in(&Versions::alone(*subject), old, new, entries, manager, now).unwrap_or(false)
}

/// As [`track()`], with managers who wrote in other versions.
///
/// # Errors
/// What is to be converted first.
pub fn track_in(
    versions: &Versions<'_>,
    old: &Value,
    new: &Value,
    entries: &mut Vec<Entry>,
    manager: &Manager,
    now: &str,
) -> Result<bool, Box<Lack>> {
    let changes = compare(&versions.subject, old, new);
    if changes.is_empty() {
        return Ok(false);
    }
    versions.reconcile(&manager.api_version, entries);
    let mut all = versions.changes(&manager.api_version, entries, (old, new), changes)?;
    let own = all.remove(&manager.api_version).unwrap_or_default();
    let in_version =
        |version: &String| if *version == manager.api_version { Some(&own) } else { all.get(version) };
    let mut known = false;
    for entry in entries.iter_mut() {
        if entry.manager.is(manager) {
            known = true;
            take(entry, &own.removed);
            if !own.changed.is_empty() {
                give(entry, &own.changed);
                entry.time = Some(now.to_owned());
            }
        } else if let Some(changes) = in_version(&entry.manager.api_version) {
            take(entry, &changes.changed);
            take(entry, &changes.removed);
        }
    }
    entries.retain(|entry| !entry.is_empty());
    if !known && !own.changed.is_empty() {
        entries.push(Entry::new(manager.clone(), Some(now.to_owned()), own.changed));
    }
    managers::cap(entries);
    Ok(true)
}

/// Takes fields from an entry; one that owns none of them is not even read.
pub(super) fn take(entry: &mut Entry, gone: &Set) {
    if !gone.is_empty() && entry.owns_any(gone) {
        entry.own(entry.set().difference(gone));
    }
}

/// Gives fields to an entry; one that owns them all is not even read.
fn give(entry: &mut Entry, more: &Set) {
    if !entry.owns_all(more) {
        entry.own(entry.set().union(more));
    }
}

/// The owner of all that an object has when nobody kept account of it.
pub(super) fn before_apply(
    subject: &Subject<'_>,
    live: &Value,
    manager: &Manager,
    now: &str,
) -> Option<Entry> {
    let all = compare(subject, &Value::Null, live).changed;
    let owner =
        Manager { name: BEFORE_APPLY.to_owned(), operation: managers::Operation::Update, ..manager.clone() };
    (!all.is_empty()).then(|| Entry::new(owner, Some(now.to_owned()), all))
}
