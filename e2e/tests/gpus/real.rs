//! NVIDIA's own driver, where the machine has it: what it says of a GPU, who is given it, and what is calculated on it. `make gpu` runs this
//! beside all else that wants a real GPU.

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use claw_e2e::{
    Cluster, Options, binary,
    http::Http,
    need::{self, Need},
    wait::{self, check},
};
use http::Method;
use serde_json::{Value, json};

use crate::{VISIBLE, container, slice, value_of};

/// A worker compiles its kernels first.
const JOB: Duration = Duration::from_secs(300);

/// What of an inventory `nvidia-smi` is asked for.
const ASKED: &str = "--query-gpu=uuid,name,memory.total,driver_version,pci.bus_id";

/// The fields of a line of `nvidia-smi` each; none where there is no such program, or nothing that it knows.
fn told_by_the_driver() -> Vec<Vec<String>> {
    let told = Command::new("nvidia-smi").args([ASKED, "--format=csv,noheader,nounits"]).output();
    let Some(told) = told.ok().filter(|told| told.status.success()) else { return Vec::new() };
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    text.lines().map(|line| line.split(", ").map(str::to_owned).collect()).collect()
}

/// The same of an entry of `gpu ls -o json`.
fn in_the_inventory(driver: &Value, gpu: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mebibytes = gpu["memory_bytes"].as_u64().unwrap_or_default() >> 20;
    // The driver writes eight digits of the domain, and capitals.
    let place = format!("0000{}", text(&gpu["pci"]["bus_id"]).to_uppercase());
    vec![text(&gpu["uuid"]), text(&gpu["model"]), mebibytes.to_string(), text(driver), place]
}

/// Files of GPUs, `nvidia0` and so on, in a folder of devices.
fn files_of_gpus(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("there is a folder of devices");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_numbered = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    names.filter(|name| name.strip_prefix("nvidia").is_some_and(is_numbered)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_gpu_is_what_its_driver_says_and_who_asks_for_it_has_it_alone() {
    let story = "a_real_gpu_is_what_its_driver_says_and_who_asks_for_it_has_it_alone";
    let told = told_by_the_driver();
    if told.is_empty() {
        return need::skipped(story, "a GPU of NVIDIA's and `nvidia-smi`");
    }
    if !need::all(story, &[Need::Root]) {
        return;
    }
    let listed = Command::new(binary::clawbernetes()).args(["gpu", "ls", "-o", "json"]).output();
    let listed: Value = serde_json::from_slice(&listed.expect("it runs").stdout).expect("it is JSON");
    let gpus = listed["gpus"].as_array().expect("a list");
    let ours: Vec<_> = gpus.iter().map(|gpu| in_the_inventory(&listed["driver_version"], gpu)).collect();
    assert_eq!(ours, told, "{ASKED}");

    let mut cluster = Cluster::start(Options::up(0));
    cluster.join_node("worker", &[]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let slice = wait::until_async("the slice is published", wait::LATER, || slice(&http)).await;
    let devices = slice["spec"]["devices"].as_array().expect("a list");
    let published: Vec<&Value> = devices.iter().map(|one| &one["attributes"]["uuid"]["string"]).collect();
    assert_eq!(published, told.iter().map(|gpu| gpu[0].as_str()).collect::<Vec<_>>());

    for (name, limits) in [("with", json!({"nvidia.com/gpu": 1})), ("without", json!({}))] {
        http.post("/api/v1/namespaces/default/pods", &sleeper(name, &limits)).await.expect("a pod");
    }
    let devices_of = |pod: &str| {
        let (pid, _) = wait::until(pod, wait::LATER, || container(&cluster, pod).ok_or("it does not run"));
        files_of_gpus(&format!("/proc/{pid}/root/dev"))
    };
    assert_eq!(devices_of("without"), BTreeSet::new());
    let held = devices_of("with");
    let uuid = value_of(&cluster, "with", VISIBLE);
    let gpu = gpus.iter().find(|gpu| gpu["uuid"] == *uuid).expect("it has one of these");
    assert_eq!(held, BTreeSet::from([format!("nvidia{}", gpu["minor"])]), "its own and no other");
    let path = "/api/v1/namespaces/default/pods/with";
    http.ask(Method::DELETE, path, &[], "").await.expect("answers").expect(200);

    let job = json!({"apiVersion": "clawbernetes.io/v1", "kind": "KernelJob", "metadata": {"name": "squared"}, "spec": {
        "inputs": [{"name": "x", "dtype": "bf16", "shape": [2048, 2048], "random": {"seed": 1}}],
        "operations": [{"name": "y", "op": "MatMul", "inputs": ["x", "x"]}],
        "outputs": [{"value": "y"}],
        "runs": 10,
        "device": {"class": "gpu.nvidia.com"},
    }});
    http.post("/apis/clawbernetes.io/v1/namespaces/default/kerneljobs", &job).await.expect("a job");
    let path = "/apis/clawbernetes.io/v1/namespaces/default/kerneljobs/squared";
    let done = wait::until_async("the job is complete", JOB, || async {
        let job = http.get(path).await.map_err(|error| error.to_string())?;
        check(job["status"]["phase"] == "Complete", &job["status"]).map(|()| job)
    })
    .await;
    assert_eq!(done["status"]["attempts"][0]["device"], "cuda:0", "{done}");
    let rate = done["status"]["figures"]["gflopsPerSecond"].as_f64();
    assert!(rate.is_some_and(|rate| rate > 100.0), "no GPU is so slow: {done}");
}

fn sleeper(name: &str, limits: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "main", "image": "clawbernetes.io/toolbox:1", "args": ["sleep", "3600", name], "resources": {"limits": limits},
        }],
    }})
}
