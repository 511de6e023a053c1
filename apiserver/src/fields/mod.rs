//! Who owns which fields of an object: the engine behind `metadata.managedFields` and server-side apply.
//!
//! * [`Set`] is a set of fields with its algebra, and its `FieldsV1` form.
//! * [`extract`], [`compare`], [`merge`] and [`prune`] walk objects by their schema.
//! * [`overlay()`] changes an object without anybody coming to own anything.
//! * [`managers`] keeps what each manager owns; [`apply()`] and [`track()`] are the two ways to come by fields.
//! * [`Versions`] brings together what was said in different versions of a kind.
//!
//! Rules: KEP-555, the Kubernetes page "Server-Side Apply", and the documentation of structured-merge-diff. Pure.
//!
//! Must never know: requests, what is stored, how a refusal travels.

mod apply;
mod compare;
mod element;
mod extract;
mod form;
mod last_applied;
mod managers;
mod merge;
mod overlay;
mod prune;
mod set;
mod subject;
mod topology;
mod track;
mod versions;

pub use apply::{Applied, Conflict, Halt, Refusal, apply, apply_in};
pub use element::{Element, Leaf, Path, display};
pub use extract::Fault;
pub use last_applied::{LAST_APPLIED, apply_over_last};
pub use managers::{
    ANCIENT, Account, BEFORE_APPLY, Entry, Manager, Operation, UPDATERS_MAX, parse, same_but_times,
};
pub use overlay::overlay;
pub use set::{Node, Set};
pub use subject::{Scope, Subject};
pub use track::{track, track_in};
pub use versions::{Lack, Versions};

#[cfg(test)]
mod laws;
#[cfg(test)]
mod stories;
