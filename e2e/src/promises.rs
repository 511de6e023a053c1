//! What a server has told its clients: whatever becomes of it, an acknowledged write happened exactly as it was answered,
//! and what was read was so at some moment between question and answer.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::history::{History, bare, place_of, revision_of, same};

/// One answer, and the revisions between which it was given.
#[derive(Clone, Debug)]
struct Answer {
    /// `namespace/name`
    name: String,
    /// The newest revision that anybody had been told of before this was asked.
    asked: u64,
    /// The newest there was when the answer came; `u64::MAX` when that is not known.
    answered: u64,
    said: Said,
}

#[derive(Clone, Debug)]
enum Said {
    /// It is written, as this, in place of a certain revision if that was asked for.
    Written(Value, Option<u64>),
    /// It is deleted.
    Gone,
    /// It is so, or not there.
    Read(Option<Value>),
    /// All there is, by `namespace/name`.
    Listed(BTreeMap<String, Value>),
}

/// The answers of one server, to all of its clients.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    floor: u64,
    answers: Vec<Answer>,
}

impl Promises {
    /// The newest revision that somebody was told of: no later answer may be older.
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// How many answers there were.
    pub const fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether there was none.
    pub const fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// A write was acknowledged with this object. `asked` is [`Self::floor`] from before it was sent.
    ///
    /// # Errors
    /// When the revision is not newer than what was acknowledged before.
    pub fn written(&mut self, asked: u64, object: &Value) -> Result<(), String> {
        self.replaced(asked, None, object)
    }

    /// The same for a write that must find the object at a certain revision.
    ///
    /// # Errors
    /// When the revision is not newer than what was acknowledged before.
    pub fn replaced(&mut self, asked: u64, found: Option<u64>, object: &Value) -> Result<(), String> {
        let (revision, name) = (revision_of(object)?, place_of(object));
        if revision <= asked {
            return Err(format!("{name} got revision {revision}, but {asked} was known before"));
        }
        self.floor = self.floor.max(revision);
        self.answers.push(Answer {
            name,
            asked,
            answered: revision,
            said: Said::Written(bare(object), found),
        });
        Ok(())
    }

    /// A deletion was acknowledged.
    pub fn deleted(&mut self, asked: u64, answered: u64, name: &str) {
        self.answers.push(Answer { name: name.to_owned(), asked, answered, said: Said::Gone });
    }

    /// An object was read, or found not to be there.
    pub fn read(&mut self, asked: u64, answered: u64, name: &str, object: Option<&Value>) {
        let revision = object.and_then(|object| revision_of(object).ok()).unwrap_or(0);
        self.floor = self.floor.max(revision);
        let said = Said::Read(object.map(bare));
        self.answers.push(Answer { name: name.to_owned(), asked, answered, said });
    }

    /// The whole collection was listed, which is one moment.
    ///
    /// # Errors
    /// When it is no list, or of a moment before one that was known when it was asked for.
    pub fn listed(&mut self, asked: u64, list: &Value) -> Result<(), String> {
        let listed = History::from_list(list)?;
        let at = listed.revision();
        if at < asked {
            return Err(format!("a list shows {at}, but {asked} was known before"));
        }
        self.floor = self.floor.max(at);
        let said = Said::Listed(listed.present().clone());
        self.answers.push(Answer { name: "the collection".to_owned(), asked: at, answered: at, said });
        Ok(())
    }

    /// Whether all of it is true.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn kept(&self, history: &History) -> Result<(), String> {
        let mut changes: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (revision, change) in history.changes() {
            changes.entry(&change.name).or_default().push(*revision);
        }
        self.answers.iter().filter(|answer| answer.asked >= history.start()).try_for_each(|answer| {
            let name = &answer.name;
            match &answer.said {
                Said::Written(object, found) => {
                    let happened = history.changes().get(&answer.answered);
                    if !happened.is_some_and(|change| change.object == *object && !change.gone) {
                        return Err(format!("{object} was acknowledged, but {happened:?} happened"));
                    }
                    let before = history.at(name, answer.answered - 1).map(revision_of).transpose()?;
                    if found.is_some() && *found != before {
                        return Err(format!(
                            "{object} took the place of {before:?}, where only {found:?} was to go"
                        ));
                    }
                    Ok(())
                }
                Said::Gone => {
                    let later = changes.get(name.as_str()).into_iter().flatten();
                    let mut later = later.filter(|at| **at > answer.asked && **at <= answer.answered);
                    if later.any(|at| history.changes()[at].gone) {
                        return Ok(());
                    }
                    Err(format!("the deletion of {name} was acknowledged, and never happened"))
                }
                Said::Listed(objects) => same(objects, &history.then(answer.answered))
                    .map_err(|wrong| format!("at {}: {wrong}", answer.answered)),
                Said::Read(object) => {
                    let mut states = history.states(name, answer.asked, answer.answered);
                    if states.any(|state| state == object.as_ref()) {
                        return Ok(());
                    }
                    let (asked, answered) = (answer.asked, answer.answered);
                    Err(format!("{name} was read as {object:?}, which it was not from {asked} to {answered}"))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: u64, revision: u64) -> Value {
        json!({"metadata": {"namespace": "d", "name": "a", "resourceVersion": revision.to_string()}, "data": value})
    }

    fn history() -> History {
        let mut history = History::default();
        history.tell("ADDED", &object(1, 1)).expect("the first");
        history.tell("MODIFIED", &object(2, 2)).expect("the second");
        history.tell("DELETED", &object(2, 3)).expect("the third");
        history
    }

    #[test]
    fn acknowledged_writes_must_have_happened_as_they_were_answered() {
        let kept = |object: &Value| {
            let mut promises = Promises::default();
            promises.written(0, object).expect("it is newer");
            promises.kept(&history())
        };
        assert!(kept(&object(2, 2)).is_ok());
        assert!(kept(&object(3, 2)).is_err() && kept(&object(2, 4)).is_err() && kept(&object(2, 3)).is_err());
        assert!(Promises::default().written(5, &object(1, 5)).is_err());
    }

    #[test]
    fn a_write_that_must_find_a_revision_must_have_found_it() {
        let kept = |found| {
            let mut promises = Promises::default();
            promises.replaced(0, Some(found), &object(2, 2)).expect("it is newer");
            promises.kept(&history()).is_ok()
        };
        assert!(kept(1) && !kept(0) && !kept(2));
    }

    #[test]
    fn what_was_read_must_have_been_so_between_question_and_answer() {
        let kept = |asked, answered, object: Option<&Value>| {
            let mut promises = Promises::default();
            promises.read(asked, answered, "d/a", object);
            promises.kept(&history()).is_ok()
        };
        assert!(kept(0, 0, None) && kept(0, 2, Some(&object(1, 1))) && kept(2, 3, None));
        assert!(!kept(2, 2, Some(&object(1, 1))), "a stale read");
        assert!(!kept(1, 2, None), "it was there all the time");
    }

    #[test]
    fn a_list_must_show_all_that_was_there_at_its_revision_which_is_not_before_what_was_known() {
        let list = |at: u64, items: &[Value]| json!({"metadata": {"resourceVersion": at.to_string()}, "items": items});
        let kept = |list: &Value| {
            let mut promises = Promises::default();
            promises.listed(0, list).expect("a list");
            promises.kept(&history()).is_ok()
        };
        assert!(kept(&list(1, &[object(1, 1)])) && kept(&list(2, &[object(2, 2)])) && kept(&list(3, &[])));
        assert!(!kept(&list(2, &[])), "it was there");
        assert!(!kept(&list(2, &[object(1, 1)])), "it was newer");
        assert!(!kept(&list(3, &[object(2, 2)])), "it was gone");
        assert!(Promises::default().listed(4, &list(3, &[])).is_err(), "4 was known");
    }

    #[test]
    fn acknowledged_deletions_must_have_happened_after_they_were_asked_for() {
        let kept = |asked, answered| {
            let mut promises = Promises::default();
            promises.deleted(asked, answered, "d/a");
            promises.kept(&history()).is_ok()
        };
        assert!(kept(2, 3) && !kept(3, 9) && !kept(0, 2));
    }
}
