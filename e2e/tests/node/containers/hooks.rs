//! Hooks after a start and before a stop, and sidecars around the containers that they serve.

use claw_e2e::{
    Cluster, Options,
    need::{self, Need},
    wait,
};

use super::{get, start, until_told};

#[test]
fn a_container_runs_after_its_first_hook_and_is_asked_to_end_after_its_last() {
    let story = "a_container_runs_after_its_first_hook_and_is_asked_to_end_after_its_last";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = start(&cluster, SLOW, &[]);
    wait::until("the container runs", wait::LATER, || {
        let running = get(&kubectl, "slow", "{.status.containerStatuses[0].state.running.startedAt}");
        wait::check(!running.is_empty(), "it does not")
    });
    assert_eq!(
        kubectl.ok(&["exec", "slow", "--", "cat", "/done"]),
        "after the start\n",
        "its hook was over by then"
    );
    // Made unhealthy, which is one way to be stopped.
    kubectl.ok(&["exec", "slow", "--", "toolbox", "get", "http://localhost:8080/control?healthy=false"]);
    wait::until("it is restarted", wait::LATER, || {
        let count = get(&kubectl, "slow", "{.status.containerStatuses[0].restartCount}");
        wait::check(count.parse().is_ok_and(|count: u32| count > 0), count)
    });
    let log = kubectl.ok(&["logs", "slow", "--previous"]);
    let place = |words: &str| log.find(words).unwrap_or_else(|| panic!("{words:?} is not in {log}"));
    assert!(place("before the end") < place("received SIGTERM, stopping"), "{log}");
}

#[test]
fn hooks_that_fail_are_told_of_and_the_first_one_takes_its_container_along() {
    let story = "hooks_that_fail_are_told_of_and_the_first_one_takes_its_container_along";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = start(&cluster, FAILING, &["stubborn"]);
    until_told(&kubectl, "FailedPostStartHook PostStartHook failed: exit code 3");
    until_told(&kubectl, "Killing FailedPostStartHook");
    wait::until("it is started again", wait::LATER, || {
        let count = get(&kubectl, "broken", "{.status.containerStatuses[0].restartCount}");
        wait::check(count.parse().is_ok_and(|count: u32| count > 0), count)
    });
    assert_eq!(get(&kubectl, "broken", "{.status.containerStatuses[0].ready}"), "false");
    // Neither a hook that fails nor one that takes too long keeps a pod from its end.
    kubectl.ok(&["delete", "pod", "stubborn", "--timeout=600s"]);
    until_told(&kubectl, "FailedPreStopHook PreStopHook failed: exit code 5");
}

#[test]
fn a_sidecar_is_there_before_its_container_and_until_that_has_ended() {
    let story = "a_sidecar_is_there_before_its_container_and_until_that_has_ended";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let shared = cluster.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let manifest = SERVED.replace("SHARED", &shared.display().to_string());
    let kubectl = start(&cluster, &manifest, &["served"]);
    let log = wait::until("it has said what it was answered first", wait::LATER, || {
        let log = kubectl.ok(&["logs", "served", "-c", "main"]);
        wait::check(log.contains('\n'), "nothing yet").map(|()| log)
    });
    assert!(log.starts_with("here to serve"), "it was served from its first moment: {log}");
    kubectl.ok(&["delete", "pod", "served", "--timeout=600s"]);
    let last = std::fs::read_to_string(shared.join("last")).unwrap();
    assert!(last.starts_with("here to serve"), "it was served to its last: {last}");
}

/// Without its hook it would be seen running for seconds before there is the file. It has the time for its last words.
const SLOW: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: slow}
spec:
  terminationGracePeriodSeconds: 120
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [serve]
      livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, timeoutSeconds: 60}
      lifecycle:
        postStart: {exec: {command: [sh, -c, "sleep 3; toolbox write /done 'after the start'"]}}
        preStop: {exec: {command: [sh, -c, "sleep 1; echo before the end > /proc/1/fd/1"]}}
"#;

/// The grace of the second holds the hook that ends, and is all taken by the one that does not.
const FAILING: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: broken}
spec:
  terminationGracePeriodSeconds: 5
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [serve]
      lifecycle: {postStart: {exec: {command: [sh, -c, "exit 3"]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: stubborn}
spec:
  terminationGracePeriodSeconds: 20
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [serve]
      lifecycle: {preStop: {exec: {command: [sh, -c, "exit 5"]}}}
    - name: slow
      image: clawbernetes.io/toolbox:1
      args: [sleep, "3600"]
      lifecycle: {preStop: {exec: {command: [sleep, "3600"]}}}
"#;

const SERVED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: served}
spec:
  terminationGracePeriodSeconds: 120
  volumes: [{name: shared, hostPath: {path: SHARED}}]
  initContainers:
    - name: server
      image: clawbernetes.io/toolbox:1
      args: [serve, --port, "9000"]
      restartPolicy: Always
      env: [{name: GREETING, value: here to serve}]
      startupProbe: {tcpSocket: {port: 9000}, periodSeconds: 1, failureThreshold: 1000}
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [sh, -c, "toolbox get http://localhost:9000/; sleep 3600"]
      volumeMounts: [{name: shared, mountPath: /shared}]
      lifecycle: {preStop: {exec: {command: [sh, -c, "sleep 2; toolbox get http://localhost:9000/ > /shared/last"]}}}
"#;
