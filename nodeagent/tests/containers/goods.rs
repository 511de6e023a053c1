//! What pods have of what they share, as the node measures it before it takes it away from one.

use claw_nodeagent::{Runtime as _, pressure::Good};
use serde_json::json;

use super::{
    Rig,
    common::{can_run_containers, eventually, log_texts},
    container,
};

#[tokio::test]
async fn what_a_pod_has_of_memory_disk_and_process_numbers_is_measured() {
    if !can_run_containers("what_a_pod_has_of_memory_disk_and_process_numbers_is_measured") {
        return;
    }
    const MIB: u64 = 1 << 20;
    let mut writes =
        container(&["sh", "-c", "toolbox lines --count 100000 --text 0123456789 > /file; sleep 1000"]);
    writes["name"] = "writes".into();
    let rig = Rig::new(json!({"containers": [container(&["memory", "--mib", "48"]), writes]})).await;
    let uid = rig.pod.metadata.uid.clone().unwrap();
    for good in Good::ALL {
        assert!(rig.runtime.usage(&uid, good).await < MIB, "{good:?}: nothing runs yet");
    }
    let run = rig.try_start(0, 0).await.unwrap();
    assert_eq!(rig.try_start(1, 0).await.unwrap().exit, None);
    let folder = rig.runtime.log_folder(&run.key).unwrap();
    eventually("it holds its memory", || async {
        log_texts(&folder).last().map(String::as_str) == Some("holding 48 MiB")
    })
    .await;
    let memory = rig.runtime.usage(&uid, Good::Memory).await;
    assert!((48 * MIB..96 * MIB).contains(&memory), "{memory}");
    // A line is 11 bytes and its number.
    eventually("the file is written", || async { rig.runtime.usage(&uid, Good::Disk).await > 3 * MIB / 2 })
        .await;
    let processes = rig.runtime.usage(&uid, Good::Pids).await;
    assert!((3..10).contains(&processes), "two first processes and one that sleeps: {processes}");
    let levels = rig.runtime.levels().await;
    assert!(Good::ALL.iter().all(|good| levels[good].available > 0), "{levels:?}");
    rig.close().await;
}
