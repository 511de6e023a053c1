//! What to do for one pod: a pure decision.
//!
//! [`plan`] looks at what is wanted and what is known and returns actions, the status to report and
//! when to look again. The worker in [`crate::agent`] carries the actions out, tells [`PodState`]
//! how they went, and asks again. Nothing here waits, reads a clock or fails.
//!
//! Writes the conditions PodReadyToStartContainers, Initialized, ContainersReady and Ready.

pub mod backoff;
pub mod ephemeral;
pub mod probes;
pub mod restarts;
pub mod state;
pub mod status;

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, PodStatus};

pub use self::{
    probes::{ProbeKind, ProbeState},
    restarts::{RestartPolicy, is_sidecar},
    state::{ContainerState, Ended, Eviction, PodState, PostStart, Stopping, is_image_failure},
};
use crate::runtime::InstanceKey;

/// A killed container that still runs is killed again after so long.
const KILL_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// What a container has to end after its signal at the least, however long its hook took.
const AFTER_SIGNAL_MIN: SignedDuration = SignedDuration::from_secs(2);

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
    /// Begin to stop a container: by its hook, if it has one.
    Stop {
        /// Which run.
        key: InstanceKey,
        /// Until it is killed.
        grace: Duration,
        /// For the event.
        why: String,
    },
    /// Ask a container to end, by its signal.
    Signal(InstanceKey),
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

/// A moment by both ideas of time.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For decisions: it only ever goes on.
    pub steady: Timestamp,
    /// For reports: what people read on the wall.
    pub wall: Timestamp,
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
    /// This machine needs what it has.
    Evicted,
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
pub fn plan(state: &PodState, settings: &Settings, moment: Moment) -> Plan {
    let now = moment.steady;
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
        status: status::build(state, ending.as_ref(), moment, &mut |when| look.at(when)),
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
    if state.evicted.is_some() {
        return Some(Ending::Evicted);
    }
    // One that ends well because it was asked to end at its deadline has exceeded it all the same.
    if deadline(state).is_some_and(|deadline| deadline <= now && !is_completed_by(state, deadline)) {
        return Some(Ending::DeadlineExceeded);
    }
    let failed_init = state.init_containers().any(|container| {
        let exit = state.last_exit_in_sandbox(&container.name).filter(|exit| exit.code != 0);
        exit.is_some_and(|exit| !state.restarts(container, exit))
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
    state.since.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Every container is over and none will be restarted.
fn is_completed(state: &PodState) -> bool {
    is_completed_by(state, Timestamp::MAX)
}

/// The same, and was so at a moment.
fn is_completed_by(state: &PodState, moment: Timestamp) -> bool {
    let containers = &state.spec().containers;
    !containers.is_empty()
        && containers.iter().all(|container| {
            let known = state.containers.get(&container.name);
            let ended = known.and_then(ContainerState::last_exited).filter(|ended| ended.at <= moment);
            ended.is_some_and(|ended| !state.restarts(container, ended.exit))
        })
}

/// Stops what runs: the containers first, then the sidecars from the last to the first, then frees the rest.
fn end(state: &PodState, ending: &Ending, now: Timestamp, actions: &mut Vec<Action>, look: &mut Look) {
    let grace = match ending {
        Ending::Removed => Duration::ZERO,
        Ending::Deleted => seconds(state.pod.metadata.deletion_grace_period_seconds.unwrap_or(30)),
        Ending::Evicted => {
            let given = state.evicted.as_ref().map(|eviction| eviction.grace);
            given.unwrap_or_default().min(pod_grace(state))
        }
        _ => pod_grace(state),
    };
    for (name, container) in &state.containers {
        let Some(spec) = state.container_spec(name) else { continue };
        let stop =
            Stop { spec, grace, why: &format!("Stopping container {name}"), turn: has_turn(state, name) };
        stop.plan(container, now, actions, look);
        // Who stops may still be asked whether it is ready.
        if state.spec().containers.iter().any(|main| main.name == *name) {
            probe(container, spec, &[ProbeKind::Readiness], now, actions, look);
        }
    }
    let quiet = state.containers.values().all(|container| container.running().is_none() && !container.starting)
            && !state.preparing
            // It may write what the release is to remove.
            && !state.refreshing;
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

/// Whether a container of an ending pod may be asked to end: of sidecars one at a time, once nothing runs that came after it.
fn has_turn(state: &PodState, name: &str) -> bool {
    let runs = |name: &str| {
        state
            .containers
            .get(name)
            .is_some_and(|container| container.running().is_some() || container.starting)
    };
    let sidecars: Vec<&Container> =
        state.init_containers().filter(|container| is_sidecar(container)).collect();
    let Some(place) = sidecars.iter().position(|sidecar| sidecar.name == name) else { return true };
    let is_sidecar = |name: &str| sidecars.iter().any(|sidecar| sidecar.name == name);
    // Nobody serves those who came to look.
    let came_later = |name: &str| state.ephemeral.iter().any(|one| one.container.name == name);
    let others_run =
        state.containers.keys().any(|other| !is_sidecar(other) && !came_later(other) && runs(other));
    !others_run && !sidecars.iter().skip(place + 1).any(|later| runs(&later.name))
}

fn pod_grace(state: &PodState) -> Duration {
    seconds(state.spec().termination_grace_period_seconds.unwrap_or(30))
}

/// How a container is to be stopped.
struct Stop<'a> {
    spec: &'a Container,
    grace: Duration,
    why: &'a str,
    /// It may be sent its signal, or others come first.
    turn: bool,
}

impl Stop<'_> {
    /// Its hook, then its signal, both within the grace period; a little time, whatever the hook took; and the end.
    fn plan(&self, container: &ContainerState, now: Timestamp, actions: &mut Vec<Action>, look: &mut Look) {
        let Some(run) = container.running() else { return };
        let kill = || Action::Kill(run.key.clone());
        let Some(stopping) = &container.stopping else {
            if self.grace.is_zero() {
                actions.push(kill());
                return;
            }
            actions.push(Action::Stop { key: run.key.clone(), grace: self.grace, why: self.why.to_owned() });
            if pre_stop(self.spec).is_none() && self.turn {
                actions.push(Action::Signal(run.key.clone()));
            }
            return;
        };
        // A second delete may shorten the time.
        let time_is_up = later(stopping.since, stopping.grace.min(self.grace));
        let (due, then) = match (stopping.killed_at, stopping.signalled_at) {
            (Some(killed_at), _) => (killed_at + KILL_AGAIN, kill()),
            (None, _) if self.grace.is_zero() => (now, kill()),
            (None, Some(signalled_at)) => (time_is_up.max(signalled_at + AFTER_SIGNAL_MIN), kill()),
            (None, None) if self.turn && !stopping.in_hook => (now, Action::Signal(run.key.clone())),
            (None, None) => (time_is_up, Action::Signal(run.key.clone())),
        };
        if due <= now {
            actions.push(then);
        } else {
            look.at(due);
        }
    }
}

/// The hook that comes after the start of a container.
pub fn post_start(spec: &Container) -> Option<&LifecycleHandler> {
    spec.lifecycle.as_ref()?.post_start.as_ref()
}

/// The hook that comes before the signal that stops a container.
pub fn pre_stop(spec: &Container) -> Option<&LifecycleHandler> {
    spec.lifecycle.as_ref()?.pre_stop.as_ref()
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
    // Before all others: they may have come to find out why those do not start.
    for ephemeral in &state.ephemeral {
        let known = state.containers.get(&ephemeral.container.name);
        if known.is_none_or(|known| known.last_exited().is_none()) {
            keep_running(state, &ephemeral.container, settings, now, actions, look);
        }
    }
    let began = mains_began(state);
    for container in state.init_containers() {
        let exit = state.last_exit_in_sandbox(&container.name);
        let sidecar = is_sidecar(container);
        if !sidecar && exit.is_some_and(|exit| exit.code == 0) {
            continue;
        }
        keep_running(state, container, settings, now, actions, look);
        // A sidecar lets the next one go once it has started; who has been let go is not held up by its restarts.
        if !(sidecar && (began || state.is_started(container))) {
            return;
        }
    }
    // What has a hook for its start lets the next one start once that is over.
    let mut may_start = true;
    for container in &state.spec().containers {
        let over = state.last_exit(&container.name).is_some_and(|exit| !state.restarts(container, exit));
        let known = state.containers.get(&container.name);
        let is_there = known.is_some_and(|known| known.starting || known.running().is_some());
        if over || !(may_start || is_there) {
            continue;
        }
        let planned = actions.len();
        keep_running(state, container, settings, now, actions, look);
        let starts = actions[planned..].iter().any(|action| matches!(action, Action::Start { .. }));
        let is_starting =
            starts || known.is_some_and(|known| known.starting || known.post_start == PostStart::UnderWay);
        may_start &= post_start(container).is_none() || !is_starting;
    }
}

/// Whether the containers that come after the init containers have had their turn in this sandbox.
fn mains_began(state: &PodState) -> bool {
    state.spec().containers.iter().any(|main| {
        let runs =
            state.containers.get(&main.name).is_some_and(|known| known.starting || known.running().is_some());
        runs || state.last_exit_in_sandbox(&main.name).is_some()
    })
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
    if let Some(ended) = container.last_exited() {
        attempt = ended.run.key.attempt + 1;
        restart_delay = backoff::after_next(&ended, settings.restart_backoff);
        let restart_at = later(ended.at, backoff::before_next(&ended));
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
    let mut stop = |grace: Duration, why: &str| {
        Stop { spec, grace, why, turn: true }.plan(container, now, actions, look)
    };
    if let Some((kind, name)) = failed {
        let own = kind.of(spec).and_then(|probe| probe.termination_grace_period_seconds);
        let why = format!("Container {} failed {name} probe, will be restarted", spec.name);
        return stop(own.map_or_else(|| pod_grace(state), seconds), &why);
    }
    if container.post_start == PostStart::Failed {
        return stop(pod_grace(state), "FailedPostStartHook");
    }
    if container.stopping.is_some() {
        // Asked to stop for a reason that is gone; it still must end.
        return stop(pod_grace(state), "");
    }
    if container.post_start == PostStart::UnderWay {
        // Nobody is asked yet.
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
        let due = known.due(probe, container.began_at());
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
