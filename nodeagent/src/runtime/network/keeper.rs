//! Keeps a bridge in service: the rules of the kernel as services and pods change, DNS, and the way to the API server.
//!
//! All of it begins with the first pod, since there is no bridge before.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Network, dns, door,
    kernel::Kernel,
    rules::{self, Place},
};
use crate::{
    Error,
    services::{API_SERVICE, Services},
};

/// Changes that come together are loaded together; after a failure a load waits longer.
const SETTLE: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(5);

/// Runs until cancelled. `server` is where the agent dials.
pub(in crate::runtime) async fn keep(
    network: Arc<Network>,
    services: watch::Receiver<Arc<Services>>,
    server: Option<String>,
    cancel: CancellationToken,
) {
    let Some(()) = cancel.run_until_cancelled(network.has_bridge()).await else { return };
    let mut listening = JoinSet::new();
    let kept = async {
        while let Err(error) = serve(&network, &services, server.clone(), &mut listening).await {
            tracing::error!(error = %error.full(), "services are not routed on this node; trying again");
            listening.shutdown().await;
            sleep(RETRY).await;
        }
    };
    cancel.run_until_cancelled(kept).await;
}

/// Returns when nothing can change any more, or with an error.
async fn serve(
    network: &Arc<Network>,
    services: &watch::Receiver<Arc<Services>>,
    server: Option<String>,
    listening: &mut JoinSet<()>,
) -> Result<(), Error> {
    let Some((name, gateway)) = network.place() else { return Ok(()) };
    let sockets = dns::open(gateway).await.map_err(|error| cannot_listen("DNS", gateway, &error))?;
    listening.spawn(dns::serve(sockets, services.clone()));
    let mut door_port = None;
    if let Some(server) = server {
        let (listener, port) = door::open(gateway)
            .await
            .map_err(|error| cannot_listen("the way to the API server", gateway, &error))?;
        listening.spawn(door::serve(listener, server));
        door_port = Some(port);
    }
    let mut kernel = Some(Kernel::new(name.clone()));
    let (mut services, mut pods) = (services.clone(), network.changes());
    loop {
        let mut wanted = Services::clone(&services.borrow_and_update());
        pods.borrow_and_update();
        lead_to_the_door(&mut wanted, gateway, door_port);
        let host_ports = network.host_ports();
        let rules = rules::rules(Place { name: &name, gateway }, &wanted, &host_ports);
        let Some(mut loader) = kernel.take() else { return Ok(()) };
        let loaded = tokio::task::spawn_blocking(move || {
            let loaded = loader.load(rules);
            (loader, loaded)
        });
        let (loader, loaded) = loaded.await.map_err(|error| Error::Network(error.to_string()))?;
        loaded?;
        kernel = Some(loader);
        sleep(SETTLE).await;
        tokio::select! {
            changed = services.changed() => if changed.is_err() { return Ok(()) },
            changed = pods.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

fn cannot_listen(what: &str, gateway: Ipv4Addr, error: &std::io::Error) -> Error {
    Error::Network(format!("listening for {what} on {gateway}: {error}"))
}

/// Pods reach the API server through their node, which alone knows a way.
fn lead_to_the_door(services: &mut Services, gateway: Ipv4Addr, port: Option<u16>) {
    let Some(port) = port else { return };
    let of_the_server = |service: &(String, String)| (&*service.0, &*service.1) == API_SERVICE;
    for route in services.routes.iter_mut().filter(|route| of_the_server(&route.service)) {
        route.backends = [((gateway, port), 1)].into();
    }
}
