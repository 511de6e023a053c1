//! Lists: the first one, many pages, pages that expire, lists after something only a list can sort out.

use claw_client::{Api, Store, request::DeleteOptions};
use claw_e2e::wait::{SOON, check, until_async};
use k8s_openapi::api::core::v1::ConfigMap;

use super::{
    create, maps_of, maps_over, names, reached, run, server, so_far, synced, told,
    wire::{CHURN, Fault, Wire},
};

/// More than two pages.
const MANY: usize = 1_201;

fn numbered(objects: usize) -> Vec<String> {
    (0..objects).map(|number| format!("map-{number:04}")).collect()
}

async fn fill(maps: &Api<ConfigMap>, objects: usize) {
    for name in numbered(objects) {
        create(maps, &name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_list_is_paged_from_zero_and_the_watch_goes_on_from_it() {
    let server = server().await;
    let maps = maps_of(&server);
    fill(&maps, 3).await;
    let wire = Wire::to(&server, &[]);
    let (store, _running) = run(maps_over(&wire, &maps));
    synced(&store).await;
    assert_eq!(names(&store), numbered(3));
    let at = store.latest_revision();
    reached(&store, &create(&maps, "later").await).await;
    assert_eq!(wire.asked(), ["list rv=0 limit=500".to_owned(), format!("watch rv={at}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_many_pages_is_one_picture_and_what_changes_meanwhile_comes_by_watch() {
    let server = server().await;
    let maps = maps_of(&server);
    fill(&maps, MANY).await;
    let wire = Wire::with_pages(&server, &[Fault::Churn], &[]);
    let reflector = maps_over(&wire, &maps);
    let log = told(&reflector.store());
    let (store, _running) = run(reflector);
    synced(&store).await;
    reached(&store, &create(&maps, "last").await).await;

    let told = so_far(&log);
    let first_picture: Vec<_> = numbered(MANY).iter().map(|name| format!("new {name}")).collect();
    assert_eq!(told[..MANY], first_picture, "each object once, as it was when the list began");
    assert_eq!(told[MANY], "synced");
    let (gone, new) = CHURN;
    assert_eq!(told[MANY + 1..], [format!("gone {gone}"), format!("new {new}"), "new last".to_owned()]);
    let lists: Vec<_> = wire.asked().into_iter().filter(|asked| asked.starts_with("list")).collect();
    assert_eq!(lists, ["list rv=0 limit=500", "list continued limit=500", "list continued limit=500"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_whose_pages_expire_is_asked_for_whole() {
    let server = server().await;
    let maps = maps_of(&server);
    fill(&maps, MANY).await;
    // The second page comes, and the third would expire for as long as somebody asks for pages.
    let faults = [&[Fault::Pass][..], &[Fault::Forget; 100]].concat();
    let wire = Wire::with_pages(&server, &faults, &[]);
    let (store, _running) = run(maps_over(&wire, &maps));
    synced(&store).await;
    assert_eq!(names(&store), numbered(MANY));
    assert_eq!(
        wire.asked()[..4],
        [
            "list rv=0 limit=500",
            "list continued limit=500",
            "list continued limit=500",
            "list rv=none limit=0"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_not_allowed_leads_to_a_list_no_older_than_what_was_seen() {
    let server = server().await;
    let maps = maps_of(&server);
    let wire = Wire::to(&server, &[Fault::EndAfter(2), Fault::Forbid]);
    let (store, _running) = run(maps_over(&wire, &maps));
    synced(&store).await;
    let first = store.latest_revision();
    create(&maps, "a").await;
    let seen = create(&maps, "b").await;
    reached(&store, &seen).await;
    reached(&store, &create(&maps, "c").await).await;
    assert_eq!(names(&store), ["a", "b", "c"]);
    assert_eq!(
        wire.asked()[..4],
        [
            "list rv=0 limit=500".to_owned(),
            format!("watch rv={first}"),
            format!("watch rv={seen}"),
            format!("list rv={seen} limit=0")
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_makes_no_sense_is_passed_by_a_list() {
    let server = server().await;
    let maps = maps_of(&server);
    // A watch from the same place would bring the same again, for ever.
    let wire = Wire::to(&server, &[Fault::GarbleAfter(1)]);
    let (store, _running) = run(maps_over(&wire, &maps));
    synced(&store).await;
    let seen = create(&maps, "a").await;
    reached(&store, &create(&maps, "b").await).await;
    assert_eq!(names(&store), ["a", "b"]);
    assert_eq!(wire.asked()[2], format!("list rv={seen} limit=0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_from_the_future_of_a_server_that_was_restored_becomes_one_of_the_most_recent_state() {
    let (server, restored) = (server().await, server().await);
    let wire = Wire::to(&server, &[Fault::Pass, Fault::Forbid]);
    let maps = maps_of(&server);
    fill(&maps, 50).await;
    let (store, _running) = run(maps_over(&wire, &maps));
    synced(&store).await;
    let ahead = store.latest_revision();
    until_async("the watch is open", SOON, || async {
        check(wire.log().iter().any(|asked| asked.what.starts_with("probe")), format!("{:?}", wire.log()))
    })
    .await;
    let latest = create(&maps_of(&restored), "restored").await;
    assert!(ahead > latest.parse().expect("a revision"));
    wire.replace(&restored);
    until_it_holds_only(&store, "restored").await;
    assert_eq!(store.latest_revision().to_string(), latest, "the cache went back with the server");
    let lists: Vec<_> = wire.asked().into_iter().filter(|asked| asked.starts_with("list")).collect();
    assert_eq!(lists[1..], [format!("list rv={ahead} limit=0"), "list rv=none limit=500".to_owned()]);
    // And it goes on from there.
    reached(&store, &create(&maps_of(&restored), "later").await).await;
    assert_eq!(names(&store), ["later", "restored"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_ahead_of_a_server_that_was_restored_notices_although_the_watch_is_silent() {
    let (server, restored) = (server().await, server().await);
    // The server ends its watches and comes back as it was long ago.
    let wire = Wire::to(&server, &[]);
    let maps = maps_of(&server);
    fill(&maps, 50).await;
    let (store, _running) = run(maps_over(&wire, &maps));
    synced(&store).await;
    let ahead = store.latest_revision();
    create(&maps_of(&restored), "restored").await;
    wire.replace(&restored);
    until_it_holds_only(&store, "restored").await;
    assert!(wire.log().iter().any(|asked| asked.what == format!("probe rv={ahead}")), "{:?}", wire.log());
    let gone = maps_of(&restored).delete("restored", DeleteOptions::default()).await;
    gone.expect("deletes");
    reached(&store, &create(&maps_of(&restored), "later").await).await;
    assert_eq!(names(&store), ["later"]);
}

async fn until_it_holds_only(store: &Store<ConfigMap>, name: &str) {
    until_async("the cache is what the restored server has", SOON, || async {
        check(names(store) == [name], format!("{store:?}"))
    })
    .await;
}
