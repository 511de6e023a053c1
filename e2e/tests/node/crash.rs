//! Agents die, containers die, machines fall silent: pods heal, and nothing that they said or did is lost.

use claw_e2e::{
    Cluster, Kubectl, Options, host,
    http::Http,
    need::{self, Need},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// Seconds of silence after which a node counts as lost, in these stories.
const GRACE: &str = "4";

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_their_agent_and_are_adopted_again() {
    let story = "containers_outlive_their_agent_and_are_adopted_again";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0).with(&["--node-grace", GRACE]));
    cluster.join_node("worker", &[]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let kubectl = cluster.kubectl();
    kubectl.ok_with(
        &["apply", "-f", "-"],
        &pod("talker", r#"["lines", "--count", "100000", "--interval-ms", "20"]"#, "Always"),
    );
    kubectl.ok_with(&["apply", "-f", "-"], &pod("mortal", r#"["sleep", "4711"]"#, "Never"));
    for name in ["talker", "mortal"] {
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=600s"]);
    }
    let before = container(&http, "talker").await;
    let mut mortal = Some(process_of(&cluster, "4711"));
    process_of(&cluster, "lines");
    let mut said = lines(&kubectl, "talker");

    let refusal = cluster.node("worker").refused_again();
    assert!(refusal.contains("another node agent uses") && refusal.contains("--data-dir"), "{refusal}");
    for _ in 0..3 {
        cluster.node("worker").kill();
        assert!(is_running(&cluster, "lines"), "the container outlives its agent");
        if let Some(pid) = mortal.take() {
            // A program that has only begun does not know the signal yet.
            wait::until("it has ended while no agent runs", wait::SOON, || {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                wait::check(!is_running(&cluster, "4711"), "it runs")
            });
        }
        cluster.node("worker").becomes(&http, "Unknown").await;
        cluster.node("worker").start();
        cluster.node("worker").becomes(&http, "True").await;
        let now = wait::until("the log goes on", wait::SOON, || {
            let now = try_lines(&kubectl, "talker")?;
            wait::check(now.len() > said.len(), format!("{} lines", now.len())).map(|()| now)
        });
        assert_eq!(now[..said.len()], said[..], "what was said stays said");
        said = now;
    }
    for (number, line) in (1..).zip(&said) {
        assert_eq!(*line, format!("line {number}"), "every line is there, once and whole");
    }
    let after = container(&http, "talker").await;
    assert_eq!(after["containerID"], before["containerID"], "it is the same container");
    assert_eq!(after["restartCount"], 0);
    let code = wait::until_async("the exit code arrives", wait::SOON, || async {
        let seen = container(&http, "mortal").await;
        let code = seen["state"]["terminated"]["exitCode"].as_i64();
        code.ok_or(seen.to_string())
    })
    .await;
    assert_eq!(code, 0, "an exit that no agent saw is reported as what it was, and not as lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_is_started_again() {
    if !need::all("a_killed_container_is_started_again", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let (kubectl, http) = (cluster.kubectl(), Http::admin(&cluster));
    kubectl.ok_with(
        &["apply", "-f", "-"],
        &pod("victim", r#"["lines", "--count", "100000", "--interval-ms", "20"]"#, "Always"),
    );
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/victim", "--timeout=600s"]);
    let pid = process_of(&cluster, "lines");
    // On a busy machine it is killed before its first line, else.
    wait::until("it has said something", wait::SOON, || {
        wait::check(!try_lines(&kubectl, "victim")?.is_empty(), "no line")
    });
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("root may");
    let again = wait::until_async("it runs again", wait::LATER, || async {
        let seen = container(&http, "victim").await;
        let is_back = seen["restartCount"] == 1 && seen["state"]["running"].is_object();
        if is_back { Ok(seen) } else { Err(seen.to_string()) }
    })
    .await;
    assert_eq!(again["lastState"]["terminated"]["exitCode"], 137, "{again}");
    assert!(!kubectl.ok(&["logs", "victim", "--previous"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_move_away_from_a_silent_node() {
    if !need::all("pods_move_away_from_a_silent_node", &[Need::Kubectl]) {
        return;
    }
    // The one that stays must be heard in time, on a machine that has other things to do.
    let mut cluster = Cluster::start(Options::up(0).with(&["--node-grace", "10"]));
    for name in ["left", "right"] {
        cluster.join_node(name, &["--hollow"]);
    }
    let (kubectl, http) = (cluster.kubectl(), Http::admin(&cluster));
    for name in ["left", "right"] {
        cluster.node(name).becomes(&http, "True").await;
    }
    kubectl.ok_with(&["apply", "-f", "-"], MOVERS);
    kubectl.ok(&["rollout", "status", "deployment/movers", "--timeout=600s"]);

    cluster.node("left").signal(Signal::SIGSTOP);
    cluster.node("left").becomes(&http, "Unknown").await;
    wait::until_async("all four run on the other node", wait::LATER, || async {
        let (count, seen) = ready_on(&http, "right").await;
        wait::check(count == 4, seen)
    })
    .await;
    // The silent one comes back, and what it still ran is taken from it: four pods are four pods.
    cluster.node("left").signal(Signal::SIGCONT);
    cluster.node("left").becomes(&http, "True").await;
    wait::until_async("nothing is left over", wait::SOON, || async {
        let pods = http.get("/api/v1/namespaces/default/pods").await.map_err(|error| error.to_string())?;
        let names: Vec<_> =
            pods["items"].as_array().into_iter().flatten().map(|pod| &pod["metadata"]["name"]).collect();
        wait::check(names.len() == 4, format!("{names:?}"))
    })
    .await;
}

const MOVERS: &str = r"apiVersion: apps/v1
kind: Deployment
metadata: {name: movers}
spec:
  replicas: 4
  selector: {matchLabels: {app: movers}}
  template:
    metadata: {labels: {app: movers}}
    spec:
      # The default is to bear a silent node for five minutes.
      tolerations:
        - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
        - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      containers:
        - name: main
          image: clawbernetes.io/toolbox:1
";

async fn ready_on(http: &Http, node: &str) -> (usize, String) {
    let pods = http.get("/api/v1/namespaces/default/pods").await.expect("lists");
    let pods: Vec<Value> = pods["items"].as_array().cloned().unwrap_or_default();
    let is_ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    let there = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node && is_ready(pod)).count();
    let seen: Vec<_> = pods
        .iter()
        .map(|pod| format!("{} on {}", pod["metadata"]["name"], pod["spec"]["nodeName"]))
        .collect();
    (there, seen.join(", "))
}

fn pod(name: &str, args: &str, restart: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: {restart}\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n    - name: main\n      \
         image: clawbernetes.io/toolbox:1\n      args: {args}\n"
    )
}

async fn container(http: &Http, pod: &str) -> Value {
    let pod = http.get(&format!("/api/v1/namespaces/default/pods/{pod}")).await.expect("reads");
    pod["status"]["containerStatuses"][0].clone()
}

fn lines(kubectl: &Kubectl, pod: &str) -> Vec<String> {
    try_lines(kubectl, pod).unwrap_or_else(|text| panic!("{text}"))
}

fn try_lines(kubectl: &Kubectl, pod: &str) -> Result<Vec<String>, String> {
    Ok(kubectl.run(&["logs", pod]).success()?.lines().map(str::to_owned).collect())
}

fn is_running(cluster: &Cluster, word: &str) -> bool {
    !container_processes(cluster, word).is_empty()
}

/// It is told as started a moment before it is what it is to be.
fn process_of(cluster: &Cluster, word: &str) -> i32 {
    let found = || container_processes(cluster, word).pop().ok_or("there is none");
    wait::until("the container has a process", wait::SOON, found).0
}

/// Processes inside this cluster's containers whose command line has `word` in it.
fn container_processes(cluster: &Cluster, word: &str) -> Vec<(i32, String)> {
    let all = host::processes(cluster.scratch());
    all.into_iter().filter(|(_, line)| line.starts_with("/toolbox") && line.contains(word)).collect()
}
