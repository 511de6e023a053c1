//! GPUs through the whole product, replayed from the recording of a real machine: what the Node says, who gets which, and
//! what happens when one breaks. Containers get the GPU's name in their environment, which is what these stories look at.

mod amd;
mod checks;
mod claims;
mod instances;
mod mps;
mod real;
mod sharing;
mod taints;
mod vulkan;

use std::{collections::BTreeSet, fs, path::PathBuf};

use claw_e2e::{
    Cluster, Kubectl, Options, binary, cluster, host,
    http::Http,
    need::{self, Need},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// The two GPUs of these stories: the recorded one, and another like it.
const FIRST: &str = "GPU-00000000-0000-0000-0000-000000000001";
const SECOND: &str = "GPU-00000000-0000-0000-0000-000000000002";

/// What the variable is called that names a container's GPUs.
const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES=";

#[tokio::test(flavor = "multi_thread")]
async fn gpus_are_shown_given_kept_over_restarts_and_freed() {
    let story = "gpus_are_shown_given_kept_over_restarts_and_freed";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let (mut cluster, _, http) = with_a_worker(2).await;
    let kubectl = cluster.kubectl();

    let described = kubectl.ok(&["describe", "node", "worker"]);
    for line in
        ["nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3", "clawbernetes.io/gpu-replayed=true", "GPUReady"]
    {
        assert!(described.contains(line), "{line} is not in {described}");
    }
    assert_eq!(amounts(&http).await, ("2".to_owned(), "2".to_owned()));
    let slice = wait::until_async("the slice is published", wait::SOON, || slice(&http)).await;
    let devices = slice["spec"]["devices"].as_array().expect("a list");
    assert_eq!(devices.len(), 2);
    assert_eq!(devices[0]["attributes"]["productName"]["string"], "NVIDIA H100 80GB HBM3");
    assert_eq!(devices[0]["attributes"]["replayed"]["bool"], true);

    for name in ["one", "two"] {
        kubectl.ok_with(&["apply", "-f", "-"], &holder(name, ""));
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=600s"]);
    }
    let (one, two) = (gpus_of(&cluster, "one"), gpus_of(&cluster, "two"));
    assert_eq!(BTreeSet::from([&*one, &*two]), BTreeSet::from([FIRST, SECOND]), "each has one of its own");
    let before = kubectl.ok(&["logs", "one", "-c", "before"]);
    assert!(
        before.lines().any(|line| line == format!("{VISIBLE}{one}")),
        "its init container had the same: {before}"
    );
    kubectl.ok_with(&["apply", "-f", "-"], &holder("three", ""));
    wait::until("the third waits and says for what", wait::SOON, || {
        let path = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}";
        let why = kubectl.ok(&["get", "pod", "three", "-o", path]);
        wait::check(
            why.contains("1 Insufficient nvidia.com/gpu") && why.contains("Nearest miss: worker"),
            why,
        )
    });

    cluster.node("worker").kill();
    cluster.node("worker").start();
    is_killed_and_started_again(&cluster, &kubectl, "one");
    assert_eq!(
        (gpus_of(&cluster, "one"), gpus_of(&cluster, "two")),
        (one.clone(), two),
        "each keeps its own"
    );

    kubectl.ok(&["delete", "pod", "one", "--now"]);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/three", "--timeout=600s"]);
    assert_eq!(gpus_of(&cluster, "three"), one, "what was freed is given to who waits");
    let again = slice_now(&http).await;
    assert_eq!(again["spec"]["pool"]["generation"], 1, "the same devices are no news: {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_breaks_is_withheld_and_its_pod_goes_on() {
    if !need::all("a_gpu_that_breaks_is_withheld_and_its_pod_goes_on", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let (cluster, recording, http) = with_a_worker(2).await;
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], &holder("one", ""));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/one", "--timeout=600s"]);
    let pid = process_of(&cluster, "one");

    recording.change(|gpus| gpus[1]["ecc"]["uncorrected"] = 2.into());
    becomes(&http, ("2", "1"), "False").await;
    wait::until("an event says which and why", wait::SOON, || {
        let said = kubectl.ok(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        let wanted =
            format!("GPU {SECOND} (NVIDIA H100 80GB HBM3) is not offered to pods: uncorrected memory");
        wait::check(said.contains(&wanted), said)
    });
    wait::until_async("its device is tainted, and no other", wait::SOON, || async {
        let slice = slice_now(&http).await;
        let devices = slice["spec"]["devices"].as_array().cloned().unwrap_or_default();
        let taints: Vec<&Value> = devices.iter().map(|device| &device["taints"][0]["key"]).collect();
        wait::check(taints == [&Value::Null, &json!("gpu.clawbernetes.io/ecc")], slice)
    })
    .await;
    // Past the scheduler, which would let it wait.
    kubectl.ok_with(&["apply", "-f", "-"], &holder("forced", "nodeName: worker"));
    kubectl.ok(&["wait", "--for=jsonpath={.status.phase}=Failed", "pod/forced", "--timeout=600s"]);
    let said = kubectl.ok(&["get", "pod", "forced", "-o", "jsonpath={.status.reason}: {.status.message}"]);
    assert!(said.starts_with("UnexpectedAdmissionError: Pod was rejected: Allocate failed"), "{said}");
    assert!(said.contains("nvidia.com/gpu. Requested: 1, Available: 0"), "{said}");

    // Both gone: one breaks under its pod, the other vanishes.
    recording.change(|gpus| drop(gpus.drain(..)));
    becomes(&http, ("2", "0"), "False").await;
    assert_eq!(container(&cluster, "one").map(|(pid, _)| pid), Some(pid), "who runs goes on");
    recording.replace(&machine(2));
    becomes(&http, ("2", "2"), "True").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_are_taken_from_a_running_container_come_back() {
    let story = "devices_that_are_taken_from_a_running_container_come_back";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let (cluster, _recording, _) = with_a_worker(1).await;
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], &holder("one", ""));
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/one", "--timeout=600s"]);
    let (pid, _) = container(&cluster, "one").expect("it runs");
    let Some(group) = devices_of(pid) else {
        return need::skipped(story, "version 1 of control groups");
    };
    let list = || fs::read_to_string(group.join("devices.list")).expect("it is there");
    // The null device, as it is every container's; a replayed GPU has none.
    let null = "c 1:3 rwm";
    assert!(list().lines().any(|line| line == null), "{}", list());
    // What a reload of systemd's units does.
    fs::write(group.join("devices.deny"), "a").expect("root may");
    assert!(!list().contains(null));
    wait::until("it has its devices again", wait::LATER, || {
        wait::check(list().lines().any(|line| line == null), list())
    });
    wait::until("an event says so", wait::SOON, || {
        let said = kubectl.ok(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        wait::check(
            said.contains("Devices were taken from the running container") && said.contains(null),
            said,
        )
    });
    assert_eq!(container(&cluster, "one").map(|(pid, _)| pid), Some(pid), "and runs on");
}

/// The group of a process that says which devices it may use, where there are such.
fn devices_of(pid: i32) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let path =
        groups.lines().find_map(|line| line.split_once(":devices:/").map(|(_, path)| path.to_owned()))?;
    Some(PathBuf::from("/sys/fs/cgroup/devices").join(path))
}

/// A cluster with one machine, which replays so many GPUs.
async fn with_a_worker(gpus: u32) -> (Cluster, Recorded, Http) {
    let mut cluster = Cluster::start(Options::up(0));
    let recording = Recorded::new(&cluster, gpus);
    cluster.join_node("worker", &["--gpu-replay", &recording.path.to_string_lossy()]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    (cluster, recording, http)
}

/// A recording in the story's own folder, so that the story can break its GPUs.
struct Recorded {
    path: PathBuf,
}

impl Recorded {
    fn new(cluster: &Cluster, gpus: u32) -> Self {
        Self { path: cluster::write(&cluster.scratch().join("gpus.json"), &machine(gpus).to_string()) }
    }

    /// Changes the list of GPUs.
    fn change(&self, change: impl Fn(&mut Vec<Value>)) {
        let text = fs::read(&self.path).expect("it was written");
        let mut recording: Value = serde_json::from_slice(&text).expect("it parses");
        change(recording["gpus"].as_array_mut().expect("a list"));
        self.replace(&recording);
    }

    /// Readers see the old file or the new one.
    fn replace(&self, recording: &Value) {
        let next = self.path.with_extension("next");
        fs::write(&next, recording.to_string()).expect("the scratch folder is writable");
        fs::rename(next, &self.path).expect("the scratch folder is writable");
    }
}

/// The recorded machine has one GPU; this one has so many of the kind.
fn machine(gpus: u32) -> Value {
    let path = binary::workspace().join("nodeagent/tests/data/h100.json");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut recording: Value = serde_json::from_slice(&text).expect("the recording parses");
    let first = recording["gpus"][0].clone();
    assert_eq!(first["uuid"], FIRST);
    let all = recording["gpus"].as_array_mut().expect("a list");
    for at in 1..gpus {
        let mut next = first.clone();
        next["index"] = at.into();
        next["minor"] = at.into();
        next["uuid"] = format!("GPU-00000000-0000-0000-0000-{:012}", at + 1).into();
        next["pci"]["bus_id"] = format!("0000:{:02}:00.0", at + 1).into();
        all.push(next);
    }
    recording
}

/// A pod that holds a GPU, with an init container that says which one it had before.
fn holder(name: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  {more}
  terminationGracePeriodSeconds: 1
  initContainers:
    - name: before
      image: clawbernetes.io/toolbox:1
      args: ["env"]
      resources: {{limits: {{nvidia.com/gpu: 1}}}}
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: ["sleep", "3600", "{name}"]
      resources: {{limits: {{nvidia.com/gpu: 1}}}}
"#
    )
}

/// The process of a pod's main container.
fn container(cluster: &Cluster, pod: &str) -> Option<(i32, String)> {
    let all = host::processes(cluster.scratch());
    all.into_iter().find(|(_, line)| line.starts_with("/toolbox") && line.trim_end().ends_with(pod))
}

/// It is told as started a moment before it is what it is to be.
fn process_of(cluster: &Cluster, pod: &str) -> i32 {
    wait::until(pod, wait::SOON, || container(cluster, pod).ok_or("it does not run")).0
}

/// Kills the container of a pod, which outlived its agent, and waits for the next.
fn is_killed_and_started_again(cluster: &Cluster, kubectl: &Kubectl, pod: &str) {
    let pid = process_of(cluster, pod);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("root may");
    wait::until("its container is started again", wait::LATER, || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount} {.status.phase}";
        let seen = kubectl.ok(&["get", "pod", pod, "-o", path]);
        wait::check(seen == "1 Running", seen)
    });
}

/// What the environment of a running container names.
fn gpus_of(cluster: &Cluster, pod: &str) -> String {
    value_of(cluster, pod, VISIBLE)
}

/// What stands behind a variable and its equals sign in the environment of a running container.
fn value_of(cluster: &Cluster, pod: &str, variable: &str) -> String {
    let pid = process_of(cluster, pod);
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("root may read it");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let found = environment.split('\0').find_map(|line| line.strip_prefix(variable));
    found.unwrap_or_else(|| panic!("{pod} has no {variable}: {environment:?}")).to_owned()
}

/// Capacity and allocatable.
async fn amounts(http: &Http) -> (String, String) {
    let node = http.get("/api/v1/nodes/worker").await.expect("reads");
    let of = |field: &str| node["status"][field]["nvidia.com/gpu"].as_str().unwrap_or_default().to_owned();
    (of("capacity"), of("allocatable"))
}

async fn becomes(http: &Http, amounts: (&str, &str), ready: &str) {
    wait::until_async(&format!("the node has {amounts:?} GPUs"), wait::SOON, || async {
        let node = http.get("/api/v1/nodes/worker").await.map_err(|error| error.to_string())?;
        let status = &node["status"];
        let seen = ["capacity", "allocatable"].map(|field| &status[field]["nvidia.com/gpu"]);
        let condition =
            status["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "GPUReady");
        let holds = seen == [amounts.0, amounts.1] && condition.is_some_and(|one| one["status"] == ready);
        wait::check(holds, json!([seen, condition]))
    })
    .await;
}

async fn slice(http: &Http) -> Result<Value, String> {
    let path = "/apis/resource.k8s.io/v1/resourceslices/worker-gpu.clawbernetes.io";
    http.get(path).await.map_err(|error| error.to_string())
}

async fn slice_now(http: &Http) -> Value {
    slice(http).await.expect("it is published")
}
