//! What a cluster cannot be without: the system namespaces.

use claw_client::{
    ResourceRef,
    request::{View, WriteOptions},
};
use claw_schemas::{ApiError, status::Reason};
use serde_json::json;

use super::{ObjectService, admit::SYSTEM_NAMESPACES};

impl ObjectService {
    /// Creates what a cluster cannot be without (the system namespaces), where it is missing.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn ensure_bootstrap_objects(&self) -> Result<(), ApiError> {
        let target = self.kinds.resolve(ResourceRef::collection("", "v1", "namespaces"))?;
        let options = WriteOptions { field_manager: Some("clawbernetes".to_owned()), ..Default::default() };
        for name in SYSTEM_NAMESPACES {
            let body = json!({"metadata": {"name": name}}).to_string();
            match self.create(&target, body.as_bytes(), &options, View::Object).await {
                Err(error) if error.reason != Reason::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
