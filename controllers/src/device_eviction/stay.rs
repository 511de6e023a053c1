//! How long a pod may keep devices that have taints with the effect `NoExecute`.

use std::time::Duration;

use claw_client::Snapshot;
use claw_schemas::gpu::{NO_EXECUTE, covers};
use jiff::Timestamp;
use k8s_openapi::api::resource::{
    v1::{DeviceTaint, DeviceToleration, ResourceSlice},
    v1beta2::DeviceTaintRule,
};

use super::uses::Use;
use crate::taint_rules;

/// How long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Nothing speaks against it.
    Forever,
    /// So much longer, if nothing changes.
    For(Duration),
    /// No longer.
    Over,
}

/// The shortest that any taint of any of its devices leaves, whoever put it there. `age` says how long ago something was.
pub fn of(
    used: &[Use],
    slices: &Snapshot<ResourceSlice>,
    rules: &Snapshot<DeviceTaintRule>,
    age: impl Fn(Timestamp) -> Duration,
) -> Stay {
    let mut shortest = None::<Duration>;
    for one in used {
        let by_rules = rules.iter().filter(|rule| one.is_of(&rule.spec));
        let taints =
            one.taints(slices).into_iter().chain(by_rules.map(|rule| taint_rules::taint(&rule.spec)));
        for taint in taints.filter(|taint| taint.effect == NO_EXECUTE) {
            let Some(patience) = patience(&one.tolerations, &taint) else { continue };
            // The server stamps every taint; one without a stamp is as old as can be.
            let passed = taint.time_added.as_ref().map_or(Duration::MAX, |since| age(since.0));
            let left = patience.saturating_sub(passed);
            shortest = Some(shortest.map_or(left, |known| known.min(left)));
        }
    }
    match shortest {
        None => Stay::Forever,
        Some(Duration::ZERO) => Stay::Over,
        Some(left) => Stay::For(left),
    }
}

/// How long from its beginning a taint is put up with; `None` is forever.
pub fn patience(tolerations: &[DeviceToleration], taint: &DeviceTaint) -> Option<Duration> {
    let mut shortest = None;
    for toleration in tolerations.iter().filter(|toleration| covers(toleration, taint)) {
        let seconds = u64::try_from(toleration.toleration_seconds?).unwrap_or(0);
        shortest = Some(shortest.map_or(seconds, |known: u64| known.min(seconds)));
    }
    Some(Duration::from_secs(shortest.unwrap_or(0)))
}
