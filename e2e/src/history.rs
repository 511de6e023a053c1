//! What happened to the objects of a collection, change by change in the one order: what a watcher was told, and what it
//! means to have missed nothing and seen nothing twice.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included},
};

use serde_json::Value;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `namespace/name`
    pub name: String,
    /// As it is after the change; as it was, under the revision of its deletion, when it is gone.
    pub object: Value,
    /// Whether it is gone.
    pub gone: bool,
}

/// A collection from some revision on.
#[derive(Clone, Debug, Default)]
pub struct History {
    start: u64,
    base: BTreeMap<String, Value>,
    changes: BTreeMap<u64, Change>,
    present: BTreeMap<String, Value>,
    reached: u64,
}

impl History {
    /// Starts at a list.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_list(list: &Value) -> Result<Self, String> {
        let start = revision_of(list)?;
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let base: BTreeMap<_, _> = items.iter().map(|item| (place_of(item), bare(item))).collect();
        Ok(Self { start, present: base.clone(), base, changes: BTreeMap::new(), reached: start })
    }

    /// The revision it starts after.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The revision up to which everything is known.
    pub const fn revision(&self) -> u64 {
        self.reached
    }

    /// What is there now, by `namespace/name`.
    pub const fn present(&self) -> &BTreeMap<String, Value> {
        &self.present
    }

    /// Every change, by revision.
    pub const fn changes(&self) -> &BTreeMap<u64, Change> {
        &self.changes
    }

    /// Takes in an event of a watch: `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
    ///
    /// # Errors
    /// When it does not follow from what was told before: out of order, told twice, or of another kind than it must be.
    pub fn tell(&mut self, event: &str, object: &Value) -> Result<(), String> {
        let (revision, name) = (revision_of(object)?, place_of(object));
        if event == "BOOKMARK" && revision >= self.reached {
            self.reached = revision;
            return Ok(());
        }
        if revision <= self.reached {
            return Err(format!("{event} of {name} at {revision} came after {}", self.reached));
        }
        let known = self.present.contains_key(&name);
        let follows = match event {
            "ADDED" => !known,
            "MODIFIED" | "DELETED" => known,
            _ => false,
        };
        if !follows {
            let known = if known { "known" } else { "unknown" };
            return Err(format!("{event} of {name} at {revision}, which was {known} until then"));
        }
        let change = Change { name, object: bare(object), gone: event == "DELETED" };
        self.push(revision, change);
        Ok(())
    }

    /// Adds the next change, whatever it is.
    pub fn push(&mut self, revision: u64, change: Change) {
        if change.gone {
            self.present.remove(&change.name);
        } else {
            self.present.insert(change.name.clone(), change.object.clone());
        }
        self.changes.insert(revision, change);
        self.reached = revision;
    }

    /// An object as it was at a revision; `None` when it was not there.
    pub fn at(&self, name: &str, revision: u64) -> Option<&Value> {
        let last = self.changes.range(..=revision).rev().find(|(_, change)| change.name == name);
        last.map_or_else(|| self.base.get(name), |(_, change)| (!change.gone).then_some(&change.object))
    }

    /// Every state of an object from one revision to another.
    pub fn states<'a>(
        &'a self,
        name: &'a str,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = Option<&'a Value>> {
        let within = self.between(from, to).filter(move |(_, change)| change.name == name);
        std::iter::once(self.at(name, from))
            .chain(within.map(|(_, change)| (!change.gone).then_some(&change.object)))
    }

    /// The changes after one revision, up to another.
    fn between(&self, after: u64, to: u64) -> impl Iterator<Item = (&u64, &Change)> {
        self.changes.range((Excluded(after), Included(to.max(after))))
    }

    /// Whether this is a part of `whole`: the same changes at the same revisions between its start and where it is now.
    ///
    /// # Errors
    /// The first difference.
    pub fn is_part_of(&self, whole: &Self) -> Result<(), String> {
        let mut told = self.changes.iter();
        for (revision, change) in whole.between(self.start, self.reached) {
            match told.next() {
                Some((at, seen)) if at == revision && seen == change => {}
                Some((at, seen)) if at == revision => {
                    return Err(format!("at {revision} {seen:?} was told, but {change:?} happened"));
                }
                Some((at, seen)) if at < revision => {
                    return Err(format!("{} at {at} was told, and never happened", seen.name));
                }
                _ => return Err(format!("{} at {revision} happened, and was never told", change.name)),
            }
        }
        match told.next() {
            Some((at, seen)) => Err(format!("{} at {at} was told, and never happened", seen.name)),
            None => Ok(()),
        }
    }

    /// Whether a list shows what is there.
    ///
    /// # Errors
    /// The first difference.
    pub fn ends_as(&self, list: &Value) -> Result<(), String> {
        let listed = Self::from_list(list)?.present;
        for (name, object) in &self.present {
            match listed.get(name) {
                Some(other) if other == object => {}
                Some(other) => return Err(format!("{name} is {object}, and listed as {other}")),
                None => return Err(format!("{name} is there, and not listed: {object}")),
            }
        }
        let more = listed.keys().find(|name| !self.present.contains_key(*name));
        more.map_or(Ok(()), |name| Err(format!("{name} is listed, and not there")))
    }
}

/// An object's or a list's revision.
///
/// # Errors
/// When it has none.
pub fn revision_of(object: &Value) -> Result<u64, String> {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("no revision in {object}"))
}

/// `namespace/name`
pub fn place_of(object: &Value) -> String {
    let text = |field| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

/// Without what items of lists lack.
pub fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, revision: u64) -> Value {
        json!({"metadata": {"namespace": "d", "name": name, "resourceVersion": revision.to_string()}})
    }

    fn told(events: &[(&str, &str, u64)]) -> Result<History, String> {
        let mut history = History::default();
        events.iter().try_for_each(|(event, name, at)| history.tell(event, &object(name, *at)))?;
        Ok(history)
    }

    #[test]
    fn a_change_told_twice_out_of_order_or_of_the_wrong_kind_is_found() {
        assert!(told(&[("ADDED", "a", 1), ("MODIFIED", "a", 2), ("DELETED", "a", 4)]).is_ok());
        for wrong in [
            &[("ADDED", "a", 1), ("MODIFIED", "a", 1)][..],
            &[("ADDED", "a", 2), ("ADDED", "b", 1)],
            &[("ADDED", "a", 1), ("ADDED", "a", 2)],
            &[("MODIFIED", "a", 1)],
            &[("ADDED", "a", 1), ("DELETED", "a", 2), ("DELETED", "a", 3)],
        ] {
            assert!(told(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_watcher_that_missed_or_invented_a_change_is_found() {
        let whole = told(&[("ADDED", "a", 1), ("ADDED", "b", 2), ("MODIFIED", "a", 3)]).expect("in order");
        assert!(told(&[("ADDED", "a", 1), ("ADDED", "b", 2)]).expect("in order").is_part_of(&whole).is_ok());
        assert!(
            told(&[("ADDED", "a", 1), ("MODIFIED", "a", 3)]).expect("in order").is_part_of(&whole).is_err()
        );
        assert!(told(&[("ADDED", "a", 1), ("ADDED", "c", 2)]).expect("in order").is_part_of(&whole).is_err());
        assert!(
            told(&[("ADDED", "a", 1), ("ADDED", "b", 2), ("BOOKMARK", "", 9)])
                .expect("in order")
                .is_part_of(&whole)
                .is_err()
        );
    }

    #[test]
    fn an_object_has_the_states_it_went_through() {
        let whole = told(&[("ADDED", "a", 1), ("ADDED", "b", 2), ("MODIFIED", "a", 3), ("DELETED", "a", 5)]);
        let whole = whole.expect("in order");
        let states: Vec<_> =
            whole.states("d/a", 2, 5).map(|state| state.map(|o| revision_of(o).expect("one"))).collect();
        assert_eq!(states, [Some(1), Some(3), None]);
        assert_eq!(whole.at("d/a", 0), None);
    }
}
