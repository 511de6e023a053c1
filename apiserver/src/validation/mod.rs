//! Says what is wrong with an object, field by field, in the words that `kube-apiserver` uses.
//!
//! Pure: looks only at the object and, on updates, at the one it replaces. Objects come here well typed
//! ([`claw_schemas::schema::Schema::check`]) and with their defaults filled in.
//!
//! Must never know: who asks, and what else is stored.

use claw_schemas::{Descriptor, status::Cause};
use serde_json::Value;

/// What is wrong with a new object; empty when nothing is.
pub fn create(_kind: &Descriptor, _object: &Value) -> Vec<Cause> {
    Vec::new()
}

/// What is wrong with an object that replaces `old`; empty when nothing is.
pub fn update(_kind: &Descriptor, _old: &Value, _new: &Value) -> Vec<Cause> {
    Vec::new()
}
