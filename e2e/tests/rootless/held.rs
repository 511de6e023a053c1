//! What outlives whom.

use claw_e2e::{Cluster, user::User, wait};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{ANSWERS, NODE, apply, can_run, cluster, delete_all, inside, lines, of_ours, one_inside};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: main, image: "clawbernetes.io/toolbox:1", args: [lines, --count, "1000000", --interval-ms, "20"]}
"#;

#[test]
fn containers_outlive_the_agent_of_an_ordinary_user_and_end_with_whoever_holds_their_namespaces() {
    let story =
        "containers_outlive_the_agent_of_an_ordinary_user_and_end_with_whoever_holds_their_namespaces";
    if !can_run(story) {
        return;
    }
    let (mut cluster, _) = cluster(User::new);
    let kubectl = cluster.kubectl();
    apply(&kubectl, &[PODS, ANSWERS].concat(), &["talks", "answers"]);
    let (process, said) = (one_inside(&cluster, "lines"), lines(&kubectl, "talks"));

    for _ in 0..2 {
        cluster.node(NODE).kill();
        assert_eq!(one_inside(&cluster, "lines"), process, "the container outlives its agent");
        cluster.node(NODE).start();
        let now = wait::until("the log goes on", wait::LATER, || {
            let now = kubectl.run(&["logs", "talks"]).success()?;
            wait::check(now.lines().count() > said.len() + 50, now.lines().count())
                .map(|()| now)
                .map_err(|count| count.to_string())
        });
        for (number, line) in (1..).zip(now.lines()) {
            assert_eq!(line, format!("line {number}"), "every line is there, once and whole");
        }
    }
    assert_eq!(one_inside(&cluster, "lines"), process, "it is the same process");
    assert_eq!(restarts(&cluster), "0");
    let said = wait::until("names and services are served again", wait::LATER, || {
        kubectl.run(&["exec", "talks", "--", "/toolbox", "get", "http://answers/"]).success()
    });
    assert!(said.contains("answers: GET /"), "{said}");

    // Without control groups only the shim's record tells which process is the container's.
    let shim = parent(process);
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    until_restarted(&cluster, process);

    let process = one_inside(&cluster, "lines");
    cluster.node(NODE).kill();
    kill(Pid::from_raw(of_ours(&cluster, "__clawbernetes-namespace-holder")), Signal::SIGKILL).unwrap();
    cluster.node(NODE).start();
    until_restarted(&cluster, process);
    let said = wait::until("pods find each other again", wait::LATER, || {
        kubectl.run(&["exec", "talks", "--", "/toolbox", "get", "http://answers/"]).success()
    });
    assert!(said.contains("answers: GET /"), "{said}");
    delete_all(&cluster, &kubectl);
}

fn restarts(cluster: &Cluster) -> String {
    cluster.kubectl().ok(&[
        "get",
        "pod",
        "talks",
        "-o",
        "jsonpath={.status.containerStatuses[0].restartCount}",
    ])
}

/// Waits until another process runs in place of `before`, and no two do.
fn until_restarted(cluster: &Cluster, before: i32) {
    wait::until("it runs again", wait::LATER, || {
        let now = inside(cluster, "lines");
        wait::check(now.len() == 1 && now[0] != before, format!("{now:?}"))
    });
    let kubectl = cluster.kubectl();
    wait::until("its log begins again", wait::LATER, || {
        let said = kubectl.run(&["logs", "talks"]).success()?;
        wait::check(said.starts_with("line 1\n"), said)
    });
}

fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}
