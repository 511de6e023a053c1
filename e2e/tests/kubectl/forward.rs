//! Real kubectl, and our own command line, reach ports of pods, also on a machine that can only dial out.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
};

use claw_e2e::{
    Cluster, Kubectl, Options,
    http::Http,
    kubectl::Background,
    need::{self, Need},
    netns::DialOut,
    wait,
};

/// More than any buffer on the way holds.
const MANY_BYTES: usize = 10 << 20;

/// What each of many connections carries.
const SOME_BYTES: usize = 300_000;
const CONNECTIONS: usize = 24;

#[test]
fn kubectl_forwards_many_connections_at_once() {
    if !need::all("kubectl_forwards_many_connections_at_once", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    start(&cluster.kubectl());
    for kubectl in &cluster.reaching() {
        eprintln!("--- {}", kubectl.name);
        let (mut forward, port) = forwarded(&cluster, kubectl, "7000");
        assert_echo(port, MANY_BYTES);
        let all: Vec<_> =
            (0..CONNECTIONS).map(|_| thread::spawn(move || assert_echo(port, SOME_BYTES))).collect();
        all.into_iter().for_each(|one| one.join().expect("every connection is whole"));
        assert_eq!(forward.exit_code(), None, "{}", forward.output());

        // One that listens on the loopback address of IPv6 alone.
        let (_forward, port) = forwarded(&cluster, kubectl, "7006");
        assert_echo(port, SOME_BYTES);

        let (silent, port) = forwarded(&cluster, kubectl, "7999");
        let mut nothing = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _ = nothing.write_all(b"anybody?");
        wait::until("kubectl says that nobody listens", wait::LATER, || {
            let said = silent.output();
            wait::check(said.contains("Connection refused") && said.contains("7999"), said)
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_only_dial_out_is_reached_all_the_same() {
    let story = "a_node_that_can_only_dial_out_is_reached_all_the_same";
    if !need::all(story, &[Need::Root, Need::Kubectl, Need::Networks]) {
        return;
    }
    let network = DialOut::new();
    let mut options = Options::up(0);
    options.listen = format!("{}:0", network.host);
    let mut cluster = Cluster::start(options);
    cluster.join_node_from("hidden", network.prefix(), &[]);
    let http = Http::admin(&cluster);
    cluster.node("hidden").becomes(&http, "True").await;
    start(&cluster.kubectl());
    for kubectl in &cluster.reaching() {
        eprintln!("--- {}", kubectl.name);
        let mut terminal = kubectl.on_terminal(&["exec", "-it", "parrot", "-c", "four", "--", "sh"], 100, 40);
        terminal.shows("$ ");
        terminal.types("echo in''side; exit 3\r");
        terminal.shows("\r\ninside\r\n");
        assert_eq!(terminal.exit_code(), 3, "{}", terminal.screen());
        let (_forward, port) = forwarded(&cluster, kubectl, "7000");
        assert_echo(port, SOME_BYTES);
        let logs = kubectl.ok(&["logs", "parrot", "-c", "four"]);
        assert!(logs.contains("listening on 0.0.0.0 port 7000"), "{logs}");
        let file = format!("{}/carried-{}", cluster.scratch().display(), kubectl.name.replace(' ', "-"));
        std::fs::write(&file, "carried\n").unwrap();
        let inside = format!("parrot:/tmp/{}", kubectl.name.replace(' ', "-"));
        kubectl.ok(&["cp", "-c", "four", &file, &inside]);
        kubectl.ok(&["cp", "-c", "four", &inside, &format!("{file}.back")]);
        assert_eq!(std::fs::read_to_string(format!("{file}.back")).unwrap(), "carried\n");
    }
}

fn start(kubectl: &Kubectl) {
    kubectl.ok_with(&["apply", "-f", "-"], POD);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/parrot", "--timeout=600s"]);
    // Where it listens no probe comes.
    wait::until("the other one listens, too", wait::LATER, || {
        let logs = kubectl.ok(&["logs", "parrot", "-c", "six"]);
        wait::check(logs.contains("listening on ::1 port 7006"), logs)
    });
}

/// A running `kubectl port-forward`, and the port that it listens on.
fn forwarded(cluster: &Cluster, kubectl: &Kubectl, port: &str) -> (Background, u16) {
    let file = cluster.scratch().join(format!("{}-{port}", kubectl.name.replace(' ', "-")));
    let forward = kubectl.spawn(&["port-forward", "pod/parrot", &format!(":{port}")], &file);
    let local = wait::until("kubectl listens", wait::LATER, || {
        let said = forward.output();
        let line = said.lines().find_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:"));
        let local = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        local.ok_or(said)
    });
    (forward, local)
}

/// What goes in comes back, to the last byte and in order; and then comes the end.
fn assert_echo(port: u16, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("kubectl listens");
    let mut writer = connection.try_clone().expect("a socket can be doubled");
    let to_send = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&to_send).expect("everything is taken");
        writer.shutdown(Shutdown::Write).expect("it is open");
    });
    let mut back = Vec::new();
    connection.read_to_end(&mut back).expect("everything comes back");
    writing.join().expect("writing does not panic");
    assert!(back == sent, "{} of {} bytes came back, or other ones", back.len(), sent.len());
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: parrot}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: four
      image: clawbernetes.io/toolbox:1
      args: [parrot]
      readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}
    - {name: six, image: "clawbernetes.io/toolbox:1", args: [parrot, --host, "::1", --port, "7006"]}
"#;
