//! Containers that see each other's processes and memory.

use claw_e2e::{
    Cluster, Options,
    need::{self, Need},
    wait,
};

use super::start;

#[test]
fn containers_see_of_each_other_and_of_the_machine_what_their_pod_says() {
    let story = "containers_see_of_each_other_and_of_the_machine_what_their_pod_says";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let kubectl = start(&cluster, PODS, &["apart", "together", "watchman"]);
    let seen = |pod: &str| kubectl.ok(&["exec", pod, "-c", "one", "--", "ps"]);

    // They are told as started a moment before they are what they are to be.
    wait::until("a container sees its own process", wait::SOON, || {
        let apart = seen("apart");
        wait::check(apart.starts_with("1 S /toolbox sleep 1001\n"), &apart)?;
        assert!(!apart.contains("sleep 1002"), "{apart}");
        Ok::<_, String>(())
    });
    wait::until("containers that share their processes see each other's", wait::SOON, || {
        let together = seen("together");
        let all = together.contains("sleep 1001") && together.contains("sleep 1002");
        wait::check(together.starts_with("1 S /toolbox pause\n") && all, together)
    });
    let machine = seen("watchman");
    assert!(machine.lines().any(|line| line.starts_with(&format!("{} ", cluster.pid()))), "{machine}");

    // Memory by name is shared by all containers of a pod, whatever else they share.
    kubectl.ok(&["exec", "apart", "-c", "one", "--", "sh", "-c", "echo hello > /dev/shm/note"]);
    assert_eq!(kubectl.ok(&["exec", "apart", "-c", "two", "--", "cat", "/dev/shm/note"]), "hello\n");
    kubectl.fails(&["exec", "together", "-c", "one", "--", "cat", "/dev/shm/note"], "");

    let refused = kubectl.fails(
        &["apply", "-f", "-"],
        &PODS.replace("hostPID: true", "hostPID: true, shareProcessNamespace: true"),
    );
    assert!(refused.contains("ShareProcessNamespace and HostPID cannot both be enabled"), "{refused}");
}

const PODS: &str = r#"
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    metadata: {name: apart}
    spec:
      terminationGracePeriodSeconds: 1
      containers: &two
        - {name: one, image: "clawbernetes.io/toolbox:1", args: [sleep, "1001"]}
        - {name: two, image: "clawbernetes.io/toolbox:1", args: [sleep, "1002"]}
  - apiVersion: v1
    kind: Pod
    metadata: {name: together}
    spec: {terminationGracePeriodSeconds: 1, shareProcessNamespace: true, containers: *two}
  - apiVersion: v1
    kind: Pod
    metadata: {name: watchman}
    spec: {terminationGracePeriodSeconds: 1, hostPID: true, containers: *two}
"#;
