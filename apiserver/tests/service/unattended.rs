//! Kinds whose controllers are still to come say so, and others are what they would be elsewhere.

use claw_client::{
    ResourceRef, Verb,
    request::{ListOptions, PatchKind, View, WriteOptions},
};
use serde_json::{Value, json};

use crate::world::{World, deployment, deployments, world};

fn jobs() -> ResourceRef {
    ResourceRef::collection("batch", "v1", "jobs").in_namespace("default")
}

fn job(name: &str) -> Value {
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]});
    json!({"metadata": {"name": name}, "spec": {"template": {"spec": pod}}})
}

async fn warnings(world: &World, resource: ResourceRef, object: &Value) -> Vec<String> {
    let verb = Verb::Create { body: object.to_string().into(), options: WriteOptions::default() };
    world.ask_whole(resource, verb, View::Object).await.unwrap().warnings
}

#[tokio::test]
async fn who_makes_what_nobody_acts_on_is_told_and_so_is_who_looks() {
    let world = world().await;
    let why = "no controller for Jobs runs in this release; the object is stored and validated only";
    assert_eq!(warnings(&world, jobs(), &job("a")).await, [why]);
    let stored = world.get(jobs().named("a")).await.unwrap();
    let condition = &stored["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"], &condition["message"]),
        (&json!("ControllerAvailable"), &json!("False"), &json!("NoController"), &json!(why))
    );
    // Later changes leave it alone, and it leaves the generation alone.
    let changed = world.merge(jobs().named("a"), &json!({"spec": {"parallelism": 2}})).await.unwrap();
    assert_eq!(changed["status"], stored["status"]);
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(warnings(&world, deployments(), &deployment("web", 1)).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_job_finds_its_own_pods_and_is_found_by_how_many_succeeded() {
    let world = world().await;
    let made = world.create(jobs(), &job("a")).await.unwrap();
    let uid = &made["metadata"]["uid"];
    assert_eq!(made["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    let labels = &made["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["job-name"], &labels["controller-uid"]), (&json!("a"), uid));
    world.merge(jobs().named("a").sub("status"), &json!({"status": {"succeeded": 1}})).await.unwrap();
    world.create(jobs(), &job("b")).await.unwrap();
    for (count, expected) in [("1", "a"), ("0", "b")] {
        let options =
            ListOptions { field_selector: format!("status.successful={count}"), ..ListOptions::default() };
        let list = world.list(jobs(), options).await.unwrap();
        let names: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|job| &job["metadata"]["name"]).collect();
        assert_eq!(names, [expected]);
    }
}

#[tokio::test]
async fn generation_counts_what_is_wanted_of_kinds_without_a_spec_too() {
    let world = world().await;
    let slices = ResourceRef::collection("discovery.k8s.io", "v1", "endpointslices").in_namespace("default");
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": []});
    assert_eq!(world.create(slices.clone(), &slice).await.unwrap()["metadata"]["generation"], 1);
    let labelled = world.merge(slices.clone().named("s"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled.unwrap()["metadata"]["generation"], 1);
    let grown = world.merge(slices.named("s"), &json!({"endpoints": [{"addresses": ["10.0.0.1"]}]})).await;
    assert_eq!(grown.unwrap()["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_replication_controller_is_scaled_by_its_plain_selector() {
    let world = world().await;
    let controllers = || ResourceRef::collection("", "v1", "replicationcontrollers").in_namespace("default");
    let template =
        json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world
        .create(controllers(), &json!({"metadata": {"name": "rc"}, "spec": {"template": template}}))
        .await
        .unwrap();
    let scale = world.get(controllers().named("rc").sub("scale")).await.unwrap();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(1), &json!("app=a")));
}

#[tokio::test]
async fn approving_touches_decisions_only_and_nothing_else_touches_them() {
    let world = world().await;
    let requests = || ResourceRef::collection("certificates.k8s.io", "v1", "certificatesigningrequests");
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KQUFBQQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let request = json!({"metadata": {"name": "r"}, "spec": {"signerName": "a.b/c", "usages": ["client auth"], "request": pem, "username": "forged", "groups": ["system:masters", "forged"]}});
    let made = world.create(requests(), &request).await.unwrap();
    assert_eq!(made["spec"]["username"], "system:test");
    assert_eq!(made["spec"]["groups"], json!(["system:masters"]));

    let decision =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "AAAA"}});
    let sneaked = world.merge(requests().named("r").sub("status"), &decision).await.unwrap();
    assert_eq!(sneaked["status"]["conditions"], Value::Null, "deciding is not for who writes the status");
    assert_eq!(sneaked["status"]["certificate"], "AAAA");
    let approved =
        world.patch(requests().named("r").sub("approval"), PatchKind::Merge, &decision).await.unwrap();
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    assert!(approved["status"]["conditions"][0]["lastUpdateTime"].is_string());
    let spec = world.merge(requests().named("r"), &json!({"spec": {"usages": ["any"]}})).await.unwrap();
    assert_eq!(spec["spec"]["usages"], json!(["client auth"]), "what was asked for stays");
}

#[tokio::test]
async fn a_budget_is_about_the_pods_that_its_last_patch_names() {
    let world = world().await;
    let budgets = || ResourceRef::collection("policy", "v1", "poddisruptionbudgets").in_namespace("default");
    let budget = json!({"metadata": {"name": "p"}, "spec": {"selector": {"matchLabels": {"app": "a"}}}});
    world.create(budgets(), &budget).await.unwrap();
    let patch = json!({"spec": {"selector": {"matchLabels": {"tier": "b"}}}});
    let patched = world.patch(budgets().named("p"), PatchKind::Strategic, &patch).await.unwrap();
    assert_eq!(patched["spec"]["selector"], json!({"matchLabels": {"tier": "b"}}));
}
