//! Ownership by writing: whoever changes a field by anything but apply owns it, alone.

use serde_json::Value;

use super::{
    compare::compare,
    managers::{self, BEFORE_APPLY, Entry, Manager},
    set::Set,
    subject::Subject,
};

/// Settles who owns what after `manager` wrote `new` over `old`, or made it (`old` is `Null`). Says whether anything that
/// can be owned has changed.
pub fn track(
    subject: &Subject<'_>,
    old: &Value,
    new: &Value,
    entries: &mut Vec<Entry>,
    manager: &Manager,
    now: &str,
) -> bool {
    let changes = compare(subject, old, new);
    if changes.is_empty() {
        return false;
    }
    let mut known = false;
    for entry in entries.iter_mut() {
        if entry.manager.is(manager) {
            known = true;
            take(entry, &changes.removed);
            if !changes.changed.is_empty() {
                give(entry, &changes.changed);
                entry.time = Some(now.to_owned());
            }
        } else {
            take(entry, &changes.changed);
            take(entry, &changes.removed);
        }
    }
    entries.retain(|entry| !entry.is_empty());
    if !known && !changes.changed.is_empty() {
        entries.push(Entry::new(manager.clone(), Some(now.to_owned()), changes.changed));
    }
    managers::cap(entries);
    true
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
