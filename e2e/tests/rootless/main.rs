//! Nodes of ordinary users, with real containers: pods, services and names, volumes, agents that die, and nothing left behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

mod alone;
mod groups;
mod held;
mod kernels;
mod pods;
mod way_out;

use std::{fs, path::PathBuf};

use claw_e2e::{
    Cluster, Kubectl, Options, host,
    need::{self, Need},
    user::User,
    wait,
};

const NODE: &str = "users";

/// A pod that answers over HTTP, and the service by which it is found, on each machine too. To be put behind other manifests.
const ANSWERS: &str = r#"
---
apiVersion: v1
kind: Service
metadata: {name: answers}
spec: {type: NodePort, selector: {app: answers}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: answers, labels: {app: answers}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [serve, --port, "8080"]
      readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
"#;

/// Whether a story of users can run here.
fn can_run(story: &str) -> bool {
    need::all(story, &[Need::Root, Need::Users, Need::Kubectl])
}

/// A server, and a node that an ordinary user has joined to it.
fn cluster(user: impl Fn(&std::path::Path) -> User) -> (Cluster, User) {
    let mut cluster = Cluster::start(Options::up(0));
    let user = user(cluster.scratch());
    cluster.join_node_from(NODE, user.prefix(), &[]);
    let kubectl = cluster.kubectl();
    wait::until("the node is there", wait::LATER, || kubectl.run(&["get", "node", NODE]).success());
    kubectl.ok(&["wait", "--for=condition=Ready", &format!("node/{NODE}"), "--timeout=600s"]);
    (cluster, user)
}

fn folder(cluster: &Cluster) -> PathBuf {
    cluster.scratch().join(NODE).join("node")
}

fn apply(kubectl: &Kubectl, manifest: &str, pods: &[&str]) {
    kubectl.ok_with(&["apply", "-f", "-"], manifest);
    for pod in pods {
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=600s"]);
    }
}

/// Processes inside containers whose command line has `word` in it.
fn inside(cluster: &Cluster, word: &str) -> Vec<i32> {
    let all = host::processes(cluster.scratch());
    let all = all.into_iter().filter(|(_, line)| line.starts_with("/toolbox") && line.contains(word));
    all.map(|(pid, _)| pid).collect()
}

/// The one process inside a container whose command line has `word` in it. It is told as started a moment before it is what it is to be.
fn one_inside(cluster: &Cluster, word: &str) -> i32 {
    wait::until(&format!("one process is {word}"), wait::SOON, || match inside(cluster, word)[..] {
        [only] => Ok(only),
        _ => Err(format!("{:?}", host::processes(cluster.scratch()))),
    })
}

/// The process of ours whose command line has `word` in it.
fn of_ours(cluster: &Cluster, word: &str) -> i32 {
    let all = host::processes(cluster.scratch());
    all.iter().find(|(_, line)| line.contains(word)).unwrap_or_else(|| panic!("{word}: {all:?}")).0
}

fn lines(kubectl: &Kubectl, pod: &str) -> Vec<String> {
    kubectl.ok(&["logs", pod]).lines().map(str::to_owned).collect()
}

/// Waits until all that is told of pods has these words in it.
fn until_told(kubectl: &Kubectl, words: &str) {
    wait::until(&format!("an event says {words:?}"), wait::LATER, || {
        let told = kubectl.ok(&["get", "events", "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"]);
        wait::check(told.contains(words), told)
    });
}

/// Takes all pods away, and what they had.
fn delete_all(cluster: &Cluster, kubectl: &Kubectl) {
    kubectl.ok(&["delete", "pod", "--all", "--timeout=600s"]);
    wait::until("nothing is left of the pods", wait::LATER, || {
        let records = fs::read_dir(folder(cluster).join("pods")).unwrap().count();
        let processes = inside(cluster, "");
        wait::check(records == 0 && processes.is_empty(), format!("{records} records, {processes:?}"))
    });
}
