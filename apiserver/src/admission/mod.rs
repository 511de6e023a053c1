//! Who else has a say in what is stored: the webhooks and policies of `admissionregistration.k8s.io`, compiled.
//!
//! | module | owns |
//! |---|---|
//! | `attributes` | what is told about a request |
//! | `matching` | which requests somebody is asked about (pure) |
//! | `conditions` | what else must hold, in CEL (pure) |
//! | `frame` | what policies of either kind have in common, and their bindings |
//! | `policy` | validating policies in CEL: what is wrong with a request (pure) |
//! | `mutation` | mutating policies in CEL: what is to become of an object (pure) |
//! | `typing` | what validating policies say of kinds that these do not have (pure) |
//! | `webhook` | a webhook: what it is asked, what its answer means |
//!
//! Must never know: how objects are stored, and what is done with an answer.

mod attributes;
mod conditions;
mod frame;
mod matching;
mod mutation;
mod policy;
mod typing;
mod webhook;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::Value;

pub(crate) use self::{
    attributes::{Attributes, Kind, Operation, Resource},
    conditions::{Conditions, judge},
    frame::{Binding, Frame, Reference},
    matching::{Matching, selects},
    mutation::{Change, Mutation, Mutator},
    policy::{Judgement, Policy, Refusal},
    typing::checked,
    webhook::{Answer, Trouble, Webhook, internal},
};
use crate::store::{Record, Revision};

/// The group of everything here.
pub(crate) const GROUP: &str = "admissionregistration.k8s.io";

/// Nobody is asked about these: a webhook must not be able to keep itself from being taken away.
const EXEMPT: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// Whether nobody is asked about writes of this kind.
pub(crate) fn is_exempt(group: &str, plural: &str) -> bool {
    group == GROUP && EXEMPT.contains(&plural)
}

/// Everybody who has a say, by what is stored at one moment.
#[derive(Default)]
pub(crate) struct Configuration {
    entries: Vec<(Revision, Entry)>,
    /// In the order in which they are asked.
    pub mutators: Vec<Arc<Mutator>>,
    pub mutator_bindings: Vec<Arc<Binding>>,
    pub mutating: Vec<Arc<Webhook>>,
    pub validating: Vec<Arc<Webhook>>,
    pub policies: Vec<Arc<Policy>>,
    pub bindings: Vec<Arc<Binding>>,
}

/// What one stored object comes to.
#[derive(Clone)]
enum Entry {
    Mutator(Arc<Mutator>),
    MutatorBinding(Arc<Binding>),
    Mutating(Vec<Arc<Webhook>>),
    Validating(Vec<Arc<Webhook>>),
    Policy(Arc<Policy>),
    Binding(Arc<Binding>),
    Nothing,
}

/// Remembers what was compiled last.
#[derive(Default)]
pub(crate) struct Compiled(ArcSwapOption<Configuration>);

impl Compiled {
    /// What these records of the group come to, in the order of their keys. A revision names one write in the whole store, so
    /// the same revisions are the same configuration.
    pub fn of(&self, records: &[Record]) -> Arc<Configuration> {
        let last = self.0.load_full();
        if let Some(last) = last.as_ref().filter(|last| last.is_of(records)) {
            return last.clone();
        }
        let known = |record: &Record| last.as_ref()?.entry(record.revision);
        let entries = records
            .iter()
            .map(|record| (record.revision, known(record).unwrap_or_else(|| Entry::of(record))))
            .collect();
        let new = Arc::new(Configuration::new(entries));
        self.0.store(Some(new.clone()));
        new
    }
}

impl Configuration {
    fn new(entries: Vec<(Revision, Entry)>) -> Self {
        let mut new = Self::default();
        for (_, entry) in &entries {
            match entry {
                Entry::Mutator(policy) => new.mutators.push(policy.clone()),
                Entry::MutatorBinding(binding) => new.mutator_bindings.push(binding.clone()),
                Entry::Mutating(webhooks) => new.mutating.extend(webhooks.iter().cloned()),
                Entry::Validating(webhooks) => new.validating.extend(webhooks.iter().cloned()),
                Entry::Policy(policy) => new.policies.push(policy.clone()),
                Entry::Binding(binding) => new.bindings.push(binding.clone()),
                Entry::Nothing => {}
            }
        }
        Self { entries, ..new }
    }

    fn is_of(&self, records: &[Record]) -> bool {
        let revisions = records.iter().map(|record| record.revision);
        self.entries.iter().map(|(revision, _)| *revision).eq(revisions)
    }

    fn entry(&self, revision: Revision) -> Option<Entry> {
        self.entries.iter().find(|(own, _)| *own == revision).map(|(_, entry)| entry.clone())
    }
}

impl Entry {
    fn of(record: &Record) -> Self {
        let object: Value = serde_json::from_slice(&record.value).unwrap_or_else(|error| {
            tracing::error!(%error, key = ?record.key, "a stored admission configuration does not parse");
            Value::Null
        });
        match record.key.group_and_plural().1 {
            "mutatingadmissionpolicies" => Self::Mutator(Arc::new(Mutator::new(&object))),
            "mutatingadmissionpolicybindings" => Self::MutatorBinding(Arc::new(Binding::new(&object))),
            "mutatingwebhookconfigurations" => Self::Mutating(webhook::all(&object)),
            "validatingwebhookconfigurations" => Self::Validating(webhook::all(&object)),
            "validatingadmissionpolicies" => Self::Policy(Arc::new(Policy::new(&object))),
            "validatingadmissionpolicybindings" => Self::Binding(Arc::new(Binding::new(&object))),
            _ => Self::Nothing,
        }
    }
}
