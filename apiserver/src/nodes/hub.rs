//! The hub itself: its state, its tasks, and how the rest of the server reaches it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use claw_client::node::NodeLink;
use claw_schemas::{
    ApiError,
    proto::{Measure, OpenStream, ServerMessage, Usage, open_stream, server_message::Message},
    status::Reason,
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    NodeStream, NodeStreams,
    bindings::Bindings,
    follow::{Change, Follower},
    heartbeats,
    local::LocalLink,
    objects::Objects,
    roster::{Outgoing, Roster},
    streams::Streams,
    usage::Usages,
};
use crate::{
    auth::BoundPods,
    error::Error,
    service::ObjectService,
    store::{Event, Key, Page},
};

/// Heartbeats per grace period: seven may be lost before a node counts as unreachable. With the default grace of
/// 40 s the interval is 5 s.
const HEARTBEATS_PER_GRACE: u32 = 8;

/// How long an agent that does not read may hold up a message meant for it.
pub const SEND_LIMIT: Duration = Duration::from_secs(10);

/// How long an agent may take to open a stream it is asked for.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// What a hub needs to know.
#[derive(Clone, Copy, Debug)]
pub struct HubConfig {
    /// How long a node may be silent before its `Ready` condition becomes `Unknown`.
    pub node_grace: Duration,
}

/// Sessions of all node agents.
pub struct Hub {
    pub(super) objects: Objects,
    pub(super) streams: Streams,
    pub(super) usages: Usages,
    pub(super) closing: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) grace: Duration,
    state: Mutex<State>,
}

/// Under one lock, so that a session gets its first list of pods and the changes after it without a gap.
#[derive(Default)]
pub struct State {
    pub bindings: Bindings,
    pub roster: Roster,
}

impl Hub {
    /// Starts a hub: when this returns it knows all pods and nodes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(service: Arc<ObjectService>, config: HubConfig) -> Result<Arc<Self>, Error> {
        let store = service.store().clone();
        let (pods, all_pods) = Follower::start(store.clone(), Key::collection("", "pods", None)).await?;
        let (nodes, all_nodes) = Follower::start(store, Key::collection("", "nodes", None)).await?;
        let hub = Arc::new(Self {
            objects: Objects::new(service),
            streams: Streams::default(),
            usages: Usages::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            grace: config.node_grace,
            state: Mutex::default(),
        });
        hub.pods_listed(&all_pods);
        hub.nodes_listed(&all_nodes);
        hub.tasks.spawn(follow(hub.clone(), pods, Hub::pods_listed, Hub::pod_changed));
        hub.tasks.spawn(follow(hub.clone(), nodes, Hub::nodes_listed, Hub::node_changed));
        hub.tasks.spawn(heartbeats::watch(hub.clone()));
        Ok(hub)
    }

    /// Ends all sessions and streams.
    pub fn stop(&self) {
        self.closing.cancel();
        self.tasks.close();
    }

    /// Waits for what [`Self::stop`] ends.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }

    /// Stops the hub when dropped.
    pub fn stop_on_drop(&self) -> DropGuard {
        self.closing.clone().drop_guard()
    }

    /// The hub as the object service uses it. It does not keep the hub alive: the hub uses the service itself.
    pub fn streams(self: &Arc<Self>) -> Arc<dyn NodeStreams> {
        Arc::new(Reach(Arc::downgrade(self)))
    }

    /// The hub as the authorizer uses it.
    pub fn bound_pods(self: &Arc<Self>) -> Arc<dyn BoundPods> {
        Arc::new(Reach(Arc::downgrade(self)))
    }

    /// The NodeLink of an agent in this process.
    pub fn local_link(self: &Arc<Self>, node: &str) -> Arc<dyn NodeLink> {
        Arc::new(LocalLink::new(self.clone(), node))
    }

    /// Whether an agent serves the node right now.
    pub fn is_served(&self, node: &str) -> bool {
        self.state.lock().roster.is_served(node, Instant::now(), self.grace)
    }

    /// How often agents should send heartbeats.
    pub(super) fn heartbeat_interval(&self) -> Duration {
        self.grace / HEARTBEATS_PER_GRACE
    }

    /// A look at the state. The lock is held for as long as `look` runs: it must not wait for anything.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    fn pods_listed(&self, pods: &Page) {
        self.with(|State { bindings, roster }| {
            bindings.reset(pods);
            for node in roster.attached() {
                roster.deliver(&node, bindings.desired(&node));
            }
        });
    }

    fn pod_changed(&self, event: &Event) {
        self.with(|State { bindings, roster }| {
            for (node, message) in bindings.apply(event) {
                roster.deliver(&node, message);
            }
        });
    }

    fn nodes_listed(&self, nodes: &Page) {
        let now = Instant::now();
        self.with(|State { roster, .. }| {
            let there: Vec<&str> = nodes.items.iter().filter_map(|record| name_of(&record.key)).collect();
            for gone in roster.stored_names().iter().filter(|name| !there.contains(&name.as_str())) {
                roster.node_deleted(gone);
            }
            for record in &nodes.items {
                roster.node_stored(&record.value, now);
            }
        });
    }

    fn node_changed(&self, event: &Event) {
        self.with(|State { roster, .. }| {
            if !event.deleted {
                roster.node_stored(&event.record.value, Instant::now());
            } else if let Some(name) = name_of(&event.record.key) {
                roster.node_deleted(name);
            }
        });
    }

    /// What a node and its containers use.
    async fn usage(&self, node: &str) -> Option<Arc<Usage>> {
        let ask = || {
            let agent = self.with(|state| state.roster.outgoing(node)).filter(|_| self.is_served(node));
            let message = ServerMessage { message: Some(Message::Measure(Measure {})) };
            agent.is_some_and(|agent| agent.try_send(Ok(message)).is_ok())
        };
        self.usages.of(node, ask).await
    }

    async fn open(&self, node: &str, request: open_stream::Request) -> Result<NodeStream, ApiError> {
        let unreachable =
            |why: &str| ApiError::new(Reason::ServiceUnavailable, format!("node \"{node}\" {why}"));
        let agent: Outgoing = self
            .with(|state| state.roster.outgoing(node))
            .ok_or_else(|| unreachable("has no agent connected, so its pods cannot be reached now"))?;
        let (ticket, opened) = self.streams.expect(node)?;
        let open = OpenStream { stream_id: ticket.id().to_owned(), request: Some(request) };
        let message = ServerMessage { message: Some(Message::OpenStream(open)) };
        let answer = async {
            agent.send(Ok(message)).await.map_err(|_| unreachable("lost its agent meanwhile"))?;
            opened.await.map_err(|_| unreachable("lost its agent meanwhile"))?
        };
        tokio::select! {
            () = self.closing.cancelled() => Err(unreachable("cannot be asked: the server is stopping")),
            answer = timeout(OPEN_LIMIT, answer) => answer.unwrap_or_else(|_| {
                Err(ApiError::new(
                    Reason::Timeout,
                    format!("node \"{node}\" did not open the stream within {OPEN_LIMIT:?}"),
                ))
            }),
        }
    }
}

/// Keeps the hub's picture of a kind current.
async fn follow(
    hub: Arc<Hub>,
    mut follower: Follower,
    listed: impl Fn(&Hub, &Page) + Send,
    changed: impl Fn(&Hub, &Event) + Send,
) {
    loop {
        tokio::select! {
            () = hub.closing.cancelled() => return,
            change = follower.next() => match change {
                Change::Event(event) => changed(&hub, &event),
                Change::Reset(page) => listed(&hub, &page),
            }
        }
    }
}

/// The name in the key of a cluster-scoped object.
fn name_of(key: &Key) -> Option<&str> {
    key.as_str().rsplit('/').next()
}

/// See [`Hub::streams`] and [`Hub::bound_pods`].
struct Reach(Weak<Hub>);

#[async_trait]
impl NodeStreams for Reach {
    async fn open(&self, node: &str, request: open_stream::Request) -> Result<NodeStream, ApiError> {
        match self.0.upgrade() {
            Some(hub) => hub.open(node, request).await,
            None => Err(ApiError::new(Reason::ServiceUnavailable, "the server is stopping")),
        }
    }

    async fn usage(&self, node: &str) -> Option<Arc<Usage>> {
        self.0.upgrade()?.usage(node).await
    }

    fn reaches(&self, node: &str) -> bool {
        self.0.upgrade().is_some_and(|hub| hub.is_served(node))
    }

    fn is_open(&self) -> bool {
        self.0.upgrade().is_some_and(|hub| !hub.closing.is_cancelled())
    }
}

impl BoundPods for Reach {
    fn bound_pods(&self, node: &str, namespace: &str) -> Vec<Bytes> {
        self.0.upgrade().map(|hub| hub.with(|state| state.bindings.pods(node, namespace))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use claw_schemas::{
        Registry,
        proto::{AgentMessage, Hello, agent_message},
    };
    use futures::StreamExt as _;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        auth::Access,
        store::{self, Record},
    };

    #[tokio::test]
    async fn after_missed_changes_every_agent_gets_its_whole_list_again() {
        let store = store::memory();
        let access = Access::start(store.clone()).await.unwrap();
        let service = ObjectService::new(store, Registry::builtin(), access);
        let hub = Hub::start(Arc::new(service), HubConfig { node_grace: SEND_LIMIT }).await.unwrap();
        let (outgoing, messages) = mpsc::channel(1);
        let hello = Hello { node_name: "a".to_owned(), ..Hello::default() };
        let hello = AgentMessage { message: Some(agent_message::Message::Hello(hello)) };
        outgoing.send(hello).await.unwrap();
        let mut session = hub.local_link("a").session(messages).await.unwrap();
        let mut next = async || session.next().await.unwrap().unwrap().message.unwrap();
        assert!(matches!(next().await, Message::Welcome(_)));
        assert!(matches!(next().await, Message::DesiredPods(desired) if desired.pods.is_empty()));

        let record = |name: &str, node: &str| Record {
            key: Key::object("", "pods", "default", name),
            revision: 7,
            value: format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"nodeName":"{node}"}}}}"#).into(),
        };
        let items = vec![record("mine", "a"), record("other", "b")];
        hub.pods_listed(&Page { items, revision: 9, ..Page::default() });
        let Message::DesiredPods(desired) = next().await else { panic!("the list comes again") };
        assert_eq!((desired.revision, desired.pods.len()), (9, 1));
        hub.stop();
        hub.stopped().await;
    }
}
