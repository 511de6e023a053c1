//! Objects over their lives: what stays, what counts, and kinds with rules of their own.

use claw_e2e::wait::{SOON, check, until_async};
use serde_json::{Value, json};

use crate::server::{DEPLOYMENTS, MAPS, MERGE, Rig, STRATEGIC, deployment, map, names, revision, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_changes_nothing_keeps_the_revision_by_every_verb() {
    let rig = Rig::start().await;
    let object = rig.post(DEPLOYMENTS, &deployment("web")).await;
    let one = format!("{DEPLOYMENTS}/web");
    let mut unconditional = object.clone();
    unconditional["metadata"]["resourceVersion"] = Value::Null;
    for answer in [
        rig.put(&one, &object).await,
        rig.put(&one, &unconditional).await,
        rig.put(&format!("{one}/status"), &object).await,
        rig.patch(&one, MERGE, &json!({"spec": {"replicas": 1}})).await,
        rig.patch(&one, STRATEGIC, &json!({})).await,
        rig.patch(&one, crate::server::JSON, &json!([])).await,
        rig.patch(&format!("{one}/scale"), MERGE, &json!({"spec": {"replicas": 1}})).await,
    ] {
        assert_eq!(revision(&answer.expect(200)), revision(&object));
    }
    assert_eq!(rig.get(&one).await, object);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_change_counts_the_generation_and_status_is_written_by_its_own_path() {
    let rig = Rig::start().await;
    let mut object = rig.post(DEPLOYMENTS, &deployment("web")).await;
    let (one, its_status) = (format!("{DEPLOYMENTS}/web"), format!("{DEPLOYMENTS}/web/status"));
    assert_eq!(object["metadata"]["generation"], 1);
    object["spec"]["replicas"] = json!(4);
    object["status"]["replicas"] = json!(4);
    let told = rig.put(&its_status, &object).await.expect(200);
    assert_eq!((&told["spec"]["replicas"], &told["status"]["replicas"]), (&json!(1), &json!(4)));
    assert_eq!(told["metadata"]["generation"], 1);
    object["metadata"]["resourceVersion"] = told["metadata"]["resourceVersion"].clone();
    object["status"]["replicas"] = json!(9);
    let wanted = rig.put(&one, &object).await.expect(200);
    assert_eq!((&wanted["spec"]["replicas"], &wanted["status"]["replicas"]), (&json!(4), &json!(4)));
    assert_eq!(wanted["metadata"]["generation"], 2);
    let labelled = rig.patch(&one, MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn uid_and_creation_time_never_change() {
    let rig = Rig::start().await;
    let made = rig.map("a").await;
    let one = format!("{MAPS}/a");
    let mut other = map("a");
    other["metadata"]["uid"] = json!("another");
    status(&rig.put(&one, &other).await, "Conflict", 409);
    let later = json!({"metadata": {"creationTimestamp": "2030-01-01T00:00:00Z"}, "data": {"k": "2"}});
    let changed = rig.patch(&one, MERGE, &later).await.expect(200);
    for field in ["uid", "creationTimestamp"] {
        assert_eq!(changed["metadata"][field], made["metadata"][field]);
    }
}

/// What elections stand on: of those who saw the same lease one gets it, and nobody takes it unseen.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_taken_only_at_the_revision_that_was_read() {
    let rig = Rig::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let spec =
        |holder: &str| json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 0});
    let seen = rig.post(leases, &json!({"metadata": {"name": "l"}, "spec": spec("a")})).await;
    let one = format!("{leases}/l");
    let held_by = |holder: &str, revision: &Value| json!({"metadata": {"name": "l", "resourceVersion": revision}, "spec": spec(holder)});
    let read = &seen["metadata"]["resourceVersion"];
    let tries = ["b", "c", "d"].map(|holder| (holder, held_by(holder, read)));
    let answers = futures::future::join_all(tries.iter().map(|(_, lease)| rig.put(&one, lease))).await;
    let mut codes: Vec<_> = answers.iter().map(|answer| answer.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 409, 409]);
    let holder = rig.get(&one).await["spec"]["holderIdentity"].clone();
    let won = answers.iter().position(|answer| answer.code == 200).unwrap();
    assert_eq!(holder, tries[won].0);
    let told = status(&rig.put(&one, &held_by("thief", &Value::Null)).await, "Invalid", 422);
    assert_eq!(told["details"]["causes"][0]["field"], "metadata.resourceVersion");
    assert_eq!(rig.get(&one).await["spec"]["holderIdentity"], holder);
}

/// What the event recorders of client-go and kube-rs do.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_repeats_becomes_a_series_in_both_groups() {
    let rig = Rig::start().await;
    let (new, core) =
        ("/apis/events.k8s.io/v1/namespaces/default/events", "/api/v1/namespaces/default/events");
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "e", "labels": {"story": "series"}},
        "regarding": {"kind": "Pod", "namespace": "default", "name": "web"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "note": "n", "action": "Do", "reason": "Test", "type": "Normal",
        "reportingController": "example.com/c", "reportingInstance": "c-1",
    });
    rig.post(new, &event).await;
    let one = format!("{new}/e");
    let series = |count: u32| json!({"count": count, "lastObservedTime": "2026-01-01T00:00:05.000000Z"});
    for (media, count) in [(STRATEGIC, 2), (MERGE, 3)] {
        let patched = rig.patch(&one, media, &json!({"series": series(count)})).await.expect(200);
        assert_eq!(patched["series"], series(count));
    }
    // What happened stays what it was.
    status(&rig.patch(&one, MERGE, &json!({"note": "other"})).await, "Invalid", 422);
    let mut object = rig.get(&one).await;
    object["series"] = series(100);
    assert_eq!(rig.put(&one, &object).await.expect(200)["series"], series(100));
    let in_core = rig.get(&format!("{core}/e")).await;
    assert_eq!((&in_core["series"]["count"], &in_core["message"]), (&json!(100), &json!("n")));
    for (path, field) in [(new, "reportingController"), (core, "reportingComponent"), (core, "source")] {
        let list = rig.get(&format!("{path}?fieldSelector={field}%3Dexample.com/c")).await;
        assert_eq!(names(&list), ["e"], "{field}");
    }
    rig.delete(&format!("{new}?labelSelector=story%3Dseries"), &json!({})).await.expect(200);
    assert!(names(&rig.get(core).await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_captures_what_is_made_and_releases_what_goes() {
    let rig = Rig::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({"configmaps": "2", "secrets": "5", "count/deployments.apps": "1"});
    rig.post(quotas, &json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    let used = async |maps: &str| {
        until_async("the quota counts", SOON, || async {
            let status = rig.get(&format!("{quotas}/q")).await["status"].clone();
            check(status["hard"] == hard && status["used"]["configmaps"] == maps, status)
        })
        .await;
    };
    used("0").await;
    rig.maps(&["a", "b"]).await;
    used("2").await;
    let told = status(&rig.send(&format!("POST {MAPS}"), &[], &map("c").to_string()).await, "Forbidden", 403);
    let words = "exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2";
    assert!(told["message"].as_str().unwrap().ends_with(words), "{told}");
    rig.delete(&format!("{MAPS}/a"), &json!({})).await.expect(200);
    used("1").await;
    rig.map("c").await;
    used("2").await;
}
