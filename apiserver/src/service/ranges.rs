//! Limit ranges of a namespace, applied to what is made in it.

use claw_schemas::ApiError;
use serde_json::Value;

use super::{ObjectService, encode, errors, kinds::Target, object::text};
use crate::{ranges, store::Key};

impl ObjectService {
    /// Completes a new pod by what the namespace gives to containers that ask for nothing.
    pub(super) async fn admit_amounts(&self, target: &Target, pod: &mut Value) -> Result<(), ApiError> {
        if target.kind.is_pod() {
            self.ranges_of(target).await?.iter().for_each(|range| ranges::fill_in(range, pod));
        }
        Ok(())
    }

    /// Refuses a pod or a claim that asks for more, or less, than the namespace allows.
    pub(super) async fn check_amounts(&self, target: &Target, object: &Value) -> Result<(), ApiError> {
        let judge: fn(&Value, &Value) -> Vec<String> = if target.kind.is_pod() {
            ranges::faults_of_pod
        } else if target.kind.is_core("persistentvolumeclaims") {
            ranges::faults_of_claim
        } else {
            return Ok(());
        };
        for range in self.ranges_of(target).await? {
            if let Some(why) = ranges::together(judge(&range, object)) {
                return Err(target.kind.forbidden(text(object, "name"), &why));
            }
        }
        Ok(())
    }

    async fn ranges_of(&self, target: &Target) -> Result<Vec<Value>, ApiError> {
        let prefix = Key::collection("", "limitranges", Some(&target.namespace));
        let page = self.store.list(&prefix, None, 0, None).await.map_err(errors::from_store)?;
        page.items.iter().map(encode::value_of).collect()
    }
}
