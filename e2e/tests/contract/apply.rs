//! Server-side apply, as kubectl and kube-rs send it.

use serde_json::{Value, json};

use crate::server::{APPLY, DATASETS, JSON, MAPS, MERGE, Rig, array, dataset, revision, status};

fn config(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_creates_with_201_conflicts_with_409_and_wins_by_force() {
    let rig = Rig::start().await;
    let path = |manager: &str| format!("{MAPS}/a?fieldManager={manager}&force=false&fieldValidation=Strict");
    let made = rig.patch(&path("kubectl"), APPLY, &config(&json!({"k": "1"}))).await.expect(201);
    let same = rig.patch(&path("kubectl"), APPLY, &config(&json!({"k": "1"}))).await.expect(200);
    assert_eq!(same, made, "nothing changed, nothing written");
    let told = status(&rig.patch(&path("other"), APPLY, &config(&json!({"k": "2"}))).await, "Conflict", 409);
    let cause = &told["details"]["causes"][0];
    assert_eq!((&cause["reason"], &cause["field"]), (&json!("FieldManagerConflict"), &json!(".data.k")));
    assert_eq!(cause["message"], "conflict with \"kubectl\"");
    let forced = format!("{MAPS}/a?fieldManager=other&force=true");
    let won = rig.patch(&forced, APPLY, &config(&json!({"k": "2"}))).await.expect(200);
    let managers: Vec<_> =
        array(&won["metadata"]["managedFields"]).iter().map(|entry| &entry["manager"]).collect();
    assert_eq!(managers, ["other"], "who owns nothing any more is no manager");
    let nobody = format!("{MAPS}/a?force=true");
    let told = status(&rig.patch(&nobody, APPLY, &config(&json!({}))).await, "Invalid", 422);
    assert_eq!(told["details"]["causes"][0]["field"], "fieldManager");
    let strict = config(&json!({"k": "2"}));
    let strict = json!({"apiVersion": "v1", "kind": "ConfigMap", "wat": 1, "data": strict["data"]});
    status(&rig.patch(&path("other"), APPLY, &strict).await, "BadRequest", 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_objects_are_applied_by_the_keys_of_their_lists() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    let with = |shards: Value| {
        let mut object = dataset("d");
        object["spec"]["shards"] = shards;
        object
    };
    let path = |manager: &str| format!("{DATASETS}/d?fieldManager={manager}");
    rig.patch(&path("a"), APPLY, &with(json!([{"name": "x", "records": 1}]))).await.expect(201);
    rig.patch(&path("b"), APPLY, &with(json!([{"name": "y", "records": 2}]))).await.expect(200);
    let left = rig.patch(&path("a"), APPLY, &dataset("d")).await.expect(200);
    assert_eq!(left["spec"]["shards"], json!([{"name": "y", "records": 2}]));
}

/// What kubectl 1.36 sends at the first `apply --server-side` of what it applied by itself before.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_moves_from_client_side_apply_by_rewriting_managed_fields() {
    let rig = Rig::start().await;
    let last =
        |data: &Value| json!({"kubectl.kubernetes.io/last-applied-configuration": config(data).to_string()});
    let mut object = config(&json!({"k": "1", "l": "1"}));
    object["metadata"]["annotations"] = last(&object["data"]);
    rig.send(&format!("POST {MAPS}?fieldManager=kubectl-client-side-apply"), &[], &object.to_string())
        .await
        .expect(201);

    let one = format!("{MAPS}/a");
    let annotations = last(&object["data"]);
    let annotation =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"annotations": annotations}});
    let migrated = format!("{one}?fieldManager=kubectl-last-applied&force=true");
    let seen = rig.patch(&migrated, APPLY, &annotation).await.expect(200);
    let entries: Vec<_> = array(&seen["metadata"]["managedFields"])
        .iter()
        .map(|entry| {
            let mut entry = entry.clone();
            if entry["manager"] == "kubectl-client-side-apply" {
                entry["manager"] = json!("kubectl");
                entry["operation"] = json!("Apply");
            }
            entry
        })
        .collect();
    let rewrite = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": entries},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": revision(&seen).to_string()},
    ]);
    rig.patch(&one, JSON, &rewrite).await.expect(200);
    let stale = rig.patch(&one, JSON, &rewrite).await;
    status(&stale, "Conflict", 409);
    let applied = rig
        .patch(&format!("{one}?fieldManager=kubectl"), APPLY, &config(&json!({"k": "2"})))
        .await
        .expect(200);
    assert_eq!(applied["data"], json!({"k": "2"}), "what it no longer names is gone, as it owned it");
}

#[tokio::test(flavor = "multi_thread")]
async fn force_belongs_to_apply_alone() {
    let rig = Rig::start().await;
    rig.map("a").await;
    let told = status(&rig.patch(&format!("{MAPS}/a?force=true"), MERGE, &json!({})).await, "Invalid", 422);
    assert_eq!(told["details"]["causes"][0]["field"], "force");
}
