//! Built-in kinds that show what another kind stores: a second version of a kind, or the same kind in a second group.
//!
//! What is true of the stored kind (its defaults, its rules) is true of its twins, so that there is one set of rules: an
//! object is brought into the stored form, looked at there, and brought back.

use std::sync::Arc;

use async_trait::async_trait;
use claw_schemas::{ApiError, Descriptor, Registry, registry::StoredAs, status::Cause};
use serde_json::Value;

use super::{form::Form, kinds::Served, object::take_field};
use crate::{store::Revision, validation};

/// How the objects of a kind relate to those of the kind that stores them.
pub(super) struct Twin {
    form: StoredAs,
    served: Arc<Descriptor>,
    stored: Arc<Descriptor>,
}

impl Twin {
    /// Of a kind that has one among the built-in kinds.
    pub fn of(kind: &Arc<Descriptor>, builtin: &Registry) -> Option<Self> {
        let form = kind.stored_as?;
        let stored = builtin.resource(form.group, form.version, &kind.plural)?.clone();
        Some(Self { form, served: kind.clone(), stored })
    }

    /// Does something to an object in its stored form.
    pub fn change(&self, object: &mut Value, change: impl FnOnce(&Descriptor, &mut Value)) {
        let mut stored = (self.form.store)(object.take());
        change(&self.stored, &mut stored);
        *object = (self.form.serve)(stored);
    }

    fn store(&self, served: &Value) -> Value {
        (self.form.store)(served.clone())
    }

    /// What is wrong with an object by the rules of the stored kind. Another group may have stricter ones of its own.
    pub fn faults(&self, old: Option<&Value>, new: &Value) -> Vec<Cause> {
        if self.served.group != self.stored.group {
            return judged(&self.served, old, new);
        }
        judged(&self.stored, old.map(|old| self.store(old)).as_ref(), &self.store(new))
    }
}

fn judged(kind: &Descriptor, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    match old {
        None => validation::create(kind, new),
        Some(old) => validation::update(kind, old, new),
    }
}

#[async_trait]
impl Form for Twin {
    fn is_stored(&self, _: Revision) -> bool {
        false
    }

    async fn served(&self, stored: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        let serve = |object| {
            let mut object = (self.form.serve)(object);
            self.served.compiled().normalize(&mut object);
            object
        };
        Ok(stored.into_iter().map(serve).collect())
    }

    fn is_written(&self) -> bool {
        false
    }

    async fn stored(&self, served: Value) -> Result<Value, ApiError> {
        let mut object = (self.form.store)(served);
        self.stored.compiled().normalize(&mut object);
        Ok(object)
    }
}

impl Served {
    /// A built-in kind.
    pub fn builtin(descriptor: &Arc<Descriptor>, builtin: &Registry) -> Self {
        let mut served = Self::new(descriptor.clone());
        if let Some(twin) = Twin::of(descriptor, builtin).map(Arc::new) {
            served.form = Some(twin.clone());
            served.twin = Some(twin);
        }
        served
    }

    /// Does something to an object in the form in which it is stored, by the kind that stores it.
    pub fn change_as_stored(&self, object: &mut Value, change: impl FnOnce(&Descriptor, &mut Value)) {
        match &self.twin {
            Some(twin) => twin.change(object, change),
            None => change(&self.descriptor, object),
        }
    }

    /// Gives an object the status of another; nothing has none.
    pub fn take_status(&self, from: &Value, to: &mut Value) {
        match &self.twin {
            Some(twin) if from.is_object() => {
                let from = twin.store(from);
                twin.change(to, |_, to| take_field(&from, to, "status"));
            }
            Some(twin) => twin.change(to, |_, to| take_field(from, to, "status")),
            None => take_field(from, to, "status"),
        }
    }

    /// The same for two objects of which only the status of the one is still needed, and the other has none.
    pub fn give_status(&self, mut from: Value, to: &mut Value) {
        if self.twin.is_some() {
            self.take_status(&from, to);
        } else if let (Some(from), Some(to)) = (from.as_object_mut(), to.as_object_mut()) {
            to.extend(from.remove_entry("status"));
        }
    }
}
