//! Deletion, as kubectl asks for it and waits for it.

use serde_json::{Value, json};

use crate::server::{MAPS, MERGE, Rig, map, names, revision, status};

async fn held(rig: &Rig, name: &str) -> Value {
    let mut object = map(name);
    object["metadata"]["finalizers"] = json!(["example.com/held"]);
    rig.post(MAPS, &object).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_answers_success_with_the_uid_or_the_object_that_finalizers_hold() {
    let rig = Rig::start().await;
    let (free, object) = (rig.map("free").await, held(&rig, "held").await);
    let options = json!({"propagationPolicy": "Background"});
    let gone = rig.delete(&format!("{MAPS}/free"), &options).await.expect(200);
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
    let details = &gone["details"];
    assert_eq!((&details["name"], &details["kind"]), (&json!("free"), &json!("configmaps")));
    assert_eq!(details["uid"], free["metadata"]["uid"]);

    let one = format!("{MAPS}/held");
    let going = rig.delete(&one, &options).await.expect(200);
    assert_eq!(
        (&going["kind"], &going["metadata"]["uid"]),
        (&json!("ConfigMap"), &object["metadata"]["uid"])
    );
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(rig.delete(&one, &options).await.expect(200), going, "it is on its way already");
    let wait = format!(
        "{MAPS}?fieldSelector=metadata.name%3Dheld&resourceVersion={}&watch=true&timeoutSeconds=60",
        revision(&going)
    );
    let mut watch = rig.watch(&wait).await;
    rig.patch(&one, MERGE, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    assert_eq!(watch.take(1).await, ["DELETED held"]);
    status(&rig.send(&format!("GET {one}"), &[], "").await, "NotFound", 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_and_orphan_leave_their_finalizer_for_the_collector() {
    let rig = Rig::start().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        rig.map("a").await;
        let one = format!("{MAPS}/a");
        let going = rig
            .delete(&one, &json!({"propagationPolicy": policy, "gracePeriodSeconds": 0}))
            .await
            .expect(200);
        assert_eq!(going["metadata"]["finalizers"], json!([finalizer]));
        assert!(going["metadata"]["deletionTimestamp"].is_string());
        rig.patch(&one, MERGE, &json!({"metadata": {"finalizers": null}})).await.expect(200);
        status(&rig.send(&format!("GET {one}"), &[], "").await, "NotFound", 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_of_uid_and_revision_that_do_not_hold_are_409() {
    let rig = Rig::start().await;
    let object = rig.map("a").await;
    let one = format!("{MAPS}/a");
    for wrong in [json!({"uid": "another"}), json!({"resourceVersion": "1"})] {
        let told = status(&rig.delete(&one, &json!({"preconditions": wrong})).await, "Conflict", 409);
        assert!(told["message"].as_str().unwrap().contains("Precondition failed"), "{told}");
    }
    let right =
        json!({"uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"]});
    rig.delete(&one, &json!({"preconditions": right})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_deleted_as_its_selectors_say() {
    let rig = Rig::start().await;
    for (name, tier) in [("a", "web"), ("b", "web"), ("c", "db")] {
        let mut object = map(name);
        object["metadata"]["labels"] = json!({"tier": tier});
        rig.post(MAPS, &object).await;
    }
    let gone = rig.delete(&format!("{MAPS}?labelSelector=tier%3Dweb"), &json!({})).await.expect(200);
    assert_eq!((&gone["kind"], names(&gone)), (&json!("ConfigMapList"), vec!["a", "b"]));
    assert_eq!(names(&rig.get(MAPS).await), ["c"]);
    rig.delete(MAPS, &json!({"propagationPolicy": "Background"})).await.expect(200);
    assert!(names(&rig.get(MAPS).await).is_empty());
}
