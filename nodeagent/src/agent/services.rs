//! Follows Services and EndpointSlices, and hands what they mean for this node to the runtime, and to pods.

use std::{sync::Arc, time::Duration};

use claw_client::{Client, Store, api::Object, reflector::Reflector};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Shared, statics::is_static};
use crate::services::{Services, links};

/// Changes that come together are worked out together: a rollout changes endpoints many times a second.
const SETTLE: Duration = Duration::from_millis(100);

/// Runs until cancelled; at once over where pods are not led to services.
pub(super) async fn keep(shared: Arc<Shared>, client: Client, cancel: CancellationToken) {
    if !shared.runtime.routes_services() {
        return;
    }
    let changes = watch::Sender::new(0_u64);
    let (services, run_services) = follow::<Service>(&client, &changes, &cancel);
    let (slices, run_slices) = follow::<EndpointSlice>(&client, &changes, &cancel);
    let tell = async {
        if services.synced().await.is_ok() {
            shared.services.send_replace(Some(services.clone()));
        }
    };
    let told = watch::Sender::new(Arc::new(Services::default()));
    let route = async {
        // Until everything is known, what an earlier run has told the kernel is better than half of it.
        if services.synced().await.is_err() || slices.synced().await.is_err() {
            return;
        }
        let node = &shared.config.node_name;
        let mut changed = changes.subscribe();
        told.send_replace(Arc::new(Services::of(&services.list(), &slices.list(), node)));
        let follow_on = async {
            while changed.changed().await.is_ok() {
                sleep(SETTLE).await;
                changed.borrow_and_update();
                told.send_replace(Arc::new(Services::of(&services.list(), &slices.list(), node)));
            }
        };
        let route = shared.runtime.route(told.subscribe(), shared.config.server.clone(), cancel.clone());
        tokio::join!(cancel.run_until_cancelled(follow_on), route);
    };
    tokio::join!(run_services, run_slices, tell, route);
}

/// The variables by which a container learns where services are, once these are known or have not been for long.
pub(super) async fn variables(shared: &Shared, pod: &Pod) -> Vec<(String, String)> {
    if !shared.runtime.routes_services() {
        return Vec::new();
    }
    // Static pods are to run without a server, and may be the server.
    let until = if is_static(pod) { Instant::now() } else { shared.services_until };
    let mut first = shared.services.subscribe();
    let known = timeout_at(until, first.wait_for(Option::is_some)).await;
    let services = match &known {
        Ok(Ok(store)) => store.as_ref().map(Store::list).unwrap_or_default(),
        _ => Vec::new(),
    };
    let wants_links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    links::variables(&services, pod.metadata.namespace.as_deref().unwrap_or("default"), wants_links)
}

/// A cache of all objects of a kind, and what keeps it.
fn follow<K: Object>(
    client: &Client,
    changes: &watch::Sender<u64>,
    cancel: &CancellationToken,
) -> (Store<K>, impl Future<Output = ()> + use<K>) {
    let reflector = Reflector::<K>::new(&client.all());
    let (store, changes) = (reflector.store(), changes.clone());
    store.subscribe(move |_| changes.send_modify(|count| *count += 1));
    (store, reflector.run(cancel.clone()))
}
