//! Waiting for a condition. Stories never sleep for a while and hope.

use std::{
    fmt::Display,
    future::Future,
    thread,
    time::{Duration, Instant},
};

/// Long enough for anything that should happen at once, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// Long enough for several containers, restarts with backoff, or a rollout.
pub const LATER: Duration = Duration::from_secs(180);

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

/// The same, for asynchronous probes.
pub async fn until_async<T, E, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(complaint) if start.elapsed() > limit => {
                panic!("{what}: not within {} s; last seen: {complaint}", limit.as_secs())
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// `Ok` when it holds, else what was seen instead.
///
/// # Errors
/// The text of `seen`.
pub fn check(holds: bool, seen: impl Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(seen.to_string()) }
}
