//! Start, stop, and start again.

use claw_apiserver::{Config, Server, StoreKind};
use claw_client::{WatchEvent, request::WatchOptions};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::support::{TestServer, client, soon};

fn config_map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.namespace = Some("default".to_owned());
    map
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_for_the_same_clients() {
    let first = TestServer::start_with(|config| config.store = StoreKind::Sled).await;
    let address = first.server.address();
    let admin = first.admin();
    client(&admin).namespaced::<ConfigMap>("default").create(&config_map("kept")).await.unwrap();
    let dir = first.dir;
    soon("a stop", first.server.shutdown()).await;

    let second = Server::start(Config::new(dir.path(), address)).await.unwrap();
    client(&admin).namespaced::<ConfigMap>("default").get("kept").await.unwrap();
    soon("a stop", second.shutdown()).await;
}

#[tokio::test]
async fn stopping_ends_watches_cleanly() {
    let server = TestServer::start().await;
    let maps = server.client().namespaced::<ConfigMap>("default");
    let mut watch = maps.watch(WatchOptions::default()).await.unwrap();
    maps.create(&config_map("seen")).await.unwrap();
    while let Some(event) = soon("an event", watch.next()).await {
        if matches!(event.unwrap(), WatchEvent::Added(body) if body.windows(4).any(|part| part == b"seen")) {
            break;
        }
    }
    let stop = tokio::spawn(server.server.shutdown());
    while let Some(event) = soon("the end of the watch", watch.next()).await {
        event.expect("a watch that the server ends has no error");
    }
    soon("a stop", stop).await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_says_so() {
    let first = TestServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path(), first.server.address());
    config.store = StoreKind::Memory;
    let error = Server::start(config).await.err().unwrap();
    let text = causes(&error);
    assert!(text.contains(&first.server.address().to_string()) && text.contains("--listen"), "{text}");
}

#[tokio::test]
async fn a_data_folder_in_use_is_an_error_that_says_so() {
    let first = TestServer::start().await;
    let config = Config::new(first.dir.path(), "127.0.0.1:0".parse().unwrap());
    let text = causes(&Server::start(config).await.err().unwrap());
    assert!(text.contains(&first.dir.path().display().to_string()) && text.contains("in use"), "{text}");
}

#[tokio::test]
async fn a_server_that_is_dropped_frees_its_port_and_folder() {
    let first = TestServer::start().await;
    let (address, dir) = (first.server.address(), first.dir);
    drop(first.server);
    let start = || async {
        let mut config = Config::new(dir.path(), address);
        config.store = StoreKind::Memory;
        Server::start(config).await.ok()
    };
    crate::support::eventually("a start at the same place", start).await;
}
