//! What the server says of validating admission policies in their status: of which generation it is, and what their
//! expressions say of objects that the kinds they are about do not have.
//!
//! It is said in the write that it is about, by the kinds that are served then; upstream's controller comes a moment later.

use serde_json::Value;

use super::{ObjectService, kinds::Target};
use crate::admission;

impl ObjectService {
    /// Brings the status of a policy up to date, if this is one.
    pub(super) fn observe_policy(&self, target: &Target, policy: &mut Value) {
        let descriptor = &target.kind.descriptor;
        let is_policy =
            descriptor.plural == "validatingadmissionpolicies" && descriptor.group == admission::GROUP;
        let generation = policy["metadata"]["generation"].clone();
        if !is_policy || policy["status"]["observedGeneration"] == generation {
            return;
        }
        let checked = admission::checked(policy, &self.registry());
        policy["status"]["observedGeneration"] = generation;
        policy["status"]["typeChecking"] = checked;
    }
}
