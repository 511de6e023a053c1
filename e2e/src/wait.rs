//! Waiting for a condition, for stories that are not asynchronous; the others wait as `claw_testing` does.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

pub use claw_testing::wait::{SOON, await_condition, check, until_async};

/// Long enough for several containers, restarts with backoff, a rollout, or a worker, on a machine five times as slow as it should be.
pub const LATER: Duration = Duration::from_secs(600);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Looks until `probe` gives something; panics with the last complaint when it never does.
#[track_caller]
pub fn until<T, E: Display>(what: &str, limit: Duration, probe: impl FnMut() -> Result<T, E>) -> T {
    match within(limit, probe) {
        Ok(found) => found,
        Err(complaint) => panic!("{what}: not within {} s; last seen: {complaint}", limit.as_secs()),
    }
}

/// The same without a panic.
///
/// # Errors
/// The last complaint.
pub fn within<T, E>(limit: Duration, mut probe: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    loop {
        match probe() {
            Err(_) if start.elapsed() <= limit => thread::sleep(POLL),
            last => return last,
        }
    }
}
