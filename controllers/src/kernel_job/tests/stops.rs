//! What stops a job from outside: deadlines, suspension, its time to go.

use super::*;

#[test]
fn a_pod_has_what_is_left_of_the_jobs_time() {
    let mut stage = Stage::set(&json!({"activeDeadlineSeconds": 60}));
    stage.step();
    stage.now += 20;
    let plan = stage.plan();
    let Step::Ensure(pod) = &plan.actions.last().unwrap().step else { panic!("{plan:?}") };
    assert_eq!(pod["spec"]["activeDeadlineSeconds"], 40);
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(40)));
}

#[test]
fn a_job_that_takes_too_long_ends_its_pod_and_fails() {
    let mut stage = Stage::running(&json!({"activeDeadlineSeconds": 60}));
    stage.now += 60;
    assert_eq!(stage.step(), [""; 0], "first it is written down");
    assert_eq!(stage.step(), ["delete pods default/sum-0"]);
    assert_eq!(stage.condition("Failed"), Default::default(), "its pod is still there");
    stage.pods.clear();
    stage.step();
    let message = "the job was active for longer than 60 s";
    assert_eq!(stage.condition("Failed"), ("True", "DeadlineExceeded", message));
    assert_eq!(stage.step(), [""; 0]);
}

#[test]
fn the_pods_own_deadline_is_the_jobs() {
    let mut stage = Stage::running(&json!({"activeDeadlineSeconds": 60}));
    stage
        .pod_is(&json!({"status": {"phase": "Failed", "reason": "DeadlineExceeded", "message": "too long"}}));
    stage.step();
    assert_eq!(stage.condition("Failed"), ("True", "DeadlineExceeded", "too long"));
}

#[test]
fn time_runs_out_between_tries_too() {
    let mut stage = Stage::running(&json!({"activeDeadlineSeconds": 10}));
    stage.worker_ended("Failed", &json!({"exitCode": 1}));
    stage.step();
    stage.now += 10;
    stage.step();
    assert_eq!((stage.condition("Failed").1, stage.status().attempts.len()), ("DeadlineExceeded", 1));
}

#[test]
fn a_suspended_job_has_no_pod_and_goes_on_at_once_when_it_may() {
    let mut stage = Stage::running(&json!({"backoffLimit": 0}));
    stage.job.spec.suspend = Some(true);
    assert_eq!(events(&stage.plan()), ["event Suspended: Job suspended"]);
    assert_eq!(stage.step(), [""; 0], "first it is written down");
    assert_eq!(
        (stage.condition("Suspended").0, stage.condition("Suspended").1, stage.phase()),
        ("True", "JobSuspended", "Suspended")
    );
    assert_eq!(
        (stage.status().start_time.is_none(), stage.step()),
        (true, vec!["delete pods default/sum-0".to_owned()])
    );
    stage.worker_ended("Failed", &json!({"exitCode": 143, "message": "{}"}));
    stage.step();
    assert_eq!((stage.why().0, stage.condition("Failed")), ("Suspended", Default::default()));
    assert_eq!((stage.step().len(), stage.status().attempts.len()), (0, 1), "it stands still");
    stage.now += 5;
    stage.job.spec.suspend = Some(false);
    assert_eq!(events(&stage.plan()), ["event Resumed: Job resumed"]);
    stage.step();
    assert_eq!((stage.condition("Suspended").0, stage.condition("Suspended").1), ("False", "JobResumed"));
    assert_eq!(
        (stage.last().pod.as_str(), stage.status().start_time.as_ref().unwrap().0.as_second()),
        ("sum-1", 105)
    );
}

#[test]
fn a_job_that_is_suspended_from_the_start_begins_nothing() {
    let mut stage = Stage::set(&json!({"suspend": true, "activeDeadlineSeconds": 1}));
    stage.step();
    stage.now += 100;
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!(
        (stage.phase(), stage.status().attempts.len(), stage.condition("Failed").0),
        ("Suspended", 0, "")
    );
}

#[test]
fn a_job_that_is_suspended_before_its_pod_was_made_makes_none() {
    let mut stage = Stage::set(&json!({}));
    stage.step();
    stage.job.spec.suspend = Some(true);
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!((stage.why().0, stage.last().end_time.is_some()), ("Suspended", true));
}

#[test]
fn a_job_that_is_over_is_deleted_when_its_time_has_come_and_not_before_that_is_written() {
    for seconds in [0, 60] {
        let mut stage = Stage::running(&json!({"ttlSecondsAfterFinished": seconds, "backoffLimit": 0}));
        stage.worker_ended("Failed", &json!({"exitCode": 1}));
        assert_eq!(stage.step(), [""; 0]);
        if seconds > 0 {
            assert_eq!(stage.plan().requeue_after, Some(Duration::from_secs(60)));
            stage.now += 60;
        }
        assert_eq!(stage.step(), ["delete kerneljobs default/sum"]);
    }
    let mut kept = Stage::running(&json!({"backoffLimit": 0}));
    kept.worker_ended("Failed", &json!({"exitCode": 1}));
    kept.step();
    assert_eq!((kept.plan().requeue_after, kept.step().len()), (None, 0));
}
