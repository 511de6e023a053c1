//! Node agents and their sessions: what they are told, and what becomes of what they say.

use std::time::Duration;

use claw_client::request::{DeleteOptions, PatchKind};
use claw_schemas::{
    proto::{EventReport, NodeStatus, agent_message, server_message::Message},
    status::Reason,
};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use serde_json::json;

use crate::support::{Agent, TestServer, eventually, pod, readiness};

fn hello() -> serde_json::Value {
    json!({
        "metadata": { "labels": { "kubernetes.io/arch": "amd64" } },
        "status": {
            "capacity": { "cpu": "8", "memory": "16Gi", "pods": "110" },
            "addresses": [{ "type": "InternalIP", "address": "10.0.0.2" }],
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "claw://1", "kernelVersion": "6",
                "kubeProxyVersion": "", "kubeletVersion": "v1", "machineID": "", "operatingSystem": "linux",
                "osImage": "x", "systemUUID": "",
            },
        },
    })
}

#[tokio::test]
async fn hello_makes_a_ready_node_and_keeps_what_people_set() {
    let server = TestServer::start().await;
    let nodes = server.client().all::<Node>();
    let link = server.joined("gpu-02").await;
    let mut agent = Agent::dial(&*link, "gpu-02", "first", hello()).await.unwrap();
    let (welcome, pods) = agent.welcome().await.unwrap();
    assert_eq!(welcome.heartbeat_interval_ms, 5_000);
    assert!(pods.pods.is_empty());
    assert_eq!(readiness(&server.client(), "gpu-02").await.unwrap().0, "True");
    let patch = json!({ "metadata": { "labels": { "team": "vision" } }, "spec": { "unschedulable": true } });
    nodes.patch("gpu-02", None, PatchKind::Merge, &patch).await.unwrap();

    drop(agent);
    let mut changed = hello();
    changed["status"]["capacity"]["cpu"] = "16".into();
    let mut agent = Agent::dial(&*link, "gpu-02", "first", changed).await.unwrap();
    agent.welcome().await.unwrap();
    let node = nodes.get("gpu-02").await.unwrap();
    let labels = node.metadata.labels.unwrap();
    assert_eq!((labels["team"].as_str(), labels["kubernetes.io/arch"].as_str()), ("vision", "amd64"));
    assert_eq!(node.spec.unwrap().unschedulable, Some(true));
    assert_eq!(node.status.unwrap().capacity.unwrap()["cpu"].0, "16");
}

#[tokio::test]
async fn a_node_hears_of_its_own_pods_and_no_others() {
    let server = TestServer::start().await;
    let pods = server.client().namespaced::<Pod>("default");
    let early = pods.create(&pod("early", "gpu-02")).await.unwrap();
    let link = server.joined("gpu-02").await;
    let mut agent = Agent::dial(&*link, "gpu-02", "first", json!({})).await.unwrap();
    let (_, desired) = agent.welcome().await.unwrap();
    let names: Vec<Pod> = desired.pods.iter().map(|pod| serde_json::from_slice(pod).unwrap()).collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].metadata.uid, early.metadata.uid);

    pods.create(&pod("elsewhere", "gpu-03")).await.unwrap();
    let late = pods.create(&pod("late", "gpu-02")).await.unwrap();
    let Message::PodChanged(changed) = agent.next().await.unwrap() else { panic!("a change comes first") };
    assert_eq!(changed.revision.to_string(), late.metadata.resource_version.unwrap());
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    pods.delete("late", now).await.unwrap();
    let Message::PodRemoved(removed) = agent.next().await.unwrap() else { panic!("a removal comes next") };
    assert_eq!((removed.name.as_str(), Some(removed.uid)), ("late", late.metadata.uid));
}

#[tokio::test]
async fn a_status_is_stored_before_it_is_acknowledged() {
    let server = TestServer::start().await;
    let pods = server.client().namespaced::<Pod>("default");
    let (mut agent, _) = Agent::connect(&*server.joined("gpu-02").await, "gpu-02").await;
    let web = pods.create(&pod("web", "gpu-02")).await.unwrap();
    let running = json!({
        "phase": "Running", "podIP": "10.88.0.2",
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    });
    agent.report(&web, running.clone(), 1).await;
    let stored = pods.get("web").await.unwrap();
    let status = stored.status.unwrap();
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.88.0.2")));

    agent.report(&web, running, 2).await;
    let again = pods.get("web").await.unwrap();
    assert_eq!(again.metadata.resource_version, stored.metadata.resource_version, "a no-op is not written");

    agent.report(&web, json!({ "phase": "Succeeded" }), 3).await;
    agent.report(&web, json!({ "phase": "Running" }), 4).await;
    assert_eq!(pods.get("web").await.unwrap().status.unwrap().phase.as_deref(), Some("Succeeded"));
}

#[tokio::test]
async fn a_node_cannot_speak_for_pods_of_others() {
    let server = TestServer::start().await;
    let pods = server.client().namespaced::<Pod>("default");
    let (mut agent, _) = Agent::connect(&*server.joined("gpu-02").await, "gpu-02").await;
    let other = pods.create(&pod("other", "gpu-03")).await.unwrap();
    agent.report(&other, json!({ "phase": "Failed" }), 1).await;
    agent.terminated(&other, 2).await;
    let mut reborn = pods.create(&pod("mine", "gpu-02")).await.unwrap();
    reborn.metadata.uid = Some("of an earlier pod".to_owned());
    agent.report(&reborn, json!({ "phase": "Failed" }), 3).await;
    for name in ["other", "mine"] {
        let phase = pods.get(name).await.unwrap().status.unwrap().phase;
        assert_eq!(phase.as_deref(), Some("Pending"), "{name}");
    }
}

#[tokio::test]
async fn a_deleted_pod_goes_when_its_node_says_it_has_stopped() {
    let server = TestServer::start().await;
    let pods = server.client().namespaced::<Pod>("default");
    let (mut agent, _) = Agent::connect(&*server.joined("gpu-02").await, "gpu-02").await;
    let web = pods.create(&pod("web", "gpu-02")).await.unwrap();
    agent.report(&web, json!({ "phase": "Running" }), 1).await;
    agent.terminated(&web, 2).await;
    assert!(pods.get("web").await.is_ok(), "nobody deleted it");

    pods.delete("web", DeleteOptions::default()).await.unwrap();
    assert!(pods.get("web").await.unwrap().metadata.deletion_timestamp.is_some());
    agent.terminated(&web, 3).await;
    assert!(pods.find("web").await.unwrap().is_none());
    agent.terminated(&web, 4).await;
}

#[tokio::test]
async fn events_and_node_statuses_are_stored() {
    let server = TestServer::start().await;
    let (mut agent, _) = Agent::connect(&*server.joined("gpu-02").await, "gpu-02").await;
    let event = json!({
        "involvedObject": { "kind": "Pod", "namespace": "default", "name": "web" },
        "reason": "Started", "message": "Started container main",
    });
    agent.say(agent_message::Message::Event(EventReport { event: "garbage".into() })).await;
    agent.say(agent_message::Message::Event(EventReport { event: event.to_string().into() })).await;
    let status = json!({ "conditions": [{ "type": "Ready", "status": "False", "reason": "RuntimeDown" }] });
    let report = NodeStatus { status: status.to_string().into(), sequence: 7 };
    agent.say(agent_message::Message::NodeStatus(report)).await;
    agent.acknowledged(7).await;
    let client = server.client();
    assert_eq!(readiness(&client, "gpu-02").await.unwrap(), ("False".into(), "RuntimeDown".into()));
    let events = client.namespaced::<Event>("default").list(Default::default()).await.unwrap();
    assert_eq!(events.items.len(), 1);
    assert_eq!(events.items[0].message.as_deref(), Some("Started container main"));
}

#[tokio::test]
async fn a_silent_node_becomes_unknown_and_comes_back_when_it_speaks() {
    let server = TestServer::start_with(|config| config.node_grace = Duration::from_millis(400)).await;
    let client = server.client();
    let link = server.joined("gpu-02").await;
    let (agent, _) = Agent::connect(&*link, "gpu-02").await;
    let unknown = || async { readiness(&client, "gpu-02").await.filter(|(status, _)| status == "Unknown") };
    let back = || async { readiness(&client, "gpu-02").await.filter(|(status, _)| status == "True") };
    let (_, reason) = eventually("silence", unknown).await;
    assert_eq!(reason, "NodeStatusUnknown");

    // The same session speaks again, once: at the next tick the node is back.
    eventually("the return", || async {
        agent.heartbeat().await;
        back().await
    })
    .await;
    eventually("silence again", unknown).await;

    drop(agent);
    // Whoever says no more after that is silent again before a slow test has looked.
    eventually("the return of another session", || async {
        let mut agent = Agent::dial(&*link, "gpu-02", "another", json!({})).await.unwrap();
        agent.welcome().await.unwrap();
        back().await
    })
    .await;
}

#[tokio::test]
async fn a_node_of_an_earlier_run_that_does_not_return_becomes_unknown() {
    let first = TestServer::start_with(|config| config.store = claw_apiserver::StoreKind::Sled).await;
    let (agent, _) = Agent::connect(&*first.server.node_link("gpu-02"), "gpu-02").await;
    first.server.shutdown().await;
    drop(agent);
    let again = async |dir: tempfile::TempDir, node_grace| {
        let mut config = claw_apiserver::Config::new(dir.path(), "127.0.0.1:0".parse().unwrap());
        config.node_grace = node_grace;
        TestServer { server: claw_apiserver::Server::start(config).await.unwrap(), dir }
    };
    let second = again(first.dir, Duration::from_secs(3_600)).await;
    let ready = readiness(&second.client(), "gpu-02").await.unwrap().0;
    assert_eq!(ready, "True", "not before its grace period is over");
    second.server.shutdown().await;
    let third = again(second.dir, Duration::from_millis(400)).await;
    let client = third.client();
    eventually("silence", || async {
        readiness(&client, "gpu-02").await.filter(|(status, _)| status == "Unknown")
    })
    .await;
}

#[tokio::test]
async fn one_node_has_one_session() {
    let server = TestServer::start().await;
    let link = server.joined("gpu-02").await;
    let (mut first, _) = Agent::connect(&*link, "gpu-02").await;
    let mut rival = Agent::dial(&*link, "gpu-02", "rival", json!({})).await.unwrap();
    assert_eq!(rival.next().await.unwrap_err().reason, Reason::Conflict);

    let mut same = Agent::dial(&*link, "gpu-02", "first", json!({})).await.unwrap();
    same.welcome().await.unwrap();
    first.ended().await;
}

#[tokio::test]
async fn a_node_cannot_pass_for_another() {
    let server = TestServer::start().await;
    let mut liar = Agent::dial(&*server.joined("gpu-02").await, "gpu-03", "first", json!({})).await.unwrap();
    assert_eq!(liar.next().await.unwrap_err().reason, Reason::Forbidden);
    assert!(server.client().all::<Node>().find("gpu-03").await.unwrap().is_none());
}

#[tokio::test]
async fn a_session_begins_with_hello() {
    let server = TestServer::start().await;
    let link = server.joined("gpu-02").await;
    let mut twice = Agent::dial(&*link, "gpu-02", "first", json!({})).await.unwrap();
    twice.welcome().await.unwrap();
    twice.say(agent_message::Message::Hello(Default::default())).await;
    assert_eq!(twice.next().await.unwrap_err().reason, Reason::BadRequest);

    let mut garbled = Agent::dial(&*link, "gpu-02", "first", json!("no node")).await.unwrap();
    // A Node that is no object says nothing about the machine; the session goes on.
    garbled.welcome().await.unwrap();
}

#[tokio::test]
async fn deleting_a_node_that_is_connected_makes_it_register_again() {
    let server = TestServer::start().await;
    let nodes = server.client().all::<Node>();
    let link = server.server.node_link("gpu-02");
    let (mut agent, _) = Agent::connect(&*link, "gpu-02").await;
    nodes.delete("gpu-02", DeleteOptions::default()).await.unwrap();
    agent.ended().await;
    let (_agent, _) = Agent::connect(&*link, "gpu-02").await;
    nodes.get("gpu-02").await.unwrap();
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_cut_and_gets_everything_when_it_returns() {
    let server = TestServer::start().await;
    let pods = claw_client::Client::new(server.server.transport("test"), "test").namespaced::<Pod>("default");
    let link = server.server.node_link("gpu-02");
    let (mut agent, _) = Agent::connect(&*link, "gpu-02").await;
    pods.create(&pod("web", "gpu-02")).await.unwrap();
    let mut last = None;
    // More than wait for one agent at most.
    for at in 0..1_100 {
        let patch = json!({ "metadata": { "labels": { "at": at.to_string() } } });
        last = pods.patch("web", None, PatchKind::Merge, &patch).await.unwrap().metadata.resource_version;
    }
    agent.ended().await;
    let (_agent, desired) = Agent::connect(&*link, "gpu-02").await;
    let web: Pod = serde_json::from_slice(&desired.pods[0]).unwrap();
    assert_eq!(web.metadata.resource_version, last);
}

#[tokio::test]
async fn hundreds_of_nodes_each_get_exactly_their_pods() {
    let server = TestServer::start().await;
    let client = claw_client::Client::new(server.server.transport("test"), "test");
    let mut agents = Vec::new();
    for at in 0..300 {
        let name = format!("n{at}");
        let (agent, _) = Agent::connect(&*server.server.node_link(&name), &name).await;
        agents.push((name, agent));
    }
    for (name, _) in &agents {
        client.namespaced::<Pod>("default").create(&pod(&format!("on-{name}"), name)).await.unwrap();
    }
    for (name, agent) in &mut agents {
        let Message::PodChanged(changed) = agent.next().await.unwrap() else {
            panic!("a change comes first")
        };
        let pod: Pod = serde_json::from_slice(&changed.pod).unwrap();
        assert_eq!(pod.metadata.name.unwrap(), format!("on-{name}"));
    }
}
