//! Patches of every kind but apply, as kubectl sends them.

use serde_json::{Value, json};

use crate::server::{
    APPLY, DATASETS, DEPLOYMENTS, JSON, MAPS, MERGE, Rig, STRATEGIC, array, dataset, deployment, revision,
    status,
};

fn containers(object: &Value) -> Vec<&str> {
    let containers = array(&object["spec"]["template"]["spec"]["containers"]);
    containers.iter().map(|container| container["name"].as_str().unwrap()).collect()
}

/// `kubectl apply` of a built-in kind.
#[tokio::test(flavor = "multi_thread")]
async fn a_strategic_patch_follows_its_directives() {
    let rig = Rig::start().await;
    let one = format!("{DEPLOYMENTS}/web");
    let mut object = deployment("web");
    object["metadata"]["finalizers"] = json!(["example.com/a", "example.com/b"]);
    let made = rig.post(DEPLOYMENTS, &object).await;
    assert!(made["spec"]["strategy"]["rollingUpdate"].is_object());
    let patch = json!({
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a"]},
        "spec": {
            "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            "template": {"spec": {
                "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
                "containers": [{"name": "c", "image": "c:1"}, {"name": "b", "image": "b:2"}, {"name": "a", "$patch": "delete"}],
            }},
        },
    });
    let patched = rig.patch(&one, STRATEGIC, &patch).await.expect(200);
    assert_eq!(containers(&patched), ["c", "b"]);
    assert_eq!(patched["spec"]["template"]["spec"]["containers"][1]["image"], "b:2");
    assert_eq!(patched["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(patched["metadata"]["finalizers"], json!(["example.com/b"]));
    let replace = json!({"spec": {"template": {"spec": {"containers": [{"$patch": "replace"}, {"name": "z", "image": "z:1"}]}}}});
    assert_eq!(containers(&rig.patch(&one, STRATEGIC, &replace).await.expect(200)), ["z"]);
}

/// `kubectl apply` of a custom kind, whose lists have no keys that a strategic patch knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_custom_object_takes_merge_and_json_patches_and_no_strategic_one() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    let one = format!("{DATASETS}/d");
    rig.post(DATASETS, &dataset("d")).await;
    let merged = rig.patch(&one, MERGE, &json!({"spec": {"copies": 3, "format": null}})).await.expect(200);
    assert_eq!((&merged["spec"]["copies"], &merged["spec"]["format"]), (&json!(3), &json!("parquet")));
    let ops = json!([
        {"op": "test", "path": "/spec/copies", "value": 3},
        {"op": "replace", "path": "/spec/copies", "value": 4},
    ]);
    assert_eq!(rig.patch(&one, JSON, &ops).await.expect(200)["spec"]["copies"], 4);
    status(&rig.patch(&one, JSON, &ops).await, "Invalid", 422);
    status(&rig.patch(&one, STRATEGIC, &json!({"spec": {"copies": 5}})).await, "UnsupportedMediaType", 415);
}

/// `kubectl patch --subresource=status`, and kopf, which patches body and status apart.
#[tokio::test(flavor = "multi_thread")]
async fn status_and_spec_are_patched_apart_and_a_missing_object_is_404() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    let one = format!("{DATASETS}/d");
    rig.post(DATASETS, &dataset("d")).await;
    let both = json!({"spec": {"copies": 7}, "status": {"copies": 7}});
    let body = rig.patch(&one, MERGE, &both).await.expect(200);
    assert_eq!((&body["spec"]["copies"], &body["status"]), (&json!(7), &Value::Null));
    assert_eq!(body["metadata"]["generation"], 2);
    let again = json!({"spec": {"copies": 9}, "status": {"copies": 1}});
    let told = rig.patch(&format!("{one}/status"), MERGE, &again).await.expect(200);
    assert_eq!((&told["spec"]["copies"], &told["status"]["copies"]), (&json!(7), &json!(1)));
    assert_eq!(told["metadata"]["generation"], 2);
    assert_eq!(rig.get(&format!("{one}/status")).await, told);
    for path in [format!("{DATASETS}/none"), format!("{DATASETS}/none/status")] {
        status(&rig.patch(&path, MERGE, &both).await, "NotFound", 404);
    }
}

/// `kubectl diff` compares what is there with what a dry run would make of it, and tries again after a 409.
#[tokio::test(flavor = "multi_thread")]
async fn a_diff_is_a_dry_run_that_is_refused_where_it_is_stale() {
    let rig = Rig::start().await;
    let object = rig.map("a").await;
    let one = format!("{MAPS}/a");
    let at =
        |revision: u64| json!({"metadata": {"resourceVersion": revision.to_string()}, "data": {"k": "2"}});
    let dry = format!("{one}?dryRun=All&fieldManager=kubectl-client-side-apply");
    assert_eq!(rig.patch(&dry, MERGE, &at(revision(&object))).await.expect(200)["data"]["k"], "2");
    let newer = rig.patch(&one, MERGE, &json!({"data": {"l": "1"}})).await.expect(200);
    status(&rig.patch(&dry, MERGE, &at(revision(&object))).await, "Conflict", 409);
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "3"}});
    let server_side = format!("{one}?dryRun=All&fieldManager=kubectl&force=true");
    assert_eq!(
        rig.patch(&server_side, APPLY, &config).await.expect(200)["data"],
        json!({"k": "3", "l": "1"})
    );
    assert_eq!(rig.get(&one).await, newer);
}

/// `kubectl scale`: a patch, or with `--current-replicas` a read and a PUT that comes without a Content-Type.
#[tokio::test(flavor = "multi_thread")]
async fn scale_is_read_patched_and_put_for_built_in_and_custom_kinds() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    rig.post(DEPLOYMENTS, &deployment("x")).await;
    rig.post(DATASETS, &dataset("x")).await;
    for (path, replicas) in [(DEPLOYMENTS, "replicas"), (DATASETS, "copies")] {
        let (one, scale) = (format!("{path}/x"), format!("{path}/x/scale"));
        let patched = rig.patch(&scale, MERGE, &json!({"spec": {"replicas": 3}})).await.expect(200);
        assert_eq!((&patched["kind"], &patched["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
        assert_eq!(rig.get(&one).await["spec"][replicas], 3);
        let mut read = rig.get(&scale).await;
        assert_eq!(read["spec"]["replicas"], 3);
        read["spec"]["replicas"] = json!(5);
        let put = rig.put(&scale, &read).await.expect(200);
        assert_eq!((&put["spec"]["replicas"], revision(&put) > revision(&read)), (&json!(5), true));
        let object = rig.get(&one).await;
        assert_eq!((&object["spec"][replicas], &object["metadata"]["generation"]), (&json!(5), &json!(3)));
        status(&rig.put(&scale, &read).await, "Conflict", 409);
        read["spec"]["replicas"] = json!(-1);
        read["metadata"]["resourceVersion"] = put["metadata"]["resourceVersion"].clone();
        status(&rig.put(&scale, &read).await, "Invalid", 422);
    }
}
