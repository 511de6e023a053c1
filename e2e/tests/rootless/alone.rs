//! Users without subordinate ids, and a whole cluster of one user.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use claw_e2e::{Kubectl, host, user::User, wait};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{apply, can_run, cluster, delete_all, until_told};

fn pod(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n    - name: main\n      image: clawbernetes.io/toolbox:1\n      \
         args: [sleep, \"1000000\"]\n{more}"
    )
}

#[test]
fn a_user_without_subordinate_ids_runs_what_is_root_and_nobody_else() {
    if !can_run("a_user_without_subordinate_ids_runs_what_is_root_and_nobody_else") {
        return;
    }
    let (cluster, _) = cluster(User::alone);
    let kubectl = cluster.kubectl();
    apply(&kubectl, &pod("root", "      tty: true\n"), &["root"]);
    let ids = kubectl.ok(&["exec", "root", "--", "/toolbox", "id"]);
    assert!(ids.starts_with("uid=0 gid=0"), "{ids}");
    kubectl.ok_with(&["apply", "-f", "-"], &pod("other", "      securityContext: {runAsUser: 1000}\n"));
    until_told(&kubectl, "user 1000 is not there");
    delete_all(&cluster, &kubectl);
}

#[test]
fn an_ordinary_user_has_a_whole_cluster_under_their_home() {
    if !can_run("an_ordinary_user_has_a_whole_cluster_under_their_home") {
        return;
    }
    let scratch = tempfile::Builder::new().prefix("claw-e2e-").tempdir().unwrap();
    let user = User::new(scratch.path());
    let log = fs::File::create(scratch.path().join("log")).unwrap();
    let mut command = user.cli();
    command.args(["up", "--rm", "--listen", "127.0.0.1:0", "--evict-below", "memory=0"]);
    command.args(["--evict-below", "disk=0", "--evict-below", "pids=0"]);
    let mut up = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told = || fs::read_to_string(scratch.path().join("log")).unwrap_or_default();
    assert!(line.starts_with("ready https://"), "{line}{}", told());

    let data = scratch.path().join(".local/share/clawbernetes");
    let kubectl = Kubectl::every(&data.join("admin.kubeconfig"), scratch.path()).pop().unwrap();
    apply(&kubectl, &pod("sleeps", ""), &["sleeps"]);
    assert!(kubectl.ok(&["exec", "sleeps", "--", "/toolbox", "id"]).starts_with("uid=0 gid=0"));
    kill(Pid::from_raw(up.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let status = wait::until("it stops", wait::LATER, || up.try_wait().unwrap().ok_or("it runs"));
    assert!(status.success(), "{status}: {}", told());
    assert!(!data.exists(), "{}", told());
    wait::until("nothing is left", wait::SOON, || host::is_clean(scratch.path()));
}
