//! Watchers, metadata watchers and reflectors: the ways kube-rs follows a collection.

use claw_e2e::{Cluster, Options};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PartialObjectMeta, Patch, PatchParams},
    runtime::{
        WatchStreamExt as _, reflector,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;

use super::{client, config_maps, create, soon};

type Watched<K> = Result<Event<K>, watcher::Error>;

/// The first list, names in order.
async fn initial<K: kube::ResourceExt>(stream: &mut (impl Stream<Item = Watched<K>> + Unpin)) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        match next(stream).await {
            Event::Init => assert!(names.is_empty(), "begun once"),
            Event::InitApply(object) => names.push(object.name_any()),
            Event::InitDone => return names,
            other => panic!("{other} before the list was whole"),
        }
    }
}

async fn next<K>(stream: &mut (impl Stream<Item = Watched<K>> + Unpin)) -> Event<K> {
    let event = soon("an event", stream.next()).await.expect("the stream goes on");
    event.expect("no errors")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_lists_and_follows_with_both_strategies() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    for name in ["a", "b", "c"] {
        create(&client, name, "1").await;
    }
    // Pages of one, so that the list takes several requests.
    for config in [watcher::Config::default().page_size(1), watcher::Config::default().streaming_lists()] {
        let config = config.labels("story=kube-rs");
        let mut stream = watcher(config_maps(&client), config.clone()).boxed();
        assert_eq!(initial(&mut stream).await, ["a", "b", "c"], "{config:?}");
        create(&client, "d", "1").await;
        let Event::Apply(made) = next(&mut stream).await else { panic!("no Apply: {config:?}") };
        assert_eq!(made.name_any(), "d");
        // Leaving the selector looks like going.
        let leave = json!({"metadata": {"labels": {"story": null}}});
        config_maps(&client).patch("d", &PatchParams::default(), &Patch::Merge(leave)).await.unwrap();
        let Event::Delete(gone) = next(&mut stream).await else { panic!("no Delete: {config:?}") };
        assert_eq!(gone.name_any(), "d");
        config_maps(&client).delete("d", &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_watcher_never_sees_what_objects_hold() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    create(&client, "a", "secret").await;
    let config = watcher::Config::default().labels("story=kube-rs");
    let maps: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client.clone(), "default");
    let mut stream = watcher(maps, config).boxed();
    assert_eq!(initial(&mut stream).await, ["a"]);
    create(&client, "b", "secret").await;
    let Event::Apply(made) = next(&mut stream).await else { panic!("no Apply") };
    assert_eq!((made.name_any(), made.labels()["story"].as_str()), ("b".to_owned(), "kube-rs"));
    assert!(!serde_json::to_string(&made).unwrap().contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_holds_what_the_server_holds_over_a_restart() {
    let mut cluster = Cluster::start(Options::server());
    let before = client(&cluster).await;
    for number in 0..20 {
        create(&before, &format!("n{number:02}"), "1").await;
    }
    let (store, writer) = reflector::store::<ConfigMap>();
    let config = watcher::Config::default().labels("story=kube-rs").page_size(7);
    let stream = watcher(config_maps(&before), config).default_backoff().reflect(writer).touched_objects();
    let follow = tokio::spawn(stream.for_each(|_| async {}));
    soon("the first list", store.wait_until_ready()).await.unwrap();
    assert_eq!(store.len(), 20);

    cluster.kill();
    cluster.restart();
    // A client of its own: the old one's connection died with the server.
    let after = client(&cluster).await;
    config_maps(&after).delete("n00", &DeleteParams::default()).await.unwrap();
    create(&after, "n99", "2").await;
    soon("the reflector catches up", async {
        while store.get(&reflector::ObjectRef::new("n99").within("default")).is_none() || store.len() != 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut held: Vec<_> = store.state().iter().map(|map| (map.name_any(), map.resource_version())).collect();
    let served = config_maps(&after).list(&kube::api::ListParams::default().labels("story=kube-rs")).await;
    let mut served: Vec<_> =
        served.unwrap().into_iter().map(|map| (map.name_any(), map.resource_version())).collect();
    held.sort();
    served.sort();
    assert_eq!(held, served);
    follow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_can_be_awaited() {
    use kube::runtime::wait::{await_condition, conditions};

    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let made = create(&client, "a", "1").await;
    let uid = made.uid().unwrap();
    let gone = await_condition(config_maps(&client), "a", conditions::is_deleted(&uid));
    let there = await_condition(config_maps(&client), "b", conditions::is_created::<ConfigMap>());
    let act = async {
        create(&client, "b", "1").await;
        config_maps(&client).delete("a", &DeleteParams::default()).await.unwrap();
    };
    let (gone, there, ()) = soon("both", async { tokio::join!(gone, there, act) }).await;
    gone.unwrap();
    assert_eq!(there.unwrap().unwrap().name_any(), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_watch_ends_cleanly_at_its_time_out() {
    let cluster = Cluster::start(Options::server());
    let client = client(&cluster).await;
    let list = config_maps(&client).list(&kube::api::ListParams::default()).await.unwrap();
    let revision = list.metadata.resource_version.unwrap();
    let parameters = kube::api::WatchParams::default().timeout(2);
    let watch = config_maps(&client).watch(&parameters, &revision).await.unwrap();
    let events: Vec<_> = soon("the end", watch.try_collect()).await.expect("no error ends it");
    let errors = events.iter().filter(|event| matches!(event, kube::api::WatchEvent::Error(_)));
    assert_eq!(errors.count(), 0, "{events:?}");
}
