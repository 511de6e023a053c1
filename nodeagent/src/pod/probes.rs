//! Probes: when one is due, and what its results add up to.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Probe};

/// The probes a container may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Until it succeeds, the others wait. A container that fails it is restarted.
    Startup,
    /// A container that fails it is restarted.
    Liveness,
    /// A container that fails it is not ready.
    Readiness,
}

impl ProbeKind {
    /// Its definition, if the container has one.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }

    /// For messages: `Readiness`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What the probes of one kind, of one run of a container, have said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// One is under way.
    pub in_flight: bool,
    /// The verdict: thresholds reached, one way or the other.
    pub outcome: Option<bool>,
    successes: i32,
    failures: i32,
    next_at: Option<Timestamp>,
}

impl ProbeState {
    /// Nothing said yet.
    pub const NONE: Self = Self { in_flight: false, outcome: None, successes: 0, failures: 0, next_at: None };

    /// With a verdict known from before a restart of the agent.
    pub fn known(outcome: bool) -> Self {
        Self { outcome: Some(outcome), ..Self::default() }
    }

    /// When the next one is due.
    pub fn due(&self, probe: &Probe, started_at: Timestamp) -> Timestamp {
        let delay = SignedDuration::from_secs(probe.initial_delay_seconds.unwrap_or(0).into());
        self.next_at.unwrap_or_else(|| started_at.saturating_add(delay).unwrap_or(started_at))
    }

    /// Takes a result in.
    pub fn record(&mut self, probe: &Probe, success: bool, now: Timestamp) {
        self.in_flight = false;
        let period = SignedDuration::from_secs(probe.period_seconds.unwrap_or(10).max(1).into());
        self.next_at = now.checked_add(period).ok();
        if success {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= probe.success_threshold.unwrap_or(1) {
                self.outcome = Some(true);
            }
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            if self.failures >= probe.failure_threshold.unwrap_or(3) {
                self.outcome = Some(false);
            }
        }
    }
}

/// How long one probe may take.
pub fn timeout(probe: &Probe) -> Duration {
    Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_as_many_results_in_a_row_as_the_thresholds_say() {
        let probe = Probe { failure_threshold: Some(2), success_threshold: Some(2), ..Probe::default() };
        let mut state = ProbeState::default();
        let mut verdicts = Vec::new();
        for success in [true, false, true, true, false, true, false, false] {
            state.record(&probe, success, Timestamp::UNIX_EPOCH);
            verdicts.push(state.outcome);
        }
        let yes = Some(true);
        assert_eq!(verdicts, [None, None, None, yes, yes, yes, yes, Some(false)]);
    }

    #[test]
    fn the_first_probe_waits_for_the_delay_and_the_next_for_the_period() {
        let probe = Probe { initial_delay_seconds: Some(5), period_seconds: Some(7), ..Probe::default() };
        let second = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut state = ProbeState::default();
        assert_eq!(state.due(&probe, second(100)), second(105));
        state.record(&probe, true, second(106));
        assert_eq!(state.due(&probe, second(100)), second(113));
    }
}
