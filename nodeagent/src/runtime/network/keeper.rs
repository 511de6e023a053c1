//! Keeps a bridge in service: the rules of the kernel as services and pods change, DNS, and the way to the API server.
//!
//! All of it begins with the first pod, since there is no bridge before.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Network,
    conntrack::{self, Leads},
    dns,
    door::{self, Way},
    kernel::Kernel,
    ports::{self, Ports},
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
    let Some((name, gateway)) = network.place() else { return };
    let ports =
        network.home().own().map(|_| Ports::new(network.home().clone(), Arc::clone(network.sockets())));
    let keeper = Keeper {
        ports,
        kernel: Some(Kernel::new(name.clone())),
        leads: None,
        name,
        gateway,
        network,
        services,
        server,
        answers: false,
        door_port: None,
        listening: JoinSet::new(),
    };
    cancel.run_until_cancelled(keeper.run()).await;
}

struct Keeper {
    name: String,
    gateway: Ipv4Addr,
    network: Arc<Network>,
    services: watch::Receiver<Arc<Services>>,
    server: Option<String>,
    kernel: Option<Kernel>,
    /// What the kernel's memory of UDP was compared with last.
    leads: Option<Leads>,
    /// DNS does.
    answers: bool,
    door_port: Option<u16>,
    /// Where rules are not the machine's.
    ports: Option<Ports>,
    listening: JoinSet<()>,
}

impl Keeper {
    /// Returns when nothing can change any more. What works goes on while the rest is tried again.
    async fn run(mut self) {
        let mut pods = self.network.changes();
        loop {
            pods.borrow_and_update();
            let mut failed = !self.open_ports();
            for done in [self.open_door(), self.load().await, self.open_dns()] {
                if let Err(error) = done {
                    failed = true;
                    tracing::error!(error = %error.full(), "services of this node are not whole; trying again");
                }
            }
            // Everything that is wanted has been asked for.
            self.network.sockets().close_unused();
            sleep(SETTLE).await;
            tokio::select! {
                changed = self.services.changed() => if changed.is_err() { return },
                changed = pods.changed() => if changed.is_err() { return },
                () = self.network.sockets().tend() => {}
                () = sleep(RETRY), if failed => {}
            }
        }
    }

    fn open_ports(&mut self) -> bool {
        let Some(ports) = &mut self.ports else { return true };
        let wanted = ports::wanted(&self.network.host_ports(), &self.services.borrow());
        ports.set(&wanted)
    }

    fn open_door(&mut self) -> Result<(), Error> {
        let Some(server) = self.server.clone().filter(|_| self.door_port.is_none()) else { return Ok(()) };
        let (listener, port) = door::open(self.network.home(), self.network.sockets(), self.gateway)?;
        self.listening.spawn(door::serve(listener, Way::ToServer(server)));
        self.door_port = Some(port);
        Ok(())
    }

    fn open_dns(&mut self) -> Result<(), Error> {
        if self.answers {
            return Ok(());
        }
        let sockets = dns::open(self.network.home(), self.network.sockets(), self.gateway)?;
        self.listening.spawn(dns::serve(sockets, self.services.clone()));
        self.answers = true;
        Ok(())
    }

    /// Makes the kernel do what is wanted now.
    async fn load(&mut self) -> Result<(), Error> {
        let mut wanted = Services::clone(&self.services.borrow_and_update());
        lead_to_the_door(&mut wanted, self.gateway, self.door_port);
        let place = Place { name: &self.name, gateway: self.gateway };
        let host_ports = self.network.host_ports();
        let rules = rules::rules(place, &wanted, &host_ports);
        let mut kernel = self.kernel.take().unwrap_or_else(|| Kernel::new(self.name.clone()));
        let home = self.network.home().clone();
        let loaded = tokio::task::spawn_blocking(move || {
            home.run(move || {
                let loaded = kernel.load(rules);
                Ok((kernel, loaded))
            })
        });
        let (kernel, loaded) = loaded.await.map_err(|error| Error::Network(error.to_string()))??;
        self.kernel = Some(kernel);
        loaded?;
        self.forget_stale(Leads::of(self.gateway, &wanted, &host_ports)).await;
        Ok(())
    }

    /// Once nothing leads there any more. On a kernel that cannot, clients of UDP wait until it forgets by itself.
    async fn forget_stale(&mut self, leads: Leads) {
        if self.leads.as_ref() == Some(&leads) {
            return;
        }
        let (wanted, home) = (leads.clone(), self.network.home().clone());
        let forget = move || home.run(move || conntrack::forget_stale(&wanted));
        match tokio::task::spawn_blocking(forget).await {
            Ok(Ok(forgotten)) => tracing::debug!(forgotten, "UDP goes where it should"),
            Ok(Err(error)) => tracing::warn!(error = %error.full(), "UDP may go where nobody is any more"),
            Err(error) => tracing::error!(%error, "UDP may go where nobody is any more"),
        }
        self.leads = Some(leads);
    }
}

/// Pods reach the API server through their node, which alone knows a way.
fn lead_to_the_door(services: &mut Services, gateway: Ipv4Addr, port: Option<u16>) {
    let Some(port) = port else { return };
    let of_the_server = |service: &(String, String)| (&*service.0, &*service.1) == API_SERVICE;
    for route in services.routes.iter_mut().filter(|route| of_the_server(&route.service)) {
        route.backends = [((gateway, port), 1)].into();
    }
}
