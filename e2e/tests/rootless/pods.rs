//! What pods have there.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use claw_e2e::{
    Cluster, Kubectl,
    user::{FIRST_SUBORDINATE, UID, User},
    wait,
};

use crate::{ANSWERS, NODE, apply, can_run, cluster, delete_all, lines, one_inside, until_told};

const PODS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: word}
stringData: {word: hidden}
---
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  terminationGracePeriodSeconds: 1
  shareProcessNamespace: true
  volumes: [{name: word, secret: {secretName: word}}, {name: memory, emptyDir: {medium: Memory}}]
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [lines, --count, "1000000", --interval-ms, "20"]
      resources: {limits: {cpu: "1", memory: 64Mi}}
      volumeMounts: [{name: word, mountPath: /secret}, {name: memory, mountPath: /memory}]
    - name: somebody
      image: clawbernetes.io/toolbox:1
      args: [sleep, "1000000"]
      securityContext: {runAsUser: 1000, runAsGroup: 2000, allowPrivilegeEscalation: false}
---
apiVersion: v1
kind: Pod
metadata: {name: on-the-machine}
spec:
  terminationGracePeriodSeconds: 1
  hostNetwork: true
  hostPID: true
  hostIPC: true
  containers:
    - {name: main, image: "clawbernetes.io/toolbox:1", args: [sleep, "1000000"]}
"#;

#[test]
fn pods_of_an_ordinary_user_run_talk_and_find_each_other() {
    if !can_run("pods_of_an_ordinary_user_run_talk_and_find_each_other") {
        return;
    }
    let (cluster, _) = cluster(User::new);
    let kubectl = cluster.kubectl();
    let limits = r#"jsonpath={.status.conditions[?(@.type=="LimitsEnforced")].status}"#;
    assert_eq!(kubectl.ok(&["get", "node", NODE, "-o", limits]), "False", "what is not kept is not promised");
    assert!(kubectl.ok(&["get", "node", "-l", "clawbernetes.io/rootless=true"]).contains(NODE));
    apply(&kubectl, &[PODS, ANSWERS].concat(), &["answers", "talks", "on-the-machine"]);

    belongs_to_the_user(&cluster, &kubectl);
    let first = wait::until("it talks", wait::SOON, || {
        let line = lines(&kubectl, "talks").into_iter().next();
        line.ok_or("nothing yet")
    });
    assert_eq!(first, "line 1");
    let exec = |command: &[&str]| {
        let line = ["exec", "talks", "-c", "main", "--", "/toolbox"];
        kubectl.ok(&[&line[..], command].concat())
    };
    assert_eq!(exec(&["cat", "/secret/word"]), "hidden");
    assert!(exec(&["ps"]).contains("sleep 1000000"), "they see each other");
    has_mounts(&cluster);
    answer_by_name_and_by_port(&kubectl);

    kubectl.ok_with(&["apply", "-f", "-"], STRANGER);
    until_told(&kubectl, "user 70000 is not there");
    delete_all(&cluster, &kubectl);
}

fn belongs_to_the_user(cluster: &Cluster, kubectl: &Kubectl) {
    let owner = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(owner(one_inside(cluster, "lines")), UID, "root is the user");
    let ids = kubectl.ok(&["exec", "talks", "-c", "somebody", "--", "/toolbox", "id"]);
    assert!(ids.starts_with("uid=1000 gid=2000"), "{ids}");
    // 1 is the first of the others.
    wait::until("1000 is one of the user's subordinate ids", wait::SOON, || {
        let all: Vec<u32> = crate::inside(cluster, "sleep 1000000").into_iter().map(owner).collect();
        wait::check(all.contains(&(FIRST_SUBORDINATE + 999)), format!("{all:?}"))
    });
}

fn has_mounts(cluster: &Cluster) {
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", one_inside(cluster, "lines"))).unwrap();
    for point in ["/secret", "/memory", "/dev/shm"] {
        let is_there = |line: &str| line.split(' ').nth(4) == Some(point) && line.contains(" - tmpfs ");
        assert!(table.lines().any(is_there), "{point} is in memory: {table}");
    }
}

fn answer_by_name_and_by_port(kubectl: &Kubectl) {
    // Rules follow a pod that has become ready, and its name does.
    let said = wait::until("the service is found by its name", wait::LATER, || {
        kubectl.run(&["exec", "talks", "-c", "main", "--", "/toolbox", "get", "http://answers/"]).success()
    });
    assert!(said.contains("answers: GET /"), "{said}");
    let port = kubectl.ok(&["get", "service", "answers", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let port: u16 = port.parse().unwrap();
    wait::until("the port of the machine answers", wait::SOON, || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(wait::SOON))?;
        stream.write_all(b"GET /from-outside HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.contains("GET /from-outside") { Ok(()) } else { Err(std::io::Error::other(answer)) }
    });
}

const STRANGER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec:
  containers:
    - name: main
      image: clawbernetes.io/toolbox:1
      args: [sleep, "1000000"]
      securityContext: {runAsUser: 70000}
"#;
