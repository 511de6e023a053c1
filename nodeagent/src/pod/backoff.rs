//! How long to wait between runs of a container. Source: kubelet's `doBackOff`.
//!
//! The first restart is immediate, then the delay starts at the base (10 s) and doubles with every
//! restart up to 30 times the base (5 min). A run of 10 minutes makes it forget.

use std::time::Duration;

use super::state::Ended;

/// 10 s × 30 = 5 min.
const CAP_FACTOR: u32 = 30;

/// 10 s × 60 = 10 min.
const FORGET_FACTOR: u32 = 60;

/// The base that [`FORGET`] is measured against when the recorded delay is zero.
const FORGET: Duration = Duration::from_secs(600);

/// How long after its exit the next run must wait.
pub fn before_next(ended: &Ended<'_>) -> Duration {
    if ended.after >= FORGET { Duration::ZERO } else { ended.run.restart_delay }
}

/// What the next run is to record for the one after it.
pub fn after_next(ended: &Ended<'_>, base: Duration) -> Duration {
    let delay = ended.run.restart_delay;
    if ended.after >= (base * FORGET_FACTOR).min(FORGET) || delay.is_zero() {
        base
    } else {
        (delay * 2).min(base * CAP_FACTOR)
    }
}

/// The delay after a failure to start at all, the `count`-th in a row.
pub fn of_failures(count: u32, base: Duration) -> Duration {
    (base * 2_u32.saturating_pow(count.saturating_sub(1).min(10))).min(base * CAP_FACTOR)
}
