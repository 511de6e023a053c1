//! A node that runs short of disk, and who has to go.

use std::{os::unix::fs::symlink, path::Path};

use claw_e2e::{
    Cluster, Options,
    need::{self, Need},
    wait,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{get, start, until_told};

/// A disk that nobody else fills.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("claw-disk-").tempdir().expect("a scratch folder");
        mount(Some("disk"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=300m"))
            .expect("root may mount");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn who_uses_more_disk_than_it_asked_for_goes_when_it_gets_short() {
    let story = "who_uses_more_disk_than_it_asked_for_goes_when_it_gets_short";
    if need::all(story, &[Need::Root, Need::Kubectl]) {
        // Half of 300 MiB, and not what is reserved.
        runs_short(&["--evict-below", "disk=50%", "--reserve", "disk=10Mi"], 140);
    }
}

#[test]
fn who_uses_more_disk_than_it_asked_for_goes_once_it_has_been_short_for_a_while() {
    let story = "who_uses_more_disk_than_it_asked_for_goes_once_it_has_been_short_for_a_while";
    if need::all(story, &[Need::Root, Need::Kubectl]) {
        // What may be had for a while may be promised.
        runs_short(&["--evict-soft", "disk=50%:15s", "--evict-soft-grace", "20"], 300);
    }
}

fn runs_short(options: &[&str], promised_mib: u64) {
    // Outlives the cluster, whose node lives on it.
    let disk = Disk::new();
    let mut cluster = Cluster::start(Options::up(0));
    symlink(disk.path(), cluster.scratch().join("small")).expect("the scratch folder takes a link");
    cluster.join_node("small", options);
    let kubectl = cluster.kubectl();
    let promised = wait::until("the node is there", wait::LATER, || {
        let path = "jsonpath={.status.allocatable.ephemeral-storage}";
        kubectl.run(&["get", "node", "small", "-o", path]).success()
    });
    assert_eq!(promised, (promised_mib << 20).to_string());

    // Whoever comes while it is short is turned away, whatever it asks for.
    let text = "x".repeat(92);
    start(&cluster, &MODEST.replace("TEXT", &text), &["modest"]);
    kubectl.ok_with(&["apply", "-f", "-"], &GREEDY.replace("TEXT", &text));
    until_told(
        &kubectl,
        "Evicted The node was low on resource: ephemeral-storage. Threshold quantity: 153600Ki",
    );
    wait::until("it has failed", wait::LATER, || {
        let status = get(&kubectl, "greedy", "{.status.phase} {.status.reason} {.status.message}");
        wait::check(
            status.starts_with("Failed Evicted The node was low on resource: ephemeral-storage."),
            status,
        )
    });
    let path = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    assert_eq!(get(&kubectl, "greedy", path), "TerminationByKubelet");
    wait::until("nobody new comes", wait::LATER, || {
        let path = "jsonpath={.status.conditions[?(@.type==\"DiskPressure\")].status} {.spec.taints[*].key}";
        let node = kubectl.ok(&["get", "node", "small", "-o", path]);
        wait::check(node.contains("True") && node.contains("node.kubernetes.io/disk-pressure"), node)
    });
    assert_eq!(
        get(&kubectl, "modest", "{.status.phase} {.status.containerStatuses[0].restartCount}"),
        "Running 0"
    );
}

/// 25 million bytes, which are asked for.
const MODEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [sh, -c, "toolbox lines --count 250000 --text TEXT > /file; sleep 3600"]
      resources: {requests: {ephemeral-storage: 60Mi}}
"#;

/// 170 million bytes that nobody asked for.
const GREEDY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [sh, -c, "toolbox lines --count 1700000 --text TEXT > /file; sleep 3600"]
"#;
