//! The whole agent with real containers, against a server whose side of the session is scripted here.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use claw_client::{
    ApiError,
    node::{NodeLink, ServerMessages, StreamFrames},
};
use claw_nodeagent::{Agent, AgentConfig, Clock};
use claw_schemas::proto::{
    Ack, AgentMessage, DesiredPods, LogsRequest, OpenStream, PodChanged, PodRemoved, ServerMessage,
    StreamFrame, Welcome, agent_message, open_stream, server_message::Message,
};
use common::{Machine, PATIENCE, can_run_containers, unreachable_client};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Pod, PodStatus};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Mutex, mpsc},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

type Opened<T, F> = (mpsc::Receiver<T>, mpsc::Sender<Result<F, ApiError>>);

/// The server's ends of whatever the agent opens.
struct Link {
    sessions: mpsc::Sender<Opened<AgentMessage, ServerMessage>>,
    streams: mpsc::Sender<Opened<StreamFrame, StreamFrame>>,
}

#[async_trait]
impl NodeLink for Link {
    async fn session(&self, outgoing: mpsc::Receiver<AgentMessage>) -> Result<ServerMessages, ApiError> {
        let (sender, receiver) = mpsc::channel(64);
        self.sessions.send((outgoing, sender)).await.map_err(|_| ApiError::internal("the test is over"))?;
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn stream(&self, outgoing: mpsc::Receiver<StreamFrame>) -> Result<StreamFrames, ApiError> {
        let (sender, receiver) = mpsc::channel(64);
        self.streams.send((outgoing, sender)).await.map_err(|_| ApiError::internal("the test is over"))?;
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

/// An agent that runs, and the server's side of its session.
struct Server {
    cancel: CancellationToken,
    agent: JoinHandle<Result<(), claw_nodeagent::Error>>,
    sessions: mpsc::Receiver<Opened<AgentMessage, ServerMessage>>,
    streams: Mutex<mpsc::Receiver<Opened<StreamFrame, StreamFrame>>>,
    from_agent: mpsc::Receiver<AgentMessage>,
    to_agent: mpsc::Sender<Result<ServerMessage, ApiError>>,
    statuses: HashMap<String, PodStatus>,
    terminated: Vec<String>,
    events: Vec<Event>,
    heartbeats: u64,
}

impl Server {
    async fn start(machine: &Machine) -> Self {
        Self::start_by(machine, Clock::default()).await
    }

    async fn start_by(machine: &Machine, clock: Clock) -> Self {
        let (sessions_sender, mut sessions) = mpsc::channel(4);
        let (streams_sender, streams) = mpsc::channel(4);
        let link = Arc::new(Link { sessions: sessions_sender, streams: streams_sender });
        let cancel = CancellationToken::new();
        let config = AgentConfig {
            restart_backoff: Duration::from_millis(300),
            // Nobody tells of any.
            services_wait: Duration::ZERO,
            clock,
            ..AgentConfig::new("here")
        };
        let runtime = machine.open().await;
        let agent = tokio::spawn(Agent::run(config, link, unreachable_client(), runtime, cancel.clone()));
        let (from_agent, to_agent) =
            tokio::time::timeout(PATIENCE, sessions.recv()).await.expect("a session").unwrap();
        let mut server = Self {
            cancel,
            agent,
            sessions,
            streams: Mutex::new(streams),
            from_agent,
            to_agent,
            statuses: HashMap::new(),
            terminated: Vec::new(),
            events: Vec::new(),
            heartbeats: 0,
        };
        server.welcome().await;
        server
    }

    async fn welcome(&mut self) {
        let first = self.receive().await;
        let Some(agent_message::Message::Hello(hello)) = first.message else {
            panic!("not a Hello: {first:?}")
        };
        assert_eq!(hello.node_name, "here");
        self.tell(Message::Welcome(Welcome { heartbeat_interval_ms: 100 })).await;
    }

    async fn receive(&mut self) -> AgentMessage {
        tokio::time::timeout(PATIENCE, self.from_agent.recv()).await.expect("a message").expect("a session")
    }

    async fn tell(&self, message: Message) {
        self.to_agent.send(Ok(ServerMessage { message: Some(message) })).await.unwrap();
    }

    async fn desire(&self, pods: &[&Pod]) {
        let pods = pods.iter().map(|pod| serde_json::to_vec(pod).unwrap().into()).collect();
        self.tell(Message::DesiredPods(DesiredPods { revision: 1, pods })).await;
    }

    /// Takes reports in, and acknowledges them, until the condition holds.
    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "not within {PATIENCE:?}: {what}; {:?}",
                self.statuses
            );
            let sequence = match self.receive().await.message.unwrap() {
                agent_message::Message::PodStatus(report) => {
                    self.statuses.insert(report.name, serde_json::from_slice(&report.status).unwrap());
                    report.sequence
                }
                agent_message::Message::PodTerminated(report) => {
                    self.terminated.push(report.name);
                    report.sequence
                }
                agent_message::Message::NodeStatus(report) => report.sequence,
                agent_message::Message::Event(report) => {
                    self.events.push(serde_json::from_slice(&report.event).unwrap());
                    continue;
                }
                agent_message::Message::Heartbeat(_) => {
                    self.heartbeats += 1;
                    continue;
                }
                other => panic!("unexpected {other:?}"),
            };
            self.tell(Message::Ack(Ack { sequence })).await;
        }
    }

    fn is_ready(&self, pod: &str) -> bool {
        let conditions = self.statuses.get(pod).and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    }

    fn restarts(&self, pod: &str) -> i32 {
        self.container(pod).map_or(0, |status| status.restart_count)
    }

    fn container(&self, pod: &str) -> Option<&k8s_openapi::api::core::v1::ContainerStatus> {
        self.statuses.get(pod)?.container_statuses.as_ref()?.first()
    }

    /// Since when it is ready, or is not.
    fn ready_since(&self, pod: &str) -> Option<Timestamp> {
        let conditions = self.statuses.get(pod)?.conditions.as_ref()?;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    }

    fn reasons(&self) -> Vec<&str> {
        self.events.iter().filter_map(|event| event.reason.as_deref()).collect()
    }

    /// Reads a log to its end.
    async fn logs(&self, pod: &Pod, previous: bool, follow: bool) -> String {
        let mut frames = self.open_logs(pod, previous, follow).await;
        let mut text = Vec::new();
        let mut first = true;
        while let Some(frame) = tokio::time::timeout(PATIENCE, frames.0.recv()).await.expect("the log's end")
        {
            assert_eq!(frame.error, "");
            assert_eq!(std::mem::take(&mut first), frame.stream_id == "s1");
            text.extend_from_slice(&frame.data);
        }
        String::from_utf8(text).unwrap()
    }

    async fn open_logs(&self, pod: &Pod, previous: bool, follow: bool) -> Opened<StreamFrame, StreamFrame> {
        let request = LogsRequest {
            namespace: "default".to_owned(),
            pod: pod.metadata.name.clone().unwrap(),
            uid: pod.metadata.uid.clone().unwrap(),
            container: "main".to_owned(),
            previous,
            follow,
            ..LogsRequest::default()
        };
        let open =
            OpenStream { stream_id: "s1".to_owned(), request: Some(open_stream::Request::Logs(request)) };
        self.tell(Message::OpenStream(open)).await;
        let mut streams = self.streams.lock().await;
        tokio::time::timeout(PATIENCE, streams.recv()).await.expect("a stream").unwrap()
    }

    async fn delete(&mut self, pod: &Pod) {
        let mut pod = pod.clone();
        let name = pod.metadata.name.clone().unwrap();
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now()));
        pod.metadata.deletion_grace_period_seconds = Some(20);
        self.tell(Message::PodChanged(PodChanged {
            revision: 2,
            pod: serde_json::to_vec(&pod).unwrap().into(),
        }))
        .await;
        self.until("the pod is terminated", |server| server.terminated.contains(&name)).await;
        self.tell(Message::PodRemoved(removed(&pod))).await;
    }

    /// Stops the agent as SIGTERM would.
    async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.agent).await.expect("the agent stops").unwrap().unwrap();
    }
}

fn removed(pod: &Pod) -> PodRemoved {
    PodRemoved {
        revision: 3,
        namespace: "default".to_owned(),
        name: pod.metadata.name.clone().unwrap(),
        uid: pod.metadata.uid.clone().unwrap(),
    }
}

fn pod(name: &str, policy: &str, args: &[&str]) -> Pod {
    let container = serde_json::json!({"name": "main", "image": "clawbernetes.io/toolbox", "args": args});
    with_container(name, policy, container)
}

fn with_container(name: &str, policy: &str, container: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"restartPolicy": policy, "containers": [container], "nodeName": "here"},
    }))
    .unwrap()
}

/// Waits for the worker to drop the last records, then checks that the machine is as before.
async fn assert_clean(machine: &Machine) {
    let pods = machine.root.path().join("pods");
    assert_eq!(std::fs::read_dir(pods).unwrap().count(), 0, "records are left");
    machine.nothing_is_left().await;
}

async fn records_gone(machine: &Machine) {
    let pods = machine.root.path().join("pods");
    common::eventually("the records are gone", || async { std::fs::read_dir(&pods).unwrap().count() == 0 })
        .await;
}

#[tokio::test]
async fn a_pod_becomes_ready_serves_and_goes_without_a_trace() {
    if !can_run_containers("a_pod_becomes_ready_serves_and_goes_without_a_trace") {
        return;
    }
    let machine = Machine::new();
    let mut server = Server::start(&machine).await;
    let container = serde_json::json!({"name": "main", "image": "clawbernetes.io/toolbox", "args": ["serve"],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}});
    let web = with_container("web", "Always", container);
    server.desire(&[&web]).await;
    server.until("the pod is ready", |server| server.is_ready("web")).await;
    let status = &server.statuses["web"];
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.pod_ip.is_some() && status.host_ip.as_deref() == Some("127.0.0.1"));
    server.until("heartbeats come", |server| server.heartbeats > 2).await;
    let reasons = ["Pulled", "Created", "Started"];
    server
        .until("events say so", |server| reasons.iter().all(|reason| server.reasons().contains(reason)))
        .await;
    server.delete(&web).await;
    server.until("an event says that it was ended", |server| server.reasons().contains(&"Killing")).await;
    records_gone(&machine).await;
    server.stop().await;
    assert_clean(&machine).await;
}

#[tokio::test]
async fn a_pod_that_cannot_be_recorded_is_not_started_until_it_can() {
    if !can_run_containers("a_pod_that_cannot_be_recorded_is_not_started_until_it_can") {
        return;
    }
    let machine = Machine::new();
    let mut server = Server::start(&machine).await;
    let web = pod("web", "Always", &["serve"]);
    let in_the_way = machine.root.path().join("pods/uid-web");
    std::fs::write(&in_the_way, "").unwrap();
    server.desire(&[&web]).await;
    let says_why = |event: &Event| event.message.as_deref().is_some_and(|m| m.contains("cannot be recorded"));
    server.until("an event says why", |server| server.events.iter().any(says_why)).await;
    assert_eq!(machine.leftovers(), Default::default(), "an agent that died now would find nothing of it");
    std::fs::remove_file(&in_the_way).unwrap();
    server.until("the pod is ready", |server| server.is_ready("web")).await;
    server.delete(&web).await;
    records_gone(&machine).await;
    server.stop().await;
    assert_clean(&machine).await;
}

#[tokio::test]
async fn three_servers_on_one_port_live_side_by_side() {
    if !can_run_containers("three_servers_on_one_port_live_side_by_side") {
        return;
    }
    let machine = Machine::new();
    let mut server = Server::start(&machine).await;
    let pods: Vec<Pod> = ["a", "b", "c"].into_iter().map(|name| pod(name, "Always", &["serve"])).collect();
    server.desire(&pods.iter().collect::<Vec<_>>()).await;
    server.until("all are ready", |server| ["a", "b", "c"].iter().all(|name| server.is_ready(name))).await;
    let addresses: std::collections::BTreeSet<_> =
        server.statuses.values().filter_map(|status| status.pod_ip.clone()).collect();
    assert_eq!(addresses.len(), 3);
    // Not wanted any more: gone at once, without further words.
    server.desire(&[]).await;
    records_gone(&machine).await;
    server.stop().await;
    assert_clean(&machine).await;
}

#[tokio::test]
async fn a_container_that_crashes_is_restarted_later_and_later() {
    if !can_run_containers("a_container_that_crashes_is_restarted_later_and_later") {
        return;
    }
    let machine = Machine::new();
    let mut server = Server::start(&machine).await;
    let crash = pod("crash", "Always", &["crash", "--code", "4"]);
    server.desire(&[&crash]).await;
    server
        .until("it waits in a crash loop", |server| {
            let waiting = server.container("crash").and_then(|status| status.state.as_ref()?.waiting.clone());
            server.restarts("crash") >= 2
                && waiting.and_then(|w| w.reason).as_deref() == Some("CrashLoopBackOff")
        })
        .await;
    let last = server.container("crash").unwrap().last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (4, Some("Error")));
    server.until("an event says so", |server| server.reasons().contains(&"BackOff")).await;
    let previous = server.logs(&crash, true, false).await;
    assert_eq!(previous, "crashing with code 4 in 0ns\ncrash: exit 4\n");
    server.delete(&crash).await;
    records_gone(&machine).await;
    server.stop().await;
    assert_clean(&machine).await;
}

/// Ends a pod's container past its agent. A program that has only begun does not know the signal yet.
async fn end_behind_the_agents_back(machine: &Machine, pod: &str) {
    let bundle = machine.root.path().join(format!("pods/uid-{pod}/containers/main/0"));
    let shim: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bundle.join("shim.json")).unwrap()).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(shim["init_pid"].as_i64().unwrap()).unwrap());
    common::eventually("it ends", || async {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        bundle.join("exit.json").exists()
    })
    .await;
}

/// Asks a server in a pod; whether it answered.
async fn get(server: &Server, pod: &str, path: &str) -> bool {
    let address = format!("{}:8080", server.statuses[pod].pod_ip.clone().unwrap());
    let Ok(mut stream) = TcpStream::connect(&address).await else { return false };
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// Makes a server in a pod say that it is not well.
async fn make_unwell(server: &Server, pod: &str) {
    let path = "/control?healthy=false";
    common::eventually("it is told to be unwell", || get(server, pod, path)).await;
}

/// It says what it was asked, so that it logs as much as is asked of it: no follower falls behind by more than there is.
#[tokio::test]
async fn a_log_that_is_followed_over_many_rotations_comes_whole_and_once() {
    const LINES: usize = 4_500;
    const LINES_AHEAD: usize = 500;
    if !can_run_containers("a_log_that_is_followed_over_many_rotations_comes_whole_and_once") {
        return;
    }
    let machine = Machine::new();
    let mut server = Server::start(&machine).await;
    let web = pod("web", "Always", &["serve"]);
    server.desire(&[&web]).await;
    server.until("the pod is ready", |server| server.is_ready("web")).await;
    common::eventually("it answers", || get(&server, "web", "/first")).await;
    let (mut frames, _answers) = server.open_logs(&web, false, true).await;
    // Of 8 KB each: 36 MB, in files of 10 MiB.
    let padding = "x".repeat(8_000);
    let (mut text, mut next) = (String::new(), None);
    for asked in 0..LINES + LINES_AHEAD {
        if asked < LINES {
            assert!(get(&server, "web", &format!("/{asked}-{padding}")).await);
        }
        while next.unwrap_or(0) + LINES_AHEAD <= asked {
            let frame =
                tokio::time::timeout(PATIENCE, frames.recv()).await.expect("more of the log").unwrap();
            text.push_str(std::str::from_utf8(&frame.data).unwrap());
            while let Some((line, rest)) = text.split_once('\n') {
                match next {
                    Some(number) => assert_eq!(line, format!("GET /{number}-{padding} 200")),
                    None => assert!(!line.contains(&padding), "the first line is missing"),
                }
                next = next.map(|number| number + 1).or_else(|| line.contains("/first ").then_some(0));
                text = rest.to_owned();
            }
        }
    }
    assert_eq!(next, Some(LINES));
    server.delete(&web).await;
    records_gone(&machine).await;
    server.stop().await;
    assert_clean(&machine).await;
}

#[tokio::test]
async fn setting_the_clock_puts_off_no_probe_no_restart_and_no_kill() {
    if !can_run_containers("setting_the_clock_puts_off_no_probe_no_restart_and_no_kill") {
        return;
    }
    let machine = Machine::new();
    let ahead_s = Arc::new(AtomicI64::new(0));
    let seen = Arc::clone(&ahead_s);
    let clock =
        Clock::new(move || Timestamp::now() + SignedDuration::from_secs(seen.load(Ordering::Relaxed)));
    let mut server = Server::start_by(&machine, clock).await;
    let container = serde_json::json!({"name": "main", "image": "clawbernetes.io/toolbox", "args": ["serve"],
        // Nobody ends of that signal, so it takes a kill once the grace is over.
        "lifecycle": {"stopSignal": "SIGWINCH"},
        // However long it takes until it serves.
        "startupProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1_000},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1,
            "timeoutSeconds": 30, "terminationGracePeriodSeconds": 1}});
    let web = with_container("web", "Always", container);
    server.desire(&[&web]).await;
    server.until("the pod is ready", |server| server.is_ready("web")).await;
    for (restarts, set_to) in [(1, -3_600), (2, 3_600), (3, 0)] {
        ahead_s.store(set_to, Ordering::Relaxed);
        make_unwell(&server, "web").await;
        server
            .until("it is restarted", |server| server.is_ready("web") && server.restarts("web") >= restarts)
            .await;
        let told = server.ready_since("web").unwrap().duration_since(Timestamp::now()).as_secs();
        assert!((told - set_to).abs() < 600, "people are told what the clock says: {told}, not {set_to}");
    }
    let mut gone = web.clone();
    gone.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
    gone.metadata.deletion_grace_period_seconds = Some(1);
    let killings = |server: &Server| server.reasons().iter().filter(|reason| **reason == "Killing").count();
    let before = killings(&server);
    server
        .tell(Message::PodChanged(PodChanged { revision: 2, pod: serde_json::to_vec(&gone).unwrap().into() }))
        .await;
    server.until("it is asked to end", |server| killings(server) > before).await;
    ahead_s.store(-3_600, Ordering::Relaxed);
    server.until("it is killed", |server| server.terminated.contains(&"web".to_owned())).await;
    server.tell(Message::PodRemoved(removed(&web))).await;
    records_gone(&machine).await;
    server.stop().await;
    assert_clean(&machine).await;
}

#[tokio::test]
async fn an_agent_that_comes_back_restarts_nothing_and_loses_no_line() {
    if !can_run_containers("an_agent_that_comes_back_restarts_nothing_and_loses_no_line") {
        return;
    }
    let machine = Machine::new();
    let mut server = Server::start(&machine).await;
    let long = pod("long", "Never", &["lines", "--count", "1000000", "--interval-ms", "20"]);
    let short = pod("short", "Never", &["sleep", "1000"]);
    let orphan = pod("orphan", "Always", &["sleep", "1000"]);
    server.desire(&[&long, &short, &orphan]).await;
    server
        .until("all run", |server| ["long", "short", "orphan"].iter().all(|name| server.is_ready(name)))
        .await;
    let id = server.container("long").unwrap().container_id.clone();
    let ip = server.statuses["long"].pod_ip.clone();
    // As kill -9: nothing is finished, nobody is told.
    server.agent.abort();
    let _ = (&mut server.agent).await;
    end_behind_the_agents_back(&machine, "short").await;

    let mut server = Server::start(&machine).await;
    server.until("it reports what it found", |server| server.statuses.len() == 3).await;
    server.desire(&[&long, &short]).await;
    let phase = |server: &Server, pod: &str| server.statuses.get(pod).and_then(|status| status.phase.clone());
    let succeeded =
        |pod: &'static str| move |server: &Server| phase(server, pod).as_deref() == Some("Succeeded");
    server.until("the exit was not lost", succeeded("short")).await;
    assert_eq!(server.container("short").unwrap().state.clone().unwrap().terminated.unwrap().exit_code, 0);
    let log = machine.root.path().join("pods/uid-long/containers/main/0/log");
    let lines = || std::fs::read_to_string(&log).unwrap().lines().count();
    let before = lines();
    common::eventually("the long one goes on", || async { lines() > before }).await;
    end_behind_the_agents_back(&machine, "long").await;
    server.until("the long one ends", succeeded("long")).await;
    assert_eq!(server.restarts("long"), 0);
    assert_eq!(
        (server.container("long").unwrap().container_id.clone(), server.statuses["long"].pod_ip.clone()),
        (id, ip)
    );
    let said = server.logs(&long, false, true).await;
    let said = said.strip_suffix("received SIGTERM, stopping\n").expect("its last word");
    assert!(said.lines().count() > before);
    for (number, line) in (1..).zip(said.lines()) {
        assert_eq!(line, format!("line {number}"), "every line is there, once and whole");
    }
    server.delete(&long).await;
    server.delete(&short).await;
    records_gone(&machine).await;
    server.stop().await;
    assert_clean(&machine).await;
}

#[tokio::test]
async fn a_lost_session_is_opened_again_and_reports_are_repeated() {
    if !can_run_containers("a_lost_session_is_opened_again_and_reports_are_repeated") {
        return;
    }
    let machine = Machine::new();
    let mut server = Server::start(&machine).await;
    let web = pod("web", "Always", &["serve"]);
    server.desire(&[&web]).await;
    // The session is cut before anything is acknowledged.
    let (_, gone) = mpsc::channel(1);
    server.from_agent = gone;
    let (from_agent, to_agent) =
        tokio::time::timeout(PATIENCE, server.sessions.recv()).await.expect("a new session").unwrap();
    (server.from_agent, server.to_agent) = (from_agent, to_agent);
    server.welcome().await;
    server.desire(&[&web]).await;
    server.until("the pod is ready all the same", |server| server.is_ready("web")).await;
    assert_eq!(server.restarts("web"), 0);
    server.delete(&web).await;
    records_gone(&machine).await;
    server.stop().await;
    assert_clean(&machine).await;
}

#[tokio::test]
async fn a_static_pod_does_not_wait_for_a_server_to_tell_of_services() {
    if !can_run_containers("a_static_pod_does_not_wait_for_a_server_to_tell_of_services") {
        return;
    }
    let (machine, folder) = (Machine::new(), tempfile::tempdir().unwrap());
    let file = folder.path().join("alone.json");
    let mut alone = pod("alone", "Always", &["sleep", "3600"]);
    alone.spec.as_mut().unwrap().termination_grace_period_seconds = Some(1);
    alone.metadata.uid = None;
    alone.spec.as_mut().unwrap().node_name = None;
    let whole = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": alone.metadata, "spec": alone.spec});
    std::fs::write(&file, whole.to_string()).unwrap();
    let config = AgentConfig {
        static_pods: Some(folder.path().to_owned()),
        services_wait: 100 * PATIENCE,
        ..AgentConfig::new("here")
    };
    // Nobody holds the other ends.
    let link = Arc::new(Link { sessions: mpsc::channel(1).0, streams: mpsc::channel(1).0 });
    let cancel = CancellationToken::new();
    let runtime = machine.open().await;
    let agent = tokio::spawn(Agent::run(config, link, unreachable_client(), runtime, cancel.clone()));
    let shims = || common::shims_of(machine.root.path());
    common::eventually("it runs", || async { !shims().is_empty() }).await;
    std::fs::remove_file(&file).unwrap();
    records_gone(&machine).await;
    cancel.cancel();
    agent.await.unwrap().unwrap();
    assert_clean(&machine).await;
}
