//! Watches: ends, breaks, silence, lost history; and that a server which fails all the time is not hammered.

use std::{sync::Arc, time::Duration};

use claw_client::{
    reflector::{BACKOFF_BASE, BACKOFF_CAP},
    request::DeleteOptions,
};
use tokio::time::Instant;

use super::{
    LONG, create, maps_of, maps_over, names, reached, reached_within, run, run_as_it_is, server, so_far,
    synced, told,
    wire::{Fault, LATE, Wire},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_breaks_or_is_refused_goes_on_without_a_list_and_without_a_gap() {
    let server = server().await;
    let maps = maps_of(&server);
    let faults =
        [Fault::EndAfter(2), Fault::BreakAfter(1), Fault::Refuse, Fault::BreakAfter(3), Fault::EndAfter(1)];
    let wire = Wire::to(&server, &faults);
    let reflector = maps_over(&wire, &maps);
    let log = told(&reflector.store());
    let (store, _running) = run(reflector);
    synced(&store).await;
    let mut last = String::new();
    for number in 0..20 {
        last = create(&maps, &format!("map-{number:02}")).await;
    }
    reached(&store, &last).await;
    let once_in_order = (0..20).map(|number| format!("new map-{number:02}"));
    assert_eq!(so_far(&log)[1..], once_in_order.collect::<Vec<_>>());
    let lists = wire.asked().iter().filter(|asked| asked.starts_with("list")).count();
    assert_eq!(lists, 1, "{:?}", wire.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_cleanly_is_resumed_after_the_last_event_it_brought() {
    let server = server().await;
    let maps = maps_of(&server);
    let wire = Wire::to(&server, &[Fault::EndAfter(2)]);
    let (store, _running) = run(maps_over(&wire, &maps));
    synced(&store).await;
    let first = store.latest_revision();
    create(&maps, "a").await;
    let second = create(&maps, "b").await;
    reached(&store, &create(&maps, "c").await).await;
    let asked = ["list rv=0 limit=500".to_owned(), format!("watch rv={first}"), format!("watch rv={second}")];
    assert_eq!(wire.asked(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_lost_in_the_middle_of_a_watch_leads_to_the_most_recent_state_and_what_was_missed() {
    let server = server().await;
    let maps = maps_of(&server);
    create(&maps, "goes").await;
    let wire = Wire::to(&server, &[Fault::ExpireAfter(1)]);
    let reflector = maps_over(&wire, &maps);
    let log = told(&reflector.store());
    let (store, _running) = run(reflector);
    synced(&store).await;
    create(&maps, "stays").await;
    maps.delete("goes", DeleteOptions::default()).await.expect("deletes");
    reached(&store, &create(&maps, "last").await).await;
    assert_eq!(names(&store), ["last", "stays"]);
    let told = so_far(&log);
    assert_eq!(told[..3], ["new goes", "synced", "new stays"], "what came before the error counts");
    assert!(told[3..].contains(&"gone goes".to_owned()), "{told:?}");
    let lists: Vec<_> = wire.asked().into_iter().filter(|asked| asked.starts_with("list")).collect();
    assert_eq!(lists, ["list rv=0 limit=500", "list rv=none limit=500"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumed_after_the_server_forgot_is_told_so_and_lists() {
    let server = server().await;
    let maps = maps_of(&server);
    let wire = Wire::to(&server, &[Fault::BreakAfter(1), Fault::Forget]);
    let (store, _running) = run(maps_over(&wire, &maps));
    synced(&store).await;
    create(&maps, "a").await;
    reached(&store, &create(&maps, "b").await).await;
    assert_eq!(names(&store), ["a", "b"]);
    let lists: Vec<_> = wire.asked().into_iter().filter(|asked| asked.starts_with("list")).collect();
    assert_eq!(lists, ["list rv=0 limit=500", "list rv=none limit=500"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_goes_silent_is_given_up_after_its_own_deadline_and_nothing_is_missed() {
    let server = server().await;
    let maps = maps_of(&server);
    let wire = Wire::to(&server, &[Fault::Silence]);
    let (store, _running) = run_as_it_is(maps_over(&wire, &maps));
    synced(&store).await;
    let missed = create(&maps, "missed").await;
    reached_within(LONG, &store, &missed).await;
    assert_eq!(names(&store), ["missed"]);
    let lists = wire.asked().iter().filter(|asked| asked.starts_with("list")).count();
    assert_eq!(lists, 1, "the watch is resumed: {:?}", wire.asked());
}

/// Each pause is at least half of one that doubles from the base to the cap.
fn assert_that_pauses_grow(moments: &[Instant]) {
    let mut least = BACKOFF_BASE / 2;
    for pair in moments.windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause >= least, "{pause:?} where at least {least:?} was due");
        least = (least * 2).min(BACKOFF_CAP / 2);
    }
}

/// Lets this befall so many watches, on a paused clock; then the cache must still work.
async fn endure(fault: Fault, times: usize) -> Arc<Wire> {
    let server = server().await;
    let maps = maps_of(&server);
    let wire = Wire::to(&server, &vec![fault; times]);
    let (store, _running) = run_as_it_is(maps_over(&wire, &maps));
    synced(&store).await;
    tokio::time::timeout(LONG, async {
        while wire.moments("watch").len() <= times {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .expect("it never gives up");
    reached_within(LONG, &store, &create(&maps, "after").await).await;
    wire
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_every_watch_at_once_is_asked_ever_more_rarely() {
    for fault in [Fault::EndAfter(0), Fault::SayNothingNew, Fault::Refuse] {
        let wire = endure(fault, 12).await;
        assert_that_pauses_grow(&wire.moments("watch")[..13]);
        assert_eq!(wire.moments("list").len(), 1, "{fault:?}: {:?}", wire.asked());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_history_is_always_gone_is_listed_ever_more_rarely() {
    let wire = endure(Fault::ExpireAfter(0), 12).await;
    assert_that_pauses_grow(&wire.moments("list")[..12]);
}

#[tokio::test(start_paused = true)]
async fn watches_that_break_long_after_they_began_are_resumed_at_once_each_time() {
    let server = server().await;
    let maps = maps_of(&server);
    // As by something on the way that cuts what is idle.
    let wire = Wire::to(&server, &[Fault::BreakLate; 12]);
    let (store, _running) = run_as_it_is(maps_over(&wire, &maps));
    synced(&store).await;
    reached_within(LONG, &store, &create(&maps, "missed").await).await;
    let watches = wire.moments("watch");
    assert_eq!(watches.len(), 13);
    assert!(watches.windows(2).all(|pair| pair[1] - pair[0] <= LATE + BACKOFF_BASE), "{watches:?}");
}
