//! Waiting for a condition. Tests never sleep for a while and hope.
//!
//! Limits are generous, and counted in real time even where a test has paused the clock: they are there to end a test
//! that has failed, never to judge how quickly something happens.

use std::{
    fmt::Display,
    future::Future,
    time::{Duration, Instant},
};

use claw_client::{Api, api::Object};

/// Long enough for anything that should happen at once, on a machine that is busy with other tests and was slow before.
pub const SOON: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Looks at an object until it is as it should be (`None` is its absence), and gives what was then seen. `what` says in
/// words what is waited for. Works over any client, so against any server.
///
/// # Panics
/// With what was last seen, when it does not come about within [`SOON`].
pub async fn await_condition<K: Object>(
    api: &Api<K>,
    name: &str,
    what: &str,
    holds: impl Fn(Option<&K>) -> bool,
) -> Option<K> {
    let holds = &holds;
    until_async(what, SOON, || async move {
        let found = api.find(name).await.map_err(|error| error.to_string())?;
        if holds(found.as_ref()) { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// Looks until `probe` gives something.
///
/// # Panics
/// With the last complaint, when it gives nothing within `limit`.
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

/// `Ok` when it holds, else what was seen instead: the usual end of a probe.
///
/// # Errors
/// The text of `seen`.
pub fn check(holds: bool, seen: impl Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(seen.to_string()) }
}
