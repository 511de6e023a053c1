//! Conditions in a status: set one, and its `lastTransitionTime` moves only when its status does.
//!
//! Kubernetes has one struct for conditions of new kinds and another for each old one. [`Condition`] is what they
//! share; `conditions!` lists the structs.
//!
//! Must never know: which conditions a kind has.

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{DeploymentCondition, ReplicaSetCondition},
        core::v1::{NamespaceCondition, NodeCondition, PodCondition},
    },
    apimachinery::pkg::apis::meta::v1::{Condition as MetaCondition, Time},
};

/// `True`
pub const TRUE: &str = "True";
/// `False`
pub const FALSE: &str = "False";
/// `Unknown`
pub const UNKNOWN: &str = "Unknown";

/// What every condition struct of Kubernetes has.
pub trait Condition: Clone {
    /// A condition of that type and status.
    fn build(kind: &str, status: &str, reason: &str, message: &str) -> Self;
    /// `Available`, `Ready`, ...
    fn kind(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// CamelCase word.
    fn reason(&self) -> &str;
    /// Sentence.
    fn message(&self) -> &str;
    /// When the status last changed.
    fn since(&self) -> Option<Timestamp>;
    /// Sets that time.
    fn set_since(&mut self, at: Timestamp);
    /// Records that it was looked at, where the struct has a place for it.
    fn set_updated(&mut self, _at: Timestamp) {}
    /// Records which generation of the spec it speaks of, where the struct has a place for it.
    fn set_generation(&mut self, _generation: Option<i64>) {}
}

macro_rules! conditions {
    ($($name:ident { $($extra:item)* })*) => {$(
        impl Condition for $name {
            fn build(kind: &str, status: &str, reason: &str, message: &str) -> Self {
                Self {
                    type_: kind.to_owned(),
                    status: status.to_owned(),
                    reason: Some(reason.to_owned()),
                    message: Some(message.to_owned()),
                    ..Self::default()
                }
            }
            fn kind(&self) -> &str { &self.type_ }
            fn status(&self) -> &str { &self.status }
            fn reason(&self) -> &str { self.reason.as_deref().unwrap_or_default() }
            fn message(&self) -> &str { self.message.as_deref().unwrap_or_default() }
            fn since(&self) -> Option<Timestamp> { self.last_transition_time.as_ref().map(|time| time.0) }
            fn set_since(&mut self, at: Timestamp) { self.last_transition_time = Some(Time(at)); }
            $($extra)*
        }
    )*};
}

conditions! {
    DeploymentCondition {
        fn set_updated(&mut self, at: Timestamp) { self.last_update_time = Some(Time(at)); }
    }
    ReplicaSetCondition {}
    NamespaceCondition {}
    NodeCondition {}
    PodCondition {
        fn set_generation(&mut self, generation: Option<i64>) { self.observed_generation = generation; }
    }
}

impl Condition for MetaCondition {
    fn build(kind: &str, status: &str, reason: &str, message: &str) -> Self {
        Self {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }
    fn kind(&self) -> &str {
        &self.type_
    }
    fn status(&self) -> &str {
        &self.status
    }
    fn reason(&self) -> &str {
        &self.reason
    }
    fn message(&self) -> &str {
        &self.message
    }
    fn since(&self) -> Option<Timestamp> {
        Some(self.last_transition_time.0)
    }
    fn set_since(&mut self, at: Timestamp) {
        self.last_transition_time = Time(at);
    }
    fn set_generation(&mut self, generation: Option<i64>) {
        self.observed_generation = generation;
    }
}

/// The condition of that type.
pub fn find<'a, C: Condition + 'a>(conditions: impl IntoIterator<Item = &'a C>, kind: &str) -> Option<&'a C> {
    conditions.into_iter().find(|condition| condition.kind() == kind)
}

/// Whether the condition of that type is there and `True`.
pub fn is_true<'a, C: Condition + 'a>(conditions: impl IntoIterator<Item = &'a C>, kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status() == TRUE)
}

/// Puts a condition among the others. An equal one is left alone, and so is its time; one that differs takes its
/// place, with a new `lastTransitionTime` only if the status changed. Returns whether it differed; the generation alone
/// is brought up to date without a word.
pub fn set<C: Condition>(
    conditions: &mut Vec<C>,
    mut new: C,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    new.set_generation(generation);
    new.set_updated(now);
    let Some(old) = conditions.iter_mut().find(|condition| condition.kind() == new.kind()) else {
        new.set_since(now);
        conditions.push(new);
        return true;
    };
    if old.status() == new.status() && old.reason() == new.reason() && old.message() == new.message() {
        old.set_generation(generation);
        return false;
    }
    let since = if old.status() == new.status() { old.since() } else { None };
    new.set_since(since.unwrap_or(now));
    *old = new;
    true
}

/// Takes the condition of that type out.
pub fn remove<C: Condition>(conditions: &mut Vec<C>, kind: &str) {
    conditions.retain(|condition| condition.kind() != kind);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: &str, message: &str) -> PodCondition {
        PodCondition::build("Ready", status, "Because", message)
    }

    #[test]
    fn only_a_changed_status_moves_the_transition_time() {
        let mut all = Vec::new();
        assert!(set(&mut all, ready(FALSE, "starting"), Some(1), at(10)));
        assert!(set(&mut all, ready(FALSE, "still starting"), Some(1), at(20)));
        assert_eq!(all[0].since(), Some(at(10)));
        assert_eq!(all[0].message(), "still starting");
        assert!(set(&mut all, ready(TRUE, "still starting"), Some(2), at(30)));
        assert_eq!(all[0].since(), Some(at(30)));
        assert!(!set(&mut all, ready(TRUE, "still starting"), Some(3), at(40)));
        assert_eq!(all[0].since(), Some(at(30)));
        assert_eq!(all[0].observed_generation, Some(3));
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn a_removed_condition_is_gone() {
        let mut all = vec![ready(TRUE, "")];
        remove(&mut all, "Ready");
        assert!(find(&all, "Ready").is_none());
    }
}
