//! Logs: asked of the server, answered by an agent.

use std::sync::Arc;

use bytes::Bytes;
use claw_client::{ByteStream, ResourceRef, node::NodeLink};
use claw_schemas::{
    ApiError,
    proto::{OpenStream, StreamFrame, StreamRefused, agent_message, open_stream, server_message::Message},
    status::Reason,
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Agent, TestServer, http, pod, soon};

struct Rig {
    server: TestServer,
    link: Arc<dyn NodeLink>,
    agent: Agent,
}

/// A node with one running pod.
async fn rig() -> Rig {
    let server = TestServer::start().await;
    let link = server.joined("gpu-02").await;
    let (mut agent, _) = Agent::connect(&*link, "gpu-02").await;
    let web = server.client().namespaced::<Pod>("default").create(&pod("web", "gpu-02")).await.unwrap();
    let status = json!({
        "phase": "Running",
        "containerStatuses": [{
            "name": "main", "image": "x", "imageID": "x", "ready": true, "restartCount": 0, "started": true,
            "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
        }],
    });
    agent.report(&web, status, 1).await;
    Rig { server, link, agent }
}

impl Rig {
    /// Asks for the log as the administrator.
    fn ask(&self, query: &[(&str, &str)]) -> tokio::task::JoinHandle<Result<ByteStream, ApiError>> {
        let transport = http(&self.server.admin());
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let log = ResourceRef::collection("", "v1", "pods").in_namespace("default").named("web").sub("log");
        tokio::spawn(async move { transport.stream(log, query).await })
    }

    /// What the agent is asked.
    async fn asked(&mut self) -> OpenStream {
        loop {
            if let Message::OpenStream(open) = self.agent.next().await.unwrap() {
                return open;
            }
        }
    }

    /// Opens the stream as the agent, and answers where frames go and how the server's end is seen.
    async fn open(&self, id: &str) -> (mpsc::Sender<StreamFrame>, claw_client::node::StreamFrames) {
        let (frames, outgoing) = mpsc::channel(4);
        frames.send(frame(id, "")).await.unwrap();
        let back = soon("the stream", self.link.stream(outgoing)).await.unwrap();
        (frames, back)
    }
}

fn frame(id: &str, data: &str) -> StreamFrame {
    StreamFrame { stream_id: id.to_owned(), data: Bytes::from(data.to_owned()), ..StreamFrame::default() }
}

/// The next piece that is not empty: HTTP/2 may end a stream with an empty one.
async fn next(log: &mut ByteStream) -> Option<Result<Bytes, ApiError>> {
    loop {
        match soon("a piece of the log", log.next()).await {
            Some(Ok(piece)) if piece.is_empty() => {}
            piece => return piece,
        }
    }
}

#[tokio::test]
async fn a_log_comes_from_the_agent_as_it_is_written() {
    let mut rig = rig().await;
    let asked = rig.ask(&[("follow", "true"), ("tailLines", "3"), ("timestamps", "true")]);
    let open = rig.asked().await;
    let Some(open_stream::Request::Logs(request)) = &open.request else { panic!("a log is asked for") };
    assert_eq!((request.pod.as_str(), request.container.as_str()), ("web", "main"));
    assert!(request.follow && request.timestamps && request.tail_lines == Some(3));

    let (frames, mut back) = rig.open(&open.stream_id).await;
    frames.send(frame("", "one\n")).await.unwrap();
    let mut log = soon("the log", asked).await.unwrap().unwrap();
    assert_eq!(next(&mut log).await.unwrap().unwrap(), "one\n");
    frames.send(frame("", "two\n")).await.unwrap();
    assert_eq!(next(&mut log).await.unwrap().unwrap(), "two\n");
    drop(frames);
    let end = next(&mut log).await;
    assert!(end.is_none(), "{end:?}");
    assert!(soon("the end", back.next()).await.is_none());
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_stream_at_the_agent() {
    let mut rig = rig().await;
    let asked = rig.ask(&[("follow", "true")]);
    let open = rig.asked().await;
    let (frames, mut back) = rig.open(&open.stream_id).await;
    frames.send(frame("", "one\n")).await.unwrap();
    let mut log = soon("the log", asked).await.unwrap().unwrap();
    next(&mut log).await.unwrap().unwrap();
    drop(log);
    assert!(soon("the end", back.next()).await.is_none());
}

#[tokio::test]
async fn more_than_fits_any_buffer_comes_through_whole() {
    let mut rig = rig().await;
    let asked = rig.ask(&[]);
    let open = rig.asked().await;
    let (frames, _back) = rig.open(&open.stream_id).await;
    let writer = tokio::spawn(async move {
        for at in 0..2_000 {
            frames.send(frame("", &format!("{at:>4095}\n"))).await.unwrap();
        }
    });
    let mut log = soon("the log", asked).await.unwrap().unwrap();
    let mut text = Vec::new();
    while let Some(piece) = next(&mut log).await {
        text.extend_from_slice(&piece.unwrap());
    }
    writer.await.unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&text).unwrap().lines().map(str::trim).collect();
    assert_eq!(lines.len(), 2_000);
    assert!(lines.iter().enumerate().all(|(at, line)| *line == at.to_string()));
}

#[tokio::test]
async fn what_an_agent_refuses_reaches_the_reader() {
    let mut rig = rig().await;
    let asked = rig.ask(&[]);
    let stream_id = rig.asked().await.stream_id;
    let message = "the log of container \"main\" was removed".to_owned();
    let refusal = StreamRefused { stream_id, code: 404, message: message.clone() };
    rig.agent.say(agent_message::Message::StreamRefused(refusal)).await;
    let error = soon("an answer", asked).await.unwrap().err().unwrap();
    assert_eq!((error.code, error.message), (404, message));
}

#[tokio::test]
async fn only_the_node_that_was_asked_can_answer() {
    let mut rig = rig().await;
    let asked = rig.ask(&[]);
    let open = rig.asked().await;
    let thief = rig.server.joined("thief").await;
    let (frames, outgoing) = mpsc::channel(4);
    frames.send(frame(&open.stream_id, "forged\n")).await.unwrap();
    let mut back = thief.stream(outgoing).await.unwrap();
    let refused = soon("a refusal", back.next()).await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::NotFound);

    let (frames, _back) = rig.open(&open.stream_id).await;
    frames.send(frame("", "true\n")).await.unwrap();
    let mut log = soon("the log", asked).await.unwrap().unwrap();
    assert_eq!(next(&mut log).await.unwrap().unwrap(), "true\n");
}

#[tokio::test]
async fn a_node_without_an_agent_is_named() {
    let Rig { server, mut agent, link } = rig().await;
    let asked = {
        let rig = Rig { server, link, agent };
        let asked = rig.ask(&[]);
        let Rig { server, agent: live, link } = rig;
        agent = live;
        drop(link);
        (server, asked)
    };
    let (server, asked) = asked;
    // The agent dies with the request in its hands.
    while !matches!(agent.next().await.unwrap(), Message::OpenStream(_)) {}
    drop(agent);
    let error = soon("an answer", asked).await.unwrap().err().unwrap();
    assert_eq!(error.reason, Reason::ServiceUnavailable);
    assert!(error.message.contains("gpu-02"), "{error}");

    let log = ResourceRef::collection("", "v1", "pods").in_namespace("default").named("web").sub("log");
    let error = http(&server.admin()).stream(log, Vec::new()).await.err().unwrap();
    assert_eq!(error.code, 503);
    assert!(error.message.contains("gpu-02"), "{error}");
}

#[tokio::test]
async fn an_error_in_the_middle_ends_the_log() {
    let mut rig = rig().await;
    let asked = rig.ask(&[]);
    let open = rig.asked().await;
    let (frames, _back) = rig.open(&open.stream_id).await;
    frames.send(frame("", "one\n")).await.unwrap();
    let broken = StreamFrame { error: "the file is gone".to_owned(), ..StreamFrame::default() };
    frames.send(broken).await.unwrap();
    let mut log = soon("the log", asked).await.unwrap().unwrap();
    // HTTP/2 may drop what it has not sent when a stream breaks, but a broken log never looks like a whole one.
    while next(&mut log).await.expect("the log breaks before it ends").is_ok() {}
}
