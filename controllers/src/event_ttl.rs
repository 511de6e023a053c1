//! Events older than an hour are deleted: they are news, not records.
//!
//! Must never know: what events are about.

use std::time::Duration;

use claw_client::{ApiError, request::ListOptions};
use claw_runtime::{Action, Runtime};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use tracing::{debug, warn};

use crate::sweeps;

/// Age at which an event goes. Kubernetes' figure.
const TTL: Duration = Duration::from_secs(3_600);

/// Between sweeps: an event lives at most a twelfth longer than it should.
const SWEEP: Duration = Duration::from_secs(300);

/// Events of one minute are of one age: there are many of them, and ages are remembered by stamp.
const GRAIN_S: i64 = 60;

/// Events read at once: about 1 KiB each.
const PAGE: u64 = 500;

/// Sweeps until the runtime is cancelled.
pub async fn run(runtime: Runtime) {
    let once = || async {
        match sweep(&runtime).await {
            Ok(count) => {
                debug!(count, "old events deleted");
                true
            }
            Err(error) => {
                warn!(%error, "old events were not all deleted; trying again");
                false
            }
        }
    };
    sweeps::run(&runtime, "event-ttl", SWEEP, once).await;
}

async fn sweep(runtime: &Runtime) -> Result<usize, ApiError> {
    let (events, mut count) = (runtime.client.all::<Event>(), 0);
    let mut options = ListOptions { limit: PAGE, ..ListOptions::default() };
    loop {
        let page = events.list(options.clone()).await?;
        let old = old(&page.items, runtime);
        count += old.len();
        runtime.execute(&old).await.map_err(|failure| failure.error)?;
        if page.continue_token.is_empty() {
            return Ok(count);
        }
        options.continue_token = Some(page.continue_token);
    }
}

fn old(events: &[Event], runtime: &Runtime) -> Vec<Action> {
    let (world, now) = (runtime.caches.world(), runtime.env.now());
    events.iter().filter(|event| is_old(event, |since| world.age(since, now))).map(Action::delete).collect()
}

/// Whether nothing was added to an event for too long, by how long ago something was.
fn is_old(event: &Event, age: impl Fn(Timestamp) -> Duration) -> bool {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let times = [
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        series.map(|time| time.0),
        event.metadata.creation_timestamp.as_ref().map(|time| time.0),
    ];
    times.into_iter().flatten().max().is_some_and(|last| age(minute(last)) > TTL)
}

/// When the minute began that something is in.
fn minute(stamp: Timestamp) -> Timestamp {
    Timestamp::from_second(stamp.as_second().div_euclid(GRAIN_S) * GRAIN_S).unwrap_or(stamp)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_as_old_as_its_last_repeat() {
        let event = |last: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
                "involvedObject": {},
                "lastTimestamp": last,
            }))
            .unwrap()
        };
        let now: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        let age = |since: Timestamp| Duration::try_from(now.duration_since(since)).unwrap();
        assert!(is_old(&event("2026-01-01T08:59:59Z"), age));
        assert!(!is_old(&event("2026-01-01T09:00:59Z"), age), "what came in one minute goes at one time");
        assert!(!is_old(&event("2026-01-01T09:30:00Z"), age));
    }
}
