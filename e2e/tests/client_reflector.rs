//! The reflector against a real server: its cache ends up equal to the server, whatever happens on the way.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use claw_apiserver::{Config, Server, StoreKind};
use claw_client::{
    ByteStream, Cached, Client, Delta, GrpcTransport, HttpTransport, Kubeconfig, ObjectKey, Reflector,
    Request, ResourceRef, Response, Store, Transport, Verb, WatchEvent, WatchStream,
    backoff::Backoff,
    object::revision_of,
    request::{DeleteOptions, ListOptions, PatchKind, View, WatchOptions},
};
use claw_schemas::{ApiError, status::Reason};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

const LIMIT: Duration = Duration::from_secs(60);

async fn start(folder: &TempDir, port: u16, store: StoreKind) -> Server {
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let config = Config { store, ..Config::new(folder.path(), listen) };
    Server::start(config).await.expect("the server starts")
}

fn config_map(name: &str, value: usize) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": value.to_string()}}))
        .expect("a map")
}

/// Runs a reflector with short pauses until the guard is dropped.
fn run<K: Cached>(reflector: Reflector<K>) -> (Store<K>, DropGuard) {
    let store = reflector.store();
    let cancel = CancellationToken::new();
    let quick = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    tokio::spawn(reflector.backoff(quick).run(cancel.clone()));
    (store, cancel.drop_guard())
}

async fn reached<K: Cached>(store: &Store<K>, revision: &str) {
    let revision = revision.parse().expect("a revision");
    tokio::time::timeout(LIMIT, store.wait_for_revision(revision))
        .await
        .unwrap_or_else(|_| panic!("stuck at {} before {revision}", store.latest_revision()))
        .expect("the reflector runs");
}

fn contents(store: &Store<ConfigMap>) -> BTreeMap<ObjectKey, Option<String>> {
    store
        .list()
        .iter()
        .map(|map| (ObjectKey::of(&map.metadata), map.metadata.resource_version.clone()))
        .collect()
}

/// What the server does not do by itself when it should: a wire that fails on demand, and remembers what was asked.
struct Faulty {
    inner: Arc<dyn Transport>,
    asked: Mutex<Vec<String>>,
    /// What befalls the next watches, in order; then all is well.
    faults: Mutex<VecDeque<Fault>>,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The watch cannot be opened.
    Refuse,
    /// So many events come, then the connection breaks.
    BreakAfter(usize),
    /// So many events come, then the watch ends cleanly.
    EndAfter(usize),
    /// The only event says that the revision is too old.
    Expire,
}

impl Faulty {
    fn new(inner: Arc<dyn Transport>, faults: &[Fault]) -> Arc<Self> {
        let faults = Mutex::new(faults.iter().copied().collect());
        Arc::new(Self { inner, asked: Mutex::default(), faults })
    }

    fn note(&self, asked: String) {
        self.asked.lock().expect("no panic").push(asked);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

#[async_trait]
impl Transport for Faulty {
    async fn call(&self, request: Request) -> Result<Response, ApiError> {
        if let Verb::List(options) = &request.verb {
            let token = options.continue_token.as_ref().map_or("", |_| " continued");
            self.note(format!("list rv={:?} limit={}{token}", options.resource_version, options.limit));
        }
        self.inner.call(request).await
    }

    async fn watch(
        &self,
        resource: ResourceRef,
        options: WatchOptions,
        view: View,
    ) -> Result<WatchStream, ApiError> {
        assert!(options.allow_bookmarks && options.timeout_seconds.is_some(), "{options:?}");
        self.note(format!("watch rv={}", options.resource_version.as_deref().unwrap_or("none")));
        let fault = self.faults.lock().expect("no panic").pop_front();
        let broken = || ApiError::new(Reason::ServiceUnavailable, "cut by the test");
        Ok(match fault {
            None => self.inner.watch(resource, options, view).await?,
            Some(Fault::Refuse) => return Err(broken()),
            Some(Fault::Expire) => {
                stream::iter([Ok(WatchEvent::Error(ApiError::expired("made old by the test")))]).boxed()
            }
            Some(Fault::EndAfter(events)) => {
                self.inner.watch(resource, options, view).await?.take(events).boxed()
            }
            Some(Fault::BreakAfter(events)) => {
                let first = self.inner.watch(resource, options, view).await?.take(events);
                first.chain(stream::iter([Err(broken())])).boxed()
            }
        })
    }

    async fn stream(
        &self,
        resource: ResourceRef,
        query: Vec<(String, String)>,
    ) -> Result<ByteStream, ApiError> {
        self.inner.stream(resource, query).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_over_every_wire_end_equal_under_concurrent_writers() {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 40;
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder, 0, StoreKind::Memory).await;
    let config = Kubeconfig::read(&server.kubeconfig_path()).expect("a kubeconfig");
    let endpoint = config.select(None).expect("a context").endpoint;
    let wires: [Arc<dyn Transport>; 3] = [
        server.transport("tests"),
        Arc::new(HttpTransport::new(&endpoint).expect("HTTP")),
        Arc::new(GrpcTransport::new(&endpoint).expect("gRPC")),
    ];
    let mut caches = Vec::new();
    for wire in &wires {
        let maps = Client::new(Arc::clone(wire), "tests").all::<ConfigMap>();
        let reflector = Reflector::new(&maps);
        let order = in_order(&reflector.store());
        caches.push((run(reflector), order));
    }
    let writers = (0..WRITERS).map(|writer| {
        let maps =
            Client::new(Arc::clone(&wires[writer % wires.len()]), "tests").namespaced::<ConfigMap>("default");
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let name = format!("map-{writer}-{}", round % 5);
                match round % 4 {
                    3 => drop(maps.delete(&name, DeleteOptions::default()).await),
                    _ if maps.find(&name).await.expect("reads").is_none() => {
                        maps.create(&config_map(&name, round)).await.map(drop).expect("creates");
                    }
                    _ => {
                        let patch = json!({"data": {"k": round.to_string()}});
                        maps.patch(&name, None, PatchKind::Merge, &patch).await.map(drop).expect("patches");
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer ends");
    }
    let local = Client::new(server.transport("tests"), "tests");
    let last = local.namespaced::<ConfigMap>("default").create(&config_map("last", 0)).await;
    let last = last.expect("creates").metadata;
    let truth = local.all::<ConfigMap>().list(ListOptions::default()).await.expect("lists");
    let truth: BTreeMap<_, _> = truth
        .items
        .iter()
        .map(|map| (ObjectKey::of(&map.metadata), map.metadata.resource_version.clone()))
        .collect();
    for ((store, _running), order) in &caches {
        reached(store, last.resource_version.as_deref().expect("a revision")).await;
        assert_eq!(contents(store), truth);
        assert_eq!(*order.lock().expect("no panic"), Vec::<String>::new(), "deltas out of order");
    }
}

/// Complaints about deltas whose revisions do not grow.
fn in_order(store: &Store<ConfigMap>) -> Arc<Mutex<Vec<String>>> {
    let complaints = Arc::new(Mutex::new(Vec::new()));
    let (told, highest) = (Arc::clone(&complaints), Mutex::new((0_u64, false)));
    store.subscribe(move |delta| {
        let mut highest = highest.lock().expect("no panic");
        let object = match delta {
            // The items of a list come in the order of their names.
            Delta::Synced => return highest.1 = true,
            Delta::Applied { new, .. } => new,
            Delta::Deleted { last } => last,
        };
        let revision = revision_of(object.meta());
        if highest.1 && revision <= highest.0 {
            told.lock().expect("no panic").push(format!("{revision} after {}", highest.0));
        }
        highest.0 = highest.0.max(revision);
    });
    complaints
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_list_is_paged_from_zero_and_the_watch_goes_on_from_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder, 0, StoreKind::Memory).await;
    let maps = Client::new(server.transport("tests"), "tests").namespaced::<ConfigMap>("default");
    for i in 0..3 {
        maps.create(&config_map(&format!("map-{i}"), i)).await.expect("creates");
    }
    let wire = Faulty::new(server.transport("tests"), &[]);
    let (store, _running) = run(Reflector::<ConfigMap>::of(wire.clone(), maps.resource().clone()));
    store.synced().await.expect("synced");
    assert_eq!(store.list().len(), 3);
    let at = store.latest_revision();
    let later = maps.create(&config_map("later", 0)).await.expect("creates").metadata;
    reached(&store, later.resource_version.as_deref().expect("a revision")).await;
    assert_eq!(wire.asked(), ["list rv=Some(\"0\") limit=500".to_owned(), format!("watch rv={at}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_breaks_or_is_refused_goes_on_without_a_list_and_without_a_gap() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder, 0, StoreKind::Memory).await;
    let maps = Client::new(server.transport("tests"), "tests").namespaced::<ConfigMap>("default");
    let faults =
        [Fault::EndAfter(2), Fault::BreakAfter(1), Fault::Refuse, Fault::BreakAfter(3), Fault::EndAfter(1)];
    let wire = Faulty::new(server.transport("tests"), &faults);
    let reflector = Reflector::<ConfigMap>::of(wire.clone(), maps.resource().clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    reflector.store().subscribe(move |delta| {
        if let Delta::Applied { new, .. } = delta {
            log.lock().expect("no panic").push(new.metadata.name.clone().unwrap_or_default());
        }
    });
    let (store, _running) = run(reflector);
    store.synced().await.expect("synced");
    let mut last = String::new();
    for i in 0..20 {
        let made = maps.create(&config_map(&format!("map-{i:02}"), i)).await.expect("creates");
        last = made.metadata.resource_version.expect("a revision");
    }
    reached(&store, &last).await;
    let expected: Vec<String> = (0..20).map(|i| format!("map-{i:02}")).collect();
    assert_eq!(*seen.lock().expect("no panic"), expected, "each once, in order");
    let lists = wire.asked().iter().filter(|asked| asked.starts_with("list")).count();
    assert_eq!(lists, 1, "{:?}", wire.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_watch_lists_the_most_recent_state_and_finds_what_it_missed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder, 0, StoreKind::Memory).await;
    let maps = Client::new(server.transport("tests"), "tests").namespaced::<ConfigMap>("default");
    maps.create(&config_map("goes", 0)).await.expect("creates");
    let wire = Faulty::new(server.transport("tests"), &[Fault::EndAfter(1), Fault::Expire]);
    let reflector = Reflector::<ConfigMap>::of(wire.clone(), maps.resource().clone());
    let gone = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&gone);
    reflector.store().subscribe(move |delta| {
        if let Delta::Deleted { last } = delta {
            log.lock().expect("no panic").push(last.metadata.name.clone().unwrap_or_default());
        }
    });
    let (store, _running) = run(reflector);
    store.synced().await.expect("synced");
    maps.create(&config_map("stays", 0)).await.expect("creates");
    maps.delete("goes", DeleteOptions::default()).await.expect("deletes");
    let last = maps.create(&config_map("last", 0)).await.expect("creates").metadata;
    reached(&store, last.resource_version.as_deref().expect("a revision")).await;
    let names: Vec<_> =
        store.list().iter().map(|map| map.metadata.name.clone().unwrap_or_default()).collect();
    assert_eq!(names, ["last", "stays"]);
    assert_eq!(*gone.lock().expect("no panic"), ["goes"]);
    let lists: Vec<_> = wire.asked().into_iter().filter(|asked| asked.starts_with("list")).collect();
    assert_eq!(lists, ["list rv=Some(\"0\") limit=500", "list rv=None limit=500"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_survives_a_restart_of_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder, 0, StoreKind::Sled).await;
    let port = server.address().port();
    let config = Kubeconfig::read(&server.kubeconfig_path()).expect("a kubeconfig");
    let endpoint = config.select(None).expect("a context").endpoint;
    let remote = Client::new(Arc::new(HttpTransport::new(&endpoint).expect("HTTP")), "tests");
    let maps = remote.namespaced::<ConfigMap>("default");
    maps.create(&config_map("before", 0)).await.expect("creates");
    let (store, _running) = run(Reflector::new(&maps));
    store.synced().await.expect("synced");
    server.shutdown().await;
    let server = start(&folder, port, StoreKind::Sled).await;
    let local = Client::new(server.transport("tests"), "tests").namespaced::<ConfigMap>("default");
    local.delete("before", DeleteOptions::default()).await.expect("deletes");
    let after = local.create(&config_map("after", 0)).await.expect("creates").metadata;
    reached(&store, after.resource_version.as_deref().expect("a revision")).await;
    let names: Vec<_> =
        store.list().iter().map(|map| map.metadata.name.clone().unwrap_or_default()).collect();
    assert_eq!(names, ["after"]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_alone_is_enough_to_follow_any_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = start(&folder, 0, StoreKind::Memory).await;
    let client = Client::new(server.transport("tests"), "tests");
    let maps = client.namespaced::<ConfigMap>("default");
    maps.create(&config_map("a", 0)).await.expect("creates");
    let (store, _running) =
        run(Reflector::metadata(&client, ResourceRef::collection("", "v1", "configmaps")));
    store.synced().await.expect("synced");
    let later = maps.create(&config_map("b", 0)).await.expect("creates").metadata;
    reached(&store, later.resource_version.as_deref().expect("a revision")).await;
    assert!(store.get("default", "a").is_some() && store.get("default", "b").is_some());
    assert_eq!(store.get("default", "b").expect("there").metadata.uid, later.uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_leaves_out_who_owns_which_field_and_an_update_from_it_ends_nothing() {
    let folder = TempDir::new().expect("a folder");
    let server = start(&folder, 0, StoreKind::Memory).await;
    let maps = Client::new(server.transport("tests"), "tests").namespaced::<ConfigMap>("default");
    let made = maps.create(&config_map("a", 0)).await.expect("creates");
    assert!(made.metadata.managed_fields.is_some());
    let (store, _running) = run(Reflector::new(&maps));
    reached(&store, made.metadata.resource_version.as_deref().unwrap_or_default()).await;
    let mut cached = (*store.get("default", "a").expect("cached")).clone();
    assert_eq!(cached.metadata.managed_fields, None);
    cached.data.get_or_insert_default().insert("k".to_owned(), "1".to_owned());
    let after = maps.update(&cached).await.expect("replaces").metadata.managed_fields;
    assert_eq!(after.map(|entries| entries.len()), Some(1));
}
