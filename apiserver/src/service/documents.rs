//! Objects that another part of the server holds as documents: the same stages as for everybody, but no bytes are made
//! only to be read again.
//!
//! Must never know: who these parts are.

use claw_client::{
    ResourceRef,
    request::{View, WriteOptions},
};
use claw_schemas::ApiError;
use serde_json::{Map, Value};

use super::{
    ObjectService, body,
    owners::{self, Claims},
    sealed::Sealed,
    update::{Part, Proposal},
};
use crate::auth::Identity;

impl ObjectService {
    /// Adds an object.
    ///
    /// # Errors
    /// As a create by [`Self::call`].
    pub async fn create_document(
        &self,
        who: &Identity,
        collection: ResourceRef,
        object: Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        self.authorize(who, "create", &collection, "")?;
        let target = self.kinds.resolve(collection)?.asked_by(who);
        let incoming = body::check_fields(&target.kind, object, &[], options.field_validation)?;
        self.create_checked(&target, incoming, options, View::Object).await.map(drop)
    }

    /// Changes the status of an object. `make` decides from the object as it is, again whenever somebody else was
    /// faster, and leaves it alone by `None`. `resource` names the status.
    ///
    /// # Errors
    /// As an update by [`Self::call`].
    pub async fn change_status(
        &self,
        who: &Identity,
        resource: ResourceRef,
        options: &WriteOptions,
        mut make: impl FnMut(&Value) -> Option<Value>,
    ) -> Result<(), ApiError> {
        self.authorize(who, "update", &resource, "")?;
        let target = self.kinds.resolve(resource)?.asked_by(who);
        let claims = owners::written(&target, Part::Status.subresource(), options, "UpdateOptions")?;
        let make = |Sealed { object: old, .. }: &Sealed| {
            let (object, claims) = match make(old) {
                Some(status) => {
                    let checked =
                        body::check_fields(&target.kind, holding(status), &[], options.field_validation)?;
                    (checked.object, claims.clone())
                }
                None => (old.get("status").cloned().map_or_else(|| Map::new().into(), holding), Claims::Kept),
            };
            Ok(Proposal { object, claims, warnings: Vec::new() })
        };
        self.change(&target, Part::Status, options, make).await.map(drop)
    }
}

/// An object that is nothing but its status: all that a change of the status looks at.
fn holding(status: Value) -> Value {
    Value::Object(Map::from_iter([("status".to_owned(), status)]))
}
