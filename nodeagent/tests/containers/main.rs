//! Real containers, straight through the runtime: start, logs, exits, limits, exec, adoption, and
//! nothing left behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is how they fail")]

#[path = "../common/mod.rs"]
mod common;
mod goods;
mod system_calls;
mod together;

use std::{sync::Arc, time::Duration};

use claw_nodeagent::{
    Containers, ContainersConfig, Runtime,
    runtime::{
        ExecReply, ExitReason, ExitRecord, Host, Instance, InstanceKey, ProbeTarget, Said, Sandbox, Sources,
        StartFailure, StartRequest, Talk, TalkWish,
        cgroups::{self, Version},
    },
};
use common::{Machine, can_run_containers, eventually, log_texts, shims_of, unreachable_client};
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

/// One pod on a node of its own.
struct Rig {
    machine: Machine,
    runtime: Arc<Containers>,
    sources: Sources,
    host: Host,
    pod: Pod,
    sandbox: Sandbox,
}

impl Rig {
    async fn new(spec: serde_json::Value) -> Self {
        let machine = Machine::new();
        let runtime = machine.open().await;
        let uid = machine.cgroup.trim_start_matches('/').to_owned();
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "subject", "namespace": "default", "uid": uid},
            "spec": spec,
        }))
        .unwrap();
        let sources = Sources::new(unreachable_client());
        let host = Host { node_name: "here".to_owned(), ip: [127, 0, 0, 1].into() };
        runtime.remember(&pod).await.unwrap();
        let sandbox = runtime.prepare(&pod, &host, &sources).await.unwrap();
        Self { machine, runtime, sources, host, pod, sandbox }
    }

    async fn one(args: &[&str]) -> Self {
        Self::new(serde_json::json!({"containers": [container(args)]})).await
    }

    async fn try_start(&self, index: usize, attempt: u32) -> Result<Instance, StartFailure> {
        self.runtime
            .start(StartRequest {
                pod: &self.pod,
                container: &self.pod.spec.as_ref().unwrap().containers[index],
                services: &["TOLD", "OWN"].map(|name| (name.to_owned(), "by services".to_owned())),
                target: None,
                attempt,
                restart_delay: Duration::ZERO,
                sandbox: &self.sandbox,
                host: &self.host,
                sources: &self.sources,
                tell: &|_| {},
                given_up: &CancellationToken::new(),
            })
            .await
    }

    async fn start(&self) -> Instance {
        let instance = self.try_start(0, 0).await.unwrap();
        assert_eq!(instance.exit, None, "it did not start");
        instance
    }

    async fn run_to_end(&self) -> (ExitRecord, Vec<String>) {
        let instance = self.start().await;
        let exit =
            tokio::time::timeout(common::PATIENCE, self.runtime.wait(&instance.key)).await.unwrap().unwrap();
        (exit, log_texts(&self.runtime.log_folder(&instance.key).unwrap()))
    }

    /// What a program says that is started in a container that runs.
    async fn says(&self, index: usize, command: &[String]) -> (i32, String) {
        let key = InstanceKey {
            pod_uid: self.pod.metadata.uid.clone().unwrap(),
            container: format!("c{index}"),
            attempt: 0,
        };
        match self.runtime.exec(&key, command, Duration::from_secs(60)).await.unwrap() {
            ExecReply::Exited { code, output } => (code, output.trim().to_owned()),
            other => panic!("{command:?}: {other:?}"),
        }
    }

    /// Releases the pod and asserts that nothing is left of it.
    async fn close(self) {
        let uid = self.pod.metadata.uid.as_deref().unwrap();
        self.runtime.release(uid).await.unwrap();
        self.runtime.forget(uid).await.unwrap();
        self.runtime.close().await.unwrap();
        self.machine.nothing_is_left().await;
    }
}

fn container(args: &[&str]) -> serde_json::Value {
    serde_json::json!({"name": "main", "image": "clawbernetes.io/toolbox:test", "args": args})
}

#[tokio::test]
async fn a_container_runs_to_its_end_and_leaves_only_its_log() {
    if !can_run_containers("a_container_runs_to_its_end_and_leaves_only_its_log") {
        return;
    }
    let rig = Rig::one(&["lines", "--count", "3"]).await;
    let (exit, log) = rig.run_to_end().await;
    assert_eq!((exit.code, exit.reason), (0, ExitReason::Completed));
    assert_eq!(log, ["line 1", "line 2", "line 3"]);
    rig.close().await;
}

#[tokio::test]
async fn an_exit_code_and_both_streams_are_kept() {
    if !can_run_containers("an_exit_code_and_both_streams_are_kept") {
        return;
    }
    let rig = Rig::one(&["crash", "--code", "7"]).await;
    let (exit, log) = rig.run_to_end().await;
    assert_eq!((exit.code, exit.reason), (7, ExitReason::Error));
    assert_eq!(log, ["crashing with code 7 in 0ns", "crash: exit 7"]);
    rig.close().await;
}

#[tokio::test]
async fn a_container_over_its_memory_limit_is_killed_and_says_why() {
    if !can_run_containers("a_container_over_its_memory_limit_is_killed_and_says_why") {
        return;
    }
    let mut main = container(&["memory", "--mib", "64"]);
    main["resources"] = serde_json::json!({"limits": {"memory": "24Mi"}});
    let rig = Rig::new(serde_json::json!({"containers": [main]})).await;
    let (exit, _) = rig.run_to_end().await;
    assert_eq!((exit.code, exit.signal, exit.reason), (137, Some(9), ExitReason::OOMKilled));
    rig.close().await;
}

#[tokio::test]
async fn a_container_finds_its_limits_in_its_control_group_and_cannot_change_them() {
    if !can_run_containers("a_container_finds_its_limits_in_its_control_group_and_cannot_change_them") {
        return;
    }
    let (memory, cpu, cpu_limit) = match cgroups::version() {
        Version::V1 => ("memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us", "50000"),
        Version::V2 => ("memory.max", "cpu.max", "50000 100000"),
    };
    let [memory, cpu, new] = [memory, cpu, "new"].map(|name| format!("/sys/fs/cgroup/{name}"));
    let named = |name: &str, privileged: bool| {
        serde_json::json!({"name": name, "image": "clawbernetes.io/toolbox:test", "args": ["sleep", "3600"],
            "securityContext": {"privileged": privileged},
            "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}}})
    };
    let rig = Rig::new(serde_json::json!({"containers": [named("c0", false), named("c1", true)]})).await;
    let command = |words: &[&str]| {
        [&["/toolbox"], words].concat().iter().map(|&word| word.to_owned()).collect::<Vec<_>>()
    };
    let limit = (64 << 20).to_string();
    for index in 0..2 {
        rig.try_start(index, 0).await.unwrap();
        assert_eq!(rig.says(index, &command(&["cat", &memory])).await, (0, limit.clone()));
        assert_eq!(rig.says(index, &command(&["cat", &cpu])).await, (0, cpu_limit.to_owned()));
    }
    for file in [&memory, &cpu, &new] {
        let (code, said) = rig.says(0, &command(&["write", file, &limit])).await;
        assert!(code != 0 && said.contains("Read-only file system"), "{file}: {code} {said}");
    }
    assert_eq!(rig.says(1, &command(&["write", &memory, &limit])).await.0, 0, "the privileged may");
    rig.close().await;
}

#[tokio::test]
async fn a_container_over_its_cpu_limit_is_throttled() {
    if !can_run_containers("a_container_over_its_cpu_limit_is_throttled") {
        return;
    }
    let mut main = container(&["cpu", "--threads", "1"]);
    main["resources"] = serde_json::json!({"limits": {"cpu": "100m"}});
    let rig = Rig::new(serde_json::json!({"containers": [main]})).await;
    let run = rig.start().await;
    let group = format!("{}/pod{}/{}", rig.machine.cgroup, run.key.pod_uid, run.id);
    let throttled = || {
        let text = cgroups::read(&group, "cpu", "cpu.stat").unwrap_or_default();
        cgroups::counter(&text, "nr_throttled").unwrap_or(0)
    };
    eventually("the kernel throttles it", || async { throttled() > 3 }).await;
    rig.close().await;
}

#[tokio::test]
async fn sigterm_reaches_the_program_and_the_exit_is_graceful() {
    if !can_run_containers("sigterm_reaches_the_program_and_the_exit_is_graceful") {
        return;
    }
    let rig = Rig::one(&["serve"]).await;
    let run = rig.start().await;
    let folder = rig.runtime.log_folder(&run.key).unwrap();
    eventually("it serves", || async { !log_texts(&folder).is_empty() }).await;
    rig.runtime.signal(&run.key, libc::SIGTERM).await.unwrap();
    let exit = rig.runtime.wait(&run.key).await.unwrap();
    assert_eq!(exit.code, 0);
    assert_eq!(log_texts(&folder).last().map(String::as_str), Some("received SIGTERM, stopping"));
    rig.runtime.signal(&run.key, libc::SIGKILL).await.expect("signalling what is over succeeds");
    rig.close().await;
}

#[tokio::test]
async fn a_signal_that_has_a_number_and_no_name_is_sent() {
    if !can_run_containers("a_signal_that_has_a_number_and_no_name_is_sent") {
        return;
    }
    let rig = Rig::one(&["serve"]).await;
    let run = rig.start().await;
    let folder = rig.runtime.log_folder(&run.key).unwrap();
    eventually("it serves", || async { !log_texts(&folder).is_empty() }).await;
    // A first process that does not ask for it never sees it; that it is sent is what there is to see.
    rig.runtime.signal(&run.key, libc::SIGRTMIN() + 3).await.expect("it is sent");
    rig.runtime.signal(&run.key, libc::SIGTERM).await.unwrap();
    assert_eq!(rig.runtime.wait(&run.key).await.unwrap().code, 0);
    rig.close().await;
}

#[tokio::test]
async fn commands_run_inside_a_container_and_are_killed_in_time() {
    if !can_run_containers("commands_run_inside_a_container_and_are_killed_in_time") {
        return;
    }
    let rig = Rig::one(&["serve", "--port", "9000"]).await;
    let run = rig.start().await;
    let exec = async |command: &[&str], timeout| {
        let command: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
        rig.runtime.exec(&run.key, &command, timeout).await.unwrap()
    };
    let long = Duration::from_secs(30);
    eventually("it serves on its own loopback", || async {
        let reply = exec(&["/toolbox", "check", "http://localhost:9000/healthz"], long).await;
        reply == ExecReply::Exited { code: 0, output: String::new() }
    })
    .await;
    let reply = exec(&["toolbox", "cat", "/proc/sys/kernel/hostname"], long).await;
    assert_eq!(reply, ExecReply::Exited { code: 0, output: "subject\n".to_owned() });
    assert_eq!(exec(&["/toolbox", "sleep", "100"], Duration::from_millis(300)).await, ExecReply::TimedOut);
    let both = ["/toolbox", "sh", "-c", "toolbox sleep 4711; toolbox sleep 4711"];
    assert_eq!(exec(&both, Duration::from_millis(300)).await, ExecReply::TimedOut);
    eventually("what it started has ended with it", || async {
        let ExecReply::Exited { code: 0, output } = exec(&["toolbox", "ps"], long).await else {
            return false;
        };
        !output.contains("4711")
    })
    .await;
    assert!(matches!(exec(&["/nowhere"], long).await, ExecReply::Failed(_)));
    rig.close().await;
}

#[tokio::test]
async fn containers_of_a_pod_share_a_volume_and_an_address() {
    if !can_run_containers("containers_of_a_pod_share_a_volume_and_an_address") {
        return;
    }
    let with_volume = |name: &str, args: &[&str]| {
        let mut container = container(args);
        container["name"] = name.into();
        container["volumeMounts"] = serde_json::json!([{"name": "shared", "mountPath": "/data"}]);
        container
    };
    let rig = Rig::new(serde_json::json!({
        "volumes": [{"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}],
        "containers": [with_volume("writer", &["write", "/data/note", "from the writer"]),
            with_volume("server", &["serve", "--port", "8080"]),
            with_volume("reader", &["cat", "/data/note"]),
            with_volume("caller", &["check", "http://localhost:8080/healthz"])],
    }))
    .await;
    for (index, expected) in [(0, ""), (2, "from the writer")] {
        let run = rig.try_start(index, 0).await.unwrap();
        assert_eq!(rig.runtime.wait(&run.key).await.unwrap().code, 0);
        assert_eq!(log_texts(&rig.runtime.log_folder(&run.key).unwrap()).join("\n"), expected);
    }
    let server = rig.try_start(1, 0).await.unwrap();
    let folder = rig.runtime.log_folder(&server.key).unwrap();
    eventually("it serves", || async { !log_texts(&folder).is_empty() }).await;
    let caller = rig.try_start(3, 0).await.unwrap();
    assert_eq!(rig.runtime.wait(&caller.key).await.unwrap().code, 0);
    rig.close().await;
}

#[tokio::test]
async fn the_host_reaches_a_pod_at_its_address() {
    if !can_run_containers("the_host_reaches_a_pod_at_its_address") {
        return;
    }
    let rig = Rig::one(&["serve"]).await;
    let run = rig.start().await;
    let address = (rig.sandbox.ip.unwrap().to_string(), 8080);
    let probe = |path: &str| ProbeTarget::Http {
        tls: false,
        address: address.clone(),
        path: path.to_owned(),
        headers: vec![],
        any_status: false,
    };
    let limit = common::PATIENCE;
    eventually("the probe succeeds", || async {
        rig.runtime.probe(&run.key, &probe("/healthz"), limit).await.is_ok()
    })
    .await;
    rig.runtime.probe(&run.key, &probe("/control?healthy=false"), limit).await.unwrap();
    let failure = rig.runtime.probe(&run.key, &probe("/healthz"), limit).await.unwrap_err();
    assert_eq!(failure, "HTTP probe failed with statuscode: 503");
    rig.close().await;
}

#[tokio::test]
async fn programs_hear_the_signals_that_their_agent_ignores() {
    if !can_run_containers("programs_hear_the_signals_that_their_agent_ignores") {
        return;
    }
    common::ignore_hang_ups();
    let mut sleeper = container(&["sleep", "1000"]);
    sleeper["name"] = "c0".into();
    let rig = Rig::new(serde_json::json!({"containers": [sleeper]})).await;
    rig.start().await;
    for process in ["/proc/1/status", "/proc/self/status"] {
        let (_, status) = rig.says(0, &["/toolbox", "cat", process].map(str::to_owned)).await;
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
        let hang_up = u64::from_str_radix(ignored, 16).unwrap() & 1;
        assert_eq!(hang_up, 0, "{process}: {ignored}");
    }
    rig.close().await;
}

#[tokio::test]
async fn identity_limits_and_environment_are_what_the_pod_says() {
    if !can_run_containers("identity_limits_and_environment_are_what_the_pod_says") {
        return;
    }
    let named = |name: &str, args: &[&str], more: serde_json::Value| {
        let mut container = container(args);
        container["name"] = name.into();
        for (field, value) in more.as_object().unwrap() {
            container[field] = value.clone();
        }
        container
    };
    let rig = Rig::new(serde_json::json!({
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "supplementalGroups": [3000]},
        "containers": [
            named("status", &["cat", "/proc/self/status"], serde_json::json!({
                "securityContext": {"allowPrivilegeEscalation": false}})),
            named("env", &["env"], serde_json::json!({"env": [
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "OWN", "value": "$(TOLD), not $(OWN)"},
                {"name": "BOTH", "value": "$(NODE)-$$(NODE)"}]})),
            named("frozen", &["write", "/file", "x"], serde_json::json!({
                "securityContext": {"readOnlyRootFilesystem": true, "runAsUser": 0}})),
            named("lost", &[], serde_json::json!({"command": ["/no/such/program"]})),
        ],
    }))
    .await;
    let run = async |index| {
        let run = rig.try_start(index, 0).await.unwrap();
        let exit = rig.runtime.wait(&run.key).await.unwrap();
        (exit, log_texts(&rig.runtime.log_folder(&run.key).unwrap()).join("\n"))
    };
    let (exit, status) = run(0).await;
    assert_eq!(exit.code, 0);
    for line in [
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t2000\t2000\t2000\t2000",
        "Groups:\t3000",
        "NoNewPrivs:\t1",
        "CapEff:\t0000000000000000",
        "NSpid:",
    ] {
        assert!(status.contains(line), "{line} is missing in {status}");
    }
    let (_, environment) = run(1).await;
    for line in [
        "BOTH=here-$(NODE)",
        "TOOLBOX_TAG=test",
        "HOSTNAME=subject",
        "TOLD=by services",
        "OWN=by services, not by services",
    ] {
        assert!(environment.contains(line), "{line} is missing in {environment}");
    }
    assert!(environment.contains(&format!("IP={}", rig.sandbox.ip.unwrap())), "{environment}");
    let (exit, _) = run(2).await;
    assert_ne!(exit.code, 0, "the root must be read-only");
    let (exit, _) = run(3).await;
    assert_eq!((exit.code, exit.reason), (128, ExitReason::StartError));
    assert!(exit.message.contains("/no/such/program"), "{}", exit.message);
    rig.close().await;
}

#[tokio::test]
async fn a_reference_to_nothing_is_named_before_anything_starts() {
    if !can_run_containers("a_reference_to_nothing_is_named_before_anything_starts") {
        return;
    }
    let mut main = container(&["env"]);
    main["volumeMounts"] = serde_json::json!([{"name": "ghost", "mountPath": "/x"}]);
    let rig = Rig::new(serde_json::json!({"containers": [main]})).await;
    let failure = rig.try_start(0, 0).await.unwrap_err();
    assert_eq!(failure.reason, "CreateContainerConfigError");
    assert!(failure.message.contains("\"ghost\""), "{}", failure.message);
    rig.close().await;
}

#[tokio::test]
async fn a_runtime_that_comes_back_finds_what_runs_and_what_ended() {
    if !can_run_containers("a_runtime_that_comes_back_finds_what_runs_and_what_ended") {
        return;
    }
    let mut rig = Rig::new(serde_json::json!({"containers": [
        {"name": "long", "image": "clawbernetes.io/toolbox", "args": ["lines", "--count", "30", "--interval-ms", "50"]},
        {"name": "short", "image": "clawbernetes.io/toolbox", "args": ["crash", "--code", "9"]},
    ]}))
    .await;
    let long = rig.try_start(0, 0).await.unwrap();
    let short = rig.try_start(1, 0).await.unwrap();
    // The runtime goes, as with an agent that is stopped; containers do not notice.
    let folder = rig.runtime.log_folder(&short.key).unwrap();
    rig.runtime = rig.machine.open().await;
    eventually("the short one ends unseen", || async { folder.join("exit.json").exists() }).await;
    let recovered = rig.runtime.recover().await.unwrap();
    assert_eq!(recovered.len(), 1);
    assert_eq!(recovered[0].sandbox.as_ref(), Some(&rig.sandbox));
    let runs = &recovered[0].instances;
    assert_eq!(
        runs.iter().map(|run| run.key.clone()).collect::<Vec<_>>(),
        [long.key.clone(), short.key.clone()]
    );
    assert_eq!((runs[0].id.as_str(), runs[0].started_at), (long.id.as_str(), long.started_at));
    assert_eq!(runs[1].exit.as_ref().unwrap().code, 9);
    assert_eq!(rig.runtime.wait(&long.key).await.unwrap().code, 0);
    let lines = log_texts(&rig.runtime.log_folder(&long.key).unwrap());
    assert_eq!(lines, (1..=30).map(|number| format!("line {number}")).collect::<Vec<_>>());
    rig.close().await;
}

#[tokio::test]
async fn a_pod_whose_record_is_lost_is_taken_down() {
    if !can_run_containers("a_pod_whose_record_is_lost_is_taken_down") {
        return;
    }
    let mut rig = Rig::new(serde_json::json!({
        "volumes": [{"name": "shared", "emptyDir": {"medium": "Memory"}}],
        "containers": [container(&["sleep", "1000"])],
    }))
    .await;
    rig.start().await;
    let folder = rig.machine.root.path().join("pods").join(rig.pod.metadata.uid.as_deref().unwrap());
    std::fs::remove_file(folder.join("pod.json")).unwrap();
    rig.runtime = rig.machine.open().await;
    assert!(rig.runtime.recover().await.unwrap().is_empty());
    assert!(!folder.exists() && shims_of(rig.machine.root.path()).is_empty());
    rig.close().await;
}

#[tokio::test]
async fn a_container_whose_shim_is_killed_is_reported_as_lost_and_cleaned_up() {
    if !can_run_containers("a_container_whose_shim_is_killed_is_reported_as_lost_and_cleaned_up") {
        return;
    }
    let rig = Rig::one(&["sleep", "1000"]).await;
    let run = rig.start().await;
    let shims = shims_of(rig.machine.root.path());
    assert_eq!(shims.len(), 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shims[0]), nix::sys::signal::Signal::SIGKILL).unwrap();
    let exit = rig.runtime.wait(&run.key).await.unwrap();
    assert_eq!((exit.code, exit.reason), (137, ExitReason::ContainerStatusUnknown));
    rig.close().await;
}

#[tokio::test]
async fn garbage_on_its_socket_does_not_hurt_a_shim() {
    use std::io::Write as _;
    if !can_run_containers("garbage_on_its_socket_does_not_hurt_a_shim") {
        return;
    }
    let rig = Rig::one(&["sleep", "1000"]).await;
    let run = rig.start().await;
    let folder = rig.runtime.log_folder(&run.key).unwrap();
    let (_open, socket) = claw_nodeagent::shim::short_path(&folder, "shim.sock").unwrap();
    let silent = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let mut loud = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    loud.write_all(&[0xFF; 5000]).unwrap();
    drop(silent);
    rig.runtime.signal(&run.key, 999).await.expect_err("there is no such signal");
    rig.runtime.signal(&run.key, libc::SIGKILL).await.unwrap();
    assert_eq!(rig.runtime.wait(&run.key).await.unwrap().code, 137);
    rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_containers_start_at_once_and_no_exit_is_lost() {
    if !can_run_containers("many_containers_start_at_once_and_no_exit_is_lost") {
        return;
    }
    const COUNT: usize = 24;
    let containers: Vec<serde_json::Value> = (0..COUNT)
        .map(|number| {
            let code = number.to_string();
            serde_json::json!({"name": format!("c{number}"), "image": "clawbernetes.io/toolbox",
                "args": ["crash", "--code", code]})
        })
        .collect();
    let rig = Rig::new(serde_json::json!({"containers": containers})).await;
    let runs = futures::future::join_all((0..COUNT).map(|index| rig.try_start(index, 0))).await;
    for (number, run) in runs.into_iter().enumerate() {
        let run = run.unwrap();
        let exit = rig.runtime.wait(&run.key).await.unwrap();
        assert_eq!(usize::try_from(exit.code), Ok(number));
        assert_eq!(log_texts(&rig.runtime.log_folder(&run.key).unwrap()).len(), 2);
    }
    rig.close().await;
}

/// The victim of the next test: starts containers one after another until it is killed.
#[tokio::test]
#[ignore = "a helper process of the test below, useless alone"]
async fn victim_that_starts_containers() {
    let (Ok(root), Ok(cgroup)) = (std::env::var("CLAW_VICTIM_ROOT"), std::env::var("CLAW_VICTIM_CGROUP"))
    else {
        return;
    };
    let config = ContainersConfig { cgroup_parent: cgroup, ..ContainersConfig::new(root) };
    let runtime = Containers::open(config).await.unwrap();
    let sources = Sources::new(unreachable_client());
    let host = Host { node_name: "here".to_owned(), ip: [127, 0, 0, 1].into() };
    let recovered = runtime.recover().await.unwrap();
    let pod = recovered[0].pod.clone();
    let sandbox = runtime.prepare(&pod, &host, &sources).await.unwrap();
    let mut attempt = recovered[0].instances.iter().map(|run| run.key.attempt + 1).max().unwrap_or(0);
    loop {
        let request = StartRequest {
            pod: &pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            services: &[],
            target: None,
            attempt,
            restart_delay: Duration::ZERO,
            sandbox: &sandbox,
            host: &host,
            sources: &sources,
            tell: &|_| {},
            given_up: &CancellationToken::new(),
        };
        runtime.start(request).await.unwrap();
        attempt += 1;
    }
}

#[tokio::test]
async fn an_agent_killed_at_any_moment_of_a_start_leaves_nothing_unknown() {
    const ROUNDS: u64 = 8;
    if !can_run_containers("an_agent_killed_at_any_moment_of_a_start_leaves_nothing_unknown") {
        return;
    }
    let mut rig = Rig::one(&["lines", "--count", "3"]).await;
    let uid = rig.pod.metadata.uid.clone().unwrap();
    let runs_of = |machine: &Machine| {
        let folder = machine.root.path().join("pods").join(&uid).join("containers/main");
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    };
    for round in 0..ROUNDS {
        let before = runs_of(&rig.machine);
        let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "victim_that_starts_containers"])
            .env("CLAW_VICTIM_ROOT", rig.machine.root.path())
            .env("CLAW_VICTIM_CGROUP", &rig.machine.cgroup)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        eventually("the victim starts containers", || async { runs_of(&rig.machine) > before }).await;
        // A different moment of the start in every round; what matters is that any will do.
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        rig.runtime = rig.machine.open().await;
        let recovered = rig.runtime.recover().await.unwrap();
        for run in &recovered[0].instances {
            let exit =
                tokio::time::timeout(common::PATIENCE, rig.runtime.wait(&run.key)).await.unwrap().unwrap();
            assert_eq!((exit.code, exit.reason), (0, ExitReason::Completed), "{run:?}");
            assert_eq!(log_texts(&rig.runtime.log_folder(&run.key).unwrap()), ["line 1", "line 2", "line 3"]);
        }
    }
    rig.close().await;
}

#[tokio::test]
async fn whoever_is_attached_and_does_not_read_holds_a_container_up_only_for_a_while() {
    let test = "whoever_is_attached_and_does_not_read_holds_a_container_up_only_for_a_while";
    if !can_run_containers(test) {
        return;
    }
    // More than all buffers on the way hold, and less than a log is rotated at.
    let script = "cat; toolbox lines --count 150000";
    let rig = Rig::new(serde_json::json!({"containers": [{
        "name": "main", "image": "clawbernetes.io/toolbox:test", "command": ["sh", "-c", script],
        "stdin": true, "stdinOnce": true,
    }]}))
    .await;
    let instance = rig.start().await;
    let (say, said) = tokio::sync::mpsc::channel(1);
    let (heard, _nobody_reads) = tokio::sync::mpsc::channel(1);
    let wish = TalkWish { stdin: true, stdout: true, ..TalkWish::default() };
    let attached = tokio::spawn({
        let (runtime, key) = (Arc::clone(&rig.runtime), instance.key.clone());
        async move { runtime.talk(&key, &wish, Talk { said, heard }).await }
    });
    say.send(Said::StdinEnd).await.unwrap();
    let exit =
        tokio::time::timeout(common::PATIENCE, rig.runtime.wait(&instance.key)).await.unwrap().unwrap();
    assert_eq!(exit.reason, ExitReason::Completed);
    let log = log_texts(&rig.runtime.log_folder(&instance.key).unwrap());
    assert!(log.len() == 150_000 && log.last().is_some_and(|line| line == "line 150000"), "{}", log.len());
    assert!(!attached.is_finished(), "it still waits for its reader");
    attached.abort();
    rig.close().await;
}
