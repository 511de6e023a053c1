//! kube-rs, the client library of the Rust world, against a real server: what its users do must work unchanged.

mod controllers;
mod custom_kinds;
mod events;
mod streams;
mod watchers;
mod writes;

use std::time::Duration;

use claw_e2e::Cluster;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};

/// More than anything here takes on a busy machine; a wait that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(240);

/// kube-rs as the administrator.
async fn client(cluster: &Cluster) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("kube-rs reads our kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("the kubeconfig is whole")).expect("a client")
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("story".to_owned(), "kube-rs".to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([("value".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

async fn create(client: &Client, name: &str, value: &str) -> ConfigMap {
    let made = config_maps(client).create(&PostParams::default(), &config_map(name, value)).await;
    made.unwrap_or_else(|error| panic!("{name} is created: {error}"))
}

/// Waits for something, within reason.
async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
