//! Kernel jobs from manifest to figures, with real workers that are killed in the middle, and a server that is.

use std::{fs, time::Duration};

use claw_e2e::{
    Cluster, Kubectl, Options, host,
    kubectl::Background,
    need::{self, Need},
    wait::{self, check},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// A job that takes some ten seconds, and as long again when it is tried again, on a machine that does other things.
const JOB: Duration = Duration::from_secs(600);

/// How often a job calculates until it is long enough to be seen at work, which is for some seconds: that depends on the machine.
const RUNS: [u32; 7] = [16, 64, 256, 1_024, 4_096, 16_384, 65_536];

const EXAMPLE: &str = include_str!("../../examples/kernel-job.yaml");

/// A job of so many runs.
fn long(name: &str, runs: u32) -> String {
    format!(
        "
apiVersion: clawbernetes.io/v1
kind: KernelJob
metadata: {{name: {name}}}
spec:
  inputs:
  - {{name: a, dtype: f32, shape: [256, 256], random: {{seed: 1}}}}
  operations:
  - {{name: product, op: MatMul, inputs: [a, a]}}
  - {{name: flat, op: Reshape, inputs: [product], shape: [65536]}}
  - {{name: largest, op: ReduceMax, inputs: [flat]}}
  outputs: [{{value: largest}}]
  runs: {runs}
  backoffLimit: 1
"
    )
}

fn job(kubectl: &Kubectl, name: &str) -> Result<Value, String> {
    let seen = kubectl.run(&["get", "kerneljob", name, "-o", "json"]).success()?;
    serde_json::from_str(&seen).map_err(|error| error.to_string())
}

fn condition<'a>(job: &'a Value, kind: &str) -> Option<&'a Value> {
    job["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == kind && one["status"] == "True")
}

fn until_complete(kubectl: &Kubectl, name: &str) -> Value {
    wait::until(&format!("{name} is complete"), JOB, || {
        let job = job(kubectl, name)?;
        assert!(condition(&job, "Failed").is_none(), "{job}");
        check(condition(&job, "Complete").is_some(), &job["status"]).map(|()| job)
    })
}

/// Starts a job and waits until its worker has timed some runs; none where it was complete too soon for that.
fn seen_at_work(kubectl: &Kubectl, name: &str, runs: u32) -> Option<Value> {
    kubectl.ok_with(&["apply", "-f", "-"], &long(name, runs));
    let job = wait::until("the worker is at work, or done", JOB, || {
        let job = job(kubectl, name)?;
        let doing = job["status"]["progress"].as_str().unwrap_or_default();
        let is_over = condition(&job, "Complete").is_some();
        check(is_over || doing.starts_with("run "), &job["status"]).map(|()| job)
    });
    condition(&job, "Complete").is_none().then_some(job)
}

/// Pods and reasons of its tries.
fn attempts(job: &Value) -> Vec<(&str, &str)> {
    let all = job["status"]["attempts"].as_array().into_iter().flatten();
    all.map(|one| (one["pod"].as_str().unwrap_or_default(), one["reason"].as_str().unwrap_or_default()))
        .collect()
}

#[test]
fn the_example_comes_to_figures_and_results() {
    if !need::all("the_example_comes_to_figures_and_results", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], EXAMPLE);
    let job = until_complete(&kubectl, "attention");
    let figures = &job["status"]["figures"];
    assert_eq!(figures["runs"], 10);
    for figure in [
        "flops",
        "bytes",
        "memoryBytes",
        "secondsMin",
        "secondsMedian",
        "secondsMax",
        "gflopsPerSecond",
        "gigabytesPerSecond",
    ] {
        assert!(figures[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {figures}");
    }
    let outputs = job["status"]["outputs"].as_array().expect("there are outputs");
    assert_eq!((outputs.len(), &outputs[0]["shape"]), (2, &json!([1, 4, 128, 64])));
    let digest = outputs[0]["digest"].as_str().unwrap_or_default();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
    assert_eq!(outputs[1]["values"].as_array().map(Vec::len), Some(1), "{outputs:?}");
    assert_eq!(attempts(&job), [("attention-0", "")]);
    let table = kubectl.ok(&["get", "kerneljobs"]);
    assert!(table.contains("Complete") && table.contains("cpu"), "{table}");
    wait::until("events tell of it", wait::LATER, || {
        let events = kubectl.ok(&["get", "events"]);
        check(events.contains("Created pod: attention-0") && events.contains("Job completed"), events)
    });
    kubectl.ok(&["delete", "kerneljob", "attention"]);
    wait::until("its pod is gone", wait::LATER, || {
        let pods = kubectl.ok(&["get", "pods", "-o", "name"]);
        check(pods.is_empty(), pods)
    });
}

#[test]
fn inputs_come_from_config_maps_and_volumes_and_outputs_go_to_volumes() {
    let story = "inputs_come_from_config_maps_and_volumes_and_outputs_go_to_volumes";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    let folder = cluster.scratch().join("files");
    fs::create_dir(&folder).expect("the scratch folder is writable");
    fs::write(folder.join("y.txt"), "10 20 30 40").expect("the folder is writable");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "data"}, "data": {"x.txt": "1 2 3 4"}});
    let job = |name: &str, volume: &Value| {
        json!({"apiVersion": "clawbernetes.io/v1", "kind": "KernelJob", "metadata": {"name": name}, "spec": {
            "inputs": [
                {"name": "x", "dtype": "f32", "shape": [4], "configMap": {"name": "data", "key": "x.txt"}},
                {"name": "y", "dtype": "f32", "shape": [4], "volume": {"name": "in", "path": "y.txt"}},
            ],
            "operations": [{"name": "sum", "op": "Add", "inputs": ["x", "y"]}],
            "outputs": [{"value": "sum", "volume": {"name": "out", "path": "sum.txt"}}],
            "volumes": [{"name": "in", "hostPath": {"path": folder}}, volume],
        }})
    };
    let disk = json!({"path": folder.join("out"), "type": "DirectoryOrCreate"});
    let items = [
        map,
        job("scratch", &json!({"name": "out", "emptyDir": {}})),
        job("disk", &json!({"name": "out", "hostPath": disk})),
    ];
    kubectl.ok_with(
        &["apply", "-f", "-"],
        &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string(),
    );
    for name in ["scratch", "disk"] {
        let job = until_complete(&kubectl, name);
        assert_eq!(job["status"]["outputs"][0]["values"], json!(["11.0", "22.0", "33.0", "44.0"]), "{job}");
    }
    let written = fs::read_to_string(folder.join("out/sum.txt")).expect("the worker wrote it");
    let numbers: Vec<f64> = written.split_whitespace().map(|word| word.parse().expect("numbers")).collect();
    assert_eq!(numbers, [11.0, 22.0, 33.0, 44.0]);
}

#[test]
fn a_worker_that_is_killed_is_tried_again_once_and_the_job_is_complete_once() {
    let story = "a_worker_that_is_killed_is_tried_again_once_and_the_job_is_complete_once";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    let killed = RUNS.iter().find_map(|runs| killed_in_the_middle(&cluster, &kubectl, *runs));
    let job = killed.expect("some job is long enough");
    let name = job["metadata"]["name"].as_str().unwrap_or_default();
    let pods = [format!("{name}-0"), format!("{name}-1")];
    assert_eq!(attempts(&job), [(pods[0].as_str(), "Killed"), (pods[1].as_str(), "")]);
    let message = job["status"]["attempts"][0]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("the worker was killed by signal 9 (cpu"), "{message}");
    assert!(message.contains("; run "), "{message}");
    assert_eq!(job["status"]["figures"]["runs"], job["spec"]["runs"]);
    let label = format!("clawbernetes.io/kernel-job={name}");
    let listed = kubectl.ok(&["get", "pods", "-l", &label, "-o", "name"]);
    assert_eq!(listed, format!("pod/{}\npod/{}\n", pods[0], pods[1]));
}

/// A job that is complete although its worker was killed; none where that had ended before.
fn killed_in_the_middle(cluster: &Cluster, kubectl: &Kubectl, runs: u32) -> Option<Value> {
    let name = format!("long-{runs}");
    seen_at_work(kubectl, &name, runs)?;
    let all = host::processes(&cluster.data_dir());
    let mut workers = all.into_iter().filter(|(_, line)| line.contains("kernel-worker"));
    kill(Pid::from_raw(workers.next()?.0), Signal::SIGKILL).ok()?;
    let job = until_complete(kubectl, &name);
    (attempts(&job).len() > 1).then_some(job)
}

#[test]
fn a_server_that_is_killed_in_the_middle_changes_nothing() {
    if !need::all("a_server_that_is_killed_in_the_middle_changes_nothing", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    let seen = RUNS.iter().find_map(|runs| seen_at_work(&kubectl, &format!("long-{runs}"), *runs));
    let before = seen.expect("some job is long enough");
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    cluster.kill();
    cluster.restart();
    let job = until_complete(&kubectl, name);
    let pod = format!("{name}-0");
    assert_eq!(attempts(&job), [(pod.as_str(), "")]);
    assert_eq!(job["status"]["attempts"][0]["uid"], before["status"]["attempts"][0]["uid"]);
    let label = format!("clawbernetes.io/kernel-job={name}");
    assert_eq!(kubectl.ok(&["get", "pods", "-l", &label, "-o", "name"]), format!("pod/{pod}\n"));
}

#[test]
fn a_pod_that_is_deleted_while_the_controllers_are_away_is_not_calculated_again() {
    let story = "a_pod_that_is_deleted_while_the_controllers_are_away_is_not_calculated_again";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::server());
    cluster.join_node("worker", &[]);
    let found = RUNS.iter().find_map(|runs| deleted_while_they_are_away(&cluster, *runs));
    let (job, _controllers) = found.expect("some job is long enough");
    let pod = format!("{}-0", job["metadata"]["name"].as_str().unwrap_or_default());
    assert_eq!(attempts(&job), [(pod.as_str(), "")]);
    assert_eq!(job["status"]["figures"]["runs"], job["spec"]["runs"]);
    let kubectl = cluster.kubectl();
    wait::until("its pod is gone", wait::LATER, || {
        let found = kubectl.ok(&["get", "pod", &pod, "--ignore-not-found", "-o", "name"]);
        check(found.is_empty(), found)
    });
}

/// A job whose pod was complete and deleted while no controller ran, as the next ones find it, and these; none where it was complete
/// before they had gone.
fn deleted_while_they_are_away(cluster: &Cluster, runs: u32) -> Option<(Value, Background)> {
    let (kubectl, name) = (cluster.kubectl(), format!("long-{runs}"));
    let controllers = |log: &str| {
        let log = cluster.scratch().join(format!("{log}-{runs}.log"));
        Background::start(cluster.cli().arg("controllers"), &log)
    };
    let first = controllers("first");
    seen_at_work(&kubectl, &name, runs)?;
    drop(first);
    if condition(&job(&kubectl, &name).expect("it is there"), "Complete").is_some() {
        return None;
    }
    let pod = format!("{name}-0");
    let phase = "jsonpath={.status.phase}";
    wait::until("its worker has ended", JOB, || {
        let phase = kubectl.ok(&["get", "pod", &pod, "-o", phase]);
        check(phase == "Succeeded", phase)
    });
    kubectl.ok(&["delete", "pod", &pod, "--wait=false"]);
    assert_eq!(
        kubectl.ok(&["get", "pod", &pod, "-o", phase]),
        "Succeeded",
        "what it has to say was not heard"
    );
    let second = controllers("second");
    Some((until_complete(&kubectl, &name), second))
}

#[test]
fn nodes_that_only_pretend_say_so_and_the_job_fails() {
    if !need::all("nodes_that_only_pretend_say_so_and_the_job_fails", &[Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1).with(&["--hollow"]));
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], &long("long", 1));
    let job = wait::until("it failed", wait::LATER, || {
        let job = job(&kubectl, "long")?;
        check(condition(&job, "Failed").is_some(), &job["status"]).map(|()| job)
    });
    let failed = condition(&job, "Failed").expect("it is there");
    assert_eq!(failed["reason"], "BackoffLimitExceeded");
    let message = failed["message"].as_str().unwrap_or_default();
    assert!(message.contains("a hollow node calculates nothing"), "{message}");
    assert_eq!(attempts(&job), [("long-0", "NoReport"), ("long-1", "NoReport")]);
}
