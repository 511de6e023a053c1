//! Taking everything down that a cluster runs, through its own API: what `up --rm` does when it stops.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use claw_client::{
    Client,
    api::Object,
    request::{DeleteOptions, ListOptions, Propagation},
};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use tokio::time::{Instant, sleep};

/// Every pod gets its own grace period, which is 30 s by default; beyond a minute something is stuck.
const LIMIT: Duration = Duration::from_secs(60);

/// How often to look whether pods are gone.
const POLL: Duration = Duration::from_millis(100);

/// Deletes all workloads and waits until no pod is left: owners first, or they would make their pods anew.
pub async fn all_pods(client: &Client) -> anyhow::Result<()> {
    delete_all::<Deployment>(client).await?;
    delete_all::<ReplicaSet>(client).await?;
    let deadline = Instant::now() + LIMIT;
    let mut is_told = false;
    loop {
        // Again and again: a controller that had not heard of the deletion may have made one more.
        let left = delete_all::<Pod>(client).await?;
        if left.is_empty() {
            return Ok(());
        }
        let is_late = Instant::now() >= deadline;
        ensure!(!is_late, "after {} s these pods are still there: {}", LIMIT.as_secs(), list(&left));
        if !is_told {
            tracing::info!("waiting for pods to end: {}", list(&left));
            is_told = true;
        }
        sleep(POLL).await;
    }
}

/// How many pods are named; the rest is counted.
const NAMED_MAX: usize = 10;

/// Pods with the nodes that have to end them.
fn list(pods: &[Pod]) -> String {
    let place = |pod: &Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        format!("{}/{} on {node}", namespace.unwrap_or_default(), name.unwrap_or_default())
    };
    let mut names: Vec<_> = pods.iter().take(NAMED_MAX).map(place).collect();
    if pods.len() > NAMED_MAX {
        names.push(format!("{} more", pods.len() - NAMED_MAX));
    }
    names.join(", ")
}

/// Asks for the deletion of whatever is not being deleted yet; gives all there were.
async fn delete_all<K: Object>(client: &Client) -> anyhow::Result<Vec<K>> {
    let what = || format!("removing all {}", K::PLURAL);
    let items = client.all::<K>().list(ListOptions::default()).await.with_context(what)?.items;
    for item in items.iter().filter(|item| item.metadata().deletion_timestamp.is_none()) {
        let (Some(namespace), Some(name)) = (&item.metadata().namespace, &item.metadata().name) else {
            continue;
        };
        let options =
            DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        match client.namespaced::<K>(namespace).delete(name, options).await {
            Err(error) if error.reason != claw_schemas::status::Reason::NotFound => {
                return Err(error).with_context(what);
            }
            _ => {}
        }
    }
    Ok(items)
}
