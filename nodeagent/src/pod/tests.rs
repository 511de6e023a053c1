//! Plans as tables: what is known on the left, what to do and to report on the right.

mod clocks;
mod stops;

use std::{sync::Arc, time::Duration};

use claw_schemas::api::PROGRESS;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::{Action, Eviction, Moment, PodState, ProbeKind, Settings, plan};
use crate::runtime::{ExitReason, ExitRecord, Instance, InstanceKey, Sandbox, StartFailure};

const SETTINGS: Settings = Settings { restart_backoff: Duration::from_secs(10) };
const UID: &str = "uid-1";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap() + SignedDuration::from_secs(second)
}

/// When nobody has set the clock.
fn moment(second: i64) -> Moment {
    Moment { steady: at(second), wall: at(second) }
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": UID, "generation": 3},
        "spec": spec,
    }))
    .unwrap()
}

/// A pod that is followed through time.
struct Story {
    state: PodState,
}

impl Story {
    /// Seen first at second 0.
    fn new(spec: serde_json::Value) -> Self {
        Self { state: PodState::new(pod(spec), [192, 0, 2, 1].into(), at(0)) }
    }

    /// With a sandbox since second 0.
    fn in_sandbox(spec: serde_json::Value) -> Self {
        let mut story = Self::new(spec);
        story.state.prepared(Ok(sandbox(0)), at(0));
        story
    }

    fn simple() -> Self {
        Self::in_sandbox(serde_json::json!({"containers": [{"name": "main", "image": "i"}]}))
    }

    fn never() -> Self {
        Self::in_sandbox(serde_json::json!({"restartPolicy": "Never", "containers": [{"name": "main"}]}))
    }

    fn actions(&self, second: i64) -> Vec<Action> {
        plan(&self.state, &SETTINGS, moment(second)).actions
    }

    fn status(&mut self, second: i64) -> PodStatus {
        let status = plan(&self.state, &SETTINGS, moment(second)).status;
        self.state.reported = status.clone();
        status
    }

    fn look_again(&self, second: i64) -> Option<i64> {
        let when = plan(&self.state, &SETTINGS, moment(second)).look_again?;
        Some(when.duration_since(at(0)).as_secs())
    }

    fn started(&mut self, container: &str, attempt: u32, delay: u64, second: i64) {
        let instance = Instance {
            id: format!("{container}-{attempt}"),
            restart_delay: Duration::from_secs(delay),
            sandbox: self.state.sandbox.as_ref().map(|sandbox| sandbox.created_at),
            ..run(container, attempt, at(second))
        };
        self.state.started(container, Ok(instance), SETTINGS.restart_backoff, at(second));
    }

    fn exited(&mut self, container: &str, attempt: u32, code: i32, started: i64, finished: i64) {
        self.state.exited(&key(container, attempt), exit(code, started, finished), at(finished));
    }

    /// Is to end, and was sent its signal.
    fn asked_to_end(&mut self, container: &str, grace: u64, second: i64) {
        self.state.stopping(&key(container, 0), Duration::from_secs(grace), false, at(second));
        self.state.signalled(&key(container, 0), at(second));
    }

    fn delete(&mut self, grace_seconds: i64) {
        let mut pod = Pod::clone(&self.state.pod);
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
        pod.metadata.deletion_grace_period_seconds = Some(grace_seconds);
        self.state.desire(pod);
    }
}

fn sandbox(second: i64) -> Sandbox {
    Sandbox { ip: Some([10, 88, 0, 2].into()), created_at: at(second) }
}

fn key(container: &str, attempt: u32) -> InstanceKey {
    InstanceKey { pod_uid: UID.to_owned(), container: container.to_owned(), attempt }
}

fn run(container: &str, attempt: u32, started_at: Timestamp) -> Instance {
    Instance {
        key: key(container, attempt),
        id: container.to_owned(),
        image: "i".to_owned(),
        image_id: "i@sha256:0".to_owned(),
        restart_delay: Duration::ZERO,
        sandbox: None,
        started_at: Some(started_at),
        exit: None,
    }
}

fn exit(code: i32, started: i64, finished: i64) -> ExitRecord {
    ExitRecord {
        code,
        signal: None,
        reason: if code == 0 { ExitReason::Completed } else { ExitReason::Error },
        message: String::new(),
        started_at: Some(at(started)),
        finished_at: at(finished),
    }
}

fn start(container: &str, attempt: u32, delay: u64) -> Action {
    Action::Start { container: container.to_owned(), attempt, restart_delay: Duration::from_secs(delay) }
}

fn stop(container: &str, grace: u64, why: &str) -> Action {
    Action::Stop { key: key(container, 0), grace: Duration::from_secs(grace), why: why.to_owned() }
}

fn signal(container: &str) -> Action {
    Action::Signal(key(container, 0))
}

fn first(status: &PodStatus) -> ContainerStatus {
    status.container_statuses.clone().unwrap()[0].clone()
}

fn waiting_reason(status: &ContainerStatus) -> Option<String> {
    status.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn condition(status: &PodStatus, type_: &str) -> (String, Option<String>, Timestamp) {
    let found = status.conditions.iter().flatten().find(|condition| condition.type_ == type_).unwrap();
    (found.status.clone(), found.reason.clone(), found.last_transition_time.clone().unwrap().0)
}

#[test]
fn what_a_container_says_that_it_does_is_a_condition_until_it_ends() {
    let mut story = Story::never();
    let told = |story: &mut Story, second: i64| {
        let conditions = story.status(second).conditions.unwrap();
        conditions.into_iter().find(|condition| condition.type_ == PROGRESS)
    };
    story.started("main", 0, 0, 1);
    assert_eq!(told(&mut story, 1), None);
    story.state.progressed(&key("main", 0), "run 1 of 2".to_owned());
    let first = told(&mut story, 2).unwrap();
    assert_eq!((first.status.as_str(), first.message.as_deref()), ("True", Some("run 1 of 2")));
    story.state.progressed(&key("main", 0), "run 2 of 2".to_owned());
    let second = told(&mut story, 9).unwrap();
    assert_eq!(second.message.as_deref(), Some("run 2 of 2"));
    assert_eq!(second.last_transition_time, first.last_transition_time, "it has worked since");
    story.exited("main", 0, 0, 1, 10);
    assert_eq!(told(&mut story, 10), None);
    story.state.progressed(&key("main", 0), "late".to_owned());
    assert_eq!(told(&mut story, 11), None, "who is over does nothing");
}

#[test]
fn a_new_pod_gets_its_sandbox_before_its_containers() {
    let mut story = Story::new(serde_json::json!({"containers": [{"name": "main"}]}));
    assert_eq!(story.actions(0), [Action::Prepare]);
    let status = story.status(0);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting_reason(&first(&status)).as_deref(), Some("ContainerCreating"));
    assert_eq!(condition(&status, "PodReadyToStartContainers").0, "False");
    story.state.preparing = true;
    assert_eq!(story.actions(0), []);
    story.state.prepared(Ok(sandbox(1)), at(1));
    assert_eq!(story.actions(1), [start("main", 0, 0)]);
    assert_eq!(story.status(1).pod_ip.as_deref(), Some("10.88.0.2"));
}

#[test]
fn a_sandbox_that_fails_is_tried_again_later_and_later() {
    let mut story = Story::new(serde_json::json!({"containers": [{"name": "main"}]}));
    let failure = || StartFailure::new("FailedMount", "configmap \"x\" not found");
    story.state.prepared(Err(failure()), at(0));
    assert_eq!((story.actions(0), story.look_again(0)), (vec![], Some(1)));
    assert_eq!(story.status(0).message.as_deref(), Some("configmap \"x\" not found"));
    assert_eq!(story.actions(1), [Action::Prepare]);
    story.state.prepared(Err(failure()), at(1));
    assert_eq!((story.actions(2), story.look_again(2)), (vec![], Some(3)));
}

#[test]
fn a_running_container_makes_a_ready_pod_and_the_transition_is_remembered() {
    let mut story = Story::simple();
    let before = story.status(1);
    assert_eq!(
        condition(&before, "Ready"),
        ("False".to_owned(), Some("ContainersNotReady".to_owned()), at(1))
    );
    story.started("main", 0, 0, 2);
    let status = story.status(5);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready"), ("True".to_owned(), None, at(5)));
    assert_eq!(condition(&story.status(9), "Ready").2, at(5));
    let main = first(&status);
    assert!(main.ready && main.started == Some(true));
    assert_eq!(main.container_id.as_deref(), Some("clawbernetes://main-0"));
    assert_eq!(main.state.unwrap().running.unwrap().started_at.unwrap().0, at(2));
    assert_eq!(story.actions(9), []);
}

#[test]
fn restarts_are_immediate_once_and_then_wait_twice_as_long_each_time() {
    let mut story = Story::simple();
    // (recorded delay of the run, second of its exit) → (second of the next start, recorded delay of it)
    let mut now = 0;
    let mut delay = 0;
    for (attempt, (expected_wait, next_delay)) in
        [(0, 10), (10, 20), (20, 40), (40, 80), (80, 160), (160, 300), (300, 300)].into_iter().enumerate()
    {
        let attempt = u32::try_from(attempt).unwrap();
        story.started("main", attempt, delay, now);
        story.exited("main", attempt, 1, now, now + 1);
        now += 1;
        if expected_wait > 0 {
            assert_eq!(
                story
                    .actions(now + expected_wait - 1)
                    .iter()
                    .filter(|a| matches!(a, Action::Start { .. }))
                    .count(),
                0
            );
            assert_eq!(story.look_again(now), Some(now + expected_wait));
        }
        now += expected_wait;
        assert!(story.actions(now).contains(&start("main", attempt + 1, next_delay)), "attempt {attempt}");
        delay = next_delay;
    }
}

#[test]
fn a_long_run_makes_the_backoff_forget() {
    let mut story = Story::simple();
    story.started("main", 4, 160, 0);
    story.exited("main", 4, 1, 0, 600);
    assert_eq!(story.actions(600), [start("main", 5, 10)]);
}

#[test]
fn a_crash_loop_shows_the_last_exit_and_the_count() {
    let mut story = Story::simple();
    story.started("main", 2, 20, 0);
    story.exited("main", 2, 7, 0, 1);
    let status = story.status(2);
    let main = first(&status);
    assert_eq!(waiting_reason(&main).as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(
        main.state.unwrap().waiting.unwrap().message.unwrap(),
        "back-off 20s restarting failed container=main pod=web_shop(uid-1)"
    );
    assert_eq!(main.last_state.unwrap().terminated.unwrap().exit_code, 7);
    assert_eq!((main.restart_count, main.ready), (2, false));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready").1.as_deref(), Some("ContainersNotReady"));
}

#[test]
fn restart_policies_decide_phase_and_restart() {
    for (policy, code, restarts, phase) in [
        ("Always", 0, true, "Running"),
        ("Always", 1, true, "Running"),
        ("OnFailure", 1, true, "Running"),
        ("OnFailure", 0, false, "Succeeded"),
        ("Never", 0, false, "Succeeded"),
        ("Never", 1, false, "Failed"),
    ] {
        let mut story =
            Story::in_sandbox(serde_json::json!({"restartPolicy": policy, "containers": [{"name": "main"}]}));
        story.started("main", 0, 0, 0);
        story.exited("main", 0, code, 0, 1);
        let expected = if restarts { start("main", 1, 10) } else { Action::Release };
        assert_eq!(story.actions(1), [expected], "{policy} {code}");
        assert_eq!(story.status(1).phase.as_deref(), Some(phase), "{policy} {code}");
    }
}

#[test]
fn a_pod_that_is_over_is_released_once_and_keeps_its_address() {
    let mut story = Story::never();
    story.started("main", 0, 0, 0);
    story.status(0);
    story.exited("main", 0, 0, 0, 1);
    story.state.released(true, at(2));
    assert_eq!((story.actions(3), story.look_again(3)), (vec![], None));
    let status = story.status(3);
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Succeeded"), Some("10.88.0.2")));
    assert_eq!(condition(&status, "Ready").1.as_deref(), Some("PodCompleted"));
    assert_eq!(condition(&status, "Initialized").0, "True");
}

#[test]
fn init_containers_run_one_after_another() {
    let spec = serde_json::json!({
        "initContainers": [{"name": "one"}, {"name": "two"}],
        "containers": [{"name": "main"}],
    });
    let mut story = Story::in_sandbox(spec);
    assert_eq!(story.actions(0), [start("one", 0, 0)]);
    let status = story.status(0);
    assert_eq!(waiting_reason(&first(&status)).as_deref(), Some("PodInitializing"));
    assert_eq!(condition(&status, "Initialized").1.as_deref(), Some("ContainersNotInitialized"));
    story.started("one", 0, 0, 0);
    assert_eq!(story.actions(1), []);
    story.exited("one", 0, 0, 0, 2);
    assert_eq!(story.actions(2), [start("two", 0, 0)]);
    story.started("two", 0, 0, 2);
    story.exited("two", 0, 1, 2, 3);
    assert_eq!(story.actions(3), [start("two", 1, 10)], "a failed one is tried again");
    story.started("two", 1, 10, 3);
    story.exited("two", 1, 0, 3, 4);
    assert_eq!(story.actions(4), [start("main", 0, 0)]);
    story.started("main", 0, 0, 4);
    let status = story.status(5);
    assert_eq!(
        (status.phase.as_deref(), condition(&status, "Initialized").0),
        (Some("Running"), "True".to_owned())
    );
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let spec = serde_json::json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "one"}],
        "containers": [{"name": "main"}],
    });
    let mut story = Story::in_sandbox(spec);
    story.started("one", 0, 0, 0);
    story.exited("one", 0, 3, 0, 1);
    assert_eq!(story.actions(1), [Action::Release]);
    assert_eq!(story.status(1).phase.as_deref(), Some("Failed"));
}

#[test]
fn a_new_sandbox_has_its_init_containers_run_again() {
    let spec = serde_json::json!({"initContainers": [{"name": "one"}], "containers": [{"name": "main"}]});
    let mut story = Story::in_sandbox(spec);
    story.started("one", 0, 0, 0);
    story.exited("one", 0, 0, 0, 1);
    story.started("main", 0, 0, 1);
    story.exited("main", 0, 137, 1, 50);
    story.state.prepared(Ok(sandbox(100)), at(100));
    assert_eq!(story.actions(100), [start("one", 1, 10)]);
}

#[test]
fn a_sidecar_lets_the_containers_go_once_it_started_and_stops_after_them() {
    let spec = serde_json::json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 9,
        "initContainers": [{"name": "proxy", "restartPolicy": "Always"}],
        "containers": [{"name": "main"}],
    });
    let mut story = Story::in_sandbox(spec);
    assert_eq!(story.actions(0), [start("proxy", 0, 0)]);
    story.started("proxy", 0, 0, 0);
    assert_eq!(story.actions(1), [start("main", 0, 0)]);
    story.started("main", 0, 0, 1);
    story.exited("main", 0, 0, 1, 2);
    assert_eq!(story.actions(2), [stop("proxy", 9, "Stopping container proxy"), signal("proxy")]);
}

#[test]
fn deletion_asks_then_kills_then_frees_then_says_so() {
    let mut story = Story::simple();
    story.started("main", 0, 0, 0);
    story.delete(5);
    assert_eq!(story.actions(10), [stop("main", 5, "Stopping container main"), signal("main")]);
    story.asked_to_end("main", 5, 10);
    assert_eq!((story.actions(14), story.look_again(14)), (vec![], Some(15)));
    assert_eq!(story.actions(15), [Action::Kill(key("main", 0))]);
    story.state.killed(&key("main", 0), at(15));
    assert_eq!((story.actions(16), story.look_again(16)), (vec![], Some(20)));
    assert_eq!(story.actions(20), [Action::Kill(key("main", 0))], "what does not die is killed again");
    story.exited("main", 0, 137, 0, 20);
    assert_eq!(story.actions(20), [Action::Release]);
    story.state.releasing = true;
    assert_eq!(story.actions(20), []);
    story.state.released(false, at(21));
    assert_eq!((story.actions(21), story.look_again(21)), (vec![], Some(23)), "freeing is tried again");
    story.state.released(true, at(23));
    assert_eq!(story.actions(23), [Action::Finish]);
    story.state.finished = true;
    assert_eq!(story.actions(24), []);
}

#[test]
fn a_second_delete_may_shorten_the_grace_period() {
    let mut story = Story::simple();
    story.started("main", 0, 0, 0);
    story.delete(300);
    story.asked_to_end("main", 300, 10);
    assert_eq!(story.actions(20), []);
    story.delete(0);
    assert_eq!(story.actions(20), [Action::Kill(key("main", 0))]);
}

#[test]
fn a_pod_that_is_gone_from_the_server_is_killed_and_forgotten() {
    let mut story = Story::simple();
    story.started("main", 0, 0, 0);
    story.state.removed = true;
    assert_eq!(story.actions(1), [Action::Kill(key("main", 0))]);
    story.exited("main", 0, 137, 0, 1);
    assert_eq!(story.actions(2), [Action::Release]);
    story.state.released(true, at(2));
    assert_eq!(story.actions(2), [Action::Finish]);
}

#[test]
fn nothing_is_freed_while_a_start_is_under_way() {
    let mut story = Story::simple();
    story.state.containers.entry("main".to_owned()).or_default().starting = true;
    story.delete(5);
    assert_eq!(story.actions(1), []);
    story.started("main", 0, 0, 1);
    assert!(matches!(story.actions(1)[..], [Action::Stop { .. }, Action::Signal(_)]));
}

#[test]
fn a_pod_over_its_deadline_fails() {
    let mut story =
        Story::in_sandbox(serde_json::json!({"activeDeadlineSeconds": 60, "containers": [{"name": "main"}]}));
    story.started("main", 0, 0, 0);
    assert_eq!((story.actions(59), story.look_again(59)), (vec![], Some(60)));
    assert!(matches!(story.actions(60)[..], [Action::Stop { .. }, Action::Signal(_)]));
    let status = story.status(60);
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}

#[test]
fn what_ends_well_after_its_deadline_has_exceeded_it_and_before_has_not() {
    let spec = || serde_json::json!({"activeDeadlineSeconds": 60, "restartPolicy": "Never", "containers": [{"name": "main"}]});
    let phase = |finished: i64| {
        let mut story = Story::in_sandbox(spec());
        story.started("main", 0, 0, 0);
        story.exited("main", 0, 0, 0, finished);
        assert_eq!(story.actions(62), [Action::Release]);
        story.status(62).phase.unwrap()
    };
    assert_eq!((phase(61), phase(59)), ("Failed".to_owned(), "Succeeded".to_owned()));
}

#[test]
fn what_the_server_holds_as_over_is_not_started_again() {
    for phase in ["Succeeded", "Failed"] {
        let mut pod = pod(serde_json::json!({"containers": [{"name": "main"}]}));
        pod.status = Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
        let state = PodState::new(pod.clone(), [192, 0, 2, 1].into(), at(0));
        let decided = plan(&state, &SETTINGS, moment(0));
        assert_eq!(decided.actions, [Action::Release], "{phase}");
        assert_eq!(Some(decided.status), pod.status, "{phase}");
    }
}

fn probed(kind: &str, probe: serde_json::Value) -> Story {
    let mut container = serde_json::json!({"name": "main"});
    container[kind] = probe;
    Story::in_sandbox(serde_json::json!({"terminationGracePeriodSeconds": 7, "containers": [container]}))
}

fn probe(kind: ProbeKind) -> Action {
    Action::Probe { key: key("main", 0), kind }
}

#[test]
fn readiness_follows_its_probe() {
    let mut story = probed(
        "readinessProbe",
        serde_json::json!({"tcpSocket": {"port": 1}, "initialDelaySeconds": 3, "periodSeconds": 5, "failureThreshold": 2}),
    );
    story.started("main", 0, 0, 0);
    assert!(!first(&story.status(0)).ready);
    assert_eq!((story.actions(2), story.look_again(2)), (vec![], Some(3)));
    assert_eq!(story.actions(3), [probe(ProbeKind::Readiness)]);
    story.state.probing(&key("main", 0), ProbeKind::Readiness);
    assert_eq!(story.actions(3), [], "one at a time");
    story.state.probed(&key("main", 0), ProbeKind::Readiness, true, at(4));
    assert!(first(&story.status(4)).ready);
    assert_eq!((story.actions(8), story.look_again(8)), (vec![], Some(9)));
    story.state.probed(&key("main", 0), ProbeKind::Readiness, false, at(9));
    assert!(first(&story.status(9)).ready, "one failure of two");
    story.state.probed(&key("main", 0), ProbeKind::Readiness, false, at(14));
    let status = story.status(14);
    assert!(!first(&status).ready);
    assert_eq!(condition(&status, "Ready").0, "False");
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn a_container_that_fails_its_liveness_probe_is_stopped_and_restarted() {
    let mut story =
        probed("livenessProbe", serde_json::json!({"tcpSocket": {"port": 1}, "failureThreshold": 1}));
    story.started("main", 0, 0, 0);
    assert_eq!(story.actions(0), [probe(ProbeKind::Liveness)]);
    story.state.probed(&key("main", 0), ProbeKind::Liveness, false, at(0));
    let why = "Container main failed liveness probe, will be restarted";
    assert_eq!(story.actions(1), [stop("main", 7, why), signal("main")]);
    story.asked_to_end("main", 7, 1);
    assert_eq!(story.actions(8), [Action::Kill(key("main", 0))]);
    story.exited("main", 0, 0, 0, 8);
    assert_eq!(story.actions(8), [start("main", 1, 10)]);
    story.started("main", 1, 10, 8);
    assert_eq!(story.actions(8), [Action::Probe { key: key("main", 1), kind: ProbeKind::Liveness }]);
}

#[test]
fn the_other_probes_wait_for_the_startup_probe() {
    let spec = serde_json::json!({"containers": [{"name": "main",
        "startupProbe": {"tcpSocket": {"port": 1}},
        "livenessProbe": {"tcpSocket": {"port": 1}},
        "readinessProbe": {"tcpSocket": {"port": 1}}}]});
    let mut story = Story::in_sandbox(spec);
    story.started("main", 0, 0, 0);
    assert_eq!(story.actions(0), [probe(ProbeKind::Startup)]);
    assert_eq!(first(&story.status(0)).started, Some(false));
    story.state.probed(&key("main", 0), ProbeKind::Startup, true, at(0));
    assert_eq!(story.actions(0), [probe(ProbeKind::Liveness), probe(ProbeKind::Readiness)]);
    assert_eq!(first(&story.status(0)).started, Some(true));
}

#[test]
fn a_result_for_a_run_that_is_over_means_nothing() {
    let mut story =
        probed("livenessProbe", serde_json::json!({"tcpSocket": {"port": 1}, "failureThreshold": 1}));
    story.started("main", 0, 0, 0);
    story.exited("main", 0, 1, 0, 1);
    story.started("main", 1, 10, 1);
    story.state.probed(&key("main", 0), ProbeKind::Liveness, false, at(2));
    assert_eq!(story.actions(2), [Action::Probe { key: key("main", 1), kind: ProbeKind::Liveness }]);
}

#[test]
fn an_image_that_cannot_be_had_is_shown_and_tried_again() {
    let mut story = Story::simple();
    let failure = || StartFailure::new("ErrImagePull", "no such image");
    story.state.started("main", Err(failure()), SETTINGS.restart_backoff, at(0));
    assert_eq!(waiting_reason(&first(&story.status(0))).as_deref(), Some("ErrImagePull"));
    assert_eq!(story.look_again(0), Some(1));
    let later = first(&story.status(1));
    assert_eq!(waiting_reason(&later).as_deref(), Some("ImagePullBackOff"));
    assert!(later.state.unwrap().waiting.unwrap().message.unwrap().contains("no such image"));
    assert_eq!(story.actions(9), []);
    assert_eq!(story.actions(10), [start("main", 0, 0)]);
    story.state.started("main", Err(failure()), SETTINGS.restart_backoff, at(10));
    assert_eq!(story.look_again(12), Some(30));
    assert_eq!(story.status(12).phase.as_deref(), Some("Pending"));
}

#[test]
fn a_missing_reference_is_named_and_tried_again_soon() {
    let mut story = Story::simple();
    let failure = StartFailure::new("CreateContainerConfigError", "secret \"s\" not found");
    story.state.started("main", Err(failure), SETTINGS.restart_backoff, at(0));
    let main = first(&story.status(0));
    let waiting = main.state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CreateContainerConfigError"));
    assert_eq!(waiting.message.as_deref(), Some("secret \"s\" not found"));
    assert_eq!(story.actions(2), [start("main", 0, 0)]);
}

#[test]
fn only_the_present_run_and_the_one_before_are_kept() {
    let mut story = Story::simple();
    for attempt in 0..3 {
        story.started("main", attempt, 0, i64::from(attempt));
        if attempt < 2 {
            story.exited("main", attempt, 1, 0, 1);
        }
    }
    assert_eq!(story.actions(3), [Action::Discard(key("main", 0))]);
}

#[test]
fn what_was_ready_before_the_agents_restart_is_ready_after_it() {
    let mut story = probed("readinessProbe", serde_json::json!({"tcpSocket": {"port": 1}}));
    story.started("main", 0, 0, 0);
    story.state.probed(&key("main", 0), ProbeKind::Readiness, true, at(1));
    let before = story.status(1);
    assert!(first(&before).ready);
    let mut pod = Pod::clone(&story.state.pod);
    pod.status = Some(before.clone());
    let recovered = crate::runtime::RecoveredPod {
        pod,
        sandbox: story.state.sandbox.clone(),
        instances: story.state.containers["main"].runs.clone(),
    };
    let adopted = PodState::adopt(recovered, [192, 0, 2, 1].into(), at(500));
    assert_eq!(plan(&adopted, &SETTINGS, moment(500)).status, before);
}

#[test]
fn a_pod_that_the_machine_cannot_have_fails_and_says_why() {
    let mut story = Story::new(serde_json::json!({"containers": [{"name": "main"}]}));
    assert_eq!(story.actions(0), [Action::Prepare]);
    story.state.preparing = true;
    story.state.refused(StartFailure::new("UnexpectedAdmissionError", "no GPU is free"));
    assert_eq!(story.actions(1), [Action::Release]);
    let status = story.status(1);
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref(), status.message.as_deref()),
        (Some("Failed"), Some("UnexpectedAdmissionError"), Some("Pod was rejected: no GPU is free"))
    );
    assert_eq!(status.container_statuses, None, "no container of it waits for anything");
    story.state.released(true, at(2));
    assert_eq!(story.actions(2), [], "it stays as it is until somebody deletes it");
    Arc::make_mut(&mut story.state.pod).metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(3)));
    assert_eq!(story.actions(3), [Action::Finish]);
    assert_eq!(story.status(3).phase.as_deref(), Some("Failed"));
}

#[test]
fn an_ephemeral_container_runs_once_beside_whatever_else_happens() {
    let spec = serde_json::json!({"initContainers": [{"name": "stuck"}], "containers": [{"name": "main"}]});
    let mut story = Story::in_sandbox(spec);
    story.started("stuck", 0, 0, 0);
    assert_eq!(story.actions(1), []);
    let mut pod = Pod::clone(&story.state.pod);
    let late = serde_json::json!([{"name": "late", "image": "i", "targetContainerName": "stuck"}]);
    pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(late).unwrap();
    story.state.desire(pod);
    assert_eq!(story.state.target("late"), Some("stuck"));
    assert_eq!(story.actions(1), [start("late", 0, 0)]);
    let statuses = |status: PodStatus| status.ephemeral_container_statuses.unwrap();
    assert_eq!(waiting_reason(&statuses(story.status(1))[0]).as_deref(), Some("ContainerCreating"));
    story.started("late", 0, 0, 1);
    let status = story.status(2);
    let late = &statuses(status.clone())[0];
    assert!(late.state.as_ref().unwrap().running.is_some() && !late.ready);
    assert_eq!(status.phase.as_deref(), Some("Pending"), "it decides about nothing");
    story.exited("late", 0, 7, 1, 3);
    assert_eq!(story.actions(100), [], "and is not started again");
    let late = statuses(story.status(100))[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!(late.exit_code, 7);
}

#[test]
fn an_evicted_pod_ends_soon_and_has_failed_for_good() {
    let mut story = Story::simple();
    story.started("main", 0, 0, 0);
    let why = "The node was low on resource: memory.".to_owned();
    // It may take as long as the node says, and as it asks for itself.
    for (grace, expected) in [(1, 1), (20, 20), (90, 30)] {
        story.state.evicted = Some(Eviction { why: why.clone(), grace: Duration::from_secs(grace) });
        assert_eq!(story.actions(1), [stop("main", expected, "Stopping container main"), signal("main")]);
    }
    let status = story.status(1);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(status.message.as_deref(), Some("The node was low on resource: memory."));
    assert_eq!(condition(&status, "DisruptionTarget").1.as_deref(), Some("TerminationByKubelet"));
    story.exited("main", 0, 143, 0, 2);
    assert_eq!(story.actions(2), [Action::Release], "it is not started again");
    story.state.released(true, at(3));
    assert_eq!(story.status(3).phase.as_deref(), Some("Failed"));
}

/// Otherwise it would be told again and again: the server never has what was said.
#[test]
fn a_status_holds_nothing_that_is_lost_on_its_way_to_the_server() {
    let after = |second: i64| at(second) + SignedDuration::from_millis(345);
    let spec = serde_json::json!({"containers": [{"name": "main", "image": "i"}]});
    let mut state = PodState::new(pod(spec), [192, 0, 2, 1].into(), after(0));
    state.prepared(Ok(sandbox(0)), after(0));
    let mut statuses = Vec::new();
    for attempt in 0..2 {
        let now = after(i64::from(attempt) * 100);
        state.started("main", Ok(run("main", attempt, now)), SETTINGS.restart_backoff, now);
        statuses.push(plan(&state, &SETTINGS, Moment { steady: now, wall: now }).status);
        let exit = ExitRecord { started_at: Some(now), finished_at: after(50), ..exit(1, 0, 0) };
        state.exited(&key("main", attempt), exit, now);
        statuses.push(plan(&state, &SETTINGS, Moment { steady: now, wall: now }).status);
    }
    for status in statuses {
        let on_server: PodStatus = serde_json::from_str(&serde_json::to_string(&status).unwrap()).unwrap();
        assert_eq!(on_server, status);
    }
}

#[test]
fn a_container_may_be_restarted_by_rules_of_its_own() {
    let rules = serde_json::json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let mut story = Story::in_sandbox(serde_json::json!({"restartPolicy": "Never", "containers": [
        {"name": "main", "restartPolicy": "Never", "restartPolicyRules": rules}, {"name": "once"}]}));
    story.started("main", 0, 0, 0);
    story.started("once", 0, 0, 0);
    story.exited("once", 0, 0, 0, 1);
    story.exited("main", 0, 42, 0, 1);
    assert_eq!(story.actions(1), [start("main", 1, 10)]);
    assert_eq!(story.status(1).phase.as_deref(), Some("Running"));
    story.started("main", 1, 10, 1);
    story.exited("main", 1, 42, 1, 2);
    assert_eq!(waiting_reason(&first(&story.status(3))).as_deref(), Some("CrashLoopBackOff"));
    assert_eq!((story.look_again(3), story.status(3).phase.as_deref()), (Some(12), Some("Running")));
    story.started("main", 2, 20, 12);
    story.exited("main", 2, 41, 12, 13);
    assert_eq!(story.actions(13), [Action::Release, Action::Discard(key("main", 0))]);
    assert_eq!(story.status(13).phase.as_deref(), Some("Failed"));
}

#[test]
fn a_pod_ends_when_no_container_of_it_is_restarted_whatever_its_own_policy() {
    let phase = |codes: [i32; 2]| {
        let spec = serde_json::json!({"containers": [
            {"name": "a", "restartPolicy": "Never"}, {"name": "b", "restartPolicy": "OnFailure"}]});
        let mut story = Story::in_sandbox(spec);
        for (name, code) in ["a", "b"].into_iter().zip(codes) {
            story.started(name, 0, 0, 0);
            story.exited(name, 0, code, 0, 1);
        }
        (story.status(1).phase.unwrap(), story.actions(1).contains(&Action::Release))
    };
    assert_eq!(phase([0, 0]), ("Succeeded".to_owned(), true));
    assert_eq!(phase([1, 0]), ("Failed".to_owned(), true));
    assert_eq!(phase([0, 1]), ("Running".to_owned(), false));
}

#[test]
fn an_init_container_that_may_not_be_restarted_fails_its_pod() {
    let fails = |policy: &str| {
        let spec = serde_json::json!({"initContainers": [{"name": "init", "restartPolicy": policy}],
            "containers": [{"name": "main"}]});
        let mut story = Story::in_sandbox(spec);
        story.started("init", 0, 0, 0);
        story.exited("init", 0, 1, 0, 1);
        story.status(1).phase.as_deref() == Some("Failed")
    };
    assert_eq!((fails("Never"), fails("OnFailure")), (true, false));
}
