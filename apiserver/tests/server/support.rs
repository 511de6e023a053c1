//! Servers on free ports, clients with every kind of credentials, a scripted node agent, and waiting without
//! sleeping.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use claw_apiserver::{Config, Server, StoreKind};
use claw_client::{
    Client, HttpTransport, Transport,
    endpoint::{Endpoint, Trust},
    grpc::{GrpcNodeLink, GrpcTransport},
    kubeconfig::Kubeconfig,
    node::{NodeLink, ServerMessages},
};
use claw_schemas::{
    ApiError,
    proto::{
        AgentMessage, DesiredPods, Heartbeat, Hello, PodStatus, PodTerminated, ServerMessage, Welcome,
        agent_message, server_message::Message,
    },
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

/// Longer than anything here takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(180);

/// A server with a data folder of its own.
pub struct TestServer {
    pub server: Server,
    pub dir: TempDir,
}

impl TestServer {
    /// In memory, with the usual grace period.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path(), "127.0.0.1:0".parse().unwrap());
        config.store = StoreKind::Memory;
        change(&mut config);
        let server = Server::start(config).await.unwrap();
        Self { server, dir }
    }

    /// The administrator, by certificate.
    pub fn admin(&self) -> Endpoint {
        Kubeconfig::read(&self.server.kubeconfig_path()).unwrap().select(None).unwrap().endpoint
    }

    /// Somebody the server does not know, who knows the server.
    pub fn stranger(&self) -> Endpoint {
        Endpoint::new(self.server.url()).trust(Trust::Roots(self.server.ca_pem().into()))
    }

    /// A client of the administrator over HTTP.
    pub fn client(&self) -> Client {
        client(&self.admin())
    }

    /// A node's link over gRPC, with a certificate got by joining.
    pub async fn joined(&self, node: &str) -> Arc<GrpcNodeLink> {
        let token = self.server.create_join_token(LIMIT).await.unwrap();
        Arc::new(GrpcNodeLink::new(&self.join(node, &token).await.unwrap()).unwrap())
    }

    /// Joins, and answers the endpoint of the node.
    pub async fn join(&self, node: &str, token: &str) -> Result<Endpoint, ApiError> {
        let (key, request) = certificate_request();
        let link = GrpcNodeLink::new(&self.stranger().token(token)).unwrap();
        let joined = link.join(node, request).await?;
        Ok(self.stranger().certificate(joined.certificate_chain, key))
    }
}

/// A new key, PEM, and a certificate request for it, DER.
pub fn certificate_request() -> (String, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap();
    (key.serialize_pem(), request.der().to_vec())
}

pub fn http(endpoint: &Endpoint) -> Arc<dyn Transport> {
    Arc::new(HttpTransport::new(endpoint).unwrap())
}

pub fn grpc(endpoint: &Endpoint) -> Arc<dyn Transport> {
    Arc::new(GrpcTransport::new(endpoint).unwrap())
}

pub fn client(endpoint: &Endpoint) -> Client {
    Client::new(http(endpoint), "test")
}

/// Asks until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "{what} did not happen within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Gives up loudly instead of hanging.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what} did not happen within {LIMIT:?}"))
}

/// A pod of one container, bound to a node.
pub fn pod(name: &str, node: &str) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "clawbernetes.io/toolbox" }] },
    }))
    .unwrap()
}

/// Status and reason of a node's `Ready` condition.
pub async fn readiness(client: &Client, node: &str) -> Option<(String, String)> {
    let node = client.all::<Node>().find(node).await.unwrap()?;
    let conditions = node.status?.conditions?;
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.status, ready.reason.unwrap_or_default()))
}

/// A node agent that does what a test tells it.
pub struct Agent {
    pub outgoing: mpsc::Sender<AgentMessage>,
    incoming: ServerMessages,
}

impl Agent {
    /// Opens a session and says hello; the welcome and everything after it is still to be read.
    pub async fn dial(
        link: &dyn NodeLink,
        node: &str,
        instance: &str,
        object: Value,
    ) -> Result<Self, ApiError> {
        let (outgoing, messages) = mpsc::channel(64);
        let hello = Hello {
            node_name: node.to_owned(),
            agent_version: "test".to_owned(),
            instance_id: instance.to_owned(),
            node: object.to_string().into(),
        };
        outgoing.send(said(agent_message::Message::Hello(hello))).await.unwrap();
        let incoming = soon("a session", link.session(messages)).await?;
        Ok(Self { outgoing, incoming })
    }

    /// The same, through the welcome.
    pub async fn connect(link: &dyn NodeLink, node: &str) -> (Self, DesiredPods) {
        let mut agent = Self::dial(link, node, "first", json!({})).await.unwrap();
        let (_, pods) = agent.welcome().await.unwrap();
        (agent, pods)
    }

    pub async fn welcome(&mut self) -> Result<(Welcome, DesiredPods), ApiError> {
        let Message::Welcome(welcome) = self.next().await? else {
            panic!("the first message is the welcome")
        };
        let Message::DesiredPods(pods) = self.next().await? else { panic!("the pods come second") };
        Ok((welcome, pods))
    }

    /// The next message, or the error that ends the session.
    pub async fn next(&mut self) -> Result<Message, ApiError> {
        let message: ServerMessage =
            soon("a message", self.incoming.next()).await.expect("the session has ended without an error")?;
        Ok(message.message.expect("messages are never empty"))
    }

    /// Whether the session has ended, in whatever way. What comes before the end is skipped.
    pub async fn ended(&mut self) {
        while let Some(Ok(_)) = soon("the end of the session", self.incoming.next()).await {}
    }

    pub async fn say(&self, message: agent_message::Message) {
        self.outgoing.send(said(message)).await.unwrap();
    }

    pub async fn heartbeat(&self) {
        self.say(agent_message::Message::Heartbeat(Heartbeat { sequence: 0 })).await;
    }

    /// Reports a pod's status and waits for the acknowledgement.
    pub async fn report(&mut self, pod: &Pod, status: Value, sequence: u64) {
        let report = PodStatus {
            namespace: pod.metadata.namespace.clone().unwrap(),
            name: pod.metadata.name.clone().unwrap(),
            uid: pod.metadata.uid.clone().unwrap(),
            status: status.to_string().into(),
            sequence,
        };
        self.say(agent_message::Message::PodStatus(report)).await;
        self.acknowledged(sequence).await;
    }

    /// Reports that a pod's containers are gone, and waits for the acknowledgement.
    pub async fn terminated(&mut self, pod: &Pod, sequence: u64) {
        let report = PodTerminated {
            namespace: pod.metadata.namespace.clone().unwrap(),
            name: pod.metadata.name.clone().unwrap(),
            uid: pod.metadata.uid.clone().unwrap(),
            sequence,
        };
        self.say(agent_message::Message::PodTerminated(report)).await;
        self.acknowledged(sequence).await;
    }

    /// Waits for an acknowledgement; changes of pods before it are skipped.
    pub async fn acknowledged(&mut self, sequence: u64) {
        loop {
            if let Message::Ack(ack) = self.next().await.unwrap() {
                assert_eq!(ack.sequence, sequence);
                return;
            }
        }
    }
}

fn said(message: agent_message::Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}
