//! What the agent knows of one pod, and how events change it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};

use super::{
    backoff,
    ephemeral::{self, Ephemeral},
    later,
    probes::{ProbeKind, ProbeState},
    restarts::{self, RestartPolicy},
};
use crate::runtime::{ExitRecord, HeldDevice, Instance, InstanceKey, RecoveredPod, Sandbox, StartFailure};

/// First delay after a sandbox or volume that could not be made; doubles up to 30 times itself.
const PREPARE_RETRY: Duration = Duration::from_secs(1);

/// Delay after a configuration error: what is missing may appear any moment.
const CONFIG_RETRY: Duration = Duration::from_secs(2);

/// Delay after a pod's resources could not be freed.
const RELEASE_RETRY: Duration = Duration::from_secs(2);

/// Everything known of one pod.
#[derive(Clone, Debug)]
pub struct PodState {
    /// As wanted. What is done for it keeps it while it goes on.
    pub pod: Arc<Pod>,
    /// Those of its containers that came later, as containers are.
    pub ephemeral: Vec<Ephemeral>,
    /// The object is gone from the server.
    pub removed: bool,
    /// Address of the machine.
    pub host_ip: IpAddr,
    /// When an agent first saw it, as it is reported.
    pub start_time: Timestamp,
    /// The same for decisions: what was reported of it before may lie in the future by now.
    pub since: Timestamp,
    /// The devices of its containers.
    pub devices: BTreeMap<String, Vec<HeldDevice>>,
    /// What its containers share; `None` while there is none.
    pub sandbox: Option<Sandbox>,
    /// The sandbox is being made.
    pub preparing: bool,
    /// Why there is no sandbox yet.
    pub prepare_failure: Option<Failure>,
    /// Why it may not run here at all.
    pub refused: Option<StartFailure>,
    /// Why it may not run here any more.
    pub evicted: Option<Eviction>,
    /// By name, init containers included.
    pub containers: BTreeMap<String, ContainerState>,
    /// Its volumes are being refreshed.
    pub refreshing: bool,
    /// Its resources are being freed.
    pub releasing: bool,
    /// Its resources are free.
    pub released: bool,
    /// When to try again to free them.
    pub release_retry_at: Option<Timestamp>,
    /// The end was reported.
    pub finished: bool,
    /// The last status, for transition times.
    pub reported: PodStatus,
}

/// Why a pod has to leave the node, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// For people.
    pub why: String,
    /// What its containers have to end, if they do not ask for less themselves.
    pub grace: Duration,
}

/// A failure that is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Of the API.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// How many in a row.
    pub count: u32,
    /// When it happened.
    pub at: Timestamp,
    /// When to try again.
    pub retry_at: Timestamp,
}

/// Everything known of one container.
#[derive(Clone, Debug, Default)]
pub struct ContainerState {
    /// Oldest first; normally the present run and the one before.
    pub runs: Vec<Instance>,
    /// When the last of them began, and ended if it did. The times in the runs themselves are for reports: a clock that was set
    /// in between makes nonsense of them.
    began_at: Timestamp,
    ended_at: Timestamp,
    /// A start is under way.
    pub starting: bool,
    /// Why the next run could not be started.
    pub failure: Option<Failure>,
    /// The present run is asked to stop.
    pub stopping: Option<Stopping>,
    /// What the present run does first of all.
    pub post_start: PostStart,
    /// What the present run says that it does; empty if it says nothing.
    pub progress: String,
    /// Results for the present run.
    probes: BTreeMap<ProbeKind, ProbeState>,
}

/// The hook that comes after the start of a run. Until it is over the container does not count as running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostStart {
    /// There is none, or it has succeeded.
    #[default]
    Over,
    /// It is under way.
    UnderWay,
    /// It has failed, and with it the run.
    Failed,
}

/// A stop under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// When it was asked.
    pub since: Timestamp,
    /// How long it may take.
    pub grace: Duration,
    /// The hook that comes before the signal is under way.
    pub in_hook: bool,
    /// When the run was sent its signal.
    pub signalled_at: Option<Timestamp>,
    /// When it was last killed.
    pub killed_at: Option<Timestamp>,
}

static NO_PROBE: ProbeState = ProbeState::NONE;

/// A run that is over.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Which.
    pub run: &'a Instance,
    /// How.
    pub exit: &'a ExitRecord,
    /// When.
    pub at: Timestamp,
    /// How long it ran.
    pub after: Duration,
}

impl ContainerState {
    /// The present run is past its start, hook included.
    pub fn is_up(&self) -> bool {
        self.running().is_some() && self.post_start == PostStart::Over
    }

    /// The run that is not over.
    pub fn running(&self) -> Option<&Instance> {
        self.runs.last().filter(|run| run.exit.is_none())
    }

    /// The last run, if it is over.
    pub fn last_exited(&self) -> Option<Ended<'_>> {
        let run = self.runs.last()?;
        let after = Duration::try_from(self.ended_at.duration_since(self.began_at)).unwrap_or_default();
        Some(Ended { run, exit: run.exit.as_ref()?, at: self.ended_at, after })
    }

    /// When the present run began.
    pub fn began_at(&self) -> Timestamp {
        self.began_at
    }

    /// Takes over a run of which only records tell. What they say of the future is wrong: the clock was ahead.
    fn recall(&mut self, run: Instance, now: Timestamp) {
        let past = |at: Option<Timestamp>| at.unwrap_or(now).min(now);
        self.began_at = past(run.started_at);
        self.ended_at = past(run.exit.as_ref().map(|exit| exit.finished_at));
        self.runs.push(run);
    }

    /// What the probes of a kind say of the present run.
    pub fn probe(&self, kind: ProbeKind) -> &ProbeState {
        self.probes.get(&kind).unwrap_or(&NO_PROBE)
    }
}

impl PodState {
    /// A pod seen for the first time.
    pub fn new(pod: Pod, host_ip: IpAddr, now: Timestamp) -> Self {
        let reported = pod.status.clone().unwrap_or_default();
        let start_time = reported.start_time.as_ref().map_or(now, |time| time.0);
        Self {
            ephemeral: ephemeral::all(pod.spec.as_ref()),
            pod: Arc::new(pod),
            removed: false,
            host_ip,
            start_time,
            since: start_time.min(now),
            devices: BTreeMap::new(),
            sandbox: None,
            preparing: false,
            prepare_failure: None,
            refused: None,
            evicted: None,
            containers: BTreeMap::new(),
            refreshing: false,
            releasing: false,
            released: false,
            release_retry_at: None,
            finished: false,
            reported,
        }
    }

    /// A pod that an earlier run of the agent left.
    pub fn adopt(recovered: RecoveredPod, host_ip: IpAddr, now: Timestamp) -> Self {
        let mut state = Self::new(recovered.pod, host_ip, now);
        state.sandbox = recovered.sandbox;
        for instance in recovered.instances {
            let container = state.containers.entry(instance.key.container.clone()).or_default();
            container.recall(instance, now);
        }
        state.recall_probes();
        state
    }

    /// What was ready before the agent's restart is ready after it, until a probe says otherwise.
    fn recall_probes(&mut self) {
        let statuses = [&self.reported.container_statuses, &self.reported.init_container_statuses];
        let known: Vec<_> = statuses.into_iter().flatten().flatten().cloned().collect();
        for status in known {
            let Some(container) = self.containers.get_mut(&status.name) else { continue };
            let same =
                container.running().is_some_and(|run| status.container_id == Some(super::status::id(run)));
            if same && status.started == Some(true) {
                container.probes.insert(ProbeKind::Startup, ProbeState::known(true));
                if status.ready {
                    container.probes.insert(ProbeKind::Readiness, ProbeState::known(true));
                }
            }
        }
    }

    /// A newer object. Its status is what the server has, which may lack what was reported since.
    pub fn desire(&mut self, pod: Pod) {
        self.ephemeral = ephemeral::all(pod.spec.as_ref());
        self.pod = Arc::new(pod);
    }

    /// The spec; a pod without one has nothing to run.
    pub fn spec(&self) -> &PodSpec {
        static NOTHING: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&NOTHING)
    }

    /// The uid.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or("")
    }

    /// In order.
    pub fn init_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec().init_containers.iter().flatten()
    }

    /// A container of any kind by name.
    pub fn container_spec(&self, name: &str) -> Option<&Container> {
        let ephemeral = self.ephemeral.iter().map(|ephemeral| &ephemeral.container);
        let mut all = self.spec().containers.iter().chain(self.init_containers()).chain(ephemeral);
        all.find(|container| container.name == name)
    }

    /// The container whose processes an ephemeral one is to see.
    pub fn target(&self, name: &str) -> Option<&str> {
        self.ephemeral.iter().find(|one| one.container.name == name)?.target.as_deref()
    }

    /// Whether a container that ended so is started again.
    pub fn restarts(&self, container: &Container, exit: &ExitRecord) -> bool {
        let policy = RestartPolicy::named(self.spec().restart_policy.as_deref());
        restarts::restarts(policy, container, exit.code)
    }

    /// How the last run ended, if no run is under way.
    pub fn last_exit(&self, container: &str) -> Option<&ExitRecord> {
        self.containers.get(container)?.last_exited().map(|ended| ended.exit)
    }

    /// The same, for runs in the present sandbox: a new one has its init containers run again.
    pub fn last_exit_in_sandbox(&self, container: &str) -> Option<&ExitRecord> {
        let Ended { run, exit, .. } = self.containers.get(container)?.last_exited()?;
        let Some(present) = self.sandbox.as_ref().map(|sandbox| sandbox.created_at) else {
            return Some(exit);
        };
        // Earlier agents wrote down of no run in which sandbox it was.
        let is_of_it = run.sandbox.map_or(exit.finished_at >= present, |sandbox| sandbox == present);
        is_of_it.then_some(exit)
    }

    /// Whether a container runs and has passed its startup probe.
    pub fn is_started(&self, spec: &Container) -> bool {
        self.containers.get(&spec.name).is_some_and(|container| {
            container.is_up()
                && (spec.startup_probe.is_none() || container.probe(ProbeKind::Startup).outcome == Some(true))
        })
    }

    /// The phase that the server holds: terminal ones are for ever, whether this agent reported them
    /// or somebody gave the pod up.
    pub fn phase_on_server(&self) -> Option<&str> {
        self.pod.status.as_ref()?.phase.as_deref()
    }
}

/// Events.
impl PodState {
    /// The sandbox was made, or not.
    pub fn prepared(&mut self, result: Result<Sandbox, StartFailure>, now: Timestamp) {
        self.preparing = false;
        match result {
            Ok(sandbox) => {
                self.sandbox = Some(sandbox);
                self.prepare_failure = None;
            }
            Err(failure) => {
                self.prepare_failure =
                    Some(repeated(self.prepare_failure.take(), failure, PREPARE_RETRY, now))
            }
        }
    }

    /// The machine cannot have it.
    pub fn refused(&mut self, why: StartFailure) {
        self.preparing = false;
        self.refused = Some(why);
    }

    /// A container was started, or not.
    pub fn started(
        &mut self,
        name: &str,
        result: Result<Instance, StartFailure>,
        base: Duration,
        now: Timestamp,
    ) {
        let has_hook = self.container_spec(name).is_some_and(|spec| super::post_start(spec).is_some());
        let container = self.containers.entry(name.to_owned()).or_default();
        container.starting = false;
        match result {
            Ok(instance) => {
                container.failure = None;
                container.stopping = None;
                container.post_start =
                    if has_hook && instance.exit.is_none() { PostStart::UnderWay } else { PostStart::Over };
                container.progress.clear();
                container.probes.clear();
                (container.began_at, container.ended_at) = (now, now);
                container.runs.push(instance);
            }
            Err(failure) => {
                // A registry is spared; the others are a look at this machine.
                let retry = if failure.reason == "ErrImagePull" { base } else { CONFIG_RETRY };
                container.failure = Some(repeated(container.failure.take(), failure, retry, now));
            }
        }
    }

    /// A run is over.
    pub fn exited(&mut self, key: &InstanceKey, exit: ExitRecord, now: Timestamp) {
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        if let Some(run) = container.runs.iter_mut().find(|run| run.key == *key) {
            run.exit = Some(exit);
            container.ended_at = now;
            container.stopping = None;
            container.post_start = PostStart::Over;
            container.progress.clear();
            container.probes.clear();
        }
    }

    /// A run says what it does.
    pub fn progressed(&mut self, key: &InstanceKey, doing: String) {
        if let Some(container) = self.present(key) {
            container.progress = doing;
        }
    }

    /// The hook after the start of a run came back. One of a run that is over means nothing.
    pub fn post_started(&mut self, key: &InstanceKey, success: bool) {
        if let Some(container) = self.present(key) {
            container.post_start = if success { PostStart::Over } else { PostStart::Failed };
        }
    }

    /// A container is to stop; its hook, if it has one, is under way.
    pub fn stopping(&mut self, key: &InstanceKey, grace: Duration, in_hook: bool, now: Timestamp) {
        if let Some(container) = self.containers.get_mut(&key.container) {
            container.stopping =
                Some(Stopping { since: now, grace, in_hook, signalled_at: None, killed_at: None });
        }
    }

    /// The hook before the signal came back.
    pub fn pre_stopped(&mut self, key: &InstanceKey) {
        if let Some(stopping) = self.present(key).and_then(|container| container.stopping.as_mut()) {
            stopping.in_hook = false;
        }
    }

    /// A container was sent the signal that asks it to stop.
    pub fn signalled(&mut self, key: &InstanceKey, now: Timestamp) {
        if let Some(stopping) = self.present(key).and_then(|container| container.stopping.as_mut()) {
            stopping.signalled_at = Some(now);
        }
    }

    /// The container of a run that is not over.
    fn present(&mut self, key: &InstanceKey) -> Option<&mut ContainerState> {
        let container = self.containers.get_mut(&key.container)?;
        container.running().is_some_and(|run| run.key == *key).then_some(container)
    }

    /// A container was killed.
    pub fn killed(&mut self, key: &InstanceKey, now: Timestamp) {
        if let Some(container) = self.containers.get_mut(&key.container) {
            let stopping = container.stopping.get_or_insert(Stopping {
                since: now,
                grace: Duration::ZERO,
                in_hook: false,
                signalled_at: None,
                killed_at: None,
            });
            stopping.killed_at = Some(now);
        }
    }

    /// A probe was sent.
    pub fn probing(&mut self, key: &InstanceKey, kind: ProbeKind) {
        if let Some(container) = self.containers.get_mut(&key.container) {
            container.probes.entry(kind).or_default().in_flight = true;
        }
    }

    /// A probe came back. Results for a run that is over mean nothing.
    pub fn probed(&mut self, key: &InstanceKey, kind: ProbeKind, success: bool, now: Timestamp) {
        let Some(probe) = self.container_spec(&key.container).and_then(|spec| kind.of(spec)).cloned() else {
            return;
        };
        if let Some(container) = self.present(key) {
            container.probes.entry(kind).or_default().record(&probe, success, now);
        }
    }

    /// A run was dropped.
    pub fn discarded(&mut self, key: &InstanceKey) {
        if let Some(container) = self.containers.get_mut(&key.container) {
            container.runs.retain(|run| run.key != *key);
        }
    }

    /// The pod's resources were freed, or not.
    pub fn released(&mut self, freed: bool, now: Timestamp) {
        self.releasing = false;
        self.released = freed;
        self.release_retry_at = (!freed).then(|| later(now, RELEASE_RETRY));
        if freed {
            self.sandbox = None;
        }
    }
}

/// Whether a container has no image yet, for whatever reason.
pub fn is_image_failure(reason: &str) -> bool {
    matches!(reason, "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName")
}

fn repeated(before: Option<Failure>, failure: StartFailure, base: Duration, now: Timestamp) -> Failure {
    let count = before.filter(|before| before.reason == failure.reason).map_or(1, |before| before.count + 1);
    let retry_at = later(now, backoff::of_failures(count, base));
    Failure { reason: failure.reason, message: failure.message, count, at: now, retry_at }
}
