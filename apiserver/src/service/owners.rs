//! Who owns the fields of stored objects: `metadata.managedFields`, kept by the rules of [`crate::fields`].
//!
//! The entries are stored inside the object, in the form in which clients read them, so that every read stays a splice
//! of stored bytes. A write pays for a comparison of what it changed; the sets of managers whom it does not touch are
//! carried over unread. They travel beside the object that is written ([`Sealed`]).

use claw_client::request::WriteOptions;
use claw_schemas::{ApiError, schema::time_text, status::Cause};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    ObjectService,
    kinds::{Served, Target},
    object::{metadata_mut, text},
    sealed::Sealed,
    update::Part,
};
use crate::fields::{self, Account, Entry, Manager, Operation, Scope, Subject};

/// Longest name of a manager, as upstream has it.
const MANAGER_BYTES_MAX: usize = 128;

/// Entries that a client may write itself. An object has a dozen; every one is compared with every change.
const ENTRIES_MAX: usize = 1_000;

/// Who writes when nobody says so.
const UNKNOWN: &str = "unknown";

/// Their place in the metadata.
pub(super) const FIELD: &str = "managedFields";

/// How a write decides who owns what.
#[derive(Clone)]
pub(super) enum Claims {
    /// The server's own change: owners stay.
    Kept,
    /// Whoever changes a field owns it.
    Written(Manager),
    /// The object is what this applier asks for; with `force`, whatever others own.
    Wanted { manager: Manager, force: bool },
    /// What an apply has decided.
    Applied(Vec<Entry>),
}

/// Claims of everything but apply.
pub(super) fn written(
    target: &Target,
    subresource: &str,
    options: &WriteOptions,
    kind: &str,
) -> Result<Claims, ApiError> {
    manager(target, subresource, options, kind, Operation::Update).map(Claims::Written)
}

/// The manager behind a request: the one it names, else the program that sent it.
pub(super) fn manager(
    target: &Target,
    subresource: &str,
    options: &WriteOptions,
    kind: &str,
    operation: Operation,
) -> Result<Manager, ApiError> {
    let named = options.field_manager.as_deref().unwrap_or_default();
    let causes = faults(named);
    if !causes.is_empty() {
        return Err(ApiError::invalid("meta.k8s.io", kind, "", causes));
    }
    let name = match (named, options.user_agent.as_deref().map(program)) {
        ("", Some(program)) if !program.is_empty() => program,
        ("", _) => UNKNOWN.to_owned(),
        (named, _) => named.to_owned(),
    };
    let api_version = target.kind.api_version.clone();
    Ok(Manager { name, operation, api_version, subresource: subresource.to_owned() })
}

fn faults(name: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if name.len() > MANAGER_BYTES_MAX {
        causes.push(Cause {
            reason: "FieldValueTooLong".to_owned(),
            message: format!("Too long: may not be more than {MANAGER_BYTES_MAX} bytes"),
            field: "fieldManager".to_owned(),
        });
    }
    for (at, letter) in name.char_indices().filter(|(_, letter)| !is_printable(*letter)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(letter));
        causes.push(Cause::invalid("fieldManager", format!("{name:?}"), why));
    }
    causes
}

fn is_printable(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace())
}

/// `kubectl` of `kubectl/v1.32.4 (linux/amd64)`.
fn program(user_agent: &str) -> String {
    let mut name = String::new();
    let letters = user_agent.split('/').next().unwrap_or_default().chars();
    for letter in letters.filter(|letter| is_printable(*letter)) {
        if name.len() + letter.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        name.push(letter);
    }
    name
}

/// The part of an object that a request can own.
pub(super) fn subject(kind: &Served, part: Part) -> Subject<'_> {
    let scope = match part {
        Part::Status | Part::Approval => Scope::Status,
        Part::Main | Part::EphemeralContainers if kind.has_status() => Scope::Main,
        Part::Main | Part::EphemeralContainers | Part::Finalizers | Part::Internal => Scope::Whole,
    };
    let descriptor = &kind.descriptor;
    Subject { schema: descriptor.compiled(), scope, builtin: descriptor.builtin }
}

/// Takes what a document says about owners out of it.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    metadata_mut(object).remove(FIELD)
}

/// Now, as entries say it.
pub(super) fn now() -> String {
    time_text(Timestamp::now())
}

/// Who owns the fields of an object that is new.
pub(super) fn of_new(kind: &Served, object: &Value, claims: Claims) -> Option<Account> {
    let entries = match claims {
        Claims::Kept | Claims::Wanted { .. } => return None,
        Claims::Applied(entries) => entries,
        Claims::Written(manager) => {
            let mut entries = Vec::new();
            fields::track(&subject(kind, Part::Main), &Value::Null, object, &mut entries, &manager, &now());
            entries
        }
    };
    Account::of(entries)
}

impl ObjectService {
    /// Who owns the fields of a changed object. `sent` is what [`take`] took out of it.
    ///
    /// # Errors
    /// When that has too many entries.
    pub(super) async fn owners_of(
        &self,
        (target, part): (&Target, Part),
        old: &Sealed,
        new: &Value,
        sent: Option<Value>,
        claims: Claims,
    ) -> Result<Option<Account>, ApiError> {
        let stored = old.owners.as_ref();
        let is_stored = |sent: &Value| stored.is_some_and(|stored| stored.to_json() == *sent);
        let by_hand = sent.filter(|sent| part == Part::Main && !is_stored(sent));
        check_count(target, by_hand.as_ref())?;
        Ok(match (claims, by_hand) {
            (Claims::Kept | Claims::Wanted { .. }, _) => stored.cloned(),
            (Claims::Applied(entries), _) => unless_of_times(old, new, Account::of(entries)),
            (Claims::Written(manager), None) if stored.is_some() => {
                match self.tracked((target, part), &old.object, new, old.entries(), &manager).await {
                    Some(entries) => Account::of(entries),
                    None => stored.cloned(),
                }
            }
            // Nobody keeps account of this object, until somebody applies.
            (Claims::Written(_), None) => None,
            (Claims::Written(manager), Some(sent)) => {
                let mut entries = rewritten(old, &sent);
                if !entries.is_empty() {
                    let place = (target, part);
                    let known = self.tracked(place, &old.object, new, entries.clone(), &manager).await;
                    entries = known.unwrap_or(entries);
                }
                unless_of_times(old, new, Account::of(entries))
            }
        })
    }

    /// The entries after a write by anything but apply; `None` when they stay.
    async fn tracked(
        &self,
        place: (&Target, Part),
        old: &Value,
        new: &Value,
        entries: Vec<Entry>,
        manager: &Manager,
    ) -> Option<Vec<Entry>> {
        let now = now();
        let tracked = self.in_versions(place, entries, |versions, mut entries| {
            let changed = fields::track_in(versions, old, new, &mut entries, manager, &now)?;
            Ok(changed.then_some(entries))
        });
        tracked.await.unwrap_or_else(|error| {
            // As upstream: who only keeps accounts stops no write.
            tracing::warn!(name = text(old, "name"), %error, "owners stay as they were");
            None
        })
    }
}

fn check_count(target: &Target, sent: Option<&Value>) -> Result<(), ApiError> {
    let count = sent.and_then(Value::as_array).map_or(0, Vec::len);
    if count <= ENTRIES_MAX {
        return Ok(());
    }
    let cause = Cause {
        reason: "FieldValueTooMany".to_owned(),
        message: format!("Too many: {count}: must have at most {ENTRIES_MAX} items"),
        field: "metadata.managedFields".to_owned(),
    };
    Err(target.kind.invalid(&target.name, vec![cause]))
}

/// The entries that a client has written itself. An empty list, or one empty entry, ends the account.
fn rewritten(old: &Sealed, sent: &Value) -> Vec<Entry> {
    let is_nothing = |entry: &Value| entry.as_object().is_some_and(serde_json::Map::is_empty);
    let list = sent.as_array().map_or(&[][..], Vec::as_slice);
    if list.is_empty() || matches!(list, [only] if is_nothing(only)) {
        return Vec::new();
    }
    // What makes no sense is taken for the mistake of a client that does not know the field.
    match fields::parse(sent) {
        Ok(entries) if !entries.is_empty() => entries,
        _ => old.entries(),
    }
}

/// The account after a write. What is stored, if nothing but times is new: they alone are not worth a write.
fn unless_of_times(old: &Sealed, new: &Value, fresh: Option<Account>) -> Option<Account> {
    let json = |account: Option<&Account>| account.map(Account::to_json).unwrap_or_default();
    let stored = old.owners.as_ref();
    let stays = old.object == *new && fields::same_but_times(&json(stored), &json(fresh.as_ref()));
    if stays { stored.cloned() } else { fresh }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_the_first_part_of_its_user_agent() {
        for (agent, expected) in [
            ("kubectl/v1.32.4 (linux/amd64) kubernetes/59526cd", "kubectl"),
            ("manager\u{7}/x", "manager"),
            ("Mozilla 5.0", "Mozilla 5.0"),
            ("/", ""),
        ] {
            assert_eq!(program(agent), expected);
        }
        assert_eq!(program(&"ü".repeat(100)).len(), 128);
    }

    #[test]
    fn names_of_managers_are_short_and_printable() {
        assert!(faults("kube controller-manager").is_empty());
        assert_eq!(faults(&"x".repeat(129))[0].reason, "FieldValueTooLong");
        assert_eq!(
            faults("a\nb")[0].message,
            "Invalid value: \"a\\nb\": invalid character U+000A (at position 1)"
        );
    }
}
