//! Which system calls reach the kernel.

use claw_e2e::{
    Cluster, Options,
    need::{self, Need},
    wait,
};

use super::{get, start, until_told};

/// Another way to read programs: nobody but the filter minds.
const PERSONALITY: [&str; 4] = ["toolbox", "syscall", "", "0x400000"];

#[test]
fn pods_are_filtered_by_default_by_a_profile_of_the_machine_or_not_at_all() {
    let story = "pods_are_filtered_by_default_by_a_profile_of_the_machine_or_not_at_all";
    if !need::all(story, &[Need::Root, Need::Kubectl]) {
        return;
    }
    let cluster = Cluster::start(Options::up(1));
    let profiles = cluster.data_dir().join("node/seccomp");
    std::fs::create_dir_all(&profiles).unwrap();
    let quiet = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]}"#;
    std::fs::write(profiles.join("quiet.json"), quiet).unwrap();

    let number = libc::SYS_personality.to_string();
    let manifest = PODS.replace("NUMBER", &number);
    let kubectl = start(&cluster, &manifest, &["plain", "free", "privileged", "quiet"]);
    let mut command = PERSONALITY;
    command[2] = &number;
    for (pod, answer) in [
        ("plain", "Operation not permitted"),
        ("free", "0\n"),
        ("privileged", "0\n"),
        ("quiet", "Input/output error"),
    ] {
        let said = kubectl.run(&[&["exec", pod, "--"], &command[..]].concat());
        assert!(format!("{}{}", said.stdout, said.stderr).contains(answer), "{pod}: {said:?}");
        wait::until(&format!("the first process of {pod} was answered"), wait::LATER, || {
            let first = kubectl.ok(&["logs", pod]);
            wait::check(first.contains(answer.trim()), first)
        });
    }
    until_told(&kubectl, "cannot load seccomp profile");
    wait::until("the status names what is wrong", wait::LATER, || {
        let reason = get(&kubectl, "lost", "{.status.containerStatuses[0].state.waiting.reason}");
        wait::check(reason == "CreateContainerError", reason)
    });
    let refused = kubectl.fails(&["apply", "-f", "-"], WRONG);
    assert!(refused.contains("localhostProfile: Required value"), "{refused}");
}

/// Each asks once, and then waits.
const PODS: &str = r#"
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    metadata: {name: plain}
    spec:
      terminationGracePeriodSeconds: 1
      containers: &containers
        - {name: main, image: "clawbernetes.io/toolbox:1", args: [sh, -c, "toolbox syscall NUMBER 0x400000; sleep 3600"]}
  - apiVersion: v1
    kind: Pod
    metadata: {name: free}
    spec: {securityContext: {seccompProfile: {type: Unconfined}}, containers: *containers}
  - apiVersion: v1
    kind: Pod
    metadata: {name: quiet}
    spec:
      securityContext: {seccompProfile: {type: Localhost, localhostProfile: quiet.json}}
      containers: *containers
  - apiVersion: v1
    kind: Pod
    metadata: {name: lost}
    spec:
      securityContext: {seccompProfile: {type: Localhost, localhostProfile: lost.json}}
      containers: *containers
  - apiVersion: v1
    kind: Pod
    metadata: {name: privileged}
    spec:
      containers:
        - name: main
          image: "clawbernetes.io/toolbox:1"
          args: [sh, -c, "toolbox syscall NUMBER 0x400000; sleep 3600"]
          securityContext: {privileged: true}
"#;

const WRONG: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: wrong}
spec:
  securityContext: {seccompProfile: {type: Localhost}}
  containers: [{name: main, image: "clawbernetes.io/toolbox:1"}]
"#;
