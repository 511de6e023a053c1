//! What a cache says of itself while it cannot follow its server: those who wait may want to give up.

use std::time::Duration;

use claw_schemas::status::Reason;
use tokio::time::{Instant, timeout};

use super::{
    LONG, create, maps_of, maps_over, reached_within, run_as_it_is, server, synced,
    wire::{Fault, Wire},
};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_is_told_of_after_the_time_that_somebody_is_ready_to_wait() {
    let server = server().await;
    let maps = maps_of(&server);
    let wire = Wire::to(&server, &[Fault::Refuse; 1000]);
    let (store, _running) = run_as_it_is(maps_over(&wire, &maps));
    synced(&store).await;
    let began = Instant::now();
    let error = timeout(LONG, store.stuck(PATIENCE)).await.expect("it says so");
    assert_eq!(error.reason, Reason::ServiceUnavailable);
    assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
    // Who asks later is told at once.
    timeout(Duration::from_millis(1), store.stuck(PATIENCE)).await.expect("it is known by now");
}

#[tokio::test(start_paused = true)]
async fn what_time_does_not_mend_is_told_at_once() {
    let server = server().await;
    let maps = maps_of(&server);
    let wire = Wire::to(&server, &[Fault::Forbid; 1000]);
    let (store, _running) = run_as_it_is(maps_over(&wire, &maps));
    synced(&store).await;
    let error = timeout(Duration::from_secs(1), store.stuck(LONG)).await.expect("it says so");
    assert_eq!(error.reason, Reason::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn trouble_that_is_over_is_forgotten() {
    let server = server().await;
    let maps = maps_of(&server);
    let wire = Wire::to(&server, &[&[Fault::Refuse; 4][..], &[Fault::ExpireAfter(0); 2]].concat());
    let (store, _running) = run_as_it_is(maps_over(&wire, &maps));
    synced(&store).await;
    assert!(timeout(LONG, store.stuck(PATIENCE)).await.is_err(), "a cache that works says that it does not");
    reached_within(LONG, &store, &create(&maps, "after").await).await;
}
