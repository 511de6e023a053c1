//! The strategy Recreate: all old pods go before the first new one comes.
//!
//! Must never know: surge, availability.

use claw_runtime::Plan;
use k8s_openapi::api::core::v1::Pod;

use super::{
    Rollout,
    sets::{Set, Sets},
    status::Conditions,
};
use crate::pods;

impl Rollout<'_> {
    /// Empties the old sets, waits for their pods to end, then fills the new one.
    pub(super) fn recreate(&self, sets: &mut Sets, conditions: &mut Conditions) -> Result<(), Box<Plan>> {
        let mut emptied = false;
        for set in sets.old.iter_mut().filter(|set| set.replicas > 0) {
            set.resize(self, 0);
            emptied = true;
        }
        if emptied || self.old_pods_run(sets) {
            return Ok(());
        }
        self.ensure_new(sets, conditions)?;
        let differs = |new: &&mut Set| new.create || new.replicas != self.replicas();
        if let Some(new) = sets.new.as_mut().filter(differs) {
            new.resize(self, self.replicas());
        }
        Ok(())
    }

    /// Whether any pod of an old set still may be running, those that are shutting down included.
    fn old_pods_run(&self, sets: &Sets) -> bool {
        let all = self.world.kind::<Pod>();
        sets.old.iter().any(|set| {
            let uid = set.object.metadata.uid.as_deref().unwrap_or_default();
            set.status().replicas > 0 || all.owned_by(uid).any(|pod| !pods::is_finished(pod))
        })
    }
}
