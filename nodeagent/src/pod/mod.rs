//! What to do for one pod: a pure decision.
//!
//! [`plan`] looks at what is wanted and what is known and returns actions, the status to report and
//! when to look again. The worker in [`crate::agent`] carries the actions out, tells [`PodState`]
//! how they went, and asks again. Nothing here waits, reads a clock or fails.
//!
//! Writes the conditions PodReadyToStartContainers, Initialized, ContainersReady and Ready.

pub mod backoff;
pub mod probes;
pub mod state;
pub mod status;

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, PodStatus};

pub use self::{
    probes::{ProbeKind, ProbeState},
    state::{ContainerState, PodState, Stopping, is_image_failure},
};
use crate::runtime::{ExitRecord, InstanceKey};

/// A killed container that still runs is killed again after so long.
const KILL_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// Something to do. All are safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make what the containers share.
    Prepare,
    /// Start the next run of a container.
    Start {
        /// Which container.
        container: String,
        /// Which run.
        attempt: u32,
        /// To be waited after its exit.
        restart_delay: Duration,
    },
    /// Ask a container to stop.
    Stop {
        /// Which run.
        key: InstanceKey,
        /// Until it is killed.
        grace: Duration,
        /// For the event.
        why: String,
    },
    /// Kill a container.
    Kill(InstanceKey),
    /// Probe a container once.
    Probe {
        /// Which run.
        key: InstanceKey,
        /// Which of its probes.
        kind: ProbeKind,
    },
    /// Drop a run that nobody asks about any more.
    Discard(InstanceKey),
    /// Free what the pod holds of the machine.
    Release,
    /// Everything is over and freed: say so, and drop the records once the server agrees.
    Finish,
}

/// What [`plan`] decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// To be reported if it changed.
    pub status: PodStatus,
    /// When to ask again if nothing happens; `None`: only when something does.
    pub look_again: Option<Timestamp>,
}

/// Figures that tests shorten.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// First delay between restarts.
    pub restart_backoff: Duration,
}

/// Why a pod is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The object is gone.
    Removed,
    /// The object is being deleted.
    Deleted,
    /// It ran longer than it may.
    DeadlineExceeded,
    /// Its containers are over and will not be restarted.
    Completed,
    /// An init container failed for good, or the server says it failed.
    Failed,
    /// This machine lacks what it was promised.
    Refused,
}

/// Collects the earliest moment to look again.
#[derive(Default)]
struct Look(Option<Timestamp>);

impl Look {
    fn at(&mut self, when: Timestamp) {
        self.0 = Some(self.0.map_or(when, |earlier| earlier.min(when)));
    }
}

/// Decides.
pub fn plan(state: &PodState, settings: &Settings, now: Timestamp) -> Plan {
    let mut actions = Vec::new();
    let mut look = Look::default();
    let ending = ending(state, now);
    match &ending {
        Some(ending) => end(state, ending, now, &mut actions, &mut look),
        None => go_on(state, settings, now, &mut actions, &mut look),
    }
    discard_old(state, &mut actions);
    if let Some(deadline) = deadline(state).filter(|deadline| *deadline > now) {
        look.at(deadline);
    }
    Plan {
        actions,
        status: status::build(state, ending.as_ref(), now, &mut |when| look.at(when)),
        look_again: look.0,
    }
}

/// Whether the pod is to end, and why.
pub fn ending(state: &PodState, now: Timestamp) -> Option<Ending> {
    if state.removed {
        return Some(Ending::Removed);
    }
    if state.pod.metadata.deletion_timestamp.is_some() {
        return Some(Ending::Deleted);
    }
    if state.refused.is_some() {
        return Some(Ending::Refused);
    }
    if deadline(state).is_some_and(|deadline| deadline <= now) && !is_completed(state) {
        return Some(Ending::DeadlineExceeded);
    }
    let failed_init = state.init_containers().any(|container| {
        let over = state.last_exit_in_sandbox(&container.name).is_some_and(|exit| exit.code != 0);
        over && !is_sidecar(container) && state.restart_policy() == RestartPolicy::Never
    });
    if failed_init || state.phase_on_server() == Some("Failed") {
        return Some(Ending::Failed);
    }
    // Without records of our own, the server's word that it is over must do.
    let over_elsewhere = state.containers.is_empty() && state.phase_on_server() == Some("Succeeded");
    (is_completed(state) || over_elsewhere).then_some(Ending::Completed)
}

fn deadline(state: &PodState) -> Option<Timestamp> {
    let seconds = state.spec().active_deadline_seconds?;
    state.start_time.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Every container is over and none will be restarted.
fn is_completed(state: &PodState) -> bool {
    let containers = &state.spec().containers;
    !containers.is_empty()
        && containers.iter().all(|container| {
            state.last_exit(&container.name).is_some_and(|exit| !restarts(state.restart_policy(), exit))
        })
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every exit.
    Always,
    /// After a code other than 0.
    OnFailure,
    /// Never.
    Never,
}

fn restarts(policy: RestartPolicy, exit: &ExitRecord) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit.code != 0,
        RestartPolicy::Never => false,
    }
}

/// An init container that is to run as long as the pod.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Stops what runs: the containers first, then the sidecars, then frees the rest.
fn end(state: &PodState, ending: &Ending, now: Timestamp, actions: &mut Vec<Action>, look: &mut Look) {
    let grace = match ending {
        Ending::Removed => Duration::ZERO,
        Ending::Deleted => seconds(state.pod.metadata.deletion_grace_period_seconds.unwrap_or(30)),
        _ => seconds(state.spec().termination_grace_period_seconds.unwrap_or(30)),
    };
    let sidecars: Vec<&str> =
        state.init_containers().filter(|container| is_sidecar(container)).map(|c| c.name.as_str()).collect();
    let mains_run = state.containers.iter().any(|(name, container)| {
        !sidecars.contains(&name.as_str()) && (container.running().is_some() || container.starting)
    });
    for (name, container) in &state.containers {
        if mains_run && sidecars.contains(&name.as_str()) && !grace.is_zero() {
            continue;
        }
        stop(container, grace, &format!("Stopping container {name}"), now, actions, look);
        // Who stops may still be asked whether it is ready.
        if let Some(spec) = state.spec().containers.iter().find(|spec| spec.name == *name) {
            probe(container, spec, &[ProbeKind::Readiness], now, actions, look);
        }
    }
    let quiet =
        state.containers.values().all(|container| container.running().is_none() && !container.starting)
            && !state.preparing;
    if !quiet || state.releasing {
        return;
    }
    if !state.released {
        match state.release_retry_at.filter(|retry_at| *retry_at > now) {
            Some(retry_at) => look.at(retry_at),
            None => actions.push(Action::Release),
        }
    } else if *ending == Ending::Removed || (*ending == Ending::Deleted && !state.finished) {
        actions.push(Action::Finish);
    }
}

/// Asks a running container to stop, and kills it when its time is up.
fn stop(
    container: &ContainerState,
    grace: Duration,
    why: &str,
    now: Timestamp,
    actions: &mut Vec<Action>,
    look: &mut Look,
) {
    let Some(run) = container.running() else { return };
    let Some(stopping) = &container.stopping else {
        if grace.is_zero() {
            actions.push(Action::Kill(run.key.clone()));
        } else {
            actions.push(Action::Stop { key: run.key.clone(), grace, why: why.to_owned() });
        }
        return;
    };
    let deadline = match stopping.killed_at {
        Some(killed_at) => killed_at + KILL_AGAIN,
        // A second delete may shorten the time.
        None => later(stopping.since, stopping.grace.min(grace)),
    };
    if deadline <= now {
        actions.push(Action::Kill(run.key.clone()));
    } else {
        look.at(deadline);
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| time.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Brings the pod up and keeps it up.
fn go_on(state: &PodState, settings: &Settings, now: Timestamp, actions: &mut Vec<Action>, look: &mut Look) {
    if state.sandbox.is_none() {
        if !state.preparing {
            match state.prepare_failure.as_ref().map(|failure| failure.retry_at).filter(|at| *at > now) {
                Some(retry_at) => look.at(retry_at),
                None => actions.push(Action::Prepare),
            }
        }
        return;
    }
    for container in state.init_containers() {
        let exit = state.last_exit_in_sandbox(&container.name);
        let sidecar = is_sidecar(container);
        if !sidecar && exit.is_some_and(|exit| exit.code == 0) {
            continue;
        }
        keep_running(state, container, settings, now, actions, look);
        // A sidecar lets the next one go once it has started.
        if !(sidecar && state.is_started(container)) {
            return;
        }
    }
    for container in &state.spec().containers {
        let over =
            state.last_exit(&container.name).is_some_and(|exit| !restarts(state.restart_policy(), exit));
        if !over {
            keep_running(state, container, settings, now, actions, look);
        }
    }
}

/// Starts, restarts, probes, and stops what fails its probes.
fn keep_running(
    state: &PodState,
    spec: &Container,
    settings: &Settings,
    now: Timestamp,
    actions: &mut Vec<Action>,
    look: &mut Look,
) {
    let nothing = ContainerState::default();
    let container = state.containers.get(&spec.name).unwrap_or(&nothing);
    if container.starting {
        return;
    }
    if container.running().is_some() {
        supervise(state, spec, container, now, actions, look);
        return;
    }
    let mut due = container.failure.as_ref().map(|failure| failure.retry_at);
    let (mut attempt, mut restart_delay) = (0, Duration::ZERO);
    if let Some((last, exit)) = container.last_exited() {
        attempt = last.key.attempt + 1;
        restart_delay = backoff::after_next(last, exit, settings.restart_backoff);
        let restart_at = later(exit.finished_at, backoff::before_next(last, exit));
        due = Some(due.map_or(restart_at, |due| due.max(restart_at)));
    }
    match due.filter(|due| *due > now) {
        Some(due) => look.at(due),
        None => actions.push(Action::Start { container: spec.name.clone(), attempt, restart_delay }),
    }
}

fn supervise(
    state: &PodState,
    spec: &Container,
    container: &ContainerState,
    now: Timestamp,
    actions: &mut Vec<Action>,
    look: &mut Look,
) {
    let failed = [(ProbeKind::Startup, "startup"), (ProbeKind::Liveness, "liveness")]
        .into_iter()
        .find(|(kind, _)| container.probe(*kind).outcome == Some(false));
    if let Some((kind, name)) = failed {
        let own = kind.of(spec).and_then(|probe| probe.termination_grace_period_seconds);
        let grace = seconds(own.or(state.spec().termination_grace_period_seconds).unwrap_or(30));
        let why = format!("Container {} failed {name} probe, will be restarted", spec.name);
        stop(container, grace, &why, now, actions, look);
        return;
    }
    if container.stopping.is_some() {
        // Asked to stop for a reason that is gone; it still must end.
        stop(
            container,
            seconds(state.spec().termination_grace_period_seconds.unwrap_or(30)),
            "",
            now,
            actions,
            look,
        );
        return;
    }
    if ProbeKind::Startup.of(spec).is_some() && container.probe(ProbeKind::Startup).outcome != Some(true) {
        probe(container, spec, &[ProbeKind::Startup], now, actions, look);
    } else {
        probe(container, spec, &[ProbeKind::Liveness, ProbeKind::Readiness], now, actions, look);
    }
}

fn probe(
    container: &ContainerState,
    spec: &Container,
    kinds: &[ProbeKind],
    now: Timestamp,
    actions: &mut Vec<Action>,
    look: &mut Look,
) {
    let Some(run) = container.running() else { return };
    for kind in kinds {
        let Some(probe) = kind.of(spec) else { continue };
        let known = container.probe(*kind);
        if known.in_flight {
            continue;
        }
        let due = known.due(probe, run.started_at.unwrap_or(now));
        if due <= now {
            actions.push(Action::Probe { key: run.key.clone(), kind: *kind });
        } else {
            look.at(due);
        }
    }
}

/// The present run and the one before it are kept; their logs can be asked for.
fn discard_old(state: &PodState, actions: &mut Vec<Action>) {
    for container in state.containers.values() {
        let old = container.runs.len().saturating_sub(2);
        actions.extend(container.runs.iter().take(old).map(|run| Action::Discard(run.key.clone())));
    }
}
