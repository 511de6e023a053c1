//! Containers that come to a pod that runs.

use claw_e2e::{
    Cluster, Options,
    need::{self, Need},
    wait,
};

use super::{get, start};

const IMAGE: &str = "--image=clawbernetes.io/toolbox:1";

#[test]
fn kubectl_debugs_a_running_container_from_one_beside_it() {
    let story = "kubectl_debugs_a_running_container_from_one_beside_it";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = start(&cluster, WEB, &["web"]);
    if kubectl.name.ends_with(" 1.20") {
        // It speaks of these containers in a form that Kubernetes has given up.
        eprintln!("SKIPPED {story}: lacks a kubectl newer than 1.20");
        return;
    }
    let command = ["debug", "-it", "web", IMAGE, "-c", "beside", "--target=main", "--", "sh"];
    let mut terminal = kubectl.on_terminal(&command, 100, 40);
    terminal.shows("try pressing enter.");
    terminal.types("\r");
    terminal.shows("$ ");
    terminal.types("ps\r");
    // The process of the other container, in the namespace that is its own.
    terminal.shows("1 S /toolbox serve --port 8080");
    terminal.types("echo on''e; exit 3\r");
    terminal.shows("one\r\n");
    let code = terminal.exit_code();
    assert!(code == 0 || code == 3, "kubectl says how it ended, or that it did: {code}");
    wait::until("it is told how it ended", wait::LATER, || {
        let code = get(&kubectl, "web", "{.status.ephemeralContainerStatuses[0].state.terminated.exitCode}");
        wait::check(code == "3", code)
    });
    assert!(kubectl.ok(&["logs", "web", "-c", "beside"]).contains("one"));

    // Without a target it sees itself alone.
    kubectl.ok(&["debug", "web", IMAGE, "-c", "alone", "--", "ps"]);
    wait::until("the second has ended", wait::LATER, || {
        let states =
            get(&kubectl, "web", "{.status.ephemeralContainerStatuses[*].state.terminated.exitCode}");
        wait::check(states == "3 0", states)
    });
    let seen = kubectl.ok(&["logs", "web", "-c", "alone"]);
    assert!(seen.contains(" ps") && !seen.contains("serve"), "{seen}");

    let refused = kubectl.fails(&["debug", "web", IMAGE, "-c", "lost", "--target=nobody", "--", "ps"], "");
    assert!(refused.contains("targetContainerName: Not found: \"nobody\""), "{refused}");
    let described = kubectl.ok(&["describe", "pod", "web"]);
    assert!(described.contains("Ephemeral Containers:"), "{described}");
    // The pod goes on as if nothing had happened.
    assert_eq!(get(&kubectl, "web", "{.status.containerStatuses[0].restartCount}"), "0");
    kubectl.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=600s"]);
}

const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "clawbernetes.io/toolbox:1", args: [serve, --port, "8080"]}]
"#;
