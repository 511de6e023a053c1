//! Time slicing by a policy of the machine, replayed: a GPU is counted by its turns, and these are given like GPUs.

use std::collections::BTreeSet;

use crate::{FIRST, Recorded, SECOND, amounts, gpus_of, holder};
use claw_e2e::{
    Cluster, Options, cluster,
    http::Http,
    need::{self, Need},
    wait,
};

const POLICY: &str = "
version: v1
sharing:
  timeSlicing:
    failRequestsGreaterThanOne: true
    resources:
    - name: nvidia.com/gpu
      replicas: 2
";

#[tokio::test(flavor = "multi_thread")]
async fn containers_take_turns_on_a_gpu_where_its_machine_says_so() {
    let story = "containers_take_turns_on_a_gpu_where_its_machine_says_so";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    let recording = Recorded::new(&cluster, 2);
    let policy = cluster::write(&cluster.scratch().join("sharing.yaml"), POLICY);
    let (replay, policy) = (recording.path.to_string_lossy(), policy.to_string_lossy().into_owned());
    cluster.join_node("worker", &["--gpu-replay", &replay, "--gpu-sharing", &policy]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let kubectl = cluster.kubectl();
    assert_eq!(amounts(&http).await, ("4".to_owned(), "4".to_owned()));
    let described = kubectl.ok(&["describe", "node", "worker"]);
    for label in ["nvidia.com/gpu.replicas=2", "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3-SHARED"] {
        assert!(described.contains(label), "{label} is not in {described}");
    }
    let names = ["one", "two", "three", "four"];
    for name in names {
        kubectl.ok_with(&["apply", "-f", "-"], &holder(name, ""));
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=600s"]);
    }
    let given: Vec<String> = names.iter().map(|name| gpus_of(&cluster, name)).collect();
    assert_eq!(given[..2].iter().map(String::as_str).collect::<BTreeSet<_>>(), [FIRST, SECOND].into());
    assert_eq!(given[2..].iter().map(String::as_str).collect::<BTreeSet<_>>(), [FIRST, SECOND].into());
    kubectl.ok_with(&["apply", "-f", "-"], &holder("five", ""));
    wait::until("the fifth waits and says for what", wait::SOON, || {
        let path = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}";
        let why = kubectl.ok(&["get", "pod", "five", "-o", path]);
        wait::check(why.contains("1 Insufficient nvidia.com/gpu"), why)
    });
    kubectl.ok(&["delete", "pod", "one", "--now"]);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/five", "--timeout=600s"]);
    assert_eq!(gpus_of(&cluster, "five"), given[0], "the turn that was freed");
    let greedy = holder("greedy", "nodeName: worker").replace("nvidia.com/gpu: 1", "nvidia.com/gpu: 2");
    kubectl.ok_with(&["apply", "-f", "-"], &greedy);
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Failed", "pod/greedy", "--timeout=600s"]);
    let said = kubectl.ok(&["get", "pod", "greedy", "-o", "jsonpath={.status.reason}: {.status.message}"]);
    assert!(
        said.starts_with("UnexpectedAdmissionError") && said.contains("'nvidia.com/gpu: 2' too large"),
        "{said}"
    );
}
