//! How tries end, and what follows.

use super::*;

pub(super) fn complete() -> Value {
    json!({
        "state": "Complete", "doing": "done", "runs": 10, "device": {"id": "cuda:0", "model": "H100"},
        "figures": {
            "secondsMin": 0.5, "secondsMedian": 1.0, "secondsMax": 2.0, "flops": 3_000_000_000_u64,
            "bytes": 5_000_000_000_u64, "memoryBytes": 48,
        },
        "outputs": [{"value": "b", "dtype": "f32", "shape": [4], "digest": "sha256:00", "values": ["2", "2", "2", "2"]}],
    })
}

fn failed(reason: &str) -> Value {
    json!({
        "state": "Failed", "doing": "run 3 of 10", "runs": 2, "device": {"id": "cuda:0", "model": "H100"},
        "failure": {"reason": reason, "message": "no luck"},
    })
}

#[test]
fn what_the_worker_reached_is_in_the_status_of_a_job_that_is_complete() {
    let mut stage = Stage::running(&json!({}));
    stage.reported(0, &complete());
    assert_eq!(events(&stage.plan()), ["event Completed: Job completed"]);
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(
        (stage.phase(), stage.condition("Complete").0, stage.condition("Complete").1),
        ("Complete", "True", "CompletionsReached")
    );
    let status = stage.status();
    assert_eq!(status.completion_time.as_ref().unwrap().0.as_second(), 100);
    let figures = status.figures.as_ref().unwrap();
    assert_eq!((figures.runs, figures.flops, figures.memory_bytes), (10, 3_000_000_000, 48));
    assert!(
        (figures.gflops_per_second - 3.0).abs() < 1e-12 && (figures.gigabytes_per_second - 5.0).abs() < 1e-12
    );
    assert_eq!((status.outputs[0].shape.as_slice(), status.outputs[0].values.len()), (&[4][..], 4));
    let last = stage.last();
    assert_eq!(
        (last.device.as_deref(), last.model.as_deref(), &last.reason),
        (Some("cuda:0"), Some("H100"), &None)
    );
}

#[test]
fn after_complete_nothing_runs_again_whatever_becomes_of_the_pod() {
    let mut stage = Stage::running(&json!({}));
    stage.reported(0, &complete());
    stage.step();
    let said = stage.status().clone();
    stage.pods.clear();
    assert_eq!(stage.step(), [""; 0]);
    stage.now += 1_000_000;
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(*stage.status(), said);
    stage.job.spec.suspend = Some(true);
    assert_eq!((stage.step().len(), stage.phase()), (0, "Complete"));
}

#[test]
fn a_median_of_no_time_makes_no_rate_that_json_cannot_say() {
    let mut stage = Stage::running(&json!({}));
    let mut report = complete();
    report["figures"]["secondsMedian"] = json!(0.0);
    stage.reported(0, &report);
    stage.step();
    assert!(stage.status().figures.as_ref().unwrap().gflops_per_second.abs() < f64::MIN_POSITIVE);
}

#[test]
fn what_no_try_can_do_better_fails_the_job_at_once() {
    for reason in ["BadOrder", "IndexOutOfRange"] {
        let mut stage = Stage::running(&json!({}));
        stage.reported(1, &failed(reason));
        stage.step();
        assert_eq!(stage.condition("Failed"), ("True", reason, "no luck (cuda:0, H100; run 3 of 10)"));
        assert_eq!((stage.status().attempts.len(), stage.step().len()), (1, 0));
    }
}

#[test]
fn a_failed_try_says_why_on_what_and_in_the_middle_of_what() {
    let terminated = |end: Value| {
        json!({"phase": "Failed", "containerStatuses": [{
        "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": end}}]})
    };
    let running = json!({"state": "Running", "doing": "run 3 of 10", "runs": 2, "device": {"id": "cuda:0", "model": "H100"}}).to_string();
    let place = "(cuda:0, H100; run 3 of 10)";
    for (status, reason, message) in [
        (
            terminated(json!({"exitCode": 137, "signal": 9, "reason": "Error", "message": running})),
            "Killed",
            format!("the worker was killed by signal 9 {place}"),
        ),
        (
            terminated(json!({"exitCode": 137, "signal": 9, "reason": "OOMKilled", "message": running})),
            "OOMKilled",
            format!("the worker took more memory than it may {place}"),
        ),
        (
            terminated(json!({"exitCode": 101, "reason": "Error", "message": running})),
            "Died",
            format!("the worker ended with exit code 101 {place}"),
        ),
        (
            terminated(json!({"exitCode": 1, "message": failed("Hung").to_string()})),
            "Hung",
            format!("no luck {place}"),
        ),
        (
            terminated(json!({"exitCode": 1, "message": failed("DeviceFailed").to_string()})),
            "DeviceFailed",
            format!("no luck {place}"),
        ),
        (
            terminated(json!({"exitCode": 1, "message": "what?"})),
            "NoReport",
            "the worker ended with exit code 1 and without a report; it said: what?".to_owned(),
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "the node is short of memory"}),
            "Evicted",
            "the node is short of memory".to_owned(),
        ),
        (json!({"phase": "Failed"}), "PodFailed", "the pod failed before its worker had run".to_owned()),
    ] {
        let mut stage = Stage::running(&json!({}));
        stage.pod_is(&json!({"status": status}));
        stage.step();
        assert_eq!(stage.why(), (reason, message.as_str()));
        assert!(
            stage.last().end_time.is_some() && stage.condition("Failed") == Default::default(),
            "{reason}"
        );
        assert_eq!(stage.status().progress, Some(format!("tries again 1 s after {reason}")));
    }
}

#[test]
fn a_worker_that_ends_well_and_says_nothing_has_not_calculated() {
    let mut stage = Stage::running(&json!({"backoffLimit": 0}));
    stage.worker_ended("Succeeded", &json!({"exitCode": 0}));
    stage.step();
    assert_eq!(stage.why(), ("NoReport", "the worker ended with exit code 0 and without a report"));
    let message =
        "1 tries failed, the last by NoReport: the worker ended with exit code 0 and without a report";
    assert_eq!(stage.condition("Failed"), ("True", "BackoffLimitExceeded", message));
}

#[test]
fn a_pod_that_is_gone_without_an_end_has_failed_and_its_number_is_spent() {
    let mut stage = Stage::running(&json!({}));
    let progress = json!({"type": "clawbernetes.io/Progress", "status": "True", "message": "run 3 of 10"});
    stage.pod_is(&json!({"status": {"conditions": [progress]}}));
    stage.step();
    stage.pods.clear();
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(stage.why(), ("PodDeleted", "the pod was deleted (run 3 of 10)"));
    stage.now += 1;
    stage.step();
    assert_eq!((stage.last().pod.as_str(), stage.status().attempts.len()), ("sum-1", 2));
    let mut replaced = Stage::running(&json!({}));
    replaced.pod_is(&json!({"metadata": {"uid": "somebody-else"}}));
    assert_eq!(replaced.step(), ["delete pods default/sum-0"], "it is the job's, and of no try");
    assert_eq!(replaced.why().0, "PodDeleted");
}

#[test]
fn the_next_try_waits_longer_each_time_and_the_last_failure_is_the_jobs() {
    let mut stage = Stage::running(&json!({"backoffLimit": 8}));
    for (number, wait) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        stage.reported(1, &failed("DeviceFailed"));
        stage.step();
        assert_eq!(stage.plan().requeue_after, Some(Duration::from_secs(wait)), "after {number}");
        stage.now += i64::try_from(wait).unwrap() - 1;
        stage.step();
        assert_eq!(stage.status().attempts.len(), number + 1, "it is not time yet");
        stage.now += 1;
        stage.step();
        assert_eq!(stage.last().pod, format!("sum-{}", number + 1));
        stage.make_pod(&json!({}));
        stage.step();
    }
    stage.reported(1, &failed("OutOfMemory"));
    stage.step();
    let message = "9 tries failed, the last by OutOfMemory: no luck (cuda:0, H100; run 3 of 10)";
    assert_eq!(stage.condition("Failed"), ("True", "BackoffLimitExceeded", message));
    assert_eq!((stage.status().attempts.len(), stage.step().len()), (9, 0));
}

#[test]
fn a_clock_that_was_set_back_makes_nobody_wait_for_longer() {
    let mut stage = Stage::running(&json!({}));
    stage.reported(1, &failed("Hung"));
    stage.step();
    stage.now -= 3600;
    assert_eq!(stage.plan().requeue_after, Some(Duration::from_secs(1)));
}

#[test]
fn the_next_try_would_rather_go_elsewhere() {
    let mut stage = Stage::running(&json!({}));
    stage.reported(1, &failed("DeviceFailed"));
    stage.step();
    stage.now += 1;
    stage.step();
    let plan = stage.plan();
    let Step::Ensure(pod) = &plan.actions.last().unwrap().step else { panic!("{plan:?}") };
    let affinity =
        &pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    let elsewhere = json!({"key": "metadata.name", "operator": "NotIn", "values": ["n1"]});
    assert_eq!(*affinity, json!([{"weight": 100, "preference": {"matchFields": [elsewhere]}}]));
}

#[test]
fn a_pod_that_had_to_make_room_does_not_count() {
    for (reason, counts) in [
        ("EvictionByEvictionAPI", false),
        ("PreemptionByScheduler", false),
        ("DeletionByPodGC", true),
        ("TerminationByKubelet", true),
    ] {
        let mut stage = Stage::running(&json!({"backoffLimit": 0}));
        let target =
            json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "room"});
        stage.pod_is(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"conditions": [target]}}));
        assert_eq!(stage.step(), [""; 0]);
        assert!(stage.last().end_time.is_none(), "it has not ended");
        stage.pods.clear();
        stage.step();
        assert_eq!(stage.condition("Failed").0 == "True", counts, "{reason}");
        if !counts {
            assert_eq!(stage.why(), ("Disrupted", "room"));
            stage.now += 1;
            stage.step();
            assert_eq!(stage.last().pod, "sum-1");
        }
    }
}

#[test]
fn a_pod_whose_end_is_seen_too_late_for_anything_else_still_tells_that_it_had_to_make_room() {
    let mut stage = Stage::running(&json!({"backoffLimit": 0}));
    let target = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "room"});
    stage.reported(143, &failed("Stopped"));
    stage.pod_is(&json!({"status": {"conditions": [target]}}));
    stage.step();
    assert_eq!(stage.why(), ("Disrupted", "room"));
}

#[test]
fn who_completes_while_it_is_told_to_go_has_completed() {
    let mut stage = Stage::running(&json!({}));
    stage.pod_is(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    stage.step();
    stage.reported(0, &complete());
    stage.step();
    assert_eq!((stage.phase(), &stage.last().reason), ("Complete", &None));
}

#[test]
fn a_pod_that_goes_is_waited_for_as_long_as_its_node_answers() {
    let mut stage = Stage::running(&json!({}));
    stage.pod_is(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    assert_eq!(stage.step(), [""; 0]);
    assert!(stage.last().end_time.is_none() && stage.plan().requeue_after.is_some());
    stage.nodes[0].status = Some(typed(json!({"conditions": [{"type": "Ready", "status": "Unknown"}]})));
    stage.step();
    assert_eq!(stage.why(), ("NodeLost", "node n1 does not answer"));
    let mut without = Stage::running(&json!({}));
    without.pod_is(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    without.nodes.clear();
    without.step();
    assert_eq!(without.why().0, "NodeLost");
}

#[test]
fn a_node_that_cannot_run_the_image_is_left_for_another() {
    let mut stage = Stage::running(&json!({}));
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    let statuses = json!([{"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": waiting}]);
    stage.pod_is(&json!({"status": {"phase": "Pending", "containerStatuses": statuses}}));
    assert_eq!(stage.step(), [""; 0], "first it is written down");
    assert_eq!((stage.why(), stage.last().end_time.is_none()), (("ImagePullBackOff", "no such image"), true));
    assert_eq!(stage.step(), ["delete pods default/sum-0"]);
    stage.pods.clear();
    stage.step();
    assert_eq!(stage.why(), ("ImagePullBackOff", "no such image"));
    stage.now += 1;
    stage.step();
    assert_eq!(stage.last().pod, "sum-1");
}

#[test]
fn numbers_go_on_where_the_list_has_forgotten_tries() {
    let mut stage = Stage::running(&json!({}));
    for number in 0..200 {
        let target = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": ""});
        stage.reported(143, &failed("Stopped"));
        stage.pod_is(&json!({"status": {"conditions": [target]}}));
        stage.step();
        stage.now += 1;
        stage.step();
        assert_eq!(stage.last().pod, format!("sum-{}", number + 1));
        stage.make_pod(&json!({}));
        stage.step();
    }
    assert_eq!(stage.status().attempts.len(), super::super::attempts::KEPT_MAX);
}
