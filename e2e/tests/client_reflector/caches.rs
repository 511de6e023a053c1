//! What a cache is worth: the same over every wire, over a restart, with metadata alone.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use claw_apiserver::{Config, Server, StoreKind};
use claw_client::{
    Cached as _, Client, Delta, GrpcTransport, HttpTransport, Kubeconfig, ObjectKey, Reflector, ResourceRef,
    Store, Transport,
    object::revision_of,
    request::{DeleteOptions, ListOptions, PatchKind},
};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use tempfile::TempDir;

use super::{config_map, names, reached, run, synced};

async fn start(folder: &TempDir, port: u16, store: StoreKind) -> Server {
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let config = Config { store, ..Config::new(folder.path(), listen) };
    Server::start(config).await.expect("the server starts")
}

fn contents(store: &Store<ConfigMap>) -> BTreeMap<ObjectKey, Option<String>> {
    store
        .list()
        .iter()
        .map(|map| (ObjectKey::of(&map.metadata), map.metadata.resource_version.clone()))
        .collect()
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
    synced(&store).await;
    server.shutdown().await;
    let server = start(&folder, port, StoreKind::Sled).await;
    let local = Client::new(server.transport("tests"), "tests").namespaced::<ConfigMap>("default");
    local.delete("before", DeleteOptions::default()).await.expect("deletes");
    let after = local.create(&config_map("after", 0)).await.expect("creates").metadata;
    reached(&store, after.resource_version.as_deref().expect("a revision")).await;
    assert_eq!(names(&store), ["after"]);
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
    synced(&store).await;
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
