//! The conversation with one node agent: hello, welcome, desired pods; then reports and their acknowledgements.
//!
//! A session that goes wrong is ended with an error, never repaired: the agent reconnects and gets everything
//! anew.

use std::{pin::Pin, sync::Arc, time::Duration};

use claw_client::node::ServerMessages;
use claw_schemas::{
    ApiError,
    proto::{Ack, AgentMessage, Hello, ServerMessage, Welcome, agent_message, server_message::Message},
    status::Reason,
};
use futures::{Stream, StreamExt as _, future::join_all};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    hub::{Hub, SEND_LIMIT, State},
    registration, reports,
    roster::{Claim, Outgoing},
};
use crate::auth::Identity;

/// What an agent says, over any wire.
pub type Incoming = Pin<Box<dyn Stream<Item = Result<AgentMessage, ApiError>> + Send>>;

/// The first message of an agent, or of a stream it opens, must come within this.
pub const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Messages waiting for one agent. A node runs at most some 250 pods, so every one of them may change four times
/// while the agent looks away. They share their bytes with the store.
const OUTGOING_MAX: usize = 1_024;

/// Messages of one agent that are dealt with together, if they are there together: what the start of one pod brings, a
/// few times over.
const MESSAGES_AT_A_TIME: usize = 16;

/// The agent's messages come as `incoming`, the server's go into the stream returned. It ends with an error that says
/// why, unless the agent hung up.
///
/// # Errors
/// `Forbidden` to everyone but nodes.
pub fn open(hub: &Arc<Hub>, who: &Identity, incoming: Incoming) -> Result<ServerMessages, ApiError> {
    let node = node_of(who)?;
    let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
    let hub_of_task = hub.clone();
    hub.tasks.spawn(async move {
        if let Err(error) = converse(&hub_of_task, &node, incoming, &outgoing).await {
            tracing::info!(node, %error, "a node session ended");
            // Nobody may be reading any more.
            let _ = outgoing.try_send(Err(error));
        }
    });
    Ok(Box::pin(ReceiverStream::new(messages)))
}

/// The node an identity is.
pub fn node_of(who: &Identity) -> Result<String, ApiError> {
    who.node().map(str::to_owned).ok_or_else(|| {
        ApiError::new(
            Reason::Forbidden,
            format!(
                "User \"{}\" is no node: only node agents, by their own certificate, may do this",
                who.user
            ),
        )
    })
}

/// A session's hold on its node, let go when the session ends in whatever way.
struct Held<'a> {
    hub: &'a Hub,
    node: &'a str,
    claim: Claim,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.hub.with(|state| state.roster.release(self.node, self.claim.epoch));
        self.hub.streams.abandon(self.node);
        self.hub.usages.abandon(self.node);
    }
}

async fn converse(
    hub: &Arc<Hub>,
    node: &str,
    mut incoming: Incoming,
    outgoing: &Outgoing,
) -> Result<(), ApiError> {
    let hello = tokio::select! {
        () = hub.closing.cancelled() => return Err(stopping()),
        hello = first(&mut incoming) => hello?,
    };
    if hello.node_name != node {
        return Err(ApiError::new(
            Reason::Forbidden,
            format!(
                "the certificate is that of node \"{node}\", the agent says it is \"{}\"",
                hello.node_name
            ),
        ));
    }
    let claim = hub.with(|state| {
        state.roster.claim(node, &hello.instance_id, outgoing.clone(), Instant::now(), hub.grace)
    })?;
    let held = Held { hub, node, claim };
    tokio::select! {
        () = hub.closing.cancelled() => Err(stopping()),
        () = held.claim.cut.cancelled() => Err(ApiError::new(
            Reason::ServiceUnavailable,
            format!("the session of node \"{node}\" was cut: it fell behind, was replaced, or its Node was deleted; reconnect"),
        )),
        ended = serve(&held, &hello, &mut incoming, outgoing) => ended,
    }
}

async fn serve(
    held: &Held<'_>,
    hello: &Hello,
    incoming: &mut Incoming,
    outgoing: &Outgoing,
) -> Result<(), ApiError> {
    let Held { hub, node, claim } = held;
    registration::register(hub, node, &hello.node).await?;
    welcome(held, outgoing)?;
    tracing::info!(node, version = hello.agent_version, instance = hello.instance_id, "a node is connected");
    let mut incoming = incoming.ready_chunks(MESSAGES_AT_A_TIME);
    while let Some(mut messages) = incoming.next().await {
        let broken = messages.iter().position(Result::is_err).map(|at| messages.split_off(at));
        hub.with(|state| state.roster.heard(node, claim.epoch, Instant::now()));
        for sequence in answer_all(hub, node, messages.into_iter().flatten().collect()).await? {
            let ack = ServerMessage { message: Some(Message::Ack(Ack { sequence })) };
            match timeout(SEND_LIMIT, outgoing.send(Ok(ack))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(ApiError::new(Reason::Timeout, "the agent does not read its messages")),
            }
        }
        if let Some(Err(error)) = broken.and_then(|rest| rest.into_iter().next()) {
            return Err(error);
        }
    }
    tracing::info!(node, "a node hung up");
    Ok(())
}

async fn first(incoming: &mut Incoming) -> Result<Hello, ApiError> {
    let message = timeout(HELLO_LIMIT, incoming.next())
        .await
        .map_err(|_| ApiError::new(Reason::Timeout, format!("no Hello within {HELLO_LIMIT:?}")))?;
    match message.transpose()?.and_then(|message| message.message) {
        Some(agent_message::Message::Hello(hello)) => Ok(hello),
        _ => Err(ApiError::bad_request("the first message of a session must be Hello")),
    }
}

/// The list of pods and the permission to deliver changes, in one step, so that nothing comes between.
fn welcome(held: &Held<'_>, outgoing: &Outgoing) -> Result<(), ApiError> {
    let interval = u32::try_from(held.hub.heartbeat_interval().as_millis()).unwrap_or(u32::MAX);
    let welcome =
        ServerMessage { message: Some(Message::Welcome(Welcome { heartbeat_interval_ms: interval })) };
    held.hub.with(|State { bindings, roster }| {
        let sent = [welcome, bindings.desired(held.node)]
            .into_iter()
            .all(|message| outgoing.try_send(Ok(message)).is_ok());
        if sent && roster.attach(held.node, held.claim.epoch) {
            Ok(())
        } else {
            Err(ApiError::new(Reason::ServiceUnavailable, "the session ended while it began; reconnect"))
        }
    })
}

/// Deals with messages that came together; the sequences to acknowledge. Events say nothing that another message depends
/// on, so they are written side by side, and beside the others, which keep their order.
async fn answer_all(hub: &Hub, node: &str, messages: Vec<AgentMessage>) -> Result<Vec<u64>, ApiError> {
    let is_event = |said: &AgentMessage| matches!(said.message, Some(agent_message::Message::Event(_)));
    let (events, others): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_event);
    let in_order = async {
        let mut answered = Vec::new();
        for message in others {
            answered.extend(answer(hub, node, message).await?);
        }
        Ok(answered)
    };
    let events = join_all(events.into_iter().map(|event| answer(hub, node, event)));
    tokio::join!(in_order, events).0
}

/// Deals with one message; the sequence to acknowledge, if there is one.
async fn answer(hub: &Hub, node: &str, message: AgentMessage) -> Result<Option<u64>, ApiError> {
    use agent_message::Message as Said;

    match message.message {
        Some(Said::Heartbeat(_)) => Ok(None),
        Some(Said::PodStatus(report)) => reports::pod_status(hub, node, report).await,
        Some(Said::PodTerminated(report)) => reports::pod_terminated(hub, node, report).await,
        Some(Said::NodeStatus(report)) => registration::node_status(hub, node, report).await,
        Some(Said::Event(report)) => {
            reports::event(hub, node, report).await;
            Ok(None)
        }
        Some(Said::StreamRefused(refusal)) => {
            hub.streams.refused(node, refusal);
            Ok(None)
        }
        Some(Said::Usage(usage)) => {
            hub.usages.answered(node, usage);
            Ok(None)
        }
        Some(Said::Hello(_)) => Err(ApiError::bad_request("Hello may be said only once in a session")),
        // A newer agent may say what this server does not know.
        None => Ok(None),
    }
}

fn stopping() -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "the server is stopping; reconnect later")
}
