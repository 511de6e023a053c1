//! Scaling a Deployment whose template does not change: in the middle of a rollout every set grows or shrinks in
//! proportion, so that the ratio of old to new, which a paused or failing rollout is at, stays.
//!
//! Must never know: conditions, history.

use std::cmp::Reverse;

use super::{
    Rollout, is_rolling, revision,
    sets::{DESIRED, MAX, Set, Sets},
};

impl Rollout<'_> {
    /// Whether the wanted number of replicas changed since the sets were sized.
    pub(super) fn is_scaling(&self, sets: &Sets) -> bool {
        let stale = |set: &Set| set.number(DESIRED).is_some_and(|desired| desired != self.replicas());
        sets.iter().any(|set| set.size() > 0 && stale(set))
    }

    pub(super) fn scale(&self, sets: &mut Sets) {
        let new_is_full = sets.new.as_ref().is_some_and(|new| self.is_saturated(new));
        if let Some(only) = only_active(sets) {
            only.resize(self, self.replicas());
        } else if new_is_full {
            sets.old.iter_mut().filter(|set| set.replicas > 0).for_each(|set| set.resize(self, 0));
        } else if is_rolling(self.spec) {
            self.scale_in_proportion(sets);
        }
        sets.iter_mut().filter(|set| set.size() > 0).for_each(|set| set.note_deployment_size(self));
    }

    fn is_saturated(&self, new: &Set) -> bool {
        let wanted = self.replicas();
        new.replicas == wanted && new.number(DESIRED) == Some(wanted) && new.available() == wanted
    }

    fn scale_in_proportion(&self, sets: &mut Sets) {
        let allowed = if self.replicas() > 0 { self.replicas() + self.limits.surge } else { 0 };
        let to_add = allowed - sets.total();
        let mut active: Vec<&mut Set> = sets.iter_mut().filter(|set| set.replicas > 0).collect();
        // What cannot be divided evenly goes to the largest; of equal ones growth prefers the newer, shrinking the older.
        active.sort_by_key(|set| {
            let age = revision::of_set(&set.object);
            (Reverse(set.replicas), if to_add > 0 { -age } else { age })
        });
        let mut added = 0;
        for set in &mut active {
            let share = self.share(set, to_add, added);
            added += share;
            let size = set.replicas + share;
            set.resize(self, size);
        }
        if let Some(largest) = active.first_mut() {
            let size = largest.replicas + to_add - added;
            largest.resize(self, size);
        }
    }

    /// Replicas that a set gains or loses, never past what is left to distribute.
    fn share(&self, set: &Set, to_add: i32, added: i32) -> i32 {
        let left = to_add - added;
        if set.replicas == 0 || left == 0 {
            return 0;
        }
        let fraction = self.fraction(set);
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    /// What a set gains or loses if it keeps its part of the whole.
    fn fraction(&self, set: &Set) -> i32 {
        if self.replicas() == 0 {
            return -set.replicas;
        }
        let stated = self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let whole = i64::from(set.number(MAX).unwrap_or(stated));
        if whole <= 0 {
            return 0;
        }
        let future = i64::from(set.replicas) * i64::from(self.replicas() + self.limits.surge);
        // Rounded half up, in integers.
        let size = (2 * future + whole) / (2 * whole);
        i32::try_from(size).unwrap_or(i32::MAX) - set.replicas
    }
}

/// The set that alone has replicas; if none has any, the latest. `None` in the middle of a rollout.
fn only_active(sets: &mut Sets) -> Option<&mut Set> {
    let active = sets.iter().filter(|set| set.replicas > 0).count();
    match active {
        0 if sets.new.is_some() => sets.new.as_mut(),
        0 => sets.old.last_mut(),
        1 => sets.iter_mut().find(|set| set.replicas > 0),
        _ => None,
    }
}
