//! Admission: rules that need to know more of the cluster than the object itself.

use claw_schemas::{ApiError, status::Cause};

use super::{ObjectService, kinds::Target};
use crate::store::{Change, Expect, Key, Write};

/// Namespaces that are part of every cluster.
pub(super) const SYSTEM_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Those that stay for ever. Kubernetes allows `kube-node-lease` to be deleted, and makes it again.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

impl ObjectService {
    /// New objects need a namespace that exists and is to stay. Gives the check by which their transaction sees to it that
    /// it still does: whoever empties a namespace that goes must be able to rely on what they saw.
    pub(super) async fn admit_into_namespace(
        &self,
        target: &Target,
        name: &str,
    ) -> Result<Option<Write>, ApiError> {
        let namespace = &target.namespace;
        if namespace.is_empty() {
            return Ok(None);
        }
        let Some(namespaces) = self.kinds.core("namespaces") else { return Ok(None) };
        let Some(record) = self.find(&Key::object("", "namespaces", "", namespace)).await? else {
            return Err(namespaces.not_found(namespace));
        };
        // Remembered: a namespace is looked at twice for each object in it, and changes hardly ever.
        let state = self.memo.state(&namespaces, record.revision);
        let facts = state.facts(&namespaces, &record.value);
        let phase = namespaces.plan.field("status.phase");
        if phase.is_none_or(|phase| facts.field(phase) != "Terminating") {
            let expect = Expect::Revision(record.revision);
            return Ok(Some(Write { key: record.key, expect, change: Change::Check }));
        }
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = target.kind.forbidden(name, &why);
        error.details.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
        Err(error)
    }

    /// Some objects hold the cluster together.
    pub(super) fn admit_delete(&self, target: &Target) -> Result<(), ApiError> {
        if target.kind.is_namespace() && IMMORTAL_NAMESPACES.contains(&target.name.as_str()) {
            return Err(target.kind.forbidden(&target.name, "this namespace may not be deleted"));
        }
        Ok(())
    }
}
