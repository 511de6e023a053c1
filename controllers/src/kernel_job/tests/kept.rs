//! Pods that stay until their end is written down, and no longer.

use claw_schemas::api::JOB_FINALIZER;

use super::{super::tracking::Leftovers, ends::complete, *};

const RELEASED: &str = r#"patch pods default/sum-0 {"metadata":{"finalizers":["example.com/other"]}}"#;

/// Changes to a pod that was made with our finalizer, and has another.
fn kept() -> Value {
    json!({"metadata": {"finalizers": [JOB_FINALIZER, "example.com/other"]}})
}

/// What remains of a pod that was deleted and that its node has ended, or somebody would not wait for.
fn let_go() -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}})
}

fn running() -> Stage {
    let mut stage = Stage::running(&json!({"backoffLimit": 1}));
    stage.pod_is(&kept());
    stage
}

/// What is done about a pod beside its job.
fn beside(pod: &Pod, jobs: Vec<KernelJob>) -> Vec<String> {
    let caches = Caches::offline();
    caches.set(jobs);
    caches.set(vec![pod.clone()]);
    describe(&Leftovers.plan(&Arc::new(pod.clone()), &caches.world(), Timestamp::UNIX_EPOCH).actions)
}

#[test]
fn a_pod_is_kept_until_the_stored_status_says_how_it_ended() {
    let mut stage = running();
    assert_eq!(stage.step(), [""; 0], "it runs");
    stage.reported(0, &complete());
    assert_eq!(stage.step(), [""; 0], "first it is written down");
    assert_eq!(stage.phase(), "Complete");
    assert_eq!(stage.step(), [RELEASED]);
    stage.pod_is(&json!({"metadata": {"finalizers": ["example.com/other"]}}));
    assert_eq!(stage.step(), [""; 0]);
}

#[test]
fn who_completed_and_was_deleted_before_anybody_saw_that_has_completed() {
    let mut stage = running();
    stage.reported(0, &complete());
    stage.pod_is(&let_go());
    stage.step();
    assert_eq!((stage.phase(), stage.status().attempts.len()), ("Complete", 1));
    assert_eq!(stage.step(), [RELEASED]);
    stage.pods.clear();
    assert_eq!(stage.step(), [""; 0]);
}

#[test]
fn a_pod_of_which_only_finalizers_are_left_and_that_said_nothing_was_deleted() {
    let mut stage = running();
    let going =
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5}});
    stage.pod_is(&going);
    assert_eq!(stage.step(), [""; 0]);
    assert!(stage.last().end_time.is_none(), "its node ends it");
    stage.pod_is(&let_go());
    assert_eq!(stage.step(), [""; 0]);
    assert_eq!((stage.why().0, stage.last().end_time.is_some()), ("PodDeleted", true));
    assert_eq!(stage.step(), [RELEASED]);
    stage.now += 1;
    stage.step();
    assert_eq!(stage.last().pod, "sum-1", "the next does not wait until it is gone");
}

#[test]
fn why_a_pod_was_deleted_is_told_of_what_is_left_of_it_too() {
    let mut stage = running();
    stage.job.spec.suspend = Some(true);
    stage.step();
    assert_eq!(stage.step(), ["delete pods default/sum-0"]);
    stage.pod_is(&let_go());
    stage.step();
    assert_eq!(stage.why().0, "Suspended");
}

#[test]
fn a_pod_that_is_entered_and_was_not_seen_yet_is_kept_and_one_of_no_try_is_not() {
    let mut stage = Stage::set(&json!({}));
    stage.step();
    stage.make_pod(&kept());
    assert_eq!(stage.step(), [""; 0]);
    let mut stray = stage.pods[0].clone();
    (stray.metadata.name, stray.metadata.uid) = (Some("stray".to_owned()), Some("uid-stray".to_owned()));
    stage.pods.push(stray);
    let released = RELEASED.replace("sum-0", "stray");
    assert_eq!(stage.step(), [released.as_str(), "delete pods default/stray"]);
}

#[test]
fn where_no_job_waits_for_its_end_a_pod_is_not_kept() {
    let stage = running();
    let (pod, job) = (&stage.pods[0], &stage.job);
    assert_eq!(beside(pod, vec![job.clone()]), [""; 0], "its job sees to that");
    assert_eq!(beside(pod, vec![]), [RELEASED], "it is gone");
    let mut going = job.clone();
    going.metadata.deletion_timestamp = Some(typed(json!("2026-01-01T00:00:00Z")));
    assert_eq!(beside(pod, vec![going]), [RELEASED], "it goes, and waits for its pods");
    let mut namesake = job.clone();
    namesake.metadata.uid = Some("uid-of-another".to_owned());
    assert_eq!(beside(pod, vec![namesake]), [RELEASED], "it is another of that name");
    let mut orphan = pod.clone();
    orphan.metadata.owner_references = None;
    assert_eq!(beside(&orphan, vec![job.clone()]), [RELEASED], "it was let go");
    orphan.metadata.finalizers = Some(vec!["example.com/other".to_owned()]);
    assert_eq!(beside(&orphan, vec![]), [""; 0], "it is none of ours");
}
