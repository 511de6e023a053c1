//! The session with the server: opened again and again, for as long as the agent runs.

use std::{sync::Arc, time::Duration};

use claw_client::{
    ApiError,
    node::{NodeLink, ServerMessages},
};
use claw_schemas::{
    proto::{AgentMessage, Heartbeat, Hello, ServerMessage, agent_message, server_message::Message},
    status::Reason,
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Pods, Shared, node_info, streams, usage};
use crate::gpu::Inventory;

/// First and longest delay between attempts to reach the server. A thousand nodes that come back to
/// a restarted server within 10 s are 100 sessions a second.
const RECONNECT_MIN: Duration = Duration::from_millis(200);
const RECONNECT_MAX: Duration = Duration::from_secs(10);

/// A session that lasted this long was a success: the next delay starts small again.
const SESSION_GOOD: Duration = Duration::from_secs(30);

/// How long the server may take to open a session, and to take a message.
const SERVER_PATIENCE: Duration = Duration::from_secs(20);

/// How long the server may take to read what it was told when the agent ends a session. A log that is being followed
/// keeps a session half open, so this is waited out then.
const HANG_UP_LIMIT: Duration = Duration::from_secs(3);

/// Messages on their way out: a burst of every pod's status waits in the outbox, not here.
const OUTGOING_MAX: usize = 64;

/// Until the server says otherwise.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);

/// No server may make a node hammer it.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);

/// Keeps a session open until cancelled.
pub(super) async fn keep(
    shared: &Arc<Shared>,
    link: &Arc<dyn NodeLink>,
    pods: &Arc<Pods>,
    cancel: &CancellationToken,
) {
    let streams = TaskTracker::new();
    let mut delay = RECONNECT_MIN;
    while !cancel.is_cancelled() {
        let opened_at = Instant::now();
        let ended = tokio::select! {
            () = cancel.cancelled() => break,
            ended = run(shared, link, pods, &streams, cancel) => ended,
        };
        if opened_at.elapsed() >= SESSION_GOOD {
            delay = RECONNECT_MIN;
        }
        let is_news = matches!(ended, Ok(Over::News));
        match ended {
            Ok(Over::News) => {}
            Ok(Over::HungUp) => tracing::info!(node = %shared.config.node_name, "the session ended"),
            Err(error) => {
                tracing::warn!(node = %shared.config.node_name, %error, "no session with the server; pods go on");
            }
        }
        let (wait, next) = pause(is_news, delay);
        delay = next;
        tokio::select! {
            () = cancel.cancelled() => break,
            () = tokio::time::sleep(jittered(wait)) => {}
        }
    }
    streams.close();
    streams.wait().await;
}

/// How long to wait before the next session, and what counts as long before the one after it. After news of our own the server is
/// as well as it was, and whoever talks to a pod is waiting.
fn pause(is_news: bool, delay: Duration) -> (Duration, Duration) {
    if is_news { (Duration::ZERO, RECONNECT_MIN) } else { (delay, (delay * 2).min(RECONNECT_MAX)) }
}

/// Between half and all of it, so that nodes do not come back in step.
fn jittered(delay: Duration) -> Duration {
    let mut random = [0_u8; 2];
    let _ = getrandom::fill(&mut random);
    delay / 2 + delay.mul_f64(f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX) / 2.0)
}

/// Why a session that went well is over.
enum Over {
    /// The server ended it.
    HungUp,
    /// The machine has changed; a new session says it all anew. GPUs are looked at every few seconds, so this is no storm.
    News,
}

/// One session, from `Hello` to its end.
async fn run(
    shared: &Arc<Shared>,
    link: &Arc<dyn NodeLink>,
    pods: &Arc<Pods>,
    streams: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<Over, ApiError> {
    let (outgoing, receiver) = mpsc::channel(OUTGOING_MAX);
    let mut gpus = shared.runtime.gpus();
    let node = node(shared)?;
    send(&outgoing, hello(shared, node.clone())).await?;
    let mut incoming: ServerMessages = tokio::time::timeout(SERVER_PATIENCE, link.session(receiver))
        .await
        .map_err(|_| timeout("to open a session"))??;
    let mut session = Session { shared, link, pods, streams, cancel, outgoing, cursor: 0, beats: 0 };
    let mut heartbeat = tokio::time::interval(HEARTBEAT_DEFAULT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = incoming.next() => match message {
                None => return Ok(Over::HungUp),
                Some(message) => if let Some(every) = session.handle(message?).await {
                    heartbeat = tokio::time::interval(every.max(HEARTBEAT_MIN));
                    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                },
            },
            () = shared.outbox.changed() => session.flush().await?,
            () = changed(&mut gpus) => if self::node(shared)? != node {
                tracing::info!(node = %shared.config.node_name, "the machine has changed; telling the server");
                drop(session);
                hang_up(incoming).await;
                return Ok(Over::News);
            },
            _ = heartbeat.tick() => {
                session.beat().await?;
                // Also what a lost notification would leave.
                session.flush().await?;
            }
        }
    }
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    link: &'a Arc<dyn NodeLink>,
    pods: &'a Arc<Pods>,
    streams: &'a TaskTracker,
    cancel: &'a CancellationToken,
    outgoing: mpsc::Sender<AgentMessage>,
    /// Reports up to this sequence were sent in this session.
    cursor: u64,
    beats: u64,
}

impl Session<'_> {
    /// Takes a message in; returns a new heartbeat interval if it brings one.
    async fn handle(&mut self, message: ServerMessage) -> Option<Duration> {
        match message.message? {
            Message::Welcome(welcome) => {
                tracing::info!(node = %self.shared.config.node_name, "in session with the server");
                return Some(Duration::from_millis(welcome.heartbeat_interval_ms.into()))
                    .filter(|interval| !interval.is_zero());
            }
            Message::DesiredPods(desired) => {
                let parsed: Result<Vec<Pod>, _> =
                    desired.pods.iter().map(|pod| serde_json::from_slice(pod)).collect();
                match parsed {
                    Ok(pods) => self.pods.replace(pods).await,
                    // Half a list would stop pods that are wanted.
                    Err(error) => {
                        tracing::error!(%error, "the server's list of pods does not parse; ignored")
                    }
                }
            }
            Message::PodChanged(changed) => match serde_json::from_slice(&changed.pod) {
                Ok(pod) => self.pods.desire(pod).await,
                Err(error) => tracing::error!(%error, "a pod from the server does not parse; ignored"),
            },
            Message::PodRemoved(removed) => self.pods.remove(&removed.uid).await,
            Message::Ack(ack) => self.shared.outbox.acknowledge(ack.sequence),
            Message::Measure(_) => self.measure(),
            Message::OpenStream(open) => {
                if let Some(request) = open.request {
                    let job = streams::Job {
                        shared: Arc::clone(self.shared),
                        pods: Arc::clone(self.pods),
                        link: Arc::clone(self.link),
                        session: self.outgoing.clone(),
                        cancel: self.cancel.clone(),
                        stream_id: open.stream_id,
                    };
                    self.streams.spawn(streams::serve(job, request));
                }
            }
        }
        None
    }

    /// Answers beside the session: it may take a second.
    fn measure(&self) {
        let (shared, pods) = (Arc::clone(self.shared), Arc::clone(self.pods));
        let (outgoing, cancel) = (self.outgoing.clone(), self.cancel.clone());
        self.streams.spawn(async move {
            let measured = cancel.run_until_cancelled(usage::measure(&shared, &pods)).await;
            if let Some(usage) = measured {
                let message = agent_message::Message::Usage(usage);
                let _ = send(&outgoing, AgentMessage { message: Some(message) }).await;
            }
        });
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        while let Some(message) = self.shared.outbox.next(&mut self.cursor) {
            send(&self.outgoing, message).await?;
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), ApiError> {
        self.beats += 1;
        let heartbeat = agent_message::Message::Heartbeat(Heartbeat { sequence: self.beats });
        send(&self.outgoing, AgentMessage { message: Some(heartbeat) }).await
    }
}

async fn send(outgoing: &mpsc::Sender<AgentMessage>, message: AgentMessage) -> Result<(), ApiError> {
    match tokio::time::timeout(SERVER_PATIENCE, outgoing.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(ApiError::new(Reason::ServiceUnavailable, "the session was closed")),
        Err(_) => Err(timeout("to take a message")),
    }
}

fn timeout(what: &str) -> ApiError {
    ApiError::new(Reason::Timeout, format!("the server took more than {SERVER_PATIENCE:?} {what}"))
}

/// Lets the server read to the end what this session has said, of which events are said once; then it hangs up as well.
/// What it says meanwhile comes again in the next session.
async fn hang_up(mut incoming: ServerMessages) {
    let read_to_the_end = async { while let Some(Ok(_)) = incoming.next().await {} };
    let _ = tokio::time::timeout(HANG_UP_LIMIT, read_to_the_end).await;
}

/// Returns when the GPUs may have changed.
async fn changed(gpus: &mut Option<watch::Receiver<Arc<Inventory>>>) {
    let is_open = match gpus {
        Some(gpus) => gpus.changed().await.is_ok(),
        None => false,
    };
    if !is_open {
        std::future::pending().await
    }
}

/// What the Node object is to say.
fn node(shared: &Shared) -> Result<Vec<u8>, ApiError> {
    let node = node_info::node(&shared.config, &shared.runtime.machine());
    serde_json::to_vec(&node).map_err(|error| ApiError::internal(error.to_string()))
}

fn hello(shared: &Shared, node: Vec<u8>) -> AgentMessage {
    let hello = Hello {
        node_name: shared.config.node_name.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        instance_id: shared.instance_id.clone(),
        node: node.into(),
    };
    AgentMessage { message: Some(agent_message::Message::Hello(hello)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_waits_longer_each_time_and_who_has_news_does_not_wait() {
        let mut delay = RECONNECT_MIN;
        for _ in 0..9 {
            let (pause, next) = pause(false, delay);
            assert_eq!((pause, next), (delay, (delay * 2).min(RECONNECT_MAX)));
            delay = next;
        }
        assert_eq!(delay, RECONNECT_MAX);
        assert_eq!(pause(true, delay), (Duration::ZERO, RECONNECT_MIN));
    }

    #[test]
    fn delays_are_spread_over_half_their_length() {
        for _ in 0..100 {
            let delay = jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&delay), "{delay:?}");
        }
    }
}
