//! Clients of libraries, which keep a picture each: ours over both wires, and kube-rs in both of its ways.

use std::{collections::BTreeMap, sync::Arc};

use claw_client::{GrpcTransport, HttpTransport, Kubeconfig, Reflector, ResourceRef, Store, Transport};
use claw_e2e::{
    Cluster,
    history::revision_of,
    wait::{SOON, check},
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Config,
    config::{KubeConfigOptions, Kubeconfig as KubeKubeconfig},
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::proxy::Proxy;

/// The pictures.
pub struct Pictures {
    ours: Vec<(&'static str, Store<ConfigMap>)>,
    kube: Vec<(&'static str, reflector::Store<ConfigMap>)>,
    _running: (DropGuard, JoinSet<()>),
}

impl Pictures {
    pub async fn start(cluster: &Cluster, proxy: &Proxy) -> Self {
        // kube-rs takes whatever provider the process has.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut tasks = JoinSet::new();
        let cancel = CancellationToken::new();
        let mut endpoint = Kubeconfig::read(&cluster.kubeconfig()).unwrap().select(None).unwrap().endpoint;
        endpoint.server = proxy.url();
        let wires: [(_, Arc<dyn Transport>); 2] = [
            ("our cache over HTTP", Arc::new(HttpTransport::new(&endpoint).unwrap())),
            ("our cache over gRPC", Arc::new(GrpcTransport::new(&endpoint).unwrap())),
        ];
        let mut ours = Vec::new();
        for (name, transport) in wires {
            let maps = ResourceRef::collection("", "v1", "configmaps").in_namespace("default");
            let reflector = Reflector::of(transport, maps);
            ours.push((name, reflector.store()));
            tasks.spawn(reflector.run(cancel.clone()));
        }
        let mut kube = Vec::new();
        for (name, config) in [
            ("kube-rs that lists", watcher::Config::default()),
            ("kube-rs that streams", watcher::Config::default().streaming_lists()),
        ] {
            let (store, writer) = reflector::store();
            let stream = watcher(maps_of_kube(cluster, proxy).await, config).default_backoff();
            kube.push((name, store));
            tasks.spawn(async move { reflector::reflector(writer, stream).for_each(|_| async {}).await });
        }
        let pictures = Self { ours, kube, _running: (cancel.drop_guard(), tasks) };
        pictures.have_begun().await;
        pictures
    }

    async fn have_begun(&self) {
        let all = async {
            for (name, store) in &self.ours {
                store.synced().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            }
            for (name, store) in &self.kube {
                store.wait_until_ready().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            }
        };
        tokio::time::timeout(SOON, all).await.expect("every cache begins");
    }

    /// Whether all of them show what a list says.
    pub fn show(&self, list: &Value) -> Result<(), String> {
        let items = list["items"].as_array().into_iter().flatten();
        let listed: BTreeMap<_, _> = items
            .map(|item| {
                (
                    item["metadata"]["name"].as_str().unwrap().to_owned(),
                    revision_of(item).unwrap().to_string(),
                )
            })
            .collect();
        for (name, store) in &self.ours {
            same(name, &listed, store.list().iter())?;
        }
        for (name, store) in &self.kube {
            same(name, &listed, store.state().iter())?;
        }
        Ok(())
    }
}

/// Whether objects are those listed, each in the state listed.
fn same<'a>(
    whose: &str,
    listed: &BTreeMap<String, String>,
    objects: impl Iterator<Item = &'a Arc<ConfigMap>>,
) -> Result<(), String> {
    let shown: BTreeMap<_, _> = objects
        .map(|map| {
            let meta = &map.metadata;
            (meta.name.clone().unwrap_or_default(), meta.resource_version.clone().unwrap_or_default())
        })
        .collect();
    let wrong = listed.iter().find(|(name, revision)| shown.get(*name) != Some(revision));
    if let Some((name, revision)) = wrong {
        return Err(format!("{whose} has {name} at {:?}, it is at {revision}", shown.get(name)));
    }
    let more = shown.keys().find(|name| !listed.contains_key(*name));
    check(more.is_none(), format!("{whose} still shows {more:?}"))
}

async fn maps_of_kube(cluster: &Cluster, proxy: &Proxy) -> Api<ConfigMap> {
    let kubeconfig = KubeKubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.unwrap();
    config.cluster_url = proxy.url().parse().unwrap();
    Api::namespaced(kube::Client::try_from(config).unwrap(), "default")
}
