//! What ownership is about: a kind of object, and the part of it that a request reaches.

use claw_schemas::schema::{Ownership, Place, Schema};

/// Metadata that nobody owns: the server's own, and what names the object.
const METADATA_UNOWNED: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// The part of an object that a request can change, and so own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Whole,
    /// Everything but the status, which has a path of its own.
    Main,
    /// The status alone.
    Status,
}

/// A kind and a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The schema of the kind.
    pub schema: &'a Schema,
    /// What can be reached.
    pub scope: Scope,
    /// Built-in kinds have their top-level structures from the start, so that nobody can own the making of one.
    pub builtin: bool,
}

impl Subject<'_> {
    /// Whether a top-level field has owners here.
    pub fn reaches(&self, field: &str) -> bool {
        match (field, self.scope) {
            ("apiVersion" | "kind", _) => false,
            (field, Scope::Status) => field == "status",
            (field, Scope::Main) => field != "status",
            (_, Scope::Whole) => true,
        }
    }

    /// Whether a top-level field is always there, so that only what is in it can be added.
    pub(super) fn is_given(&self, field: &str) -> bool {
        let granular = |place: Place<'_>| place.is_structure() && *place.ownership() == Ownership::Granular;
        field == "metadata" || (self.builtin && self.schema.root().field(field).is_some_and(granular))
    }
}

/// Whether a field of the metadata has owners.
pub(super) fn metadata_is_owned(field: &str) -> bool {
    !METADATA_UNOWNED.contains(&field)
}
