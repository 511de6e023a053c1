//! Rolling updates: how far up the new set may go and how far down the old ones, at every moment.
//!
//! Never more than `replicas + maxSurge` pods, never fewer than `replicas - maxUnavailable` available ones. Both are
//! meant of the pods there are, not only of the sizes asked for: what a set was told a moment ago has not happened yet.
//!
//! Must never know: revisions, conditions.

use k8s_openapi::{api::apps::v1::DeploymentSpec, apimachinery::pkg::util::intstr::IntOrString};

use super::{Rollout, is_rolling, sets::Sets};

/// Kubernetes' default for both limits.
const DEFAULT: &str = "25%";

/// `maxSurge` and `maxUnavailable` as numbers of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub surge: i32,
    pub unavailable: i32,
}

/// Resolves percentages: surge is rounded up, unavailable down, and if that leaves no room at all, one pod may be
/// unavailable. Recreate has neither.
///
/// # Errors
/// A sentence that names the field that is not a number or a percentage.
pub fn limits(spec: &DeploymentSpec) -> Result<Limits, String> {
    if !is_rolling(spec) {
        return Ok(Limits { surge: 0, unavailable: 0 });
    }
    let rolling =
        spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.clone()).unwrap_or_default();
    let replicas = i64::from(spec.replicas.unwrap_or(1));
    let default = || IntOrString::String(DEFAULT.to_owned());
    let surge = resolve(&rolling.max_surge.unwrap_or_else(default), replicas, "maxSurge", true)?;
    let unavailable =
        resolve(&rolling.max_unavailable.unwrap_or_else(default), replicas, "maxUnavailable", false)?;
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    // `replicas + surge` is reckoned with all over: no number that the field takes may overflow it.
    let wanted = spec.replicas.unwrap_or(1).max(0);
    Ok(Limits { surge: surge.min(i32::MAX - wanted), unavailable: unavailable.min(wanted) })
}

fn resolve(value: &IntOrString, replicas: i64, field: &str, up: bool) -> Result<i32, String> {
    let text = match value {
        IntOrString::Int(number) => return Ok((*number).max(0)),
        IntOrString::String(text) => text,
    };
    let percent: Option<i64> = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
    let percent = percent.filter(|percent| (0..=1_000_000).contains(percent)).ok_or_else(|| {
        format!(
            "spec.strategy.rollingUpdate.{field}: \"{text}\" is neither a number nor a percentage such as 25%"
        )
    })?;
    let hundredths = replicas.max(0) * percent;
    let share = if up { (hundredths + 99) / 100 } else { hundredths / 100 };
    Ok(i32::try_from(share).unwrap_or(i32::MAX))
}

impl Rollout<'_> {
    /// One step: the new set up as far as the surge allows, else the old ones down as far as availability allows.
    pub(super) fn roll(&self, sets: &mut Sets) {
        if !self.grow_new(sets) {
            self.shrink_old(sets);
        }
    }

    /// Sizes the new set; true if a stored set was resized, whose effect must be seen before anything else.
    fn grow_new(&self, sets: &mut Sets) -> bool {
        let occupied = sets.occupied();
        let Some(new) = &mut sets.new else { return false };
        let (wanted, now) = (self.replicas(), new.replicas);
        let room = (wanted + self.limits.surge - occupied).max(0);
        let size = if now > wanted { wanted } else { now + room.min(wanted - now) };
        if size == now && !new.create {
            return false;
        }
        new.resize(self, size);
        !new.create
    }

    fn shrink_old(&self, sets: &mut Sets) {
        if sets.old_total() == 0 {
            return;
        }
        let Some(new) = &sets.new else { return };
        let floor = self.replicas() - self.limits.unavailable;
        let new_unavailable = new.replicas - new.reliable();
        let spare = sets.total() - floor - new_unavailable;
        if spare <= 0 {
            return;
        }
        self.drop_unhealthy(sets, spare);
        self.drop_healthy(sets, floor);
    }

    /// Old pods that do not serve may go first: they would only hold the rollout up.
    fn drop_unhealthy(&self, sets: &mut Sets, mut spare: i32) {
        for set in &mut sets.old {
            let unhealthy = (set.replicas - set.reliable()).clamp(0, spare);
            if unhealthy > 0 {
                spare -= unhealthy;
                set.resize(self, set.replicas - unhealthy);
            }
        }
    }

    fn drop_healthy(&self, sets: &mut Sets, floor: i32) {
        let mut spare = sets.reliable() - floor;
        for set in &mut sets.old {
            let drop = set.replicas.min(spare).max(0);
            if drop > 0 {
                spare -= drop;
                set.resize(self, set.replicas - drop);
            }
        }
    }
}
