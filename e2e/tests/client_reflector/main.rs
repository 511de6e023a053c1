//! The reflector against a real server: its cache ends up equal to the server, whatever happens on the way.
//!
//! [`wire`] is where things go wrong; [`lists`], [`watches`], [`unreadable`] and [`trouble`] are what may go wrong, by the rules that the
//! module documents of `claw_client::reflector` state; [`caches`] is what a cache is worth over every wire.

mod caches;
mod lists;
mod trouble;
mod unreadable;
mod watches;
mod wire;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use claw_client::{Api, Cached, Delta, Reflector, Store, backoff::Backoff};
use claw_testing::TestCluster;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long to wait for what should come at once; on a paused clock, for what takes the longest watch and more.
const LIMIT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(3600);

async fn server() -> Arc<TestCluster> {
    Arc::new(TestCluster::start().await)
}

fn maps_of(server: &TestCluster) -> Api<ConfigMap> {
    server.client.namespaced("default")
}

fn config_map(name: &str, value: usize) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": value.to_string()}}))
        .expect("a map")
}

/// Makes a map; gives its revision.
async fn create(maps: &Api<ConfigMap>, name: &str) -> String {
    let made = maps.create(&config_map(name, 0)).await.expect("it is new");
    made.metadata.resource_version.expect("a revision")
}

/// A reflector of maps over a wire.
fn maps_over(wire: &Arc<wire::Wire>, maps: &Api<ConfigMap>) -> Reflector<ConfigMap> {
    Reflector::of(Arc::clone(wire) as _, maps.resource().clone())
}

/// Runs a reflector with short pauses until the guard is dropped.
fn run<K: Cached>(reflector: Reflector<K>) -> (Store<K>, DropGuard) {
    run_as_it_is(reflector.backoff(Backoff::new(Duration::from_millis(1), Duration::from_millis(20))))
}

fn run_as_it_is<K: Cached>(reflector: Reflector<K>) -> (Store<K>, DropGuard) {
    let store = reflector.store();
    let cancel = CancellationToken::new();
    tokio::spawn(reflector.run(cancel.clone()));
    (store, cancel.drop_guard())
}

async fn synced<K: Cached>(store: &Store<K>) {
    let synced = tokio::time::timeout(LIMIT, store.synced()).await;
    synced.expect("the first list never came").expect("the reflector runs");
}

async fn reached<K: Cached>(store: &Store<K>, revision: &str) {
    reached_within(LIMIT, store, revision).await;
}

async fn reached_within<K: Cached>(limit: Duration, store: &Store<K>, revision: &str) {
    let revision = revision.parse().expect("a revision");
    tokio::time::timeout(limit, store.wait_for_revision(revision))
        .await
        .unwrap_or_else(|_| panic!("stuck at {} before {revision}", store.latest_revision()))
        .expect("the reflector runs");
}

fn names<K: Cached>(store: &Store<K>) -> Vec<String> {
    store.list().iter().map(|object| object.meta().name.clone().unwrap_or_default()).collect()
}

/// What handlers are told, in words: `new a`, `changed a`, `gone a`, `synced`.
fn told<K: Cached>(store: &Store<K>) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let entries = Arc::clone(&log);
    let name = |object: &K| object.meta().name.clone().unwrap_or_default();
    store.subscribe(move |delta| {
        entries.lock().expect("no panic").push(match delta {
            Delta::Applied { new, old: None } => format!("new {}", name(new)),
            Delta::Applied { new, old: Some(_) } => format!("changed {}", name(new)),
            Delta::Deleted { last } => format!("gone {}", name(last)),
            Delta::Synced => "synced".to_owned(),
        });
    });
    log
}

/// The entries that were told so far.
fn so_far(log: &Mutex<Vec<String>>) -> Vec<String> {
    log.lock().expect("no panic").clone()
}
