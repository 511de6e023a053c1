//! How long containers take from "start it" to their first byte of output, beside `crun` with the
//! same configuration, on this machine, at this moment. Needs root and `crun`.
//!
//! Ours: shim, overlay root, log through the shim into its file, the default filter of system calls. crun:
//! root already in place, output straight into a pipe; `create` and `start` as orchestrators call them, and
//! `run`, which does both in one process; with the same filter. Both also without any. Rounds alternate, so
//! that all see the same noise.
//!
//! Parts: `rested` (each alone on an idle machine), `busy` (one right after another), `crowd` (many at
//! once).

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use claw_client::{
    ApiError, ByteStream, Client, Request, ResourceRef, Response, Transport, WatchStream,
    request::{View, WatchOptions},
};
use claw_nodeagent::{
    Containers, ContainersConfig, Runtime,
    runtime::{Host, Instance, Sandbox, Sources, StartRequest},
};
use k8s_openapi::api::core::v1::Pod;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 60;
const WARM_UP: usize = 5;

/// Started at once, and how often.
const CROWD: usize = 20;
const CROWD_ROUNDS: usize = 10;

/// Until the kernel has forgotten the start before: once a process was moved between cgroups, the
/// next moves are cheap for some 15 ms.
const REST: Duration = Duration::from_millis(50);

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

/// With the default filter of system calls, or with none: the place of the container in its pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Filtered = 0,
    Free = 1,
}

struct Rig {
    runtime: Arc<Containers>,
    sources: Sources,
    host: Host,
    pod: Pod,
    sandbox: Sandbox,
    /// Runs so far.
    attempts: AtomicU32,
}

impl Rig {
    async fn new(root: &Path) -> Self {
        let config = ContainersConfig {
            cgroup_parent: "/clawbernetes-bench".to_owned(),
            ..ContainersConfig::new(root)
        };
        let runtime = Containers::open(config).await.expect("the runtime opens");
        let container = |name: &str| {
            serde_json::json!({
                "name": name, "image": "clawbernetes.io/toolbox", "args": ["lines", "--count", "1"],
                "resources": {"limits": {"memory": "64Mi", "cpu": "1"}},
                "securityContext": {"seccompProfile": {
                    "type": if name == "free" { "Unconfined" } else { "RuntimeDefault" },
                }},
            })
        };
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "bench", "namespace": "default", "uid": "bench"},
            "spec": {"containers": [container("filtered"), container("free")]},
        }))
        .expect("a pod");
        let sources = Sources::new(Client::new(Arc::new(NoServer), "bench"));
        let host = Host { node_name: "bench".to_owned(), ip: [127, 0, 0, 1].into() };
        runtime.remember(&pod).await.expect("remembered");
        let sandbox = runtime.prepare(&pod, &host, &sources).await.expect("a sandbox");
        Self { runtime, sources, host, pod, sandbox, attempts: AtomicU32::new(0) }
    }

    async fn start(&self, kind: Kind) -> Instance {
        let run = self
            .runtime
            .start(StartRequest {
                pod: &self.pod,
                container: &self.pod.spec.as_ref().expect("a spec").containers[kind as usize],
                services: &[],
                target: None,
                attempt: self.attempts.fetch_add(1, Ordering::Relaxed),
                restart_delay: Duration::ZERO,
                sandbox: &self.sandbox,
                host: &self.host,
                sources: &self.sources,
                tell: &|_| {},
                given_up: &CancellationToken::new(),
            })
            .await
            .expect("it starts");
        assert_eq!(run.exit, None, "it started");
        run
    }

    fn await_first_byte(&self, run: &Instance) {
        let log = self.runtime.log_folder(&run.key).expect("a log").join("log");
        while fs::metadata(&log).map_or(0, |metadata| metadata.len()) == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    async fn await_end(&self, run: &Instance) {
        assert_eq!(self.runtime.wait(&run.key).await.expect("it ends").code, 0);
    }

    /// Start acknowledged, and first byte.
    async fn round(&self, kind: Kind) -> (Duration, Duration) {
        let began = Instant::now();
        let run = self.start(kind).await;
        let started = began.elapsed();
        self.await_first_byte(&run);
        let first_byte = began.elapsed();
        self.await_end(&run).await;
        (started, first_byte)
    }

    /// Until the last of a crowd has written its first byte.
    async fn crowd(&self, kind: Kind) -> Duration {
        let began = Instant::now();
        let runs = futures::future::join_all((0..CROWD).map(|_| self.start(kind))).await;
        runs.iter().for_each(|run| self.await_first_byte(run));
        let last_byte = began.elapsed();
        for run in &runs {
            self.await_end(run).await;
        }
        last_byte
    }

    /// The configuration of a run.
    fn configuration(&self, run: &Instance) -> serde_json::Value {
        let path = self.runtime.log_folder(&run.key).expect("a bundle").join("config.json");
        serde_json::from_slice(&fs::read(path).expect("a configuration")).expect("it parses")
    }
}

/// `crun` over the same configurations: root in place, a cgroup for each container, with the filter or without.
struct Crun {
    state: PathBuf,
    bundles: Vec<PathBuf>,
    runs: AtomicU32,
}

impl Crun {
    fn new(folder: &Path, image: &Path, mut configuration: serde_json::Value, kind: Kind) -> Self {
        let folder = folder.join(if kind == Kind::Filtered { "filtered" } else { "free" });
        if kind == Kind::Filtered {
            configuration["linux"]["seccomp"] = filter(&configuration);
        }
        configuration["root"]["path"] = image.to_string_lossy().into();
        // Ours shows a container its own groups; crun is asked for the same in its way.
        let mounts = configuration["mounts"].as_array_mut().expect("there are mounts");
        let is_group = |mount: &serde_json::Value| {
            mount["source"].as_str().is_some_and(|source| source.starts_with("/sys/fs/cgroup/"))
        };
        if mounts.iter().any(is_group) {
            mounts.retain(|mount| {
                !mount["destination"].as_str().is_some_and(|at| at.starts_with("/sys/fs/cgroup"))
            });
            mounts.push(serde_json::json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["ro", "nosuid", "nodev", "noexec"],
            }));
        }
        let bundles = (0..CROWD).map(|number| {
            let bundle = folder.join(format!("bundle{number}"));
            configuration["linux"]["cgroupsPath"] =
                format!("/clawbernetes-bench/crun{number}-{}", kind as usize).into();
            fs::create_dir_all(&bundle).expect("a folder");
            fs::write(bundle.join("config.json"), configuration.to_string()).expect("written");
            bundle
        });
        Self { state: folder.join("crun"), bundles: bundles.collect(), runs: AtomicU32::new(0) }
    }

    fn command(&self, verb: &str, options: &[&str], id: &str) -> Command {
        let mut command = Command::new("crun");
        command.arg("--root").arg(&self.state).arg("--cgroup-manager=cgroupfs").arg(verb);
        command.args(options).arg(id).stdin(Stdio::null());
        command
    }

    fn new_id(&self) -> String {
        format!("bench{}", self.runs.fetch_add(1, Ordering::Relaxed))
    }

    fn succeed(mut command: Command) {
        assert!(command.status().expect("crun runs").success(), "{command:?} failed");
    }

    /// `crun create` and `crun start`, to the first byte.
    fn create_and_start(&self) -> Duration {
        let id = self.new_id();
        let bundle = self.bundles[0].to_string_lossy();
        let (mut output, writer) = std::io::pipe().expect("a pipe");
        let began = Instant::now();
        let mut create = self.command("create", &["--bundle", &bundle], &id);
        create.stdout(writer);
        Self::succeed(create);
        Self::succeed(self.command("start", &[], &id));
        output.read_exact(&mut [0]).expect("a byte");
        let first_byte = began.elapsed();
        Self::succeed(self.command("delete", &["--force"], &id));
        first_byte
    }

    /// `crun run`, to the first byte.
    fn run(&self) -> Duration {
        self.crowd(1)
    }

    /// `crun run` so many times at once, until the last has written its first byte.
    fn crowd(&self, size: usize) -> Duration {
        let began = Instant::now();
        let mut runs: Vec<Child> = self.bundles[..size]
            .iter()
            .map(|bundle| {
                let mut run = self.command("run", &["--bundle", &bundle.to_string_lossy()], &self.new_id());
                run.stdout(Stdio::piped()).spawn().expect("crun runs")
            })
            .collect();
        for run in &mut runs {
            run.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("a byte");
        }
        let last_byte = began.elapsed();
        for mut run in runs {
            assert!(run.wait().expect("crun ends").success(), "crun run failed");
        }
        last_byte
    }
}

/// Our default filter as the Open Container Initiative writes one: without the conditions of its rules.
fn filter(configuration: &serde_json::Value) -> serde_json::Value {
    let text = include_str!("../src/runtime/seccomp/default.json");
    let profile: serde_json::Value = serde_json::from_str(text).expect("the default profile parses");
    // CAP_SYS_ADMIN is lent to processes of ours for the time in which they load their filter; it does not count.
    let mut held =
        configuration["process"]["capabilities"]["bounding"].as_array().cloned().unwrap_or_default();
    held.retain(|capability| capability != "CAP_SYS_ADMIN");
    let names_one = |condition: &serde_json::Value, of: &[serde_json::Value]| {
        condition.as_array().is_some_and(|named| named.iter().any(|one| of.contains(one)))
    };
    let arch = [if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }.into()];
    let mut rules = profile["syscalls"].as_array().cloned().expect("rules");
    rules.retain(|rule| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        (includes["caps"].is_null() || names_one(&includes["caps"], &held))
            && (includes["arches"].is_null() || names_one(&includes["arches"], &arch))
            && !names_one(&excludes["caps"], &held)
    });
    let families = profile["archMap"].as_array().expect("architectures").iter();
    let own = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_ascii_uppercase());
    let family = families.filter(|family| family["architecture"] == *own);
    let architectures: Vec<_> = family
        .flat_map(|family| {
            let others = family["subArchitectures"].as_array().cloned().unwrap_or_default();
            std::iter::once(family["architecture"].clone()).chain(others)
        })
        .collect();
    serde_json::json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": architectures,
        "syscalls": rules,
    })
}

/// What was measured, by name.
#[derive(Default)]
struct Times {
    series: Vec<(&'static str, Vec<Duration>)>,
}

impl Times {
    fn add(&mut self, name: &'static str, time: Duration) {
        match self.series.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => times.push(time),
            None => self.series.push((name, vec![time])),
        }
    }

    fn print(mut self, title: &str) {
        println!("{title:<48} {:>7} {:>7} {:>7}", "median", "p95", "min");
        self.series.sort_by_key(|(name, _)| *name);
        for (name, mut times) in self.series {
            times.sort();
            let ms = |at: usize| times[at].as_secs_f64() * 1000.0;
            let last = times.len() - 1;
            println!("{name:<48} {:>7.1} {:>7.1} {:>7.1}", ms(last / 2), ms(last * 95 / 100), ms(0));
        }
    }
}

async fn one_at_a_time(rig: &Rig, [crun, free]: &[Crun; 2], rest: Duration) -> Times {
    let mut times = Times::default();
    for round in 0..WARM_UP + ROUNDS {
        let mut measured = Vec::new();
        for turn in 0..5 {
            tokio::time::sleep(rest).await;
            match (round + turn) % 5 {
                0 => {
                    let (started, first_byte) = rig.round(Kind::Filtered).await;
                    measured.push(("clawbernetes: start to first byte in the log", first_byte));
                    measured.push(("clawbernetes: start acknowledged", started));
                }
                1 => measured.push(("crun create + start to first byte", crun.create_and_start())),
                2 => measured.push(("crun run to first byte", crun.run())),
                3 => measured.push(("unfiltered: clawbernetes", rig.round(Kind::Free).await.1)),
                _ => measured.push(("unfiltered: crun run", free.run())),
            }
        }
        if round >= WARM_UP {
            measured.into_iter().for_each(|(name, time)| times.add(name, time));
        }
    }
    times
}

async fn crowds(rig: &Rig, [crun, free]: &[Crun; 2]) -> Times {
    let mut times = Times::default();
    for _ in 0..CROWD_ROUNDS {
        for (kind, crun, ours, theirs) in [
            (Kind::Filtered, crun, "clawbernetes: starts to last first byte", "crun run to last first byte"),
            (Kind::Free, free, "unfiltered: clawbernetes", "unfiltered: crun run"),
        ] {
            tokio::time::sleep(REST).await;
            times.add(ours, rig.crowd(kind).await);
            tokio::time::sleep(REST).await;
            times.add(theirs, crun.crowd(CROWD));
        }
    }
    times
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
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    hide_hybrid_cgroups();
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("node");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio");
    runtime.block_on(async {
        let rig = Rig::new(&root).await;
        let (filtered, free) = (rig.start(Kind::Filtered).await, rig.start(Kind::Free).await);
        rig.await_end(&filtered).await;
        rig.await_end(&free).await;
        let images = fs::read_dir(root.join("images")).expect("images");
        let is_toolbox = |name: &fs::DirEntry| name.file_name().to_string_lossy().starts_with("toolbox-");
        let image = images.flatten().find(is_toolbox).expect("the toolbox").path();
        let crun = [(Kind::Filtered, &filtered), (Kind::Free, &free)]
            .map(|(kind, run)| Crun::new(folder.path(), &image, rig.configuration(run), kind));
        if wants("rested") {
            let title = format!("milliseconds, each after a rest, {ROUNDS} rounds");
            one_at_a_time(&rig, &crun, REST).await.print(&title);
        }
        if wants("busy") {
            let title = format!("milliseconds, one after another, {ROUNDS} rounds");
            one_at_a_time(&rig, &crun, Duration::ZERO).await.print(&title);
        }
        if wants("crowd") {
            let title = format!("milliseconds, {CROWD} at once, {CROWD_ROUNDS} rounds");
            crowds(&rig, &crun).await.print(&title);
        }
        rig.runtime.release("bench").await.expect("released");
        rig.runtime.forget("bench").await.expect("forgotten");
        rig.runtime.close().await.expect("closed");
    });
}
