//! GPUs that containers share side by side (MPS), on a replayed machine, with scripts in place of NVIDIA's programs: who is given a part,
//! what it finds in its container, and what becomes of GPUs whose daemon ends.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Recorded, amounts, becomes, container, holder, process_of, value_of};
use claw_e2e::{
    Cluster, Options, cluster,
    http::Http,
    need::{self, Need},
    wait,
};

const POLICY: &str = "version: v1\nsharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}\n";

/// With `-d` a daemon begins: a file beside its pipe, and a name in the memory that it shares with its clients. Else it answers a line.
const CONTROL: &str = r#"#!/bin/sh
alive="$CUDA_MPS_PIPE_DIRECTORY/alive"
if [ "$1" = -d ]; then
    echo started >> "$(dirname "$0")/starts"
    echo "$CUDA_MPS_PIPE_DIRECTORY" > "$(dirname "$0")/pipe"
    : > /dev/shm/of-the-daemon
    : > "$alive"
    exit 0
fi
read -r line
[ -e "$alive" ] || exit 1
case "$line" in quit*) rm "$alive" ;; get*) echo 50.0 ;; esac
"#;

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_a_gpu_side_by_side_as_long_as_its_daemon_lives() {
    let story = "containers_share_a_gpu_side_by_side_as_long_as_its_daemon_lives";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let mut cluster = Cluster::start(Options::up(0));
    let recording = Recorded::new(&cluster, 1);
    let policy = cluster::write(&cluster.scratch().join("sharing.yaml"), POLICY);
    let programs = programs(cluster.scratch());
    let path = format!("PATH={}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let (replay, policy) = (recording.path.to_string_lossy(), policy.to_string_lossy().into_owned());
    let options = ["--gpu-replay", &replay, "--gpu-sharing", &policy];
    cluster.join_node_from("worker", vec!["env".to_owned(), path], &options);
    let http = Http::admin(&cluster);
    cluster.node("worker").becomes(&http, "True").await;
    let kubectl = cluster.kubectl();
    becomes(&http, ("2", "2"), "True").await;
    let described = kubectl.ok(&["describe", "node", "worker"]);
    for line in
        ["nvidia.com/mps.capable=true", "nvidia.com/gpu.sharing-strategy=mps", "nvidia.com/gpu.replicas=2"]
    {
        assert!(described.contains(line), "{line} is not in {described}");
    }
    for name in ["one", "two"] {
        kubectl.ok_with(&["apply", "-f", "-"], &holder(name, ""));
        kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=180s"]);
    }
    let pid = process_of(&cluster, "one");
    for name in ["one", "two"] {
        assert_eq!(value_of(&cluster, name, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="), "50");
        let pipe = value_of(&cluster, name, "CUDA_MPS_PIPE_DIRECTORY=");
        let inside = |path: &str| PathBuf::from(format!("/proc/{}/root{path}", process_of(&cluster, name)));
        assert!(inside(&pipe).join("alive").exists(), "it meets its daemon");
        assert!(inside("/dev/shm/of-the-daemon").exists(), "and shares memory with it");
    }
    assert!(!Path::new("/dev/shm/of-the-daemon").exists(), "the machine's own is left alone");

    cluster.node("worker").kill();
    cluster.node("worker").start();
    becomes(&http, ("2", "2"), "True").await;
    assert_eq!(starts(&programs), 1, "the daemon goes on without the agent");
    let alive = Path::new(fs::read_to_string(programs.join("pipe")).expect("it began").trim()).join("alive");
    install(&programs.join("nvidia-cuda-mps-control"), "#!/bin/sh\nexit 1\n");
    fs::remove_file(&alive).expect("it was there");
    becomes(&http, ("2", "0"), "False").await;
    wait::until_async("the condition names the daemon", wait::SOON, || async {
        let node = http.get("/api/v1/nodes/worker").await.map_err(|error| error.to_string())?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|one| one["type"] == "GPUReady").unwrap_or_default();
        let message = ready["message"].as_str().unwrap_or_default().to_owned();
        wait::check(message.contains("MPS daemon"), message)
    })
    .await;
    assert_eq!(container(&cluster, "one").map(|(pid, _)| pid), Some(pid), "who runs goes on");
    install(&programs.join("nvidia-cuda-mps-control"), CONTROL);
    // A start that failed is tried again after half a minute.
    wait::until_async("its GPU is offered again", wait::LATER, || async {
        let amounts = amounts(&http).await;
        wait::check(amounts == ("2".to_owned(), "2".to_owned()), format!("{amounts:?}"))
    })
    .await;
    assert!(starts(&programs) >= 2);
    let events = kubectl.ok(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
    assert!(events.contains("MPS daemon") && events.contains("is offered to pods again"), "{events}");
}

/// NVIDIA's, as far as the agent calls them.
fn programs(scratch: &Path) -> PathBuf {
    let folder = scratch.join("programs");
    fs::create_dir(&folder).expect("the scratch folder is writable");
    for (name, text) in [("nvidia-cuda-mps-control", CONTROL), ("nvidia-smi", "#!/bin/sh\nexit 0\n")] {
        install(&folder.join(name), text);
    }
    folder
}

/// Written by another process: a file that is open here for writing, in a child of another story, too, cannot be run.
fn install(path: &Path, text: &str) {
    let beside = cluster::write(&path.with_extension("text"), text);
    let done = Command::new("install").args(["-m", "755"]).args([beside.as_path(), path]).status();
    assert!(done.expect("install is there").success(), "{}", path.display());
}

fn starts(programs: &Path) -> usize {
    fs::read_to_string(programs.join("starts")).unwrap_or_default().lines().count()
}
