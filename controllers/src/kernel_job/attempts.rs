//! What the tries of a job say: which is under way, how many have failed, how long to wait, where not to go.
//!
//! Must never know: pods.

use std::{collections::BTreeSet, time::Duration};

use claw_schemas::api::{KernelJobAttempt, KernelJobSpec};
use jiff::Timestamp;

use crate::workers::{self, DISRUPTED};

/// Why a try ended that its job was suspended in.
pub const SUSPENDED: &str = "Suspended";
/// Why a try, and with it the job, ended that ran for longer than it may.
pub const DEADLINE: &str = "DeadlineExceeded";

/// How often a job is tried again when it does not say.
const BACKOFF_LIMIT_DEFAULT: i32 = 2;
/// How often it is tried again at the most.
const BACKOFF_LIMIT_MAX: i32 = 100;

/// Tries that a status keeps, of up to some 1.5 KiB each: all that count, and some of the others.
pub const KEPT_MAX: usize = 128;

/// Before the second try, and the most before a later one.
const DELAY_FIRST: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(60);

/// The try that has not ended; there is one at the most, the last.
pub fn open(all: &[KernelJobAttempt]) -> Option<usize> {
    all.iter().rposition(|one| one.end_time.is_none())
}

/// Whether it ended by a failure that counts against the limit.
fn counts(one: &KernelJobAttempt) -> bool {
    let why = one.reason.as_deref();
    one.end_time.is_some() && why.is_some_and(|why| why != SUSPENDED && why != DISRUPTED)
}

/// How many count against the limit.
pub fn failures(all: &[KernelJobAttempt]) -> usize {
    all.iter().filter(|one| counts(one)).count()
}

/// How many failures a job bears.
pub fn failures_max(spec: &KernelJobSpec) -> usize {
    let limit = spec.backoff_limit.unwrap_or(BACKOFF_LIMIT_DEFAULT).clamp(0, BACKOFF_LIMIT_MAX);
    usize::try_from(limit).unwrap_or(0)
}

/// What is left of the wait before the next try, by how long ago something was.
pub fn wait(all: &[KernelJobAttempt], age: impl Fn(Timestamp) -> Duration) -> Duration {
    let last = all.last().filter(|last| last.reason.as_deref() != Some(SUSPENDED));
    let ended = last.and_then(|last| last.end_time.as_ref());
    ended.map_or(Duration::ZERO, |ended| delay(all).saturating_sub(age(ended.0)))
}

/// How long is waited before the next try.
pub fn delay(all: &[KernelJobAttempt]) -> Duration {
    workers::delay(u32::try_from(failures(all)).unwrap_or(u32::MAX), DELAY_FIRST, DELAY_MAX)
}

/// Nodes that a try failed on.
pub fn nodes_to_avoid(all: &[KernelJobAttempt]) -> BTreeSet<&str> {
    all.iter().filter(|one| counts(one)).filter_map(|one| one.node.as_deref()).collect()
}

/// The next try of a job of that name. Its number follows from the last pod's name, so that none is used twice, whatever the list
/// has lost.
pub fn next(name: &str, all: &[KernelJobAttempt]) -> KernelJobAttempt {
    let number =
        |one: &KernelJobAttempt| one.pod.rsplit('-').next().and_then(|text| text.parse::<u64>().ok());
    let number = all.last().map_or(0, |last| number(last).map_or(all.len() as u64, |number| number + 1));
    KernelJobAttempt { pod: format!("{name}-{number}"), ..KernelJobAttempt::default() }
}

/// Makes room for one more: the oldest that does not count goes, and the oldest of all only where all count.
pub fn make_room(all: &mut Vec<KernelJobAttempt>) {
    while all.len() >= KEPT_MAX {
        let oldest = all.iter().position(|one| !counts(one)).unwrap_or(0);
        all.remove(oldest);
    }
}
