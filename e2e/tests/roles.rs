//! The roles as processes of their own, and any of them dying.

use std::process::{Child, Command, Stdio};

use claw_e2e::{
    Cluster, Options,
    cluster::write,
    host,
    http::Http,
    need::{self, Need},
    wait,
};
use serde_json::Value;

const WEB: &str = r"apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: clawbernetes.io/toolbox:1
          args: [serve]
";

#[tokio::test(flavor = "multi_thread")]
async fn containers_live_through_the_death_of_the_whole_cluster_process() {
    let story = "containers_live_through_the_death_of_the_whole_cluster_process";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    let file = write(&cluster.scratch().join("web.yaml"), WEB);
    kubectl.ok(&["apply", "-f", &file.to_string_lossy()]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
    let before = containers(&Http::admin(&cluster)).await;
    assert_eq!(before.len(), 2);
    // They are told as started a moment before they are what they are to be.
    let processes = wait::until("both serve", wait::SOON, || {
        let found = serving(&cluster);
        if found.len() == 2 { Ok(found) } else { Err(format!("{found:?}")) }
    });

    cluster.kill();
    assert_eq!(serving(&cluster), processes, "containers do not need the cluster");
    cluster.restart();
    // It is the same cluster: the same containers, and it still does what it is told.
    kubectl.ok(&["scale", "deployment/web", "--replicas=3"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
    let after = containers(&Http::admin(&cluster)).await;
    assert_eq!(after.len(), 3);
    for container in &before {
        assert!(after.contains(container), "{container} was adopted, not replaced: {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_in_their_own_process_take_over_from_one_another() {
    let story = "controllers_in_their_own_process_take_over_from_one_another";
    if !need::all(story, &[Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::server());
    cluster.join_node("pretender", &["--hollow"]);
    let mut first = Controllers::start(&cluster, "first");
    let kubectl = cluster.kubectl();
    let file = write(&cluster.scratch().join("web.yaml"), WEB);
    kubectl.ok(&["apply", "-f", &file.to_string_lossy()]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
    let http = Http::admin(&cluster);
    assert_eq!(leader(&http).await, "first");

    // The second waits, and acts only once the first is gone and its lease has run out.
    let _second = Controllers::start(&cluster, "second");
    first.kill();
    kubectl.ok(&["scale", "deployment/web", "--replicas=4"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=600s"]);
    assert_eq!(leader(&http).await, "second");
}

/// `clawbernetes controllers`, ended with the story.
struct Controllers(Child);

impl Controllers {
    fn start(cluster: &Cluster, identity: &str) -> Self {
        let mut command: Command = cluster.cli();
        command.args(["controllers", "--identity", identity]).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().expect("clawbernetes starts"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("a child can be killed");
        self.0.wait().expect("a child can be waited for");
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn leader(http: &Http) -> String {
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/clawbernetes-controllers";
    let lease = http.get(path).await.expect("a leader holds the lease");
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// Ids of all containers that run.
async fn containers(http: &Http) -> Vec<String> {
    wait::until_async("all containers run", wait::SOON, || async {
        let pods = http.get("/api/v1/namespaces/default/pods").await.map_err(|error| error.to_string())?;
        let pods: Vec<Value> = pods["items"].as_array().cloned().unwrap_or_default();
        let ids: Vec<_> = pods
            .iter()
            .map(|pod| &pod["status"]["containerStatuses"][0])
            .filter(|container| container["state"]["running"].is_object())
            .filter_map(|container| container["containerID"].as_str().map(str::to_owned))
            .collect();
        if ids.len() == pods.len() { Ok(ids) } else { Err(format!("{ids:?} of {} pods", pods.len())) }
    })
    .await
}

fn serving(cluster: &Cluster) -> Vec<i32> {
    let all = host::processes(cluster.scratch());
    let mut pids: Vec<_> =
        all.into_iter().filter(|(_, line)| line.starts_with("/toolbox serve")).map(|(pid, _)| pid).collect();
    pids.sort_unstable();
    pids
}
