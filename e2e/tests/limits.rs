//! Limits hold, and whoever looks is told that they did.

use std::{
    fs,
    path::{Path, PathBuf},
};

use claw_e2e::{
    Cluster, Kubectl, Options,
    need::{self, Need},
    wait,
};

#[test]
fn memory_over_the_limit_is_killed_and_named_and_cpu_over_the_limit_is_throttled() {
    let story = "memory_over_the_limit_is_killed_and_named_and_cpu_over_the_limit_is_throttled";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = cluster.kubectl();
    kubectl.ok_with(&["apply", "-f", "-"], &pod("hungry", r#"["memory", "--mib", "200"]"#, "memory: 32Mi"));
    kubectl.ok_with(&["apply", "-f", "-"], &pod("busy", r#"["cpu", "--threads", "2"]"#, "cpu: 100m"));

    let state = "{.status.containerStatuses[0].state.terminated}";
    let terminated = wait::until("the kernel ends the hungry one", wait::LATER, || {
        let seen = kubectl.ok(&["get", "pod", "hungry", "-o", &format!("jsonpath={state}")]);
        serde_json::from_str::<serde_json::Value>(&seen).map_err(|_| status(&kubectl, "hungry"))
    });
    assert_eq!(terminated["reason"], "OOMKilled", "{terminated}");
    assert_eq!(terminated["exitCode"], 137, "{terminated}");
    let table = kubectl.ok(&["get", "pod", "hungry"]);
    assert!(table.contains("OOMKilled"), "`get` says why: {table}");

    kubectl.ok(&["wait", "--for=condition=Ready", "pod/busy", "--timeout=600s"]);
    let uid = kubectl.ok(&["get", "pod", "busy", "-o", "jsonpath={.metadata.uid}"]);
    wait::until("the kernel throttles the busy one", wait::SOON, || {
        let throttled: u64 = cpu_stats(&uid).iter().map(|stat| throttled_periods(stat)).sum();
        wait::check(throttled > 0, format!("{throttled} throttled periods in {:?}", cpu_stats(&uid)))
    });
    // Throttled is not dead.
    assert!(status(&kubectl, "busy").contains("\"running\""));
}

fn pod(name: &str, args: &str, limit: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n    - name: main\n      \
         image: clawbernetes.io/toolbox:1\n      args: {args}\n      resources: {{limits: {{{limit}}}}}\n"
    )
}

fn status(kubectl: &Kubectl, pod: &str) -> String {
    kubectl.ok(&["get", "pod", pod, "-o", "jsonpath={.status}"])
}

/// The kernel's accounts of all groups that belong to a pod, by cgroup v1 or v2.
fn cpu_stats(uid: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(Path::new("/sys/fs/cgroup"), uid, false, &mut found);
    found
}

fn collect(folder: &Path, uid: &str, is_inside: bool, found: &mut Vec<PathBuf>) {
    let stat = folder.join("cpu.stat");
    if is_inside && stat.exists() {
        found.push(stat);
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // The controllers' folders of v1 are linked under several names: links are not followed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let is_inside = is_inside || entry.file_name().to_string_lossy().contains(uid);
            collect(&entry.path(), uid, is_inside, found);
        }
    }
}

fn throttled_periods(stat: &Path) -> u64 {
    let text = fs::read_to_string(stat).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
