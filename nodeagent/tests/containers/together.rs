//! What the containers of a pod see of each other and of the machine: processes and memory.

use claw_nodeagent::Runtime as _;
use serde_json::{Value, json};

use super::{
    Rig,
    common::{can_run_containers, eventually},
    container,
};

/// Containers that sleep, and what the pod says beside them.
async fn rig(sleepers: usize, mut spec: Value) -> Rig {
    let sleeper = |index: usize| {
        let mut one = container(&["sleep", &format!("100{index}")]);
        one["name"] = format!("c{index}").into();
        one
    };
    let mut containers: Vec<Value> = (0..sleepers).map(sleeper).collect();
    containers.extend(spec["containers"].as_array().cloned().unwrap_or_default());
    spec["containers"] = containers.into();
    Rig::new(spec).await
}

fn command(words: &[&str]) -> Vec<String> {
    [&["/toolbox"], words].concat().iter().map(|&word| word.to_owned()).collect()
}

fn call(number: i64, arguments: &[&str]) -> Vec<String> {
    let number = number.to_string();
    command(&[&["syscall", number.as_str()], arguments].concat())
}

async fn processes(rig: &Rig) -> String {
    rig.says(0, &command(&["ps"])).await.1
}

#[tokio::test]
async fn containers_of_a_pod_may_share_their_processes_and_whoever_is_left_behind_is_reaped() {
    if !can_run_containers(
        "containers_of_a_pod_may_share_their_processes_and_whoever_is_left_behind_is_reaped",
    ) {
        return;
    }
    let mut leaves = container(&["sh", "-c", "sleep 3333 & exit 4"]);
    leaves["name"] = "leaves".into();
    let rig = rig(2, json!({"shareProcessNamespace": true, "containers": [leaves]})).await;
    // At once, as the agent starts them.
    let (first, second) = tokio::join!(rig.try_start(0, 0), rig.try_start(1, 0));
    assert_eq!((first.unwrap().exit, second.unwrap().exit), (None, None));
    eventually("they see each other", || async {
        let seen = processes(&rig).await;
        seen.starts_with("1 S /toolbox pause\n") && seen.contains("sleep 1000") && seen.contains("sleep 1001")
    })
    .await;

    rig.says(1, &command(&["sh", "-c", "sleep 0.1 & true"])).await;
    eventually("nobody is left behind", || async {
        let seen = processes(&rig).await;
        !seen.contains("sleep 0.1") && !seen.contains(" Z ")
    })
    .await;
    // What a container leaves ends with it.
    let run = rig.try_start(2, 0).await.unwrap();
    assert_eq!(rig.runtime.wait(&run.key).await.unwrap().code, 4);
    eventually("nothing of it is left", || async { !processes(&rig).await.contains("sleep 3333") }).await;
    rig.close().await;
}

#[tokio::test]
async fn containers_that_lost_the_processes_they_shared_are_started_anew() {
    if !can_run_containers("containers_that_lost_the_processes_they_shared_are_started_anew") {
        return;
    }
    let rig = rig(1, json!({"shareProcessNamespace": true})).await;
    let run = rig.try_start(0, 0).await.unwrap();
    let record = format!("pods/{}/pause/shim.json", run.key.pod_uid);
    let record = std::fs::read_to_string(rig.machine.root.path().join(record)).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let pid = i32::try_from(record["init_pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(rig.runtime.wait(&run.key).await.unwrap().code, 137);
    rig.runtime.discard(&run.key).await.unwrap();
    assert_eq!(rig.try_start(0, 0).await.unwrap().exit, None);
    assert!(processes(&rig).await.starts_with("1 S /toolbox pause\n"));
    rig.close().await;
}

#[tokio::test]
async fn a_pod_on_the_processes_of_the_machine_sees_all_of_them_and_others_none() {
    if !can_run_containers("a_pod_on_the_processes_of_the_machine_sees_all_of_them_and_others_none") {
        return;
    }
    let this = format!("/proc/{}/cmdline", std::process::id());
    for (spec, sees) in [(json!({"hostPID": true}), true), (json!({}), false)] {
        let rig = rig(1, spec.clone()).await;
        assert_eq!(rig.try_start(0, 0).await.unwrap().exit, None);
        let (code, seen) = rig.says(0, &command(&["cat", &this])).await;
        assert_eq!(code == 0, sees, "{spec}: {seen}");
        rig.close().await;
    }
}

#[tokio::test]
async fn containers_of_a_pod_share_memory_and_other_pods_do_not() {
    if !can_run_containers("containers_of_a_pod_share_memory_and_other_pods_do_not") {
        return;
    }
    let (own, other) = (rig(2, json!({})).await, rig(1, json!({})).await);
    for (rig, index) in [(&own, 0), (&own, 1), (&other, 0)] {
        assert_eq!(rig.try_start(index, 0).await.unwrap().exit, None);
    }
    // By name.
    assert_eq!(own.says(0, &command(&["write", "/dev/shm/note", "hello"])).await.0, 0);
    assert_eq!(own.says(1, &command(&["cat", "/dev/shm/note"])).await, (0, "hello".to_owned()));
    assert_ne!(other.says(0, &command(&["cat", "/dev/shm/note"])).await.0, 0);
    // By number.
    let (_, made) = own.says(0, &call(libc::SYS_shmget, &["4711", "4096", "0x380"])).await;
    let find = call(libc::SYS_shmget, &["4711", "4096", "0"]);
    assert_eq!(own.says(1, &find).await, (0, made));
    assert_eq!(other.says(0, &find).await.1, "No such file or directory (os error 2)");
    own.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_pod_may_share_the_memory_of_the_machine() {
    if !can_run_containers("a_pod_may_share_the_memory_of_the_machine") {
        return;
    }
    let rig = rig(1, json!({"hostIPC": true})).await;
    assert_eq!(rig.try_start(0, 0).await.unwrap().exit, None);
    let key = std::process::id().to_string();
    let (_, made) = rig.says(0, &call(libc::SYS_shmget, &[&key, "4096", "0x380"])).await;
    let on_machine = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    assert!(on_machine.lines().any(|line| line.split_whitespace().next() == Some(&key)), "{on_machine}");
    // IPC_RMID
    assert_eq!(rig.says(0, &call(libc::SYS_shmctl, &[&made, "0", "0"])).await.0, 0);
    rig.close().await;
}
