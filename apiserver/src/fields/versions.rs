//! What managers own, where they wrote in different versions of one kind.
//!
//! What somebody owns is said in the words of the version that they wrote in. So whatever is asked about it is asked in that
//! version, of the objects as they are there. Whoever converts may have to ask a webhook, which is nothing for this module:
//! a question that takes an object that has not been converted yet is answered with a [`Lack`]. Whoever asked converts it,
//! [`Versions::tell`]s, and asks again. Where all wrote in one version, as nearly always, nothing is ever lacking.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    compare::{Changes, compare},
    managers::Entry,
    subject::Subject,
};

/// The versions of a kind, and objects in them.
#[derive(Debug)]
pub struct Versions<'a> {
    /// The kind in the version of whoever writes now.
    pub(super) subject: Subject<'a>,
    /// The kind in other versions, by `apiVersion`.
    others: BTreeMap<String, Subject<'a>>,
    converted: Vec<(Lack, Value)>,
}

/// An object that is needed in another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// As it is.
    pub object: Value,
    /// The `apiVersion` that is asked for.
    pub version: String,
}

impl<'a> Versions<'a> {
    /// One version, in which everybody writes.
    pub const fn alone(subject: Subject<'a>) -> Self {
        Self { subject, others: BTreeMap::new(), converted: Vec::new() }
    }

    /// The version of whoever writes now, and others that there are, by `apiVersion`.
    pub const fn with(subject: Subject<'a>, others: BTreeMap<String, Subject<'a>>) -> Self {
        Self { subject, others, converted: Vec::new() }
    }

    /// Tells what an object is in the version that was lacking.
    pub fn tell(&mut self, lack: Lack, converted: Value) {
        self.converted.push((lack, converted));
    }

    /// The kind in a version. `None` when there is no such version any more.
    pub(super) fn subject(&self, own: &str, version: &str) -> Option<&Subject<'a>> {
        if version == own { Some(&self.subject) } else { self.others.get(version) }
    }

    /// An object in a version.
    pub(super) fn convert<'v>(&'v self, object: &'v Value, version: &str) -> Result<&'v Value, Box<Lack>> {
        if self.others.is_empty() || object["apiVersion"] == version {
            return Ok(object);
        }
        let known = self.converted.iter().find(|(lack, _)| lack.version == version && lack.object == *object);
        match known {
            Some((_, converted)) => Ok(converted),
            None => Err(Box::new(Lack { object: object.clone(), version: version.to_owned() })),
        }
    }

    /// Takes what is owned apart as objects are taken apart now.
    pub(super) fn reconcile(&self, own: &str, entries: &mut [Entry]) {
        if self.subject.builtin {
            return;
        }
        for entry in entries {
            if let Some(subject) = self.subject(own, &entry.manager.api_version) {
                entry.reconcile(subject.schema);
            }
        }
    }

    /// What a write changed, in each version that somebody owns fields in. Those who wrote in versions that are no more own
    /// nothing any more.
    pub(super) fn changes(
        &self,
        own: &str,
        entries: &mut Vec<Entry>,
        (old, new): (&Value, &Value),
        changes: Changes,
    ) -> Result<BTreeMap<String, Changes>, Box<Lack>> {
        let mut all = BTreeMap::from([(own.to_owned(), changes)]);
        if entries.iter().all(|entry| entry.manager.api_version == own) {
            return Ok(all);
        }
        entries.retain(|entry| self.subject(own, &entry.manager.api_version).is_some());
        for entry in entries.iter() {
            let version = &entry.manager.api_version;
            if let (false, Some(subject)) = (all.contains_key(version), self.subject(own, version)) {
                let changes = if old == new {
                    Changes::default()
                } else {
                    compare(subject, self.convert(old, version)?, self.convert(new, version)?)
                };
                all.insert(version.clone(), changes);
            }
        }
        Ok(all)
    }
}
