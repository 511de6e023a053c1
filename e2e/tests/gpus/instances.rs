//! A GPU that is cut into instances (MIG), replayed: instances are counted by their profile, given one by one, and claimed.

use std::collections::BTreeSet;

use crate::{FIRST, Recorded, container, gpus_of, machine};
use claw_e2e::{
    Cluster, Options,
    http::Http,
    need::{self, Need},
    wait,
};
use serde_json::{Value, json};

const SMALL: &str = "nvidia.com/mig-1g.10gb";

/// The recorded GPU, cut into two small instances and a large one.
fn cut() -> Value {
    let mut recording = machine(1);
    let all = recording["gpus"].as_array_mut().expect("a list");
    all[0]["mig"] = json!({"enabled": true, "pending": true});
    let whole = all[0].clone();
    for (index, profile) in ["1g.10gb", "1g.10gb", "3g.40gb"].into_iter().enumerate() {
        let mut part = whole.clone();
        part["uuid"] = format!("MIG-00000000-0000-0000-0000-00000000000{index}").into();
        part["model"] = format!("NVIDIA H100 80GB HBM3 MIG {profile}").into();
        part["memory_bytes"] = (10_u64 << 30).into();
        part["mig"] = Value::Null;
        part["part"] = json!({
            "parent": FIRST, "index": index, "profile": profile, "gpu_instance": index + 1, "compute_instance": 0,
        });
        all.push(part);
    }
    recording
}

fn asks(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: ["sleep", "3600", "{name}"]
      resources: {{limits: {{{SMALL}: 1}}}}
"#
    )
}

const CLAIMS: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: large}
spec:
  devices:
    requests:
      - name: part
        exactly:
          deviceClassName: mig.nvidia.com
          selectors: [{cel: {expression: "device.attributes['gpu.clawbernetes.io'].profile == '3g.40gb'"}}]
---
apiVersion: v1
kind: Pod
metadata: {name: claims}
spec:
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: part, resourceClaimName: large}]
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: ["sleep", "3600", "claims"]
      resources: {claims: [{name: part}]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_a_gpu_are_counted_given_and_claimed_and_the_whole_is_not() {
    let story = "instances_of_a_gpu_are_counted_given_and_claimed_and_the_whole_is_not";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    let recording = Recorded::new(&cluster, 1);
    recording.replace(&cut());
    cluster.join_node("worker", &["--gpu-replay", &recording.path.to_string_lossy()]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let kubectl = cluster.kubectl();
    let status = http.get("/api/v1/nodes/worker").await.expect("reads")["status"].clone();
    assert_eq!(status["allocatable"][SMALL], "2");
    assert_eq!(status["allocatable"]["nvidia.com/mig-3g.40gb"], "1");
    assert_eq!(status["capacity"]["nvidia.com/gpu"], Value::Null, "it is not to be had whole");

    for name in ["one", "two"] {
        kubectl.ok_with(&["apply", "-f", "-"], &asks(name));
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=600s"]);
    }
    let parts = [gpus_of(&cluster, "one"), gpus_of(&cluster, "two")];
    assert_eq!(parts.iter().collect::<BTreeSet<_>>().len(), 2, "each has one of its own: {parts:?}");
    assert!(parts.iter().all(|uuid| uuid.ends_with('0') || uuid.ends_with('1')), "small ones: {parts:?}");
    kubectl.ok_with(&["apply", "-f", "-"], &asks("three"));
    wait::until("the third waits and says for what", wait::SOON, || {
        let path = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}";
        let why = kubectl.ok(&["get", "pod", "three", "-o", path]);
        wait::check(why.contains(&format!("1 Insufficient {SMALL}")), why)
    });
    kubectl.ok_with(&["apply", "-f", "-"], CLAIMS);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/claims", "--timeout=600s"]);
    assert!(gpus_of(&cluster, "claims").ends_with('2'));
    kubectl.ok(&["delete", "pod", "one", "--now"]);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/three", "--timeout=600s"]);
    assert_eq!(gpus_of(&cluster, "three"), parts[0]);

    // What is wrong with the GPU is wrong with its instances; who runs goes on.
    recording.change(|gpus| gpus[0]["xids"] = json!([79]));
    wait::until_async("no instance is offered", wait::SOON, || async {
        let node = http.get("/api/v1/nodes/worker").await.map_err(|error| error.to_string())?;
        wait::check(node["status"]["allocatable"][SMALL] == "0", node["status"]["conditions"].clone())
    })
    .await;
    assert!(container(&cluster, "three").is_some());
}
