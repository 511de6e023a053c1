//! What containers may ask of the kernel, in their first process and in programs that come later.

use serde_json::{Value, json};

use super::{Rig, common::can_run_containers, container};

/// Asks for another way to read programs, which succeeds for everybody whom no filter stops.
fn forbidden() -> Vec<String> {
    ["/toolbox", "syscall", &libc::SYS_personality.to_string(), "0x400000"].map(str::to_owned).to_vec()
}

fn call(number: i64, first: &str) -> Vec<String> {
    ["/toolbox", "syscall", &number.to_string(), first].map(str::to_owned).to_vec()
}

/// One container for each security context; the pod's own says nothing.
async fn rig(contexts: &[Value]) -> Rig {
    let containers = contexts.iter().enumerate().map(|(index, context)| {
        let mut one = container(&["sleep", "3600"]);
        one["name"] = format!("c{index}").into();
        one["securityContext"] = context.clone();
        one
    });
    Rig::new(json!({"containers": containers.collect::<Vec<_>>()})).await
}

const REFUSED: &str = "Operation not permitted (os error 1)";

#[tokio::test]
async fn a_container_is_filtered_unless_it_is_said_otherwise_and_so_are_programs_that_come_later() {
    if !can_run_containers(
        "a_container_is_filtered_unless_it_is_said_otherwise_and_so_are_programs_that_come_later",
    ) {
        return;
    }
    let default = json!({"type": "RuntimeDefault"});
    let contexts = [
        (json!({}), REFUSED, "2", "a80425fb"),
        (json!({"seccompProfile": {"type": "Unconfined"}}), "0", "0", "a80425fb"),
        (json!({"privileged": true, "seccompProfile": default}), "0", "0", ""),
        (
            json!({"runAsUser": 1000, "allowPrivilegeEscalation": false, "seccompProfile": default,
                "capabilities": {"drop": ["ALL"]}}),
            REFUSED,
            "2",
            "00000000",
        ),
    ];
    let rig = rig(&contexts.iter().map(|(context, ..)| context.clone()).collect::<Vec<_>>()).await;
    for (index, (context, answer, mode, bounding)) in contexts.into_iter().enumerate() {
        let run = rig.try_start(index, 0).await.unwrap();
        assert_eq!(run.exit, None, "{context}");
        let (code, said) = rig.says(index, &forbidden()).await;
        assert_eq!((said.as_str(), code), (answer, i32::from(answer == REFUSED)), "{context}");
        // Of the first process, and of one that comes later.
        for process in ["/proc/1/status", "/proc/self/status"] {
            let (_, status) = rig.says(index, &["/toolbox", "cat", process].map(str::to_owned)).await;
            assert!(status.contains(&format!("Seccomp:\t{mode}")), "{process} of {context}: {status}");
            let held = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
            assert!(held.ends_with(bounding), "{process} of {context}: nothing that was lent stays: {held}");
        }
    }
    rig.close().await;
}

#[tokio::test]
async fn a_first_process_is_filtered_before_its_program_begins() {
    if !can_run_containers("a_first_process_is_filtered_before_its_program_begins") {
        return;
    }
    let mut main = container(&[]);
    main["args"] = json!(forbidden()[1..]);
    let rig = Rig::new(json!({"containers": [main]})).await;
    let (exit, log) = rig.run_to_end().await;
    assert_eq!((exit.code, log), (1, vec![REFUSED.to_owned()]));
    rig.close().await;
}

#[tokio::test]
async fn calls_newer_than_the_library_pass_or_are_missing_and_capabilities_open_others() {
    if !can_run_containers("calls_newer_than_the_library_pass_or_are_missing_and_capabilities_open_others") {
        return;
    }
    let rig = rig(&[json!({}), json!({"capabilities": {"add": ["SYS_ADMIN"]}})]).await;
    for index in 0..2 {
        assert_eq!(rig.try_start(index, 0).await.unwrap().exit, None);
    }
    let missing = "Function not implemented (os error 38)";
    // setxattrat is in the profile, by number where its name is not known; on older kernels it is missing.
    let (_, said) = rig.says(0, &call(463, "-1")).await;
    assert_ne!(said, REFUSED);
    assert_eq!(rig.says(0, &call(1000, "0")).await.1, missing);
    assert_eq!(rig.says(0, &call(libc::SYS_clone3, "0")).await.1, missing);
    assert_eq!(rig.says(0, &call(libc::SYS_keyctl, "0")).await.1, REFUSED);
    // A new namespace for mounts.
    let unshare = call(libc::SYS_unshare, "0x20000");
    assert_eq!(rig.says(0, &unshare).await.1, REFUSED);
    assert_eq!(rig.says(1, &unshare).await, (0, "0".to_owned()));
    rig.close().await;
}

#[tokio::test]
async fn a_profile_of_the_machine_is_followed_and_a_missing_one_is_named() {
    if !can_run_containers("a_profile_of_the_machine_is_followed_and_a_missing_one_is_named") {
        return;
    }
    let named = |name: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": name}});
    let rig = rig(&[named("own/quiet.json"), named("own/lost.json")]).await;
    let folder = rig.machine.root.path().join("seccomp/own");
    std::fs::create_dir_all(&folder).unwrap();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EIO},
        {"names": ["unshare"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x2_0000, "valueTwo": 0x2_0000}]},
    ]});
    std::fs::write(folder.join("quiet.json"), profile.to_string()).unwrap();
    assert_eq!(rig.try_start(0, 0).await.unwrap().exit, None);
    assert_eq!(rig.says(0, &forbidden()).await, (1, "Input/output error (os error 5)".to_owned()));
    assert_eq!(rig.says(0, &call(libc::SYS_unshare, "0")).await.1, "0");
    assert_eq!(rig.says(0, &call(libc::SYS_unshare, "0x20000")).await.1, REFUSED);
    let failure = rig.try_start(1, 0).await.unwrap_err();
    assert_eq!(failure.reason, "CreateContainerError");
    assert!(failure.message.contains("own/lost.json"), "{failure:?}");
    rig.close().await;
}
