//! How long a container takes from "start it" to its first byte of output, beside `crun` with the
//! same configuration, on this machine, at this moment. Rounds alternate, so that both see the same
//! noise. Needs root and `crun`.
//!
//! Ours: shim, overlay root, log through the shim into its file. crun: create and start, root already
//! in place, output straight into a pipe.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use claw_client::{
    ApiError, ByteStream, Client, Request, ResourceRef, Response, Transport, WatchStream,
    request::{View, WatchOptions},
};
use claw_nodeagent::{
    Containers, ContainersConfig, Runtime,
    runtime::{Host, InstanceKey, Sandbox, Sources, StartRequest},
};
use k8s_openapi::api::core::v1::Pod;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

const ROUNDS: u32 = 60;
const WARM_UP: u32 = 5;

/// The pod of the benchmark needs nothing from a server.
struct NoServer;

#[async_trait]
impl Transport for NoServer {
    async fn call(&self, _: Request) -> Result<Response, ApiError> {
        Err(ApiError::internal("no server in this benchmark"))
    }
    async fn watch(&self, _: ResourceRef, _: WatchOptions, _: View) -> Result<WatchStream, ApiError> {
        Err(ApiError::internal("no server in this benchmark"))
    }
    async fn stream(&self, _: ResourceRef, _: Vec<(String, String)>) -> Result<ByteStream, ApiError> {
        Err(ApiError::internal("no server in this benchmark"))
    }
}

struct Rig {
    runtime: Arc<Containers>,
    sources: Sources,
    host: Host,
    pod: Pod,
    sandbox: Sandbox,
}

impl Rig {
    async fn new(root: &Path) -> Self {
        let config = ContainersConfig {
            cgroup_parent: "/clawbernetes-bench".to_owned(),
            ..ContainersConfig::new(root)
        };
        let runtime = Containers::open(config).await.expect("the runtime opens");
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "bench", "namespace": "default", "uid": "bench"},
            "spec": {"containers": [{"name": "main", "image": "clawbernetes.io/toolbox",
                "args": ["lines", "--count", "1"],
                "resources": {"limits": {"memory": "64Mi", "cpu": "1"}}}]},
        }))
        .expect("a pod");
        let sources = Sources::new(Client::new(Arc::new(NoServer), "bench"));
        let host = Host { node_name: "bench".to_owned(), ip: [127, 0, 0, 1].into() };
        runtime.remember(&pod).await.expect("remembered");
        let sandbox = runtime.prepare(&pod, &host, &sources).await.expect("a sandbox");
        Self { runtime, sources, host, pod, sandbox }
    }

    /// Start to first byte, and start alone.
    async fn round(&self, attempt: u32) -> (Duration, Duration) {
        let began = Instant::now();
        let run = self
            .runtime
            .start(StartRequest {
                pod: &self.pod,
                container: &self.pod.spec.as_ref().expect("a spec").containers[0],
                attempt,
                restart_delay: Duration::ZERO,
                sandbox: &self.sandbox,
                host: &self.host,
                sources: &self.sources,
            })
            .await
            .expect("it starts");
        let started = began.elapsed();
        assert_eq!(run.exit, None, "it started");
        let log = self.runtime.log_folder(&run.key).expect("a log").join("log");
        while fs::metadata(&log).map_or(0, |metadata| metadata.len()) == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
        let first_byte = began.elapsed();
        assert_eq!(self.runtime.wait(&run.key).await.expect("it ends").code, 0);
        (first_byte, started)
    }

    /// The configuration of a finished run, for crun: root in place, cgroup of its own.
    fn bundle_for_crun(&self, root: &Path, folder: &Path) {
        let key = InstanceKey { pod_uid: "bench".to_owned(), container: "main".to_owned(), attempt: 0 };
        let ours = self.runtime.log_folder(&key).expect("a bundle").join("config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(ours).expect("a configuration")).expect("it parses");
        let image =
            fs::read_dir(root.join("images")).expect("images").next().expect("one").expect("readable").path();
        config["root"]["path"] = image.to_string_lossy().into();
        config["linux"]["cgroupsPath"] = "/clawbernetes-bench/crun".into();
        fs::create_dir_all(folder).expect("a folder");
        fs::write(folder.join("config.json"), config.to_string()).expect("written");
    }
}

fn crun(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("crun");
    command.arg("--root").arg(state).arg("--cgroup-manager=cgroupfs").args(arguments);
    command.stdin(Stdio::null());
    command
}

/// `crun create` and `crun start`, to the first byte.
fn crun_round(state: &Path, bundle: &Path, number: u32) -> Duration {
    let id = format!("bench{number}");
    let bundle = bundle.to_string_lossy();
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let began = Instant::now();
    let created =
        crun(state, &["create", "--bundle", &bundle, &id]).stdout(writer).status().expect("crun runs");
    assert!(created.success(), "crun create failed");
    let started = crun(state, &["start", &id]).status().expect("crun runs");
    assert!(started.success(), "crun start failed");
    let mut byte = [0];
    reader.read_exact(&mut byte).expect("a byte");
    let first_byte = began.elapsed();
    let _ = crun(state, &["delete", "--force", &id]).stderr(Stdio::null()).status();
    first_byte
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |at: usize| times[at].as_secs_f64() * 1000.0;
    let last = times.len() - 1;
    println!("{name:<44} {:>7.1} {:>7.1} {:>7.1}", ms(last / 2), ms(last * 95 / 100), ms(0));
}

/// crun does not know hybrid control groups: hide the second version, from this process only.
fn hide_hybrid_cgroups() {
    unshare(CloneFlags::CLONE_NEWNS).expect("root is needed");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)
        .expect("private");
    let _ = umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH);
}

fn main() {
    claw_nodeagent::shim::run_if_asked();
    if !nix::unistd::geteuid().is_root() || Command::new("crun").arg("--version").output().is_err() {
        eprintln!("SKIPPED: this benchmark needs root and crun");
        return;
    }
    hide_hybrid_cgroups();
    let folder = tempfile::tempdir().expect("a folder");
    let (root, state, bundle) =
        (folder.path().join("node"), folder.path().join("crun"), folder.path().join("bundle"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio");
    runtime.block_on(async {
        let rig = Rig::new(&root).await;
        let (mut ours, mut starts, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..WARM_UP + ROUNDS {
            let (first_byte, start) = rig.round(number).await;
            rig.bundle_for_crun(&root, &bundle);
            let crun = crun_round(&state, &bundle, number);
            if number >= WARM_UP {
                ours.push(first_byte);
                starts.push(start);
                theirs.push(crun);
            }
        }
        println!(
            "{:<44} {:>7} {:>7} {:>7}",
            format!("milliseconds, {ROUNDS} rounds"),
            "median",
            "p95",
            "min"
        );
        report("clawbernetes: start to first byte in the log", ours);
        report("clawbernetes: start acknowledged", starts);
        report("crun: create + start to first byte", theirs);
        rig.runtime.release("bench").await.expect("released");
        rig.runtime.forget("bench").await.expect("forgotten");
        rig.runtime.close().await.expect("closed");
    });
}
