//! GPUs that only Vulkan knows. Machines of tests have none, so software stands for one (Mesa's llvmpipe): it is found, published, given and
//! calculated on by the same steps, but that it has no file.

use std::{path::Path, process::Command, time::Duration};

use claw_e2e::{
    Cluster, Kubectl, Options, binary,
    http::Http,
    need::{self, Need},
    wait,
};
use serde_json::{Value, json};

use crate::{holder, slice, value_of};

/// A worker compiles a kernel or two, on a machine that does other things.
const JOB: Duration = Duration::from_secs(600);

/// What names a container's devices of Vulkan.
const VISIBLE: &str = "CLAWBERNETES_VULKAN_DEVICES=";

pub fn has_llvmpipe(story: &str) -> bool {
    let is_there = Path::new("/usr/share/vulkan/icd.d").is_dir();
    if !is_there {
        need::skipped(story, "a Vulkan device (run `make deps`, which installs mesa-vulkan-drivers)");
    }
    is_there
}

#[tokio::test(flavor = "multi_thread")]
async fn software_is_offered_as_a_gpu_where_it_shall_be_and_jobs_run_on_the_one_they_were_given() {
    let story = "software_is_offered_as_a_gpu_where_it_shall_be_and_jobs_run_on_the_one_they_were_given";
    if !need::all(story, &[Need::Root, Need::Kubectl]) || !has_llvmpipe(story) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    cluster.join_node("worker", &["--software-gpus"]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let kubectl = cluster.kubectl();
    let slice = wait::until_async("the slice is published", wait::LATER, || slice(&http)).await;
    let device = &slice["spec"]["devices"][0];
    let attribute = |name: &str| device["attributes"][name]["string"].as_str().unwrap_or_default().to_owned();
    assert_eq!((attribute("type"), attribute("adapterType")), ("vulkan".to_owned(), "cpu".to_owned()));
    let uuid = attribute("uuid");
    assert_eq!(device["name"], uuid.to_lowercase());
    assert!(!attribute("productName").is_empty() && !attribute("driverName").is_empty(), "{device}");
    let described = kubectl.ok(&["describe", "node", "worker"]);
    for line in ["clawbernetes.io/software-gpu=true", "clawbernetes.io/gpu.count=1", "GPUReady"] {
        assert!(described.contains(line), "{line} is not in {described}");
    }

    kubectl.ok_with(&["apply", "-f", "-"], &job("squared").to_string());
    let done = until_complete(&kubectl, "squared");
    assert_eq!(done["status"]["outputs"][0]["values"], json!(["1.0", "4.0", "9.0"]));
    let attempt = &done["status"]["attempts"][0];
    assert_eq!(
        (&attempt["node"], &attempt["device"]),
        (&json!("worker"), &json!(format!("vulkan:{uuid}"))),
        "{attempt}"
    );

    let counted = holder("counted", "").replace("nvidia.com/gpu: 1", "clawbernetes.io/gpu: 1");
    kubectl.ok_with(&["apply", "-f", "-"], &counted);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/counted", "--timeout=180s"]);
    assert_eq!(value_of(&cluster, "counted", VISIBLE), uuid);
    // Claimed or counted, it is one device.
    kubectl.ok_with(&["apply", "-f", "-"], &job("waiting").to_string());
    wait::until("the job waits for the device", wait::LATER, || {
        let job: Value = serde_json::from_str(&kubectl.ok(&["get", "kerneljob", "waiting", "-o", "json"]))
            .map_err(|error| error.to_string())?;
        let words = job["status"]["progress"].as_str().unwrap_or_default();
        wait::check(words.contains("cannot allocate all claims"), &job["status"])
    });
    kubectl.ok(&["delete", "pod", "counted", "--now"]);
    until_complete(&kubectl, "waiting");
}

#[test]
fn a_machine_without_gpus_lists_software_only_when_asked_to_and_checks_it_by_its_name() {
    let story = "a_machine_without_gpus_lists_software_only_when_asked_to_and_checks_it_by_its_name";
    if !has_llvmpipe(story) {
        return;
    }
    let run = |arguments: &[&str]| {
        let done = Command::new(binary::clawbernetes()).args(arguments).output().expect("it runs");
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let (_, plain) = run(&["gpu", "ls", "-o", "json"]);
    assert!(!plain.contains("\"kind\": \"cpu\""), "{plain}");
    let (is_well, listed) = run(&["gpu", "ls", "--software-gpus", "-o", "json"]);
    assert!(is_well);
    let listed: Value = serde_json::from_str(&listed).expect("it is JSON");
    let gpus = listed["gpus"].as_array().expect("a list");
    let software = gpus.iter().find(|gpu| gpu["vulkan"]["kind"] == "cpu").expect("llvmpipe is there");
    assert_eq!(software["withheld"], json!(null));
    let (is_well, recorded) = run(&["gpu", "record", "--software-gpus"]);
    assert!(is_well && recorded.contains(software["uuid"].as_str().expect("it has a name")), "{recorded}");
    let (is_well, table) = run(&["gpu", "ls", "--software-gpus"]);
    assert!(is_well && table.contains("Vulkan ") && table.contains("   ok   "), "{table}");
}

fn job(name: &str) -> Value {
    let is_software = "device.attributes['gpu.clawbernetes.io'].adapterType == 'cpu'";
    json!({"apiVersion": "clawbernetes.io/v1", "kind": "KernelJob", "metadata": {"name": name}, "spec": {
        "inputs": [{"name": "x", "dtype": "f32", "shape": [3], "values": [1, 2, 3]}],
        "operations": [{"name": "y", "op": "Mul", "inputs": ["x", "x"]}],
        "outputs": [{"value": "y"}],
        "device": {"class": "gpu.vulkan", "selectors": [is_software]},
    }})
}

fn until_complete(kubectl: &Kubectl, name: &str) -> Value {
    wait::until(&format!("{name} is complete"), JOB, || {
        let seen = kubectl.ok(&["get", "kerneljob", name, "-o", "json"]);
        let job: Value = serde_json::from_str(&seen).map_err(|error| error.to_string())?;
        wait::check(job["status"]["phase"] == "Complete", &job["status"]).map(|()| job)
    })
}
