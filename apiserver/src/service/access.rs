//! Whether a request may be made at all: the first stage of the pipeline.

use claw_client::ResourceRef;
use claw_schemas::{ApiError, selector::FieldSelector, status::Reason};

use super::{ObjectService, usage};
use crate::auth::{Action, Authorizer, Identity};

/// Parts that objects of some kind have.
const PARTS: [&str; 12] = [
    "approval",
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "finalize",
    "log",
    "portforward",
    "scale",
    "status",
    "token",
];

impl ObjectService {
    /// Lets a request on objects pass. `fields` is the field selector of a list or watch: selecting one name is
    /// asking about that name.
    pub(super) fn authorize(
        &self,
        who: &Identity,
        verb: &str,
        resource: &ResourceRef,
        fields: &str,
    ) -> Result<(), ApiError> {
        // Controllers and administrators make most of the requests, and nothing can stop them.
        if who.is_master() {
            return Ok(());
        }
        let fields = FieldSelector::parse(fields).unwrap_or_default();
        self.decide(who, &Action::on(verb, resource).selecting(&fields))
    }

    /// Lets a write on objects pass whose body has yet to come. [`Self::call`] asks again.
    ///
    /// # Errors
    /// `Forbidden`, or `Unauthorized` to those who may try again with credentials.
    pub fn authorize_write(
        &self,
        who: &Identity,
        verb: &str,
        resource: &ResourceRef,
    ) -> Result<(), ApiError> {
        self.authorize(who, verb, resource, "")
    }

    /// Lets a request on a path outside of the objects pass.
    ///
    /// # Errors
    /// `Forbidden`, or `Unauthorized` to those who may try again with credentials.
    pub fn authorize_path(&self, who: &Identity, verb: &str, path: &str) -> Result<(), ApiError> {
        self.decide(who, &Action::at(verb, path))
    }

    /// Whether there is such a kind, and such a part of its objects.
    pub fn serves(&self, resource: &ResourceRef) -> bool {
        let ResourceRef { group, version, plural, .. } = resource;
        let is_stored = self.registry().resource(group, version, plural).is_some();
        (is_stored || usage::is_measured(resource))
            && resource.subresource.as_deref().is_none_or(|sub| PARTS.contains(&sub))
    }

    /// Who decides.
    pub fn authorizer(&self) -> &dyn Authorizer {
        &*self.authorizer
    }

    fn decide(&self, who: &Identity, action: &Action<'_>) -> Result<(), ApiError> {
        if self.authorizer.allows(who, action) {
            return Ok(());
        }
        if who.is_anonymous() {
            return Err(ApiError::new(
                Reason::Unauthorized,
                "this request carries no credentials: use a client certificate of this cluster or a bearer token \
                 (the administrator's kubeconfig is admin.kubeconfig in the server's data folder)",
            ));
        }
        Err(action.forbidden(who, &self.authorizer.explain(who, action)))
    }
}
