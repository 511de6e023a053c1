//! Fills in what a manifest may leave out, so that stored objects say everything explicitly.
//!
//! Source of the values: the API reference of each kind ("Defaults to ...") and what `kube-apiserver` stores.
//! Pure: looks only at the object. Runs on create and on every update, before validation, on objects that
//! [`claw_schemas::schema::Schema::normalize`] has brought into stored form. Applying it twice changes nothing.
//!
//! Must never know: who asks, and what else is stored.

use claw_schemas::Descriptor;
use serde_json::Value;

/// Fills in the defaults of a kind.
pub fn apply(_kind: &Descriptor, _object: &mut Value) {}
