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

    /// What is there at a revision, by `namespace/name`.
    pub fn then(&self, revision: u64) -> BTreeMap<&str, &Value> {
        let mut there: BTreeMap<&str, &Value> =
            self.base.iter().map(|(name, object)| (name.as_str(), object)).collect();
        for (_, change) in self.changes.range(..=revision) {
            if change.gone {
                there.remove(change.name.as_str());
            } else {
                there.insert(&change.name, &change.object);
            }
        }
        there
    }

    /// What is to be told to whoever selects objects: one that comes into the selection is there from then on, one that
    /// leaves it is gone, as it last was in it.
    #[must_use]
    pub fn selected(&self, selects: impl Fn(&Value) -> bool) -> Self {
        let base = self.base.iter().filter(|(_, object)| selects(object));
        let base: BTreeMap<_, _> = base.map(|(name, object)| (name.clone(), object.clone())).collect();
        let mut part = Self { start: self.start, present: base.clone(), base, ..Self::default() };
        for (revision, change) in &self.changes {
            let (was, is) = (part.present.get(&change.name), !change.gone && selects(&change.object));
            match was {
                _ if is => part.push(*revision, change.clone()),
                Some(was) if !change.gone => {
                    let object = at_revision(was, *revision);
                    part.push(*revision, Change { name: change.name.clone(), object, gone: true });
                }
                Some(_) => part.push(*revision, change.clone()),
                None => {}
            }
        }
        part.reached = self.reached;
        part
    }

    /// The same from one revision on, up to another.
    fn cut(&self, from: u64, to: u64) -> Self {
        let base = self.then(from).into_iter().map(|(name, object)| (name.to_owned(), object.clone()));
        let base: BTreeMap<_, _> = base.collect();
        let mut part = Self { start: from, present: base.clone(), base, ..Self::default() };
        self.between(from, to).for_each(|(revision, change)| part.push(*revision, change.clone()));
        part.reached = to;
        part
    }

    /// Whether two say the same of the time that both know.
    ///
    /// # Errors
    /// The first difference.
    pub fn agrees_with(&self, other: &Self) -> Result<(), String> {
        let (from, to) = (self.start.max(other.start), self.reached.min(other.reached));
        if from > to {
            return Ok(());
        }
        let (mine, theirs) = (self.cut(from, to), other.cut(from, to));
        mine.begins_as(&theirs)?;
        mine.is_part_of(&theirs)
    }

    /// Whether it starts with what was there then, all of it and nothing else.
    ///
    /// # Errors
    /// The first difference.
    pub fn begins_as(&self, whole: &Self) -> Result<(), String> {
        same(&self.base, &whole.then(self.start)).map_err(|wrong| format!("at {}: {wrong}", self.start))
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
        let listed = Self::from_list(list)?;
        same(&listed.base, &self.then(u64::MAX))
    }
}

/// Whether a list shows what there is.
pub(crate) fn same(listed: &BTreeMap<String, Value>, there: &BTreeMap<&str, &Value>) -> Result<(), String> {
    for (name, object) in there {
        match listed.get(*name) {
            Some(other) if other == *object => {}
            Some(other) => return Err(format!("{name} is {object}, and listed as {other}")),
            None => return Err(format!("{name} is there, and not listed: {object}")),
        }
    }
    let more = listed.keys().find(|name| !there.contains_key(name.as_str()));
    more.map_or(Ok(()), |name| Err(format!("{name} is listed, and not there")))
}

/// An object under another revision.
fn at_revision(object: &Value, revision: u64) -> Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    object
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

    fn labelled(name: &str, revision: u64, half: &str) -> Value {
        let mut object = object(name, revision);
        object["metadata"]["labels"] = json!({"half": half});
        object
    }

    #[test]
    fn a_selection_is_entered_and_left_and_what_is_outside_is_not_told() {
        let mut whole = History::default();
        for (event, name, at, half) in [
            ("ADDED", "a", 1, "b"),
            ("MODIFIED", "a", 2, "a"),
            ("ADDED", "b", 3, "b"),
            ("MODIFIED", "a", 4, "a"),
            ("MODIFIED", "a", 5, "b"),
            ("DELETED", "b", 6, "b"),
            ("MODIFIED", "a", 7, "a"),
            ("DELETED", "a", 8, "a"),
        ] {
            whole.tell(event, &labelled(name, at, half)).expect("in order");
        }
        let part = whole.selected(|object| object["metadata"]["labels"]["half"] == "a");
        let told: Vec<_> = part.changes().iter().map(|(at, change)| (*at, change.gone)).collect();
        assert_eq!(told, [(2, false), (4, false), (5, true), (7, false), (8, true)]);
        assert_eq!(part.changes()[&5].object, labelled("a", 5, "a"), "as it last was in it, when it left");
        assert!(part.present().is_empty() && part.revision() == 8);
    }

    #[test]
    fn a_list_that_leaves_something_out_or_shows_another_state_is_found() {
        let whole = told(&[("ADDED", "a", 1), ("ADDED", "b", 2), ("MODIFIED", "a", 3), ("DELETED", "b", 4)]);
        let whole = whole.expect("in order");
        let begins = |at: u64, items: &[(&str, u64)]| {
            let items: Vec<_> = items.iter().map(|(name, at)| object(name, *at)).collect();
            let list = json!({"metadata": {"resourceVersion": at.to_string()}, "items": items});
            History::from_list(&list).expect("a list").begins_as(&whole).is_ok()
        };
        assert!(
            begins(2, &[("a", 1), ("b", 2)]) && begins(3, &[("a", 3), ("b", 2)]) && begins(9, &[("a", 3)])
        );
        assert!(!begins(3, &[("a", 3)]), "b was there");
        assert!(!begins(3, &[("a", 1), ("b", 2)]), "a was newer");
        assert!(!begins(4, &[("a", 3), ("b", 2)]), "b was gone");
    }

    #[test]
    fn two_who_know_different_times_are_held_to_what_both_know() {
        let list = json!({"metadata": {"resourceVersion": "2"}, "items": [object("a", 1), object("b", 2)]});
        let late = |events: &[(&str, &str, u64)]| {
            let mut history = History::from_list(&list).expect("a list");
            events
                .iter()
                .for_each(|(event, name, at)| history.tell(event, &object(name, *at)).expect("in order"));
            history
        };
        let early = told(&[("ADDED", "a", 1), ("ADDED", "b", 2), ("MODIFIED", "a", 4)]).expect("in order");
        assert!(late(&[("MODIFIED", "a", 4), ("DELETED", "b", 5)]).agrees_with(&early).is_ok());
        assert!(early.agrees_with(&late(&[("MODIFIED", "a", 4), ("DELETED", "b", 5)])).is_ok());
        assert!(late(&[("MODIFIED", "b", 3)]).agrees_with(&early).is_err(), "nobody else saw it");
        assert!(early.agrees_with(&late(&[("DELETED", "b", 5)])).is_err(), "it missed 4");
        let other = told(&[("ADDED", "b", 2), ("MODIFIED", "b", 4)]).expect("in order");
        assert!(late(&[]).agrees_with(&other).is_err(), "a was there");
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
