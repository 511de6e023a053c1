//! Starting and stopping, as people and init systems do it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, Stdio},
};

use claw_e2e::{
    Cluster, Options,
    binary::clawbernetes,
    host,
    http::Http,
    kubectl::Outcome,
    need::{self, Need},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_where_it_was_stopped() {
    let mut cluster = Cluster::start(Options::server());
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "1"}});
    let made = Http::admin(&cluster).post(MAPS, &object).await.expect("creates");
    assert_eq!(cluster.stdout(), [format!("ready {}", cluster.url())], "one line, and no other");
    let kubeconfig = fs::read_to_string(cluster.kubeconfig()).expect("a kubeconfig");
    assert_eq!(cluster.stop(), 0, "an orderly stop is a success; log:\n{}", cluster.log_tail());
    cluster.restart();
    let found = Http::admin(&cluster).get(&format!("{MAPS}/kept")).await.expect("it is still there");
    assert_eq!(found, made, "to the last byte");
    assert_eq!(fs::read_to_string(cluster.kubeconfig()).expect("a kubeconfig"), kubeconfig, "the same keys");
}

#[test]
fn secrets_on_disk_are_for_their_owner_alone() {
    let cluster = Cluster::start(Options::server());
    let mut keys = 0;
    let mut folders = vec![cluster.data_dir()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                folders.push(path);
            } else if ["key", "token", "kubeconfig"]
                .iter()
                .any(|secret| name.ends_with(secret) || name.contains(".key"))
            {
                let mode = entry.metadata().expect("readable").permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{} has mode {mode:o}", path.display());
                keys += 1;
            }
        }
    }
    assert!(keys >= 2, "neither keys nor a kubeconfig were found");
}

#[test]
fn what_stands_in_the_way_of_a_start_is_said_in_words() {
    let cluster = Cluster::start(Options::server());
    let data = cluster.data_dir().to_string_lossy().into_owned();
    let scratch = cluster.scratch().join("other").to_string_lossy().into_owned();
    let start = |args: &[&str]| Outcome::of(Command::new(clawbernetes()).args(args), "");

    let same_folder = start(&["server", "--data-dir", &data, "--listen", "127.0.0.1:0"]);
    assert_eq!((same_folder.code, same_folder.stdout.as_str()), (1, ""));
    assert!(same_folder.stderr.contains(&data), "the folder is named: {}", same_folder.stderr);

    let same_port = start(&["server", "--data-dir", &scratch, "--listen", cluster.address()]);
    assert_eq!((same_port.code, same_port.stdout.as_str()), (1, ""));
    assert!(same_port.stderr.contains(cluster.address()), "the address is named: {}", same_port.stderr);

    let foreign = cluster.scratch().join("foreign");
    fs::create_dir(&foreign).expect("the scratch folder is writable");
    let thesis = claw_e2e::cluster::write(&foreign.join("thesis.txt"), "years of work");
    let path = foreign.to_string_lossy();
    let not_ours = start(&["up", "--hollow", "--rm", "--data-dir", &path, "--listen", "127.0.0.1:0"]);
    assert_eq!((not_ours.code, not_ours.stdout.as_str()), (1, ""));
    assert!(not_ours.stderr.contains(&*path) && thesis.exists(), "{}", not_ours.stderr);

    let garbage = start(&["server", "--listen", "here"]);
    assert_eq!(garbage.code, 2);
    assert!(garbage.stderr.contains("--listen"), "{}", garbage.stderr);
}

#[test]
fn a_start_whose_output_nobody_reads_is_a_start() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let data = scratch.path().join("data");
    let mut server = Command::new(clawbernetes());
    server.args(["server", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let mut server =
        server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("clawbernetes starts");
    drop(server.stdout.take());
    let served = wait::within(wait::SOON, || {
        let mut get = Command::new(clawbernetes());
        get.args(["get", "namespaces", "--kubeconfig"]).arg(data.join("admin.kubeconfig"));
        Outcome::of(&mut get, "").success()
    });
    let pid = Pid::from_raw(server.id().try_into().expect("process ids are positive i32"));
    kill(pid, Signal::SIGTERM).expect("a child can be signalled");
    let status = server.wait().expect("a child can be waited for");
    assert!(served.is_ok() && status.success(), "{served:?}, {status}");
}

#[test]
fn who_cannot_have_containers_here_is_told_why_and_of_hollow_nodes() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    // A copy that others reach, whoever may look into the target folder.
    let binary = scratch.path().join("clawbernetes");
    fs::copy(clawbernetes(), &binary).expect("the scratch folder has room");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut up = Command::new(&binary);
    up.args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(scratch.path().join("data"))
        .current_dir("/");
    if nix::unistd::geteuid().is_root() {
        // Anybody will do who may not write into the scratch folder.
        up.uid(65534).gid(65534);
    } else {
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o555)).expect("it is ours");
    }
    let refused = Outcome::of(&mut up, "");
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    let told = ["--hollow", "Permission denied", &*scratch.path().to_string_lossy()];
    assert!(told.iter().all(|word| refused.stderr.contains(word)), "{}", refused.stderr);

    let cluster = Cluster::start(Options::up(2).with(&["--hollow"]));
    let nodes = Outcome::of(cluster.cli().args(["get", "nodes"]), "")
        .success()
        .unwrap_or_else(|text| panic!("{text}"));
    assert_eq!(nodes.matches("Ready").count(), 2, "{nodes}");
}

#[test]
fn up_rm_leaves_nothing_behind() {
    if !need::all("up_rm_leaves_nothing_behind", &[Need::Root, Need::Kubectl]) {
        return;
    }
    let before = Traces::of_host();
    let mut cluster = Cluster::start(Options::up(2));
    let kubectl = cluster.kubectl();
    kubectl.ok(&[
        "apply",
        "-f",
        &claw_e2e::binary::workspace().join("examples/hello.yaml").to_string_lossy(),
    ]);
    kubectl.ok(&["rollout", "status", "deployment/hello", "--timeout=600s"]);
    assert!(!host::processes(cluster.scratch()).is_empty(), "containers run");
    assert_eq!(cluster.stop(), 0, "log:\n{}", cluster.log_tail());
    assert_eq!(host::processes(cluster.scratch()), [], "processes");
    assert_eq!(host::mounts(cluster.scratch()), Vec::<String>::new(), "mounts");
    assert!(!cluster.data_dir().exists(), "the data folder");
    // Other tests of this file need no containers, so what is new is ours.
    wait::until("the kernel has tidied up", wait::SOON, || {
        let left = Traces::of_host().beyond(&before);
        wait::check(left.is_empty(), left)
    });
}

/// What containers leave in the kernel, outside any folder of ours.
struct Traces(BTreeSet<String>);

impl Traces {
    fn of_host() -> Self {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
            found.insert(format!("network link {}", entry.file_name().to_string_lossy()));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        found.extend(mounts.lines().filter_map(|line| Some(format!("mount {}", line.split(' ').nth(1)?))));
        cgroups("/sys/fs/cgroup".as_ref(), &mut found);
        Self(found)
    }

    fn beyond(&self, before: &Self) -> String {
        self.0.difference(&before.0).cloned().collect::<Vec<_>>().join(", ")
    }
}

/// Groups that pods and containers live in; other programs' groups come and go as they like.
fn cgroups(folder: &std::path::Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.path().to_string_lossy().contains("clawbernetes/") {
                found.insert(format!("cgroup {}", entry.path().display()));
            }
            cgroups(&entry.path(), found);
        }
    }
}
