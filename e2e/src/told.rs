//! What one watcher was told, from start to start: it lists, or has what exists streamed to it, watches, resumes for as long
//! as that works, and starts again. Time never goes back for it, wherever its next start comes from.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::history::{History, place_of, revision_of};

/// The annotation of the bookmark that ends initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Everything a watcher was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The label and its value by which it selects.
    label: Option<(&'static str, &'static str)>,
    starts: Vec<History>,
    opening: Option<Vec<Value>>,
}

impl Told {
    /// To whom selects by a label.
    pub fn by_label(name: &'static str, value: &'static str) -> Self {
        Self { label: Some((name, value)), ..Self::default() }
    }

    /// Its `labelSelector`.
    pub fn selector(&self) -> String {
        self.label.map(|(name, value)| format!("{name}={value}")).unwrap_or_default()
    }

    /// Whether it selects an object.
    pub fn selects(&self, object: &Value) -> bool {
        self.label.is_none_or(|(name, value)| object["metadata"]["labels"][name] == value)
    }

    /// From each start on, what it was told.
    pub fn starts(&self) -> &[History] {
        &self.starts
    }

    /// Up to which revision it knows everything.
    pub fn revision(&self) -> u64 {
        self.starts.last().map_or(0, History::revision)
    }

    /// What is there, as far as it knows.
    pub fn present(&self) -> Option<&BTreeMap<String, Value>> {
        self.starts.last().map(History::present)
    }

    /// It starts with a list.
    ///
    /// # Errors
    /// When it is none, or shows a past that the watcher has already left.
    pub fn listed(&mut self, list: &Value) -> Result<(), String> {
        let start = History::from_list(list)?;
        if start.revision() < self.revision() {
            return Err(format!("it was shown {} when it knew {}", start.revision(), self.revision()));
        }
        let alien = start.present().values().find(|object| !self.selects(object));
        if let Some(alien) = alien {
            return Err(format!("{} was listed, which was not asked for", place_of(alien)));
        }
        self.opening = None;
        self.starts.push(start);
        Ok(())
    }

    /// It starts with a stream: what is told next is what exists, up to the bookmark that says so.
    pub fn opens(&mut self) {
        self.opening = Some(Vec::new());
    }

    /// Takes in an event of a watch.
    ///
    /// # Errors
    /// When it does not follow from what was told before.
    pub fn tell(&mut self, event: &str, object: &Value) -> Result<(), String> {
        let Some(existing) = &mut self.opening else {
            let latest = self.starts.last_mut();
            return latest.ok_or("a change came before any start")?.tell(event, object);
        };
        let known = |object: &Value| existing.iter().any(|other| place_of(other) == place_of(object));
        match event {
            "ADDED" if !known(object) => existing.push(object.clone()),
            "BOOKMARK" if object["metadata"]["annotations"][INITIAL_EVENTS_END] == "true" => {
                let items = std::mem::take(existing);
                return self.streamed(object, &items);
            }
            _ => return Err(format!("{event} of {} came among what exists", place_of(object))),
        }
        Ok(())
    }

    fn streamed(&mut self, bookmark: &Value, items: &[Value]) -> Result<(), String> {
        let end = revision_of(bookmark)?;
        for item in items {
            if revision_of(item)? > end {
                return Err(format!("{} came among what existed at {end}", place_of(item)));
            }
        }
        self.listed(&json!({"metadata": {"resourceVersion": end.to_string()}, "items": items}))
    }

    /// Whether all of it is so: each start shows what was there, and nothing is missed, doubled or made up after it.
    ///
    /// # Errors
    /// The first difference.
    pub fn is_part_of(&self, whole: &History) -> Result<(), String> {
        let selected = whole.selected(|object| self.selects(object));
        self.starts.iter().try_for_each(|start| {
            start.begins_as(&selected)?;
            start.is_part_of(&selected)
        })
    }

    /// Whether it says the same as somebody who was told everything, of all times that both know.
    ///
    /// # Errors
    /// The first difference.
    pub fn agrees_with(&self, other: &Self) -> Result<(), String> {
        let selected = other.starts.iter().map(|whole| whole.selected(|object| self.selects(object)));
        selected
            .into_iter()
            .try_for_each(|whole| self.starts.iter().try_for_each(|start| start.agrees_with(&whole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, revision: u64, half: &str) -> Value {
        json!({"metadata": {
            "namespace": "d", "name": name, "resourceVersion": revision.to_string(), "labels": {"half": half},
        }})
    }

    fn list(at: u64, items: &[Value]) -> Value {
        json!({"metadata": {"resourceVersion": at.to_string()}, "items": items})
    }

    fn bookmark(at: u64, ends: bool) -> Value {
        let mut bookmark = json!({"metadata": {"resourceVersion": at.to_string()}});
        if ends {
            bookmark["metadata"]["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        bookmark
    }

    #[test]
    fn a_start_that_shows_a_past_that_was_left_is_found() {
        let mut told = Told::default();
        told.listed(&list(5, &[object("a", 5, "a")])).expect("the first");
        told.tell("MODIFIED", &object("a", 7, "a")).expect("in order");
        assert!(told.listed(&list(6, &[object("a", 5, "a")])).is_err(), "it knew 7");
        assert!(told.listed(&list(7, &[object("a", 7, "a")])).is_ok());
    }

    #[test]
    fn what_exists_is_added_once_and_alone_and_ends_with_its_bookmark() {
        let told = |events: &[(&str, Value)]| {
            let mut told = Told::default();
            told.opens();
            events.iter().try_for_each(|(event, object)| told.tell(event, object)).map(|()| told)
        };
        let (a, b) = (object("a", 1, "a"), object("b", 4, "a"));
        let whole = told(&[("ADDED", a.clone()), ("BOOKMARK", bookmark(3, true)), ("ADDED", b.clone())]);
        assert_eq!(whole.expect("in order").revision(), 4);
        for wrong in [
            vec![("ADDED", a.clone()), ("ADDED", a.clone())],
            vec![("ADDED", a.clone()), ("MODIFIED", a.clone())],
            vec![("ADDED", a.clone()), ("BOOKMARK", bookmark(3, false))],
            vec![("ADDED", b), ("BOOKMARK", bookmark(3, true))],
            vec![("BOOKMARK", bookmark(3, true)), ("ADDED", a)],
        ] {
            assert!(told(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn who_selects_is_told_what_the_selection_of_everything_is() {
        let mut all = Told::default();
        all.listed(&list(0, &[])).expect("nothing yet");
        for (event, at, half) in [("ADDED", 1, "b"), ("MODIFIED", 2, "a"), ("MODIFIED", 3, "b")] {
            all.tell(event, &object("x", at, half)).expect("in order");
        }
        let some = |events: &[(&str, Value)]| {
            let mut some = Told::by_label("half", "a");
            some.listed(&list(0, &[])).expect("nothing yet");
            events.iter().try_for_each(|(event, object)| some.tell(event, object)).expect("in order");
            some.tell("BOOKMARK", &bookmark(3, false)).expect("in order");
            (some.agrees_with(&all).is_ok(), some.is_part_of(&all.starts()[0]).is_ok())
        };
        let (comes, goes) = (("ADDED", object("x", 2, "a")), ("DELETED", object("x", 3, "a")));
        assert_eq!(some(&[comes.clone(), goes]), (true, true));
        assert_eq!(some(std::slice::from_ref(&comes)), (false, false), "it left, and nobody said so");
        assert_eq!(some(&[comes.clone(), ("DELETED", object("x", 3, "b"))]), (false, false), "as it was");
        assert_eq!(some(&[comes, ("MODIFIED", object("x", 3, "b"))]), (false, false), "it is outside");
        assert_eq!(some(&[]), (false, false), "it came, and nobody said so");
    }

    #[test]
    fn who_selects_is_not_shown_anything_else() {
        let mut some = Told::by_label("half", "a");
        assert!(some.listed(&list(2, &[object("x", 1, "b")])).is_err());
    }
}
