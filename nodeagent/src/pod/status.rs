//! The status of a pod, in kubelet's words.

use std::collections::BTreeMap;

use claw_schemas::api::PROGRESS;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus, HostIP, PodCondition, PodIP, PodStatus, ResourceHealth,
        ResourceStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    Ending, Moment, backoff, later,
    probes::ProbeKind,
    restarts::is_sidecar,
    state::{ContainerState, Ended, Eviction, PodState, PostStart},
};
use crate::runtime::{ExitRecord, Instance, Qos};

/// How long a failed pull is shown as such, before it is shown as waiting for the next.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(1);

/// `containerID` of a run.
pub fn id(run: &Instance) -> String {
    format!("clawbernetes://{}", run.id)
}

/// A time as the server keeps it: in whole seconds. With more, what is on the server would always differ from what was said.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Builds it. `look` is told when the status will change by itself.
pub(super) fn build(
    state: &PodState,
    ending: Option<&Ending>,
    moment: Moment,
    look: &mut dyn FnMut(Timestamp),
) -> PodStatus {
    let now = moment.steady;
    if state.containers.is_empty() && matches!(state.phase_on_server(), Some("Succeeded" | "Failed")) {
        // It ended before this agent's records begin: there is nothing to add.
        return state.pod.status.clone().unwrap_or_default();
    }
    let mut status = PodStatus {
        start_time: Some(time(state.start_time)),
        qos_class: Some(Qos::of(state.spec()).as_str().to_owned()),
        observed_generation: state.pod.metadata.generation,
        ..PodStatus::default()
    };
    set_addresses(&mut status, state);
    let init_done = initialized(state);
    let init: Vec<ContainerStatus> = state
        .init_containers()
        .map(|container| container_status(state, container, Kind::Init, init_done, ending, now, look))
        .collect();
    let main: Vec<ContainerStatus> = state
        .spec()
        .containers
        .iter()
        .map(|container| container_status(state, container, Kind::Main, init_done, ending, now, look))
        .collect();
    let ephemeral: Vec<ContainerStatus> = state
        .ephemeral
        .iter()
        .map(|one| container_status(state, &one.container, Kind::Ephemeral, true, ending, now, look))
        .collect();
    let phase = phase(state, ending, init_done, &main);
    status.phase = Some(phase.to_owned());
    if ending == Some(&Ending::DeadlineExceeded) {
        status.reason = Some("DeadlineExceeded".to_owned());
        status.message = Some("Pod was active on the node longer than the specified deadline".to_owned());
    } else if let Some(eviction) = state.evicted.as_ref().filter(|_| phase == "Failed") {
        status.reason = Some("Evicted".to_owned());
        status.message = Some(eviction.why.clone());
    } else if let Some(why) = state.refused.as_ref().filter(|_| phase == "Failed") {
        status.reason = Some(why.reason.to_owned());
        status.message = Some(format!("Pod was rejected: {}", why.message));
    } else if phase == "Failed" {
        // Whoever gave the pod up said why.
        let on_server = state.pod.status.as_ref();
        status.reason = on_server.and_then(|status| status.reason.clone());
        status.message = on_server.and_then(|status| status.message.clone());
    } else if let Some(failure) = &state.prepare_failure {
        status.message = Some(failure.message.clone());
    }
    status.conditions = Some(conditions(state, phase, init_done, &init, &main, moment.wall));
    // Of a pod that was refused no container waits for anything.
    if state.refused.is_none() {
        status.init_container_statuses = Some(init).filter(|list| !list.is_empty());
        status.container_statuses = Some(main);
        status.ephemeral_container_statuses = Some(ephemeral).filter(|list| !list.is_empty());
    }
    status
}

fn set_addresses(status: &mut PodStatus, state: &PodState) {
    let host_ip = state.host_ip.to_string();
    status.host_ips = Some(vec![HostIP { ip: host_ip.clone() }]);
    status.host_ip = Some(host_ip);
    let ip = match &state.sandbox {
        Some(sandbox) => sandbox.ip.map(|ip| ip.to_string()),
        // Stays on record after the end.
        None if state.released => state.reported.pod_ip.clone(),
        None => None,
    };
    status.pod_ips = ip.clone().map(|ip| vec![PodIP { ip }]);
    status.pod_ip = ip;
}

/// All init containers have done their part.
fn initialized(state: &PodState) -> bool {
    let mains_ran = state.spec().containers.iter().any(|container| {
        state.containers.get(&container.name).is_some_and(|container| container.running().is_some())
    });
    mains_ran
        || state.init_containers().all(|container| {
            if is_sidecar(container) {
                state.is_started(container) || state.released
            } else if state.released || state.sandbox.is_none() {
                state.last_exit(&container.name).is_some_and(|exit| exit.code == 0)
            } else {
                state.last_exit_in_sandbox(&container.name).is_some_and(|exit| exit.code == 0)
            }
        })
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Init,
    Main,
    Ephemeral,
}

fn container_status(
    state: &PodState,
    spec: &Container,
    kind: Kind,
    init_done: bool,
    ending: Option<&Ending>,
    now: Timestamp,
    look: &mut dyn FnMut(Timestamp),
) -> ContainerStatus {
    let nothing = ContainerState::default();
    let container = state.containers.get(&spec.name).unwrap_or(&nothing);
    let last = container.runs.last();
    let (current, shown) = current_state(state, spec, container, kind, init_done, ending, now, look);
    // The run whose end is not shown as the present state.
    let before =
        if shown { container.runs.len().checked_sub(2).and_then(|at| container.runs.get(at)) } else { last };
    let last_state = before.and_then(|run| run.exit.as_ref().map(|exit| terminated(run, exit)));
    let started = state.is_started(spec);
    let ready = match kind {
        Kind::Ephemeral => false,
        Kind::Init if !is_sidecar(spec) => state.last_exit(&spec.name).is_some_and(|exit| exit.code == 0),
        Kind::Init | Kind::Main => {
            started
                && (spec.readiness_probe.is_none()
                    || container.probe(ProbeKind::Readiness).outcome == Some(true))
        }
    };
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        image_id: last.map(|run| run.image_id.clone()).unwrap_or_default(),
        container_id: last.map(id),
        restart_count: last.map_or(0, |run| i32::try_from(run.key.attempt).unwrap_or(i32::MAX)),
        ready,
        started: Some(started).filter(|_| kind != Kind::Ephemeral),
        state: Some(current),
        last_state,
        allocated_resources_status: devices(state, &spec.name),
        ..ContainerStatus::default()
    }
}

/// What the container has for itself, by what it asked for it by.
fn devices(state: &PodState, container: &str) -> Option<Vec<ResourceStatus>> {
    let mut all: BTreeMap<&str, Vec<ResourceHealth>> = BTreeMap::new();
    for device in state.devices.get(container).into_iter().flatten() {
        let health = if device.is_well { "Healthy" } else { "Unhealthy" };
        all.entry(&device.resource).or_default().push(ResourceHealth {
            resource_id: device.id.clone(),
            health: Some(health.to_owned()),
            ..ResourceHealth::default()
        });
    }
    let status =
        |(name, resources): (&str, _)| ResourceStatus { name: name.to_owned(), resources: Some(resources) };
    Some(all.into_iter().map(status).collect()).filter(|all: &Vec<_>| !all.is_empty())
}

/// The present state, and whether it shows the last run (else that goes to `lastState`).
#[expect(clippy::too_many_arguments, reason = "all facts that decide one value")]
fn current_state(
    state: &PodState,
    spec: &Container,
    container: &ContainerState,
    kind: Kind,
    init_done: bool,
    ending: Option<&Ending>,
    now: Timestamp,
    look: &mut dyn FnMut(Timestamp),
) -> (ApiState, bool) {
    if container.running().is_some() && container.post_start == PostStart::Failed {
        return (waiting("PostStartHookError", None), true);
    }
    if let Some(run) = container.running().filter(|_| container.is_up()) {
        let started_at = run.started_at.map(time);
        return (
            ApiState { running: Some(ContainerStateRunning { started_at }), ..ApiState::default() },
            true,
        );
    }
    if let Some(failure) = container.failure.as_ref().filter(|_| ending.is_none()) {
        let pull_over = failure.count > 1 || now >= failure.at + PULL_ERROR_SHOWN;
        if failure.reason == "ErrImagePull" {
            if pull_over {
                let image = spec.image.as_deref().unwrap_or("");
                let message =
                    format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
                return (waiting("ImagePullBackOff", Some(message)), false);
            }
            look(failure.at + PULL_ERROR_SHOWN);
        }
        return (waiting(failure.reason, Some(failure.message.clone())), false);
    }
    if let Some(ended) = container.last_exited() {
        let Ended { run, exit, at, .. } = ended;
        let restarts = match kind {
            Kind::Ephemeral => false,
            // Who has done its part is not asked again.
            Kind::Init if !is_sidecar(spec) && exit.code == 0 => false,
            Kind::Init | Kind::Main => state.restarts(spec, exit),
        };
        let delay = backoff::before_next(&ended);
        let waits = ending.is_none() && restarts && !delay.is_zero();
        if waits && later(at, delay) > now {
            return (waiting("CrashLoopBackOff", Some(crash_loop(state, spec, delay))), false);
        }
        return (terminated(run, exit), true);
    }
    let waits_for_init = !init_done && state.init_containers().next().is_some();
    let reason = if kind == Kind::Init || waits_for_init { "PodInitializing" } else { "ContainerCreating" };
    (waiting(reason, None), true)
}

fn crash_loop(state: &PodState, spec: &Container, delay: std::time::Duration) -> String {
    let metadata = &state.pod.metadata;
    let delay = match delay.as_secs() {
        seconds @ 60.. => format!("{}m{}s", seconds / 60, seconds % 60),
        seconds @ 1.. => format!("{seconds}s"),
        0 => format!("{}ms", delay.as_millis()),
    };
    format!(
        "back-off {delay} restarting failed container={} pod={}_{}({})",
        spec.name,
        metadata.name.as_deref().unwrap_or(""),
        metadata.namespace.as_deref().unwrap_or(""),
        state.uid()
    )
}

fn waiting(reason: &str, message: Option<String>) -> ApiState {
    ApiState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ApiState::default()
    }
}

fn terminated(run: &Instance, exit: &ExitRecord) -> ApiState {
    ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(id(run)),
            exit_code: exit.code,
            signal: exit.signal,
            reason: Some(exit.reason.as_str().to_owned()),
            message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
            started_at: Some(time(exit.started_at.unwrap_or(Timestamp::UNIX_EPOCH))),
            finished_at: Some(time(exit.finished_at)),
        }),
        ..ApiState::default()
    }
}

/// Source: kubelet's `getPhase`.
fn phase(
    state: &PodState,
    ending: Option<&Ending>,
    init_done: bool,
    main: &[ContainerStatus],
) -> &'static str {
    if matches!(ending, Some(Ending::DeadlineExceeded | Ending::Failed))
        || state.refused.is_some()
        || state.evicted.is_some()
    {
        return "Failed";
    }
    let exits = || main.iter().map(|status| terminated_of(status));
    let running =
        main.iter().any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let never_ran = main.iter().any(|status| {
        let now = status.state.as_ref();
        now.is_some_and(|now| now.waiting.is_some()) && status.last_state.is_none()
    });
    let all_succeeded = exits().all(|exit| exit.is_some_and(|exit| exit.exit_code == 0));
    if let Some(Ending::Deleted | Ending::Removed) = ending {
        let over =
            !state.containers.values().any(|container| container.running().is_some() || container.starting);
        if over {
            return if all_succeeded { "Succeeded" } else { "Failed" };
        }
        return if running { "Running" } else { "Pending" };
    }
    if !init_done || never_ran {
        return "Pending";
    }
    if running {
        return "Running";
    }
    if state.spec().containers.iter().any(|main| goes_on(state, main)) {
        "Running"
    } else if all_succeeded {
        "Succeeded"
    } else {
        "Failed"
    }
}

/// A container runs, or will again.
fn goes_on(state: &PodState, main: &Container) -> bool {
    state.containers.get(&main.name).is_some_and(|known| {
        known.starting
            || known.last_exited().map_or(known.running().is_some(), |ended| state.restarts(main, ended.exit))
    })
}

fn terminated_of(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn conditions(
    state: &PodState,
    phase: &str,
    init_done: bool,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    now: Timestamp,
) -> Vec<PodCondition> {
    let mut builder = Conditions { state, now, list: Vec::new() };
    let names = |list: &[ContainerStatus]| {
        let unready: Vec<&str> =
            list.iter().filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
        unready.join(" ")
    };
    if let Some(Eviction { why, .. }) = &state.evicted {
        builder.add("DisruptionTarget", true, Some("TerminationByKubelet"), Some(why.clone()));
    }
    builder.add("PodReadyToStartContainers", state.sandbox.is_some(), None, None);
    if init_done {
        let reason = (phase == "Succeeded").then_some("PodCompleted");
        builder.add("Initialized", true, reason, None);
    } else {
        let message = format!("containers with incomplete status: [{}]", names(init));
        builder.add("Initialized", false, Some("ContainersNotInitialized"), Some(message));
    }
    let unready = names(main);
    if matches!(phase, "Succeeded" | "Failed") {
        let reason = if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
        builder.add("Ready", false, Some(reason), None);
        builder.add("ContainersReady", false, Some(reason), None);
    } else if unready.is_empty() && init_done {
        match gate_not_passed(state) {
            Some(message) => builder.add("Ready", false, Some("ReadinessGatesNotReady"), Some(message)),
            None => builder.add("Ready", true, None, None),
        }
        builder.add("ContainersReady", true, None, None);
    } else {
        let message = format!("containers with unready status: [{unready}]");
        builder.add("Ready", false, Some("ContainersNotReady"), Some(message.clone()));
        builder.add("ContainersReady", false, Some("ContainersNotReady"), Some(message));
    }
    if let Some(doing) = progress(state) {
        builder.add(PROGRESS, true, Some("Running"), Some(doing.to_owned()));
    }
    builder.list
}

/// What the first of its containers that says anything of itself does.
fn progress(state: &PodState) -> Option<&str> {
    let containers = state.spec().containers.iter().filter_map(|spec| state.containers.get(&spec.name));
    containers.map(|container| container.progress.as_str()).find(|doing| !doing.is_empty())
}

fn gate_not_passed(state: &PodState) -> Option<String> {
    let known = state.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    state.spec().readiness_gates.iter().flatten().find_map(|gate| {
        let condition = known.into_iter().flatten().find(|condition| condition.type_ == gate.condition_type);
        match condition {
            Some(condition) if condition.status == "True" => None,
            Some(condition) => Some(format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                gate.condition_type, condition.status
            )),
            None => Some(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
        }
    })
}

struct Conditions<'a> {
    state: &'a PodState,
    now: Timestamp,
    list: Vec<PodCondition>,
}

impl Conditions<'_> {
    /// Keeps the transition time of a condition whose status stays.
    fn add(&mut self, type_: &str, holds: bool, reason: Option<&str>, message: Option<String>) {
        let status = if holds { "True" } else { "False" };
        let before = self.state.reported.conditions.iter().flatten().find(|known| known.type_ == type_);
        let since = before
            .filter(|known| known.status == status)
            .and_then(|known| known.last_transition_time.clone());
        self.list.push(PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            message,
            last_transition_time: Some(since.unwrap_or_else(|| time(self.now))),
            observed_generation: self.state.pod.metadata.generation,
            ..PodCondition::default()
        });
    }
}
