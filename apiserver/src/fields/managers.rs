//! `metadata.managedFields`: what each manager owns, and since when.
//!
//! A manager is a name, an operation, a subresource and, for updates, the version it wrote in. What it owns stays the text
//! that is stored until somebody must change it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use claw_schemas::schema::Schema;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{set::Set, topology};

/// Managers that only update are kept apart up to so many; older ones are then merged. Upstream's number.
pub const UPDATERS_MAX: usize = 10;

/// Who owns what the oldest of too many updaters had changed.
pub const ANCIENT: &str = "ancient-changes";

/// Who owns what an object had before anybody kept account of it.
pub const BEFORE_APPLY: &str = "before-first-apply";

/// What a manager without fields owns.
const NO_FIELDS: &str = "{}";

/// Bytes that the entries of most objects fit into: three managers with some forty fields.
const ACCOUNT_BYTES: usize = 1024;

/// How a manager came by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By anything else.
    Update,
}

/// Who owns fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manager {
    /// `kubectl`
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// `apps/v1`
    pub api_version: String,
    /// `status`; empty for the object itself.
    pub subresource: String,
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Who.
    pub manager: Manager,
    /// RFC 3339; when it last changed a field or what it owns.
    pub time: Option<String>,
    fields: Fields,
}

/// A set, in the form in which it was last needed.
#[derive(Clone, Debug, PartialEq)]
enum Fields {
    Stored(Box<str>),
    Read(Set),
}

impl Manager {
    /// Whether two writes are by the same manager: appliers stay the same when they change the version.
    pub fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The same for two managers if, and only if, one [`Self::is`] the other.
    fn identity(&self) -> Self {
        match self.operation {
            Operation::Apply => Self { api_version: String::new(), ..self.clone() },
            Operation::Update => self.clone(),
        }
    }
}

impl Entry {
    /// A manager that owns `set`.
    pub fn new(manager: Manager, time: Option<String>, set: Set) -> Self {
        Self { manager, time, fields: Fields::Read(set) }
    }

    /// What it owns.
    pub fn set(&self) -> Cow<'_, Set> {
        match &self.fields {
            Fields::Read(set) => Cow::Borrowed(set),
            // Stored fields were written here, or read once when a client sent them.
            Fields::Stored(fields) => Cow::Owned(Set::from_text(fields).unwrap_or_default()),
        }
    }

    /// Gives it other fields.
    pub fn own(&mut self, set: Set) {
        self.fields = Fields::Read(set);
    }

    /// Says what it owns in the pieces into which objects are taken apart now.
    pub(super) fn reconcile(&mut self, schema: &Schema) {
        let at = Some(schema.root());
        let fields = match &self.fields {
            Fields::Read(set) => Cow::Owned(set.to_text()),
            Fields::Stored(fields) => Cow::Borrowed(&**fields),
        };
        if topology::is_outdated(&serde_json::from_str(&fields).unwrap_or_default(), at) {
            self.own(topology::reconciled(&self.set(), at));
        }
    }

    /// Whether it owns any of these.
    pub fn owns_any(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Read(own) => !own.intersection(set).is_empty(),
            Fields::Stored(fields) => set.touches(fields),
        }
    }

    /// Whether it owns all of these.
    pub fn owns_all(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Read(own) => set.difference(own).is_empty(),
            Fields::Stored(fields) => set.is_within(fields),
        }
    }

    /// Whether it owns nothing.
    pub fn is_empty(&self) -> bool {
        match &self.fields {
            Fields::Read(set) => set.is_empty(),
            Fields::Stored(fields) => **fields == *NO_FIELDS,
        }
    }

    /// Takes over what another owns.
    fn take_in(&mut self, other: Self) {
        let mut set = match std::mem::replace(&mut self.fields, Fields::Read(Set::default())) {
            Fields::Read(set) => set,
            Fields::Stored(fields) => Set::from_text(&fields).unwrap_or_default(),
        };
        set.add(other.set().into_owned());
        self.fields = Fields::Read(set);
        self.time = self.time.take().max(other.time);
    }

    /// Appends its JSON, the members in the order of their names as everywhere.
    fn write(&self, out: &mut String) {
        let member = |out: &mut String, name: &str, text: &str| {
            out.extend([name, &Value::from(text).to_string()]);
        };
        member(out, r#"{"apiVersion":"#, &self.manager.api_version);
        out.push_str(r#","fieldsType":"FieldsV1","fieldsV1":"#);
        match &self.fields {
            Fields::Read(set) => set.write(out),
            Fields::Stored(fields) => out.push_str(fields),
        }
        member(out, r#","manager":"#, &self.manager.name);
        out.push_str(match self.manager.operation {
            Operation::Apply => r#","operation":"Apply""#,
            Operation::Update => r#","operation":"Update""#,
        });
        if !self.manager.subresource.is_empty() {
            member(out, r#","subresource":"#, &self.manager.subresource);
        }
        if let Some(time) = &self.time {
            member(out, r#","time":"#, time);
        }
        out.push('}');
    }
}

/// `managedFields` as the text that is stored: JSON, since it is made of nothing else.
#[derive(Clone, Debug)]
pub struct Account(Box<str>);

impl Account {
    /// The account of these entries, in upstream's order. `None` when nobody owns anything.
    pub fn of(mut entries: Vec<Entry>) -> Option<Self> {
        entries.sort_by(|a, b| {
            let key = |entry: &Entry| (entry.manager.operation, entry.time.clone());
            key(a).cmp(&key(b)).then_with(|| a.manager.cmp(&b.manager))
        });
        let mut text = String::with_capacity(ACCOUNT_BYTES);
        for entry in &entries {
            text.push(if text.is_empty() { '[' } else { ',' });
            entry.write(&mut text);
        }
        text.push(']');
        (!entries.is_empty()).then(|| Self(text.into()))
    }

    /// The entries, without looking into the fields. Whatever is none is left out.
    pub fn entries(&self) -> Vec<Entry> {
        let entries: Vec<&RawValue> = serde_json::from_str(&self.0).unwrap_or_default();
        entries.into_iter().filter_map(|entry| read(entry.get()).ok()).collect()
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// As a document.
    pub fn to_json(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<&RawValue> for Account {
    fn from(stored: &RawValue) -> Self {
        Self(stored.get().into())
    }
}

impl From<&Value> for Account {
    fn from(fields: &Value) -> Self {
        Self(fields.to_string().into())
    }
}

/// Two texts may say the same: the steps of a set have an order of their own, those of a document that of their names.
impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.to_json() == other.to_json()
    }
}

/// Reads `managedFields` that a client sent.
///
/// # Errors
/// Says what is malformed.
pub fn parse(sent: &Value) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Option<Entry>> = Vec::new();
    let mut last = HashMap::new();
    for entry in sent.as_array().into_iter().flatten() {
        let mut entry = read(&entry.to_string())?;
        if let Fields::Stored(fields) = &entry.fields {
            entry.fields = Fields::Read(Set::from_text(fields)?);
        }
        // Of two entries of one manager the later counts.
        if let Some(before) = last.insert(entry.manager.identity(), entries.len()) {
            entries[before] = None;
        }
        entries.push(Some(entry));
    }
    Ok(entries.into_iter().flatten().collect())
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    api_version: String,
    #[expect(dead_code, reason = "there is one type only, and it must be said")]
    fields_type: FieldsType,
    #[serde(borrow, rename = "fieldsV1")]
    fields: Option<&'a RawValue>,
    manager: Option<String>,
    operation: Operation,
    subresource: Option<String>,
    time: Option<String>,
}

#[derive(Deserialize)]
enum FieldsType {
    FieldsV1,
}

fn read(entry: &str) -> Result<Entry, String> {
    // Where an object may be, a list of its values is one to `serde`.
    if !entry.starts_with('{') {
        return Err(format!("an entry must be an object, found {entry}"));
    }
    let entry: Written<'_> = serde_json::from_str(entry).map_err(|error| error.to_string())?;
    if entry.api_version.is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    let manager = Manager {
        name: entry.manager.unwrap_or_default(),
        operation: entry.operation,
        api_version: entry.api_version,
        subresource: entry.subresource.unwrap_or_default(),
    };
    let fields = entry.fields.map(RawValue::get).filter(|fields| fields.starts_with('{'));
    Ok(Entry { manager, time: entry.time, fields: Fields::Stored(fields.unwrap_or(NO_FIELDS).into()) })
}

/// Whether two `managedFields` say the same but for the times.
pub fn same_but_times(a: &Value, b: &Value) -> bool {
    let empty = Vec::new();
    let list = |fields: &Value| -> Vec<Value> {
        let mut entries = fields.as_array().unwrap_or(&empty).clone();
        for entry in &mut entries {
            entry.as_object_mut().map(|entry| entry.remove("time"));
        }
        entries.sort_by_cached_key(Value::to_string);
        entries
    };
    list(a) == list(b)
}

/// Merges the oldest updaters of each version until there are no more than [`UPDATERS_MAX`].
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let is_updater = |entry: &Entry| entry.manager.operation == Operation::Update;
    let mut surplus = entries.iter().filter(|entry| is_updater(entry)).count().saturating_sub(UPDATERS_MAX);
    if surplus == 0 {
        return;
    }
    let mut oldest: Vec<usize> = (0..entries.len()).filter(|at| is_updater(&entries[*at])).collect();
    oldest.sort_by(|a, b| {
        let (a, b) = (&entries[*a], &entries[*b]);
        a.time.cmp(&b.time).then_with(|| a.manager.cmp(&b.manager))
    });
    let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for at in oldest {
        if surplus == 0 {
            break;
        }
        let alike = alike.entry(entries[at].manager.api_version.clone()).or_default();
        alike.push(at);
        // The first of a version stays, as the one into which the others go.
        surplus -= usize::from(alike.len() > 1);
    }
    alike.retain(|_, alike| alike.len() > 1);
    merge_alike(entries, alike);
}

/// Merges updaters, each into the one for ancient changes of its version, which is as old as the youngest.
fn merge_alike(entries: &mut Vec<Entry>, alike: BTreeMap<String, Vec<usize>>) {
    let mut buckets: Vec<Entry> =
        alike.keys().map(|version| Entry::new(bucket(version), None, Set::default())).collect();
    let bucket_of: HashMap<usize, usize> = alike
        .into_values()
        .enumerate()
        .flat_map(|(bucket, alike)| alike.into_iter().map(move |at| (at, bucket)))
        .collect();
    let mut kept = Vec::with_capacity(entries.len());
    for (at, entry) in std::mem::take(entries).into_iter().enumerate() {
        let known = bucket_of.get(&at).copied();
        match known.or_else(|| buckets.iter().position(|bucket| entry.manager.is(&bucket.manager))) {
            Some(bucket) => buckets[bucket].take_in(entry),
            None => kept.push(entry),
        }
    }
    kept.append(&mut buckets);
    *entries = kept;
}

/// The manager of ancient changes of a version.
fn bucket(api_version: &str) -> Manager {
    Manager {
        name: ANCIENT.to_owned(),
        operation: Operation::Update,
        api_version: api_version.to_owned(),
        subresource: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn updater(name: &str, second: usize) -> Entry {
        let manager = Manager {
            name: name.to_owned(),
            operation: Operation::Update,
            api_version: "v1".to_owned(),
            subresource: String::new(),
        };
        let set = Set::from_text(&json!({format!("f:{name}"): {}}).to_string()).unwrap();
        Entry::new(manager, Some(format!("2026-01-01T00:00:{second:02}Z")), set)
    }

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.manager.name.as_str()).collect()
    }

    #[test]
    fn entries_survive_the_stored_form() {
        let stored = json!([
            {"manager": "kubectl", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
             "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}},
            {"manager": "hub", "operation": "Update", "apiVersion": "v1", "subresource": "status",
             "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {}}},
        ]);
        let (text, account) = (stored.to_string(), Account::from(&stored));
        assert_eq!(Account::of(account.entries()).unwrap().text(), text);
        assert_eq!(Account::of(parse(&stored).unwrap()).unwrap().text(), text);
        assert_eq!(account.to_json(), stored);
        assert_eq!(Account::of(Account::from(&json!(null)).entries()), None);
    }

    #[test]
    fn accounts_are_the_same_if_they_say_the_same() {
        let spelt = |steps: &str| {
            let entry = format!(r#"[{{"fieldsV1":{{{steps}}}}}]"#);
            Account::from(&*RawValue::from_string(entry).unwrap())
        };
        let (port, host) = (r#""k:{\"p\":80}":{}"#, r#""k:{\"p\":443}":{}"#);
        assert_eq!(spelt(&format!("{port},{host}")), spelt(&format!("{host},{port}")));
        assert_ne!(spelt(port), spelt(host));
    }

    #[test]
    fn entries_that_make_no_sense_are_refused() {
        let good = json!({"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"});
        assert!(parse(&json!([good])).is_ok());
        for (field, value) in [
            ("operation", json!("Steal")),
            ("apiVersion", json!("")),
            ("fieldsType", json!("FieldsV2")),
            ("fieldsV1", json!({"spec": {}})),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(parse(&json!([bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_or_left_out() {
        for odd in [json!(["x"]), json!([7]), json!([[]]), json!([null])] {
            assert!(parse(&odd).is_err(), "{odd}");
            assert_eq!(Account::from(&odd).entries(), []);
        }
    }

    #[test]
    fn the_oldest_of_too_many_updaters_are_merged() {
        let mut entries: Vec<Entry> = (0..12).map(|n| updater(&format!("m{n:02}"), n)).collect();
        cap(&mut entries);
        assert_eq!(entries.len(), UPDATERS_MAX);
        let ancient = entries.iter().find(|entry| entry.manager.name == ANCIENT).unwrap();
        assert_eq!(ancient.set().to_json(), json!({"f:m00": {}, "f:m01": {}, "f:m02": {}}));
        assert_eq!(ancient.time.as_deref(), Some("2026-01-01T00:00:02Z"));
        assert!(!names(&entries).contains(&"m00") && names(&entries).contains(&"m03"));
        entries.push(updater("m12", 12));
        cap(&mut entries);
        assert_eq!(entries.len(), UPDATERS_MAX);
        assert!(!names(&entries).contains(&"m03"), "{:?}", names(&entries));
    }

    #[test]
    fn very_many_updaters_are_merged_by_their_versions_in_one_pass() {
        let mut entries: Vec<Entry> = (0..100_000).map(|n| updater(&format!("m{n:05}"), n % 60)).collect();
        entries.iter_mut().step_by(2).for_each(|entry| entry.manager.api_version = "v2".to_owned());
        cap(&mut entries);
        assert_eq!(entries.len(), UPDATERS_MAX);
        let mut versions: Vec<&str> = entries
            .iter()
            .filter(|entry| entry.manager.name == ANCIENT)
            .map(|entry| entry.manager.api_version.as_str())
            .collect();
        versions.sort_unstable();
        assert_eq!(versions, ["v1", "v2"]);
        let owned: usize = entries.iter().map(|entry| entry.set().to_json().as_object().unwrap().len()).sum();
        assert_eq!(owned, 100_000);
    }

    #[test]
    fn of_very_many_entries_of_few_managers_the_last_of_each_counts() {
        let entry = |n: usize| {
            json!({"manager": format!("m{}", n % 3), "operation": "Update", "apiVersion": "v1",
                   "fieldsType": "FieldsV1", "fieldsV1": {format!("f:{n}"): {}}})
        };
        let sent: Vec<Value> = (0..100_000).map(entry).collect();
        let entries = parse(&sent.into()).unwrap();
        assert_eq!(names(&entries), ["m1", "m2", "m0"]);
        assert_eq!(entries[2].set().to_json(), json!({"f:99999": {}}));
    }

    #[test]
    fn appliers_are_never_merged() {
        let mut entries: Vec<Entry> = (0..12).map(|n| updater(&format!("m{n:02}"), n)).collect();
        entries.iter_mut().for_each(|entry| entry.manager.operation = Operation::Apply);
        cap(&mut entries);
        assert_eq!(entries.len(), 12);
    }
}
