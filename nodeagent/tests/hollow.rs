//! An agent whose containers are pretended, by a clock that only the test moves: what is told, and when.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use claw_client::{
    ApiError,
    node::{NodeLink, ServerMessages, StreamFrames},
};
use claw_nodeagent::{Agent, AgentConfig, runtime::hollow::Hollow};
use claw_schemas::proto::{
    AgentMessage, DesiredPods, ServerMessage, StreamFrame, agent_message, server_message::Message,
};
use common::unreachable_client;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// The server's end of a session.
type Session = (mpsc::Receiver<AgentMessage>, mpsc::Sender<Result<ServerMessage, ApiError>>);

struct Link(mpsc::Sender<Session>);

#[async_trait]
impl NodeLink for Link {
    async fn session(&self, outgoing: mpsc::Receiver<AgentMessage>) -> Result<ServerMessages, ApiError> {
        let (sender, receiver) = mpsc::channel(4);
        self.0.send((outgoing, sender)).await.map_err(|_| ApiError::internal("the test is over"))?;
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn stream(&self, _: mpsc::Receiver<StreamFrame>) -> Result<StreamFrames, ApiError> {
        Err(ApiError::internal("nobody asked for a stream"))
    }
}

async fn first_status(said: &mut mpsc::Receiver<AgentMessage>) -> PodStatus {
    loop {
        if let Some(agent_message::Message::PodStatus(report)) = said.recv().await.unwrap().message {
            return serde_json::from_slice(&report.status).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_begins_before_anything_is_told_and_is_told_once() {
    let (sessions, mut opened) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let (link, runtime) = (Arc::new(Link(sessions)), Arc::new(Hollow::new()));
    let config = AgentConfig::new("here");
    let agent = tokio::spawn(Agent::run(config, link, unreachable_client(), runtime, cancel.clone()));
    let (mut said, server) = opened.recv().await.unwrap();
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"nodeName": "here", "containers": [{"name": "main", "image": "i"}]},
        "status": {"phase": "Pending"},
    });
    let desired = DesiredPods { revision: 1, pods: vec![pod.to_string().into()] };
    server.send(Ok(ServerMessage { message: Some(Message::DesiredPods(desired)) })).await.unwrap();
    let first = first_status(&mut said).await;
    assert_eq!(first.phase.as_deref(), Some("Running"), "{first:?}");
    cancel.cancel();
    agent.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_came_past_the_scheduler_is_refused_what_the_node_does_not_have() {
    let (sessions, mut opened) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let (link, runtime) = (Arc::new(Link(sessions)), Arc::new(Hollow::new()));
    let mut config = AgentConfig::new("here");
    config.capacity.insert("cpu".to_owned(), "1500m".parse().unwrap());
    let agent = tokio::spawn(Agent::run(config, link, unreachable_client(), runtime, cancel.clone()));
    let (mut said, server) = opened.recv().await.unwrap();
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"nodeName": "here", "containers": [
            {"name": "main", "image": "i", "resources": {"requests": {"cpu": "2"}}}]},
        "status": {"phase": "Pending"},
    });
    let desired = DesiredPods { revision: 1, pods: vec![pod.to_string().into()] };
    server.send(Ok(ServerMessage { message: Some(Message::DesiredPods(desired)) })).await.unwrap();
    let refused = loop {
        let status = first_status(&mut said).await;
        if status.phase.as_deref() == Some("Failed") {
            break status;
        }
    };
    assert_eq!(refused.reason.as_deref(), Some("OutOfcpu"));
    let why =
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 0, capacity: 1500";
    assert_eq!(refused.message.as_deref(), Some(why));
    cancel.cancel();
    agent.await.unwrap().unwrap();
}
