//! Real containers, straight through the runtime: start, logs, exits, limits, exec, adoption, and
//! nothing left behind.

mod common;

use std::{sync::Arc, time::Duration};

use claw_nodeagent::{
    Containers, Runtime,
    runtime::{
        ExecReply, ExitReason, ExitRecord, Host, Instance, Sandbox, Sources, StartFailure, StartRequest,
    },
};
use common::{Machine, can_run_containers, eventually, log_texts, shims_of, unreachable_client};
use k8s_openapi::api::core::v1::Pod;

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
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "subject", "namespace": "default", "uid": "11111111-2222-3333-4444-555555555555"},
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
                attempt,
                restart_delay: Duration::ZERO,
                sandbox: &self.sandbox,
                host: &self.host,
                sources: &self.sources,
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

    /// Releases the pod and asserts that nothing is left of it.
    async fn close(self) {
        let uid = self.pod.metadata.uid.as_deref().unwrap();
        self.runtime.release(uid).await.unwrap();
        self.runtime.forget(uid).await.unwrap();
        self.runtime.close().await.unwrap();
        assert_eq!(self.machine.leftovers(), Default::default());
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
