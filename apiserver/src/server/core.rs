//! A server without its port and its folder: the object service, the hub of nodes and the gate over a store that is
//! open. [`Server`](super::Server) puts TLS in front of it; a simulation serves connections of its own network.
//!
//! Must never know: TLS, files, where connections come from.

use std::{sync::Arc, time::Duration};

use claw_schemas::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::{sync::DropGuard, task::TaskTracker};

use super::{Stop, again::Again, gate::Gate, listener::Door};
use crate::{
    auth::{
        Access, Authenticator, JoinTokens, Peer,
        service_accounts::{ServiceAccounts, SigningKey},
    },
    error::Error,
    grpc,
    nodes::{Hub, HubConfig, Join},
    pki::Pki,
    reach::Sessions,
    rest,
    service::ObjectService,
    store::Store,
};

/// How long requests under way may take to finish when the server stops. Unary calls take milliseconds and
/// watches are ended at once, so what is left after 10 s hangs on a client that does not read.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// The parts of a server that answer. Dropping it stops them without care for requests under way.
pub struct Core {
    pub(super) service: Arc<ObjectService>,
    pub(super) hub: Arc<Hub>,
    pub(super) tokens: JoinTokens,
    pub(super) door: Door,
    pub(super) stop: Stop,
    pub(super) tasks: TaskTracker,
    health: grpc::Health,
    _stop_on_drop: [DropGuard; 3],
}

impl Core {
    /// Starts everything; when this returns, requests can be answered.
    ///
    /// # Errors
    /// When the store or the keys cannot be used.
    pub async fn start(
        store: Arc<dyn Store>,
        pki: &Pki,
        node_grace: Duration,
        node_certificate_life: Duration,
    ) -> Result<Self, Error> {
        let accounts = Arc::new(ServiceAccounts::new(signing_key(pki)?, store.clone()));
        let access = Access::start(store.clone()).await?;
        let service = Arc::new(ObjectService::new(store, Registry::builtin(), access.clone()));
        service.set_service_accounts(accounts.clone());
        service.ensure_bootstrap_objects().await?;
        service.serve_definitions().await?;
        let tokens = JoinTokens::new(service.clone());
        let hub = Hub::start(service.clone(), HubConfig { node_grace }).await?;
        // Already now: if the start fails further on, the hub must let go of the store.
        let stop_hub = hub.stop_on_drop();
        service.set_node_streams(hub.streams());
        access.set_pods(hub.bound_pods());

        let (stop, tasks) = (Stop::default(), TaskTracker::new());
        let join = Join::new(hub.clone(), tokens.clone(), pki.authority().clone(), node_certificate_life);
        let (grpc_routes, health) = grpc::routes(service.clone(), hub.clone(), join).await?;
        let gate = Gate::new(
            Authenticator::new(pki.admin_token(), tokens.clone(), accounts),
            access.clone(),
            service.metrics().clone(),
            rest::router_with(service.clone(), Sessions::new(tasks.clone(), stop.drain.clone())),
            grpc_routes,
        );
        tasks.spawn(service.clone().follow_definitions());
        tasks.spawn(service.clone().keep_quotas());
        tasks.spawn(access.follow(stop.drain.clone()));
        service.set_ready(true);
        let door = Door::new(Arc::new(gate), stop.clone());
        let _stop_on_drop = [stop.drain.clone().drop_guard(), stop.cut.clone().drop_guard(), stop_hub];
        Ok(Self { service, hub, tokens, door, stop, tasks, health, _stop_on_drop })
    }

    /// The object service.
    pub fn service(&self) -> &Arc<ObjectService> {
        &self.service
    }

    /// Answers the requests of a connection, in a task of its own, as those of `peer`.
    pub fn serve<S>(&self, stream: S, peer: Peer, is_http2: bool)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (door, cut) = (self.door.clone(), self.stop.cut.clone());
        self.tasks.spawn(Again::new(async move {
            let ended = cut.run_until_cancelled_owned(door.serve(stream, peer, is_http2)).await;
            if let Some(Err(error)) = ended {
                tracing::debug!(%error, "a connection ended");
            }
        }));
    }

    /// Stops: `/readyz` fails at once; after `delay` there are no new connections, watches and sessions end cleanly, and
    /// requests under way finish (at most [`DRAIN_LIMIT`]).
    pub async fn stop(&self, delay: Duration) {
        self.service.set_ready(false);
        self.health.stopping().await;
        tokio::time::sleep(delay).await;
        self.stop.drain.cancel();
        self.service.close_watches();
        self.hub.stop();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not finish in {DRAIN_LIMIT:?} and are cut");
            self.stop.cut.cancel();
            self.tasks.wait().await;
        }
        self.hub.stopped().await;
    }
}

fn signing_key(pki: &Pki) -> Result<SigningKey, Error> {
    SigningKey::from_pem(pki.token_key()).map_err(|problem| Error::Certificate {
        path: pki.token_key_path(),
        problem: format!("{problem}; restore it from a backup, or delete it: a new one is made at the next start, and all tokens of service accounts are void"),
    })
}
