//! GPUs of AMD, from a recording of what the kernel says of three, with device files that stand for theirs: a container gets
//! exactly those of its own, by number and by claim.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use claw_e2e::{
    Cluster, Kubectl, Options,
    binary::workspace,
    http::Http,
    need::{self, Need},
    wait,
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use crate::{devices_of, holder, process_of, slice_now};

/// Of each GPU: its number as a card and as a render node. The first two are linked.
const GPUS: [(u64, u64); 3] = [(1, 128), (2, 129), (3, 132)];

/// Of the third, where its blocks count their errors.
const ERRORS: &str = "sys/class/drm/card3/device/ras/umc_err_count";

const CLAIMS: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: linked}
spec:
  devices:
    requests:
      - name: gpus
        exactly:
          deviceClassName: gpu.amd.com
          count: 2
          selectors: [{cel: {expression: "device.attributes['gpu.clawbernetes.io'].deviceID == '740f'"}}]
    constraints: [{requests: [gpus], matchAttribute: gpu.clawbernetes.io/xgmiHive}]
---
apiVersion: v1
kind: Pod
metadata: {name: claims}
spec:
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: gpus, resourceClaimName: linked}]
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: ["sleep", "3600", "claims"]
      resources: {claims: [{name: gpus}]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_the_files_of_its_own_amd_gpus_and_of_no_other() {
    let story = "a_container_has_the_files_of_its_own_amd_gpus_and_of_no_other";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    let recording = recording(cluster.scratch());
    cluster.join_node("worker", &["--gpu-replay", &recording.to_string_lossy()]);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let kubectl = cluster.kubectl();
    let described = kubectl.ok(&["describe", "node", "worker"]);
    let product = "amd.com/gpu.product-name=AMD_INSTINCT_MI210_MCM_OAM_AC_MBA";
    for line in [product, "amd.com/gpu.vram=64G", "clawbernetes.io/gpu-replayed=true", "GPUReady"] {
        assert!(described.contains(line), "{line} is not in {described}");
    }
    assert!(!described.contains("nvidia.com/"), "{described}");
    offers(&http, "3").await;

    runs(&kubectl, "one", &asks("one", 1));
    runs(&kubectl, "two", &asks("two", 2));
    let one = has(&cluster, "one");
    assert_eq!(one.len(), 1, "{one:?}");
    let others: Vec<_> = GPUS.into_iter().filter(|gpu| !one.contains(gpu)).collect();
    assert_eq!(has(&cluster, "two"), others);
    kubectl.ok_with(&["apply", "-f", "-"], &asks("three", 1));
    wait::until("the third waits and says for what", wait::SOON, || {
        let path = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}";
        let why = kubectl.ok(&["get", "pod", "three", "-o", path]);
        wait::check(why.contains("1 Insufficient amd.com/gpu"), why)
    });
    kubectl.ok(&["delete", "pod", "one", "two", "three", "--now"]);
    runs(&kubectl, "claims", CLAIMS);
    assert_eq!(has(&cluster, "claims"), GPUS[..2].to_vec(), "those that are linked");
    runs(&kubectl, "four", &asks("four", 1));
    assert_eq!(has(&cluster, "four"), GPUS[2..].to_vec());

    let pid = process_of(&cluster, "four");
    fs::write(recording.join(ERRORS), "ue: 1\nce: 3\n").expect("it is there");
    offers(&http, "2").await;
    wait::until_async("its device is tainted, and no other", wait::SOON, || async {
        let slice = slice_now(&http).await;
        let devices = slice["spec"]["devices"].as_array().cloned().unwrap_or_default();
        let taints: Vec<&Value> = devices.iter().map(|device| &device["taints"][0]["key"]).collect();
        let expected = [&Value::Null, &Value::Null, &json!("gpu.clawbernetes.io/ecc")];
        wait::check(taints == expected && devices.iter().all(is_replayed), slice)
    })
    .await;
    assert_eq!(process_of(&cluster, "four"), pid, "who runs goes on");
}

fn is_replayed(device: &Value) -> bool {
    device["attributes"]["type"]["string"] == "amdgpu" && device["attributes"]["replayed"]["bool"] == true
}

/// A copy that the story may break, with files that have the numbers of such devices and nothing behind them.
fn recording(scratch: &Path) -> PathBuf {
    let copy = scratch.join("mi210");
    let recorded = workspace().join("nodeagent/tests/data/mi210");
    let copied = Command::new("cp").arg("-a").args([&recorded, &copy]).status().expect("cp is there");
    assert!(copied.success(), "{}", recorded.display());
    fs::create_dir_all(copy.join("dev/dri")).expect("the scratch folder is writable");
    let make = |name: String, major: u64, minor: u64| {
        let mode = Mode::from_bits_truncate(0o660);
        mknod(&copy.join("dev").join(name), SFlag::S_IFCHR, mode, makedev(major, minor)).expect("root may");
    };
    make("kfd".to_owned(), 240, 0);
    for (card, render) in GPUS {
        make(format!("dri/card{card}"), 226, card);
        make(format!("dri/renderD{render}"), 226, render);
    }
    copy
}

fn asks(name: &str, count: u32) -> String {
    holder(name, "").replace("nvidia.com/gpu: 1", &format!("amd.com/gpu: {count}"))
}

fn runs(kubectl: &Kubectl, name: &str, pod: &str) {
    kubectl.ok_with(&["apply", "-f", "-"], pod);
    kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=600s"]);
}

async fn offers(http: &Http, count: &str) {
    wait::until_async(&format!("the node offers {count}"), wait::SOON, || async {
        let node = http.get("/api/v1/nodes/worker").await.map_err(|error| error.to_string())?;
        let (has, offers) =
            ["capacity", "allocatable"].map(|field| &node["status"][field]["amd.com/gpu"]).into();
        wait::check(has == "3" && offers == count, node["status"]["conditions"].clone())
    })
    .await;
}

/// The GPUs whose files a container has: all of each, and the right to use them where the kernel tells of that.
fn has(cluster: &Cluster, pod: &str) -> Vec<(u64, u64)> {
    let pid = process_of(cluster, pod);
    let dev = PathBuf::from(format!("/proc/{pid}/root/dev"));
    let found = fs::read_dir(dev.join("dri")).expect("it has some").flatten();
    let found: BTreeSet<String> =
        found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let gpus: Vec<_> = GPUS.into_iter().filter(|(card, _)| found.contains(&format!("card{card}"))).collect();
    let files = gpus.iter().flat_map(|(card, render)| [format!("card{card}"), format!("renderD{render}")]);
    assert_eq!(found, files.collect(), "{pod}");
    assert!(dev.join("kfd").exists());
    if let Some(group) = devices_of(pid) {
        may_use(&group, &gpus);
    }
    gpus
}

/// The rules of a group allow these GPUs, and no other.
fn may_use(group: &Path, gpus: &[(u64, u64)]) {
    let rules = fs::read_to_string(group.join("devices.list")).expect("it is there");
    let is_gpu = |line: &&str| line.starts_with("c 226:") || line.starts_with("c 240:");
    let found: BTreeSet<String> = rules.lines().filter(is_gpu).map(str::to_owned).collect();
    let own =
        gpus.iter().flat_map(|(card, render)| [format!("c 226:{card} rw"), format!("c 226:{render} rw")]);
    assert_eq!(found, own.chain(["c 240:0 rw".to_owned()]).collect(), "{rules}");
}
