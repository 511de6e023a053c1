//! What the machine and its containers use: rates, made of what has been counted.
//!
//! Nothing is counted before the server asks. A rate takes two counts, so the first question takes a second; what was
//! counted for it is the beginning of the next rate.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use claw_schemas::proto::{ContainerUsage, Figures, Usage};
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::{Pods, Shared, worker::RunView};
use crate::runtime::{Count, Counts};

/// Rates are over this long, if it is known what was used then: as long as metrics servers usually take.
const WINDOW: Duration = Duration::from_secs(15);

/// Shorter, a rate says more about chance than about use.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// Longer, it says too little about now.
const WINDOW_MAX: Duration = Duration::from_secs(90);

/// Counts are kept this far apart: at most four of them are.
const SPACING: Duration = Duration::from_secs(5);

/// What was counted lately.
#[derive(Default)]
pub(super) struct Meter {
    history: Mutex<History>,
}

/// Oldest first.
#[derive(Default)]
struct History(VecDeque<(Instant, Counts)>);

/// Measures for the server.
pub(super) async fn measure(shared: &Shared, pods: &Pods) -> Usage {
    // Questions that come together wait for each other.
    let mut history = shared.meter.history.lock().await;
    history.forget(Instant::now());
    if history.since(Instant::now()).is_none() {
        let (_, counts) = count(shared, pods).await;
        if counts.machine.is_none() {
            // A node that only pretends.
            return Usage::default();
        }
        history.keep(Instant::now(), counts);
        tokio::time::sleep(WINDOW_MIN).await;
    }
    let (runs, counts) = count(shared, pods).await;
    let usage = usage(&runs, &counts, history.since(Instant::now()), Timestamp::now());
    history.keep(Instant::now(), counts);
    usage
}

async fn count(shared: &Shared, pods: &Pods) -> (Vec<RunView>, Counts) {
    let runs = pods.running();
    let counts = shared.runtime.count(runs.iter().map(|run| run.key.clone()).collect()).await;
    (runs, counts)
}

impl History {
    /// Drops what is too old to say something about now.
    fn forget(&mut self, now: Instant) {
        self.0.retain(|(at, _)| now.duration_since(*at) <= WINDOW_MAX);
    }

    /// The counts that a rate begins with.
    fn since(&self, now: Instant) -> Option<&Counts> {
        let old = |least: Duration| move |(at, _): &&(Instant, Counts)| now.duration_since(*at) >= least;
        let (whole, some) = (self.0.iter().rfind(old(WINDOW)), self.0.iter().find(old(WINDOW_MIN)));
        whole.or(some).map(|(_, counts)| counts)
    }

    /// Keeps counts for later rates, and no more than these need.
    fn keep(&mut self, now: Instant, counts: Counts) {
        if self.0.back().is_none_or(|(last, _)| now.duration_since(*last) >= SPACING) {
            self.0.push_back((now, counts));
        }
        while self.0.get(1).is_some_and(|(second, _)| now.duration_since(*second) >= WINDOW) {
            self.0.pop_front();
        }
    }
}

fn usage(runs: &[RunView], counts: &Counts, before: Option<&Counts>, now: Timestamp) -> Usage {
    let machine = counts.machine.zip(before.and_then(|before| before.machine));
    let containers = runs.iter().filter_map(|run| {
        let count = counts.runs.get(&run.key)?;
        let first = before.and_then(|before| before.runs.get(&run.key));
        let figures = match first {
            Some(first) => rate(first, count, now),
            None => rate_since_start(run.started_at?, count, now),
        };
        Some(ContainerUsage {
            pod_uid: run.key.pod_uid.clone(),
            container: run.key.container.clone(),
            figures: Some(figures?),
        })
    });
    Usage {
        machine: machine.and_then(|(count, first)| rate(&first, &count, now)),
        containers: containers.collect(),
    }
}

fn rate(first: &Count, last: &Count, now: Timestamp) -> Option<Figures> {
    figures(last.cpu_ns.checked_sub(first.cpu_ns)?, last.at.duration_since(first.at), last, now)
}

/// Of a container that had used nothing when it started.
fn rate_since_start(started_at: Timestamp, last: &Count, now: Timestamp) -> Option<Figures> {
    // Wall clocks jump: a container from the future has not been measured.
    figures(last.cpu_ns, now.duration_since(started_at).try_into().ok()?, last, now)
}

/// `None` when it is too early to say.
fn figures(cpu_ns: u64, window: Duration, last: &Count, now: Timestamp) -> Option<Figures> {
    if window < WINDOW_MIN {
        return None;
    }
    let nanocores = u128::from(cpu_ns) * 1_000_000_000 / window.as_nanos();
    Some(Figures {
        at_ms: now.as_millisecond(),
        window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
        cpu_nanocores: u64::try_from(nanocores).unwrap_or(u64::MAX),
        memory_bytes: last.memory_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::InstanceKey;

    const SECOND: Duration = Duration::from_secs(1);

    fn run(container: &str, started_at: Option<Timestamp>) -> RunView {
        let key = InstanceKey { pod_uid: "u".to_owned(), container: container.to_owned(), attempt: 0 };
        RunView { key, started_at, over: false }
    }

    fn counts(at: Instant, cpu_ns: u64, runs: &[RunView]) -> Counts {
        let count = Count { at, cpu_ns, memory_bytes: 5 };
        let machine = Some(Count { cpu_ns: cpu_ns * 2, ..count });
        Counts { machine, runs: runs.iter().map(|run| (run.key.clone(), count)).collect() }
    }

    #[test]
    fn a_rate_is_what_was_used_by_the_time_it_took() {
        let (start, now) = (Instant::now(), Timestamp::from_second(100).unwrap());
        let runs = [run("old", Some(Timestamp::UNIX_EPOCH))];
        let before = counts(start, 1_000_000_000, &runs);
        let after = counts(start + 10 * SECOND, 6_000_000_000, &runs);
        let usage = usage(&runs, &after, Some(&before), now);
        let expected =
            Figures { at_ms: 100_000, window_ms: 10_000, cpu_nanocores: 500_000_000, memory_bytes: 5 };
        assert_eq!(usage.containers[0].figures, Some(expected));
        assert_eq!(usage.machine.unwrap().cpu_nanocores, 1_000_000_000);
    }

    #[test]
    fn a_young_container_is_measured_since_its_start_or_not_yet() {
        let (start, now) = (Instant::now(), Timestamp::from_second(100).unwrap());
        let runs = [
            run("young", Some(Timestamp::from_second(98).unwrap())),
            run("new", Some(now)),
            run("of tomorrow", Some(Timestamp::from_second(1_000).unwrap())),
            run("never started", None),
        ];
        let before = counts(start, 0, &[]);
        let usage = usage(&runs, &counts(start + 10 * SECOND, 3_000_000_000, &runs), Some(&before), now);
        let [young] = usage.containers.as_slice() else { panic!("{usage:?}") };
        let figures = young.figures.unwrap();
        assert_eq!((&*young.container, figures.window_ms), ("young", 2_000));
        assert_eq!(figures.cpu_nanocores, 1_500_000_000);
    }

    #[test]
    fn rates_begin_a_window_ago_and_little_is_kept_for_them() {
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let mut history = History::default();
        assert!(history.since(at(0)).is_none());
        for second in 0..=60 {
            history.keep(at(second), counts(at(second), u64::from(second), &[]));
            assert!(history.0.len() <= 4, "{}", history.0.len());
        }
        let begins = |history: &History, second: u32| {
            history.since(at(second)).and_then(|counts| counts.machine).map(|machine| machine.cpu_ns / 2)
        };
        assert_eq!(begins(&history, 60), Some(45));
        assert_eq!(begins(&history, 66), Some(50));
        history.forget(at(149));
        assert_eq!(begins(&history, 149), Some(60));
        history.forget(at(151));
        assert_eq!(begins(&history, 151), None);
    }

    #[test]
    fn a_first_count_is_no_rate_before_a_second_has_passed() {
        let (start, mut history) = (Instant::now(), History::default());
        history.keep(start, counts(start, 1, &[]));
        assert!(history.since(start + SECOND / 2).is_none());
        assert!(history.since(start + SECOND).is_some());
    }
}
