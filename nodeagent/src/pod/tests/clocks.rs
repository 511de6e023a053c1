//! The clock on the wall is set while a pod runs, or was ahead when an earlier agent wrote things down.

use super::*;
use crate::runtime::RecoveredPod;

const HOUR: i64 = 3_600;

/// What an earlier agent left, by a clock that said `then`; this one begins at second 0.
fn adopted(spec: serde_json::Value, mut instances: Vec<Instance>, then: i64) -> Story {
    let mut pod = pod(spec);
    let start_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(then)));
    pod.status = Some(PodStatus { start_time, ..PodStatus::default() });
    for instance in &mut instances {
        instance.sandbox = Some(at(then));
    }
    let recovered = RecoveredPod { pod, sandbox: Some(sandbox(then)), instances };
    Story { state: PodState::adopt(recovered, [192, 0, 2, 1].into(), at(0)) }
}

#[test]
fn what_ran_in_this_sandbox_is_known_by_its_name_and_not_by_the_time() {
    let spec = serde_json::json!({"initContainers": [{"name": "init"}], "containers": [{"name": "main"}]});
    let mut story = Story::in_sandbox(spec);
    story.started("init", 0, 0, 1);
    // The clock went back an hour in between.
    story.state.exited(&key("init", 0), exit(0, 1, -HOUR), at(2));
    assert_eq!(story.actions(2), [start("main", 0, 0)]);
    // Of another sandbox, however late it ended.
    story.state.exited(&key("init", 0), exit(0, 1, HOUR), at(2));
    story.state.prepared(Ok(sandbox(3)), at(3));
    assert_eq!(story.actions(3), [start("init", 1, 10)]);
}

#[test]
fn of_runs_without_a_name_of_their_sandbox_time_must_tell() {
    let spec = serde_json::json!({"initContainers": [{"name": "init"}], "containers": [{"name": "main"}]});
    for (sandbox_at, expected) in [(0, start("main", 0, 0)), (5, start("init", 1, 10))] {
        let mut story = Story::new(spec.clone());
        story.state.prepared(Ok(sandbox(sandbox_at)), at(0));
        story.state.started("init", Ok(run("init", 0, at(1))), SETTINGS.restart_backoff, at(1));
        story.exited("init", 0, 0, 1, 2);
        assert_eq!(story.actions(6), [expected], "a sandbox of second {sandbox_at}");
    }
}

#[test]
fn a_restart_waits_its_time_whatever_the_clock_said_of_the_end() {
    for finished in [-HOUR, HOUR] {
        let mut story = Story::simple();
        story.started("main", 0, 10, 0);
        story.state.exited(&key("main", 0), exit(1, 0, finished), at(5));
        assert_eq!((story.actions(14), story.look_again(14)), (vec![], Some(15)), "{finished}");
        assert_eq!(waiting_reason(&first(&story.status(14))).as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(story.actions(15), [start("main", 1, 20)], "nor did it run for an hour: {finished}");
    }
}

#[test]
fn what_an_earlier_agent_wrote_down_of_the_future_is_taken_for_now() {
    let over = Instance {
        restart_delay: Duration::from_secs(10),
        exit: Some(exit(1, HOUR, HOUR + 1)),
        ..run("main", 0, at(HOUR))
    };
    let story = adopted(serde_json::json!({"containers": [{"name": "main"}]}), vec![over], HOUR);
    assert_eq!((story.actions(9), story.look_again(9)), (vec![], Some(10)));
    assert_eq!(story.actions(10), [start("main", 1, 20)]);
}

#[test]
fn probes_of_a_run_that_began_in_the_future_wait_their_delay_and_no_longer() {
    let probe = serde_json::json!({"tcpSocket": {"port": 1}, "initialDelaySeconds": 5, "periodSeconds": 7});
    let spec = serde_json::json!({"containers": [{"name": "main", "livenessProbe": probe}]});
    let mut story = adopted(spec, vec![run("main", 0, at(HOUR))], HOUR);
    let liveness = Action::Probe { key: key("main", 0), kind: ProbeKind::Liveness };
    assert_eq!((story.actions(4), story.actions(5)), (vec![], vec![liveness]));
    story.state.probed(&key("main", 0), ProbeKind::Liveness, true, at(5));
    assert_eq!(story.look_again(6), Some(12));
}

#[test]
fn a_deadline_counts_from_now_where_the_start_lies_in_the_future() {
    let spec = serde_json::json!({"activeDeadlineSeconds": 60, "containers": [{"name": "main"}]});
    let mut story = adopted(spec, vec![run("main", 0, at(HOUR))], HOUR);
    assert_eq!((story.actions(59), story.look_again(0)), (vec![], Some(60)));
    assert_eq!(story.status(60).reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(story.status(60).start_time.unwrap().0, at(HOUR), "what was told stays as it was told");
}

#[test]
fn what_is_told_goes_by_the_clock_on_the_wall() {
    let story = Story::simple();
    let told = plan(&story.state, &SETTINGS, Moment { steady: at(1), wall: at(-HOUR) }).status;
    assert_eq!(condition(&told, "Ready").2, at(-HOUR));
}
