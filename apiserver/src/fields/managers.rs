//! `metadata.managedFields`: what each manager owns, and since when.
//!
//! A manager is a name, an operation, a subresource and, for updates, the version it wrote in. What it owns stays in the
//! form in which it is stored until somebody must look into it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use claw_schemas::schema::Schema;
use serde_json::{Map, Value, json};

use super::{set::Set, topology};

/// Managers that only update are kept apart up to so many; older ones are then merged. Upstream's number.
pub const UPDATERS_MAX: usize = 10;

/// Who owns what the oldest of too many updaters had changed.
pub const ANCIENT: &str = "ancient-changes";

/// Who owns what an object had before anybody kept account of it.
pub const BEFORE_APPLY: &str = "before-first-apply";

const FIELDS_TYPE: &str = "FieldsV1";

/// How a manager came by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    Stored(Value),
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
            Fields::Stored(fields) => Cow::Owned(Set::from_json(fields).unwrap_or_default()),
        }
    }

    /// Gives it other fields.
    pub fn own(&mut self, set: Set) {
        self.fields = Fields::Read(set);
    }

    /// Says what it owns in the pieces into which objects are taken apart now.
    pub(super) fn reconcile(&mut self, schema: &Schema) {
        let at = Some(schema.root());
        let outdated = match &self.fields {
            Fields::Read(set) => topology::is_outdated(&set.to_json(), at),
            Fields::Stored(fields) => topology::is_outdated(fields, at),
        };
        if outdated {
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
            Fields::Stored(fields) => fields.as_object().is_none_or(Map::is_empty),
        }
    }

    /// Takes over what another owns.
    fn take_in(&mut self, other: Self) {
        let mut set = match std::mem::replace(&mut self.fields, Fields::Read(Set::default())) {
            Fields::Read(set) => set,
            Fields::Stored(fields) => Set::from_json(&fields).unwrap_or_default(),
        };
        set.add(other.set().into_owned());
        self.fields = Fields::Read(set);
        self.time = self.time.take().max(other.time);
    }

    fn into_json(self) -> Value {
        let fields = match self.fields {
            Fields::Read(set) => set.to_json(),
            Fields::Stored(fields) => fields,
        };
        let mut entry = json!({
            "manager": self.manager.name,
            "operation": if self.manager.operation == Operation::Apply { "Apply" } else { "Update" },
            "apiVersion": self.manager.api_version,
            "fieldsType": FIELDS_TYPE,
            "fieldsV1": fields,
        });
        if let Some(time) = self.time {
            entry["time"] = time.into();
        }
        if !self.manager.subresource.is_empty() {
            entry["subresource"] = self.manager.subresource.into();
        }
        entry
    }
}

/// Reads `managedFields` that are stored, without looking into the fields.
pub fn decode(stored: Value) -> Vec<Entry> {
    let Value::Array(stored) = stored else { return Vec::new() };
    stored.into_iter().filter_map(|entry| read(entry).ok()).collect()
}

/// Reads `managedFields` that a client sent.
///
/// # Errors
/// Says what is malformed.
pub fn parse(sent: &Value) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Option<Entry>> = Vec::new();
    let mut last = HashMap::new();
    for entry in sent.as_array().into_iter().flatten() {
        let mut entry = read(entry.clone())?;
        if let Fields::Stored(fields) = &entry.fields {
            entry.fields = Fields::Read(Set::from_json(fields)?);
        }
        // Of two entries of one manager the later counts.
        if let Some(before) = last.insert(entry.manager.identity(), entries.len()) {
            entries[before] = None;
        }
        entries.push(Some(entry));
    }
    Ok(entries.into_iter().flatten().collect())
}

fn read(mut entry: Value) -> Result<Entry, String> {
    if !entry.is_object() {
        return Err(format!("an entry must be an object, found {entry}"));
    }
    let fields = Some(entry["fieldsV1"].take()).filter(Value::is_object).unwrap_or_else(|| json!({}));
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let operation = match entry["operation"].as_str() {
        Some("Apply") => Operation::Apply,
        Some("Update") => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    if text("apiVersion").is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    if entry["fieldsType"] != FIELDS_TYPE {
        return Err(format!("fieldsType must be `{FIELDS_TYPE}`"));
    }
    let manager = Manager {
        name: text("manager"),
        operation,
        api_version: text("apiVersion"),
        subresource: text("subresource"),
    };
    let time = entry["time"].as_str().map(str::to_owned);
    Ok(Entry { manager, time, fields: Fields::Stored(fields) })
}

/// Writes `managedFields`, in upstream's order. `None` when nobody owns anything.
pub fn encode(mut entries: Vec<Entry>) -> Option<Value> {
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| (entry.manager.operation, entry.time.clone());
        key(a).cmp(&key(b)).then_with(|| a.manager.cmp(&b.manager))
    });
    let entries: Vec<Value> = entries.into_iter().map(Entry::into_json).collect();
    (!entries.is_empty()).then_some(Value::Array(entries))
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
    use super::*;

    fn updater(name: &str, second: usize) -> Entry {
        let manager = Manager {
            name: name.to_owned(),
            operation: Operation::Update,
            api_version: "v1".to_owned(),
            subresource: String::new(),
        };
        let set = Set::from_json(&json!({format!("f:{name}"): {}})).unwrap();
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
        assert_eq!(encode(decode(stored.clone())), Some(stored.clone()));
        assert_eq!(encode(parse(&stored).unwrap()), Some(stored));
        assert_eq!(encode(decode(json!(null))), None);
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
            assert_eq!(decode(odd), []);
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
