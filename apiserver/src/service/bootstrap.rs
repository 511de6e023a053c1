//! What a cluster cannot be without: the system namespaces, and the priorities of its own pods.

use claw_client::{
    ResourceRef,
    request::{View, WriteOptions},
};
use claw_schemas::{ApiError, status::Reason};
use serde_json::{Value, json};

use super::{ObjectService, admit::SYSTEM_NAMESPACES};
use crate::auth::Identity;

/// (name, priority, which pods it is for): Kubernetes' own, above all that users can give.
const SYSTEM_PRIORITIES: [(&str, i64, &str); 2] = [
    ("system-cluster-critical", 2_000_000_000, "Pods without which the cluster does not work."),
    ("system-node-critical", 2_000_001_000, "Pods without which a node does not work."),
];

impl ObjectService {
    /// Creates what a cluster cannot be without, where it is missing.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn ensure_bootstrap_objects(&self) -> Result<(), ApiError> {
        for name in SYSTEM_NAMESPACES {
            let namespaces = ResourceRef::collection("", "v1", "namespaces");
            self.ensure(namespaces, json!({"metadata": {"name": name}})).await?;
        }
        for (name, value, description) in SYSTEM_PRIORITIES {
            let classes = ResourceRef::collection("scheduling.k8s.io", "v1", "priorityclasses");
            let class = json!({"metadata": {"name": name}, "value": value, "description": description});
            self.ensure(classes, class).await?;
        }
        Ok(())
    }

    async fn ensure(&self, resource: ResourceRef, object: Value) -> Result<(), ApiError> {
        let (who, target) = (Identity::loopback("bootstrap"), self.kinds.resolve(resource)?);
        let options = WriteOptions { field_manager: Some("clawbernetes".to_owned()), ..Default::default() };
        match self.create(&who, &target, object.to_string().as_bytes(), &options, View::Object).await {
            Err(error) if error.reason != Reason::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}
