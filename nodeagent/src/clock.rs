//! Two ideas of time, told apart: what clocks on the wall say, which people and other machines read and anybody may set, and what
//! decisions go by, which only ever goes on.
//!
//! The second is tokio's clock, so that a test can hold and move it, with the look of the first, so that both can be reckoned with
//! where records of an earlier run of the agent tell of its past.

use std::{fmt, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// What the clock on the wall says. It may be set at any time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// Any clock: for who tests what happens when one is set.
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The time, for reports.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }

    /// Time for decisions from this moment on.
    pub fn steady(&self) -> Steady {
        Steady { began_at: self.now(), since: Instant::now() }
    }
}

impl Default for Clock {
    /// The machine's.
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clock")
    }
}

/// What a clock said once, and what has passed since: setting the clock does not change it.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    began_at: Timestamp,
    since: Instant,
}

impl Steady {
    /// The time, for decisions.
    pub fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        self.began_at.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicI64, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_decisions_go_by_begins_as_the_clock_and_goes_on_however_it_is_set() {
        let hands = Arc::new(AtomicI64::new(1_000));
        let seen = Arc::clone(&hands);
        let clock = Clock::new(move || Timestamp::from_second(seen.load(Ordering::Relaxed)).unwrap());
        let steady = clock.steady();
        assert_eq!(steady.now().as_second(), 1_000);
        for set_to in [0, 9_000] {
            hands.store(set_to, Ordering::Relaxed);
            tokio::time::advance(Duration::from_secs(5)).await;
            assert_eq!(clock.now().as_second(), set_to);
        }
        assert_eq!(steady.now().as_second(), 1_010);
    }
}
