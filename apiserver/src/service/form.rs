//! Where objects are served in another form than the one they are stored in: another version of their kind, or the
//! same version after its schema learned new defaults.
//!
//! Storage keys know no version, so any number of served kinds can share what is stored: a [`Form`] is all that one of
//! them needs. Reads that find the stored bytes to be the served form splice them, and cost what they always cost.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use claw_schemas::ApiError;
use serde_json::Value;

use super::{
    encode,
    kinds::{Served, Target},
    sealed::Sealed,
};
use crate::store::{Event, Record, Revision};

/// Between what is stored and what is served.
#[async_trait]
pub(crate) trait Form: Send + Sync {
    /// Whether bytes written at a revision are served as they are.
    fn is_stored(&self, written: Revision) -> bool;

    /// Stored objects as they are served, in the same order.
    async fn served(&self, stored: Vec<Value>) -> Result<Vec<Value>, ApiError>;

    /// Whether objects are written as they are served.
    fn is_written(&self) -> bool;

    /// A served object as it is stored.
    async fn stored(&self, served: Value) -> Result<Value, ApiError>;

    /// A served object in another version, with nothing filled in; `None` where that is what [`Self::stored`] and
    /// [`Self::served`] make of it.
    async fn converted(&self, _served: &Value, _api_version: &str) -> Result<Option<Value>, ApiError> {
        Ok(None)
    }
}

impl Served {
    /// Whether a record's bytes are what is served.
    pub fn is_stored(&self, record: &Record) -> bool {
        self.form.as_ref().is_none_or(|form| form.is_stored(record.revision))
    }

    /// Records as they are served.
    pub async fn shown(&self, mut records: Vec<Record>) -> Result<Vec<Record>, ApiError> {
        let Some(form) = &self.form else { return Ok(records) };
        let differ: Vec<usize> = (0..records.len()).filter(|at| !self.is_stored(&records[*at])).collect();
        if differ.is_empty() {
            return Ok(records);
        }
        let stored = differ.iter().map(|at| encode::value_of(&records[*at])).collect::<Result<_, _>>()?;
        for (at, object) in differ.into_iter().zip(form.served(stored).await?) {
            records[at].value = encode::draft(&object).at(records[at].revision);
        }
        Ok(records)
    }

    /// One record as it is served.
    pub async fn shown_one(&self, record: Record) -> Result<Record, ApiError> {
        if self.is_stored(&record) {
            return Ok(record);
        }
        let mut shown = self.shown(vec![record]).await?;
        shown.pop().ok_or_else(|| ApiError::internal("a conversion lost the object"))
    }

    /// What objects are written in, if that is not how they are served.
    fn other_form(&self) -> Option<&Arc<dyn Form>> {
        self.form.as_ref().filter(|form| !form.is_written())
    }

    /// A served object as it is to be written.
    pub async fn written<'o>(&self, object: &'o Sealed) -> Result<Cow<'o, Sealed>, ApiError> {
        match self.other_form() {
            Some(form) => Ok(Cow::Owned(Sealed::closed(form.stored(object.opened()).await?))),
            None => Ok(Cow::Borrowed(object)),
        }
    }

    /// An object as another kind that shows the same objects serves it.
    pub async fn shown_as(&self, other: &Self, object: &Value) -> Result<Value, ApiError> {
        let stored = match self.other_form() {
            Some(form) => form.stored(object.clone()).await?,
            None => object.clone(),
        };
        match &other.form {
            None => Ok(stored),
            Some(form) => {
                let mut shown = form.served(vec![stored]).await?;
                shown.pop().ok_or_else(|| ApiError::internal("a conversion lost the object"))
            }
        }
    }

    /// The same with nothing filled in that the object does not say.
    pub async fn converted(&self, other: &Self, object: &Value) -> Result<Value, ApiError> {
        let converted = match &self.form {
            Some(form) => form.converted(object, &other.api_version).await?,
            None => None,
        };
        match converted {
            Some(converted) => Ok(converted),
            None => self.shown_as(other, object).await,
        }
    }

    /// A change as it is served.
    pub async fn shown_event(&self, event: &Arc<Event>) -> Result<Arc<Event>, ApiError> {
        let previous = match &event.previous {
            Some(record) => Some(Arc::new(self.shown_one(Record::clone(record)).await?)),
            None => None,
        };
        let record = Record::clone(&event.record);
        let record = match &previous {
            // The bytes of an object that went are those of its last write.
            Some(last) if event.deleted => {
                Record { value: encode::with_revision(&last.value, record.revision), ..record }
            }
            _ => self.shown_one(record).await?,
        };
        Ok(Arc::new(Event { record: record.into(), previous, deleted: event.deleted }))
    }

    /// Whether a change needs no conversion.
    pub fn is_stored_event(&self, event: &Event) -> bool {
        self.form.as_ref().is_none_or(|form| {
            let before = event.previous.as_ref().is_none_or(|record| form.is_stored(record.revision));
            before && (event.deleted || form.is_stored(event.record.revision))
        })
    }
}

impl Target {
    /// The stored record of the target, and the same as it is served.
    pub async fn shown(&self, record: &Record) -> Result<Record, ApiError> {
        self.kind.shown_one(record.clone()).await
    }
}
