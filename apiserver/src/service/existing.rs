//! What exists when a watch starts, brought into the form in which it is served a piece at a time: whoever does not read
//! makes the server hold the stored bytes, which it has anyway, and no copies of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    vec,
};

use claw_schemas::ApiError;

use super::{kinds::Served, limits::LIST_CHUNK, select::Selection};
use crate::store::Record;

/// Says whether a watch has told what existed when it started. Until then it is an answer that waits to be read, like a
/// list; after that it waits for what happens.
#[derive(Clone, Debug, Default)]
pub struct Initial(Arc<AtomicBool>);

impl Initial {
    /// Of a watch that has nothing to tell but changes.
    pub fn over() -> Self {
        let initial = Self::default();
        initial.end();
        initial
    }

    /// Whether all has been told.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The objects that are still to be told.
#[derive(Default)]
pub(super) struct Existing {
    stored: vec::IntoIter<Record>,
    shown: vec::IntoIter<Record>,
}

impl Existing {
    pub fn new(stored: Vec<Record>) -> Self {
        Self { stored: stored.into_iter(), shown: vec::IntoIter::default() }
    }

    /// The next object that is selected.
    pub async fn next(&mut self, kind: &Served, selection: &Selection) -> Result<Option<Record>, ApiError> {
        self.prepare(kind, selection).await?;
        Ok(self.shown.next())
    }

    /// Brings the next piece into form, if one is due.
    pub async fn prepare(&mut self, kind: &Served, selection: &Selection) -> Result<(), ApiError> {
        while self.shown.len() == 0 && self.stored.len() > 0 {
            let piece = self.stored.by_ref().take(LIST_CHUNK).collect();
            let mut shown = kind.shown(piece).await?;
            if !selection.is_everything() {
                shown.retain(|record| selection.matches(&record.key, || kind.plan.facts(&record.value)));
            }
            self.shown = shown.into_iter();
            // A selector that chooses little may have much to look through.
            if self.shown.len() == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use claw_client::ResourceRef;
    use claw_schemas::Registry;

    use super::*;
    use crate::{service::kinds::Kinds, store::Key};

    #[tokio::test]
    async fn objects_of_another_form_are_converted_as_they_are_told() {
        let kinds = Kinds::new(Registry::builtin());
        let kind = kinds.resolve(ResourceRef::collection("events.k8s.io", "v1", "events")).unwrap().kind;
        let stored = (0..3 * LIST_CHUNK as u64).map(|at| Record {
            key: Key::object("", "events", "default", &format!("e{at:04}")),
            revision: at + 1,
            value: format!(
                r#"{{"apiVersion":"v1","kind":"Event","metadata":{{"name":"e{at:04}"}},"message":"m"}}"#
            )
            .into(),
        });
        let mut existing = Existing::new(stored.collect());
        let selection = Selection::parse(&kind, "", "").unwrap();
        for told in 0..3 * LIST_CHUNK {
            let record = existing.next(&kind, &selection).await.unwrap().unwrap();
            let text = String::from_utf8(record.value.to_vec()).unwrap();
            assert!(text.contains("\"note\":\"m\"") && text.contains(&format!("e{told:04}")), "{text}");
            assert_eq!(existing.stored.len(), 3 * LIST_CHUNK - (told / LIST_CHUNK + 1) * LIST_CHUNK);
        }
        assert!(existing.next(&kind, &selection).await.unwrap().is_none());
    }
}
