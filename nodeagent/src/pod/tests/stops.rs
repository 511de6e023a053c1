//! Hooks after a start and before a stop, and the order in which the containers of a pod end.

use serde_json::{Value, json};

use super::*;
use crate::pod::state::PostStart;

/// One container with one hook.
fn hooked(hook: &str) -> Story {
    let main = json!({"name": "main", "lifecycle": {hook: {"exec": {"command": ["x"]}}}});
    Story::in_sandbox(json!({"terminationGracePeriodSeconds": 7, "containers": [main, {"name": "next"}]}))
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().unwrap().running.is_some()
}

#[test]
fn a_container_runs_once_its_hook_is_over_and_the_next_one_starts_then() {
    let mut story = hooked("postStart");
    assert_eq!(story.actions(0), [start("main", 0, 0)]);
    story.state.containers.entry("main".to_owned()).or_default().starting = true;
    assert_eq!(story.actions(0), []);
    story.started("main", 0, 0, 1);
    assert_eq!(story.actions(1), []);
    let main = first(&story.status(1));
    assert_eq!(waiting_reason(&main).as_deref(), Some("ContainerCreating"));
    assert_eq!((main.ready, main.started), (false, Some(false)));
    assert_eq!(story.status(1).phase.as_deref(), Some("Pending"));
    story.state.post_started(&key("main", 0), true);
    assert_eq!(story.actions(2), [start("next", 0, 0)]);
    let main = first(&story.status(2));
    assert!(is_running(&main) && main.ready);
}

#[test]
fn a_container_whose_hook_fails_is_stopped_and_started_again_and_holds_up_nobody_then() {
    let mut story = hooked("postStart");
    story.started("main", 0, 0, 0);
    story.state.post_started(&key("main", 0), false);
    let next = start("next", 0, 0);
    assert_eq!(story.actions(1), [stop("main", 7, "FailedPostStartHook"), signal("main"), next.clone()]);
    assert_eq!(waiting_reason(&first(&story.status(1))).as_deref(), Some("PostStartHookError"));
    story.asked_to_end("main", 7, 1);
    story.exited("main", 0, 143, 0, 2);
    assert_eq!(story.actions(2), [start("main", 1, 10)], "and its hook holds up the next one again");
    story.started("main", 1, 10, 2);
    story.exited("main", 1, 143, 2, 3);
    assert_eq!(story.actions(3), [next], "while it waits to be started again, others are not held up");
}

#[test]
fn nobody_is_probed_before_the_hook_after_its_start_is_over() {
    let main = json!({"name": "main", "lifecycle": {"postStart": {"sleep": {"seconds": 5}}},
        "livenessProbe": {"tcpSocket": {"port": 1}}});
    let mut story = Story::in_sandbox(json!({"containers": [main]}));
    story.started("main", 0, 0, 0);
    assert_eq!(story.actions(1), []);
    story.state.post_started(&key("main", 0), true);
    assert_eq!(story.actions(5), [probe(ProbeKind::Liveness)]);
}

#[test]
fn a_hook_of_a_run_that_is_over_means_nothing() {
    let mut story = hooked("postStart");
    story.started("main", 0, 0, 0);
    story.exited("main", 0, 1, 0, 1);
    story.started("main", 1, 10, 1);
    story.state.post_started(&key("main", 0), false);
    assert_eq!(story.state.containers["main"].post_start, PostStart::UnderWay);
}

#[test]
fn the_signal_comes_after_the_hook_and_leaves_two_seconds_whatever_that_took() {
    for (hook_ends, killed) in [(3, 7), (6, 8), (7, 9)] {
        let mut story = hooked("preStop");
        story.started("main", 0, 0, 0);
        story.delete(7);
        assert_eq!(story.actions(0), [stop("main", 7, "Stopping container main")]);
        story.state.stopping(&key("main", 0), Duration::from_secs(7), true, at(0));
        assert_eq!((story.actions(2), story.look_again(2)), (vec![], Some(7)));
        story.state.pre_stopped(&key("main", 0));
        assert_eq!(story.actions(hook_ends), [signal("main")]);
        story.state.signalled(&key("main", 0), at(hook_ends));
        assert_eq!((story.actions(hook_ends), story.look_again(hook_ends)), (vec![], Some(killed)));
        assert_eq!(story.actions(killed), [Action::Kill(key("main", 0))]);
    }
}

#[test]
fn a_hook_that_takes_all_the_time_is_given_up_on() {
    let mut story = hooked("preStop");
    story.started("main", 0, 0, 0);
    story.delete(7);
    story.state.stopping(&key("main", 0), Duration::from_secs(7), true, at(0));
    assert_eq!(story.actions(7), [signal("main")]);
    // A second delete leaves less.
    story.delete(3);
    assert_eq!(story.actions(3), [signal("main")]);
    story.delete(0);
    assert_eq!(story.actions(1), [Action::Kill(key("main", 0))]);
}

fn with_sidecars(main: Value) -> Story {
    Story::in_sandbox(json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 9,
        "initContainers": [
            {"name": "first", "restartPolicy": "Always", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
            {"name": "second", "restartPolicy": "Always"},
        ],
        "containers": [main],
    }))
}

#[test]
fn sidecars_start_in_order_and_end_in_the_opposite_one_within_one_grace_period() {
    let mut story = with_sidecars(json!({"name": "main"}));
    assert_eq!(story.actions(0), [start("first", 0, 0)]);
    story.started("first", 0, 0, 0);
    assert_eq!(story.actions(0), [start("second", 0, 0)]);
    story.started("second", 0, 0, 0);
    assert_eq!(story.actions(0), [start("main", 0, 0)]);
    story.started("main", 0, 0, 0);
    story.delete(9);
    let stop = |name: &str| stop(name, 9, &format!("Stopping container {name}"));
    assert_eq!(story.actions(10), [stop("first"), stop("main"), signal("main"), stop("second")]);
    story.state.stopping(&key("first", 0), Duration::from_secs(9), true, at(10));
    story.state.stopping(&key("second", 0), Duration::from_secs(9), false, at(10));
    story.asked_to_end("main", 9, 10);
    story.state.pre_stopped(&key("first", 0));
    assert_eq!(story.actions(11), [], "sidecars wait for those whom they serve");
    story.exited("main", 0, 0, 0, 12);
    assert_eq!(story.actions(12), [signal("second")]);
    story.state.signalled(&key("second", 0), at(12));
    assert_eq!(story.actions(13), []);
    story.exited("second", 0, 0, 0, 14);
    assert_eq!(story.actions(14), [signal("first")]);
    // The time of all is up.
    let mut story = with_sidecars(json!({"name": "main"}));
    for name in ["first", "second", "main"] {
        story.started(name, 0, 0, 0);
    }
    story.delete(9);
    story.asked_to_end("main", 9, 10);
    for name in ["first", "second"] {
        story.state.stopping(&key(name, 0), Duration::from_secs(9), false, at(10));
    }
    assert_eq!(story.actions(19), [signal("first"), Action::Kill(key("main", 0)), signal("second")]);
}

#[test]
fn a_sidecar_that_restarts_leaves_the_others_alone() {
    let probe = json!({"tcpSocket": {"port": 1}});
    let mut story = with_sidecars(json!({"name": "main", "readinessProbe": probe}));
    for name in ["first", "second", "main"] {
        story.started(name, 0, 0, 0);
    }
    story.exited("first", 0, 1, 0, 1);
    story.started("first", 1, 10, 1);
    story.exited("first", 1, 1, 1, 2);
    assert_eq!(
        story.actions(2),
        [super::probe(ProbeKind::Readiness)],
        "the containers are still looked after"
    );
    assert_eq!(story.actions(12), [start("first", 2, 20), super::probe(ProbeKind::Readiness)]);
}

#[test]
fn whoever_came_later_holds_up_no_sidecar() {
    let mut story = with_sidecars(json!({"name": "main"}));
    let mut pod = Pod::clone(&story.state.pod);
    pod.spec.as_mut().unwrap().ephemeral_containers =
        serde_json::from_value(json!([{"name": "late", "image": "i"}])).unwrap();
    story.state.desire(pod);
    for name in ["first", "second", "late"] {
        story.started(name, 0, 0, 0);
    }
    story.delete(9);
    let stop = |name: &str| stop(name, 9, &format!("Stopping container {name}"));
    let expected = [stop("first"), stop("late"), signal("late"), stop("second"), signal("second")];
    assert_eq!(story.actions(1), expected);
}

#[test]
fn nothing_is_freed_while_volumes_are_refreshed() {
    let mut story = Story::never();
    story.started("main", 0, 0, 0);
    story.state.refreshing = true;
    story.exited("main", 0, 0, 0, 1);
    assert_eq!(story.actions(1), []);
    story.state.refreshing = false;
    assert_eq!(story.actions(2), [Action::Release]);
}
