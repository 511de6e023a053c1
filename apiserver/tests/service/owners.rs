//! `metadata.managedFields` of objects that are written by anything but apply.

use claw_client::{
    Verb,
    request::{PatchKind, WriteOptions},
};
use serde_json::{Value, json};

use crate::world::{World, bound_pod, by, configmaps, deployment, deployments, parse, pods, revision, world};

async fn create(world: &World, manager: &str, data: &Value) -> Value {
    let object = json!({"metadata": {"name": "x"}, "data": data});
    let verb = Verb::Create { body: object.to_string().into(), options: by(manager) };
    world.ask(configmaps(), verb).await.unwrap()
}

async fn patch(world: &World, manager: &str, patch: &Value) -> Value {
    let kind = if patch.is_array() { PatchKind::Json } else { PatchKind::Merge };
    let verb = Verb::Patch { kind, body: patch.to_string().into(), options: by(manager), force: false };
    world.ask(configmaps().named("x"), verb).await.unwrap()
}

fn managed(object: &Value) -> &Vec<Value> {
    object["metadata"]["managedFields"].as_array().unwrap()
}

/// What each manager owns, without times.
fn owned(object: &Value) -> Vec<(String, Value)> {
    let one = |entry: &Value| (entry["manager"].as_str().unwrap().to_owned(), entry["fieldsV1"].clone());
    managed(object).iter().map(one).collect()
}

#[tokio::test]
async fn whoever_creates_an_object_owns_all_of_it() {
    let world = world().await;
    let made = create(&world, "kubectl-create", &json!({"k": "1"})).await;
    let entry = &managed(&made)[0];
    assert_eq!(
        (&entry["manager"], &entry["operation"], &entry["apiVersion"], &entry["fieldsType"]),
        (&json!("kubectl-create"), &json!("Update"), &json!("v1"), &json!("FieldsV1"))
    );
    assert_eq!(entry["time"], made["metadata"]["creationTimestamp"]);
    assert_eq!(entry["fieldsV1"], json!({"f:data": {".": {}, "f:k": {}}}));
    assert!(entry.get("subresource").is_none());
}

#[tokio::test]
async fn defaults_are_owned_by_the_creator_and_what_admission_adds_by_nobody() {
    let world = world().await;
    let verb = Verb::Create { body: deployment("web", 1).to_string().into(), options: by("kubectl") };
    let made = world.ask(deployments(), verb).await.unwrap();
    let spec = &managed(&made)[0]["fieldsV1"]["f:spec"];
    assert_eq!(spec["f:selector"], json!({}));
    assert_eq!(spec["f:strategy"]["f:rollingUpdate"]["f:maxSurge"], json!({}));
    let container = &spec["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"];
    assert_eq!(container["f:imagePullPolicy"], json!({}));
    let verb = Verb::Create { body: crate::world::pod("p").to_string().into(), options: by("kubectl") };
    let made = world.ask(pods(), verb).await.unwrap();
    let fields = &managed(&made)[0]["fieldsV1"];
    assert!(fields["f:spec"].get("f:tolerations").is_none());
    assert!(fields["f:spec"]["f:schedulerName"].is_object() && fields.get("f:status").is_none());
}

#[tokio::test]
async fn a_dry_run_shows_owners_like_any_answer() {
    let world = world().await;
    let made = create(&world, "a", &json!({"k": "1"})).await;
    let dry = WriteOptions { dry_run: true, ..by("a") };
    let body = json!({"metadata": {"name": "y"}, "data": {"k": "1"}}).to_string().into();
    let draft = world.ask(configmaps(), Verb::Create { body, options: dry.clone() }).await.unwrap();
    assert_eq!(owned(&draft), owned(&made));
    let body = json!({"data": {"l": "1"}}).to_string().into();
    let verb = Verb::Patch { kind: PatchKind::Merge, body, options: dry, force: false };
    let draft = world.ask(configmaps().named("x"), verb).await.unwrap();
    assert_eq!(owned(&draft), [("a".to_owned(), json!({"f:data": {".": {}, "f:k": {}, "f:l": {}}}))]);
}

#[tokio::test]
async fn a_patch_reads_owners_as_clients_see_them() {
    let world = world().await;
    create(&world, "a", &json!({"k": "1"})).await;
    let by_name = json!([{"op": "test", "path": "/metadata/managedFields/0/manager", "value": "a"}]);
    patch(&world, "a", &by_name).await;
    let whole = world.get(configmaps().named("x")).await.unwrap()["metadata"].clone();
    let mut part = whole.clone();
    part.as_object_mut().unwrap().remove("managedFields");
    patch(&world, "a", &json!([{"op": "test", "path": "/metadata", "value": whole}])).await;
    let test = json!([{"op": "test", "path": "/metadata", "value": part}]).to_string().into();
    let verb = Verb::Patch { kind: PatchKind::Json, body: test, options: by("a"), force: false };
    world.ask(configmaps().named("x"), verb).await.unwrap_err();
    // A name may be spelt with escapes.
    let body = r#"{"metadata":{"managed\u0046ields":[]}}"#.into();
    let verb = Verb::Patch { kind: PatchKind::Merge, body, options: by("b"), force: false };
    let after = world.ask(configmaps().named("x"), verb).await.unwrap();
    assert!(after["metadata"].get("managedFields").is_none());
}

#[tokio::test]
async fn changed_fields_change_owner_and_removed_ones_have_none() {
    let world = world().await;
    create(&world, "a", &json!({"k": "1", "l": "1", "m": "1"})).await;
    let after = patch(&world, "b", &json!({"data": {"k": "2", "m": null, "n": "1"}})).await;
    assert_eq!(
        owned(&after),
        [
            ("a".to_owned(), json!({"f:data": {".": {}, "f:l": {}}})),
            ("b".to_owned(), json!({"f:data": {"f:k": {}, "f:n": {}}})),
        ]
    );
    let back = patch(&world, "a", &json!([{"op": "replace", "path": "/data/k", "value": "3"}])).await;
    assert_eq!(owned(&back)[1], ("b".to_owned(), json!({"f:data": {"f:n": {}}})));
    let mut whole = back.clone();
    whole["data"] = json!({"l": "1"});
    let verb = Verb::Update { body: whole.to_string().into(), options: by("c") };
    let after = world.ask(configmaps().named("x"), verb).await.unwrap();
    assert_eq!(owned(&after), [("a".to_owned(), json!({"f:data": {".": {}, "f:l": {}}}))]);
}

#[tokio::test]
async fn a_write_that_changes_nothing_changes_no_entry() {
    let world = world().await;
    let made = create(&world, "a", &json!({"k": "1"})).await;
    assert_eq!(patch(&world, "b", &json!({"data": {"k": "1"}})).await, made);
    let verb = Verb::Update { body: made.to_string().into(), options: by("c") };
    assert_eq!(world.ask(configmaps().named("x"), verb).await.unwrap(), made);
    let mut later = made.clone();
    later["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
    let verb = Verb::Update { body: later.to_string().into(), options: by("c") };
    assert_eq!(world.ask(configmaps().named("x"), verb).await.unwrap(), made, "a time alone is no write");
}

#[tokio::test]
async fn the_user_agent_stands_in_for_a_manager() {
    let world = world().await;
    let with =
        |agent: Option<&str>| WriteOptions { user_agent: agent.map(str::to_owned), ..Default::default() };
    for (name, agent, expected) in [
        ("a", Some("kubectl/v1.32.4 (linux/amd64)"), "kubectl"),
        ("b", Some("/"), "unknown"),
        ("c", None, "unknown"),
    ] {
        let object = json!({"metadata": {"name": name}, "data": {"k": "v"}});
        let verb = Verb::Create { body: object.to_string().into(), options: with(agent) };
        assert_eq!(managed(&world.ask(configmaps(), verb).await.unwrap())[0]["manager"], expected);
    }
}

#[tokio::test]
async fn subresources_have_managers_of_their_own() {
    let world = world().await;
    let verb = Verb::Create { body: deployment("web", 1).to_string().into(), options: by("ctl") };
    world.ask(deployments(), verb).await.unwrap();
    let body = r#"{"status":{"replicas":1},"metadata":{"managedFields":[]}}"#.into();
    let verb = Verb::Patch { kind: PatchKind::Merge, body, options: by("ctl"), force: false };
    let after = world.ask(deployments().named("web").sub("status"), verb).await.unwrap();
    let entries = managed(&after);
    assert_eq!(entries.len(), 2, "the status path does not end the account");
    let of = |subresource: &Value| entries.iter().find(|entry| &entry["subresource"] == subresource).unwrap();
    assert_eq!(of(&json!("status"))["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    assert!(of(&json!(null))["fieldsV1"].get("f:status").is_none());
}

#[tokio::test]
async fn binding_a_pod_leaves_its_owners_alone() {
    let world = world().await;
    let bound = bound_pod(&world, "p").await;
    assert_eq!(managed(&bound).len(), 1);
    assert!(managed(&bound)[0]["fieldsV1"]["f:spec"].get("f:nodeName").is_none());
}

#[tokio::test]
async fn eleven_updaters_become_ten() {
    let world = world().await;
    create(&world, "m0", &json!({"k0": "1"})).await;
    for n in 1..12 {
        patch(&world, &format!("m{n}"), &json!({"data": {format!("k{n}"): "1"}})).await;
    }
    let object = world.get(configmaps().named("x")).await.unwrap();
    let entries = owned(&object);
    assert_eq!(entries.len(), 10);
    let ancient = entries.iter().find(|(manager, _)| manager == "ancient-changes").unwrap();
    assert!(ancient.1["f:data"].as_object().unwrap().len() >= 3, "{ancient:?}");
}

/// What kubectl does after the first server-side apply over its own client-side one.
#[tokio::test]
async fn clients_may_rewrite_the_entries() {
    let world = world().await;
    let made = create(&world, "kubectl-client-side-apply", &json!({"k": "1"})).await;
    let mut entries = made["metadata"]["managedFields"].clone();
    entries[0]["manager"] = json!("kubectl");
    entries[0]["operation"] = json!("Apply");
    let operations = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": entries},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": revision(&made)},
    ]);
    let after = patch(&world, "kubectl", &operations).await;
    assert_eq!(managed(&after).len(), 1);
    assert_eq!(
        (&managed(&after)[0]["manager"], &managed(&after)[0]["operation"]),
        (&json!("kubectl"), &json!("Apply"))
    );
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"l": "1"}});
    let applied = world.apply(configmaps().named("x"), "kubectl", &config, false).await.unwrap();
    assert_eq!(parse(&applied.body)["data"], json!({"l": "1"}), "it owned k, and gave it up");
}

#[tokio::test]
async fn an_empty_list_of_entries_ends_the_account_until_the_next_apply() {
    let world = world().await;
    for nothing in [json!([]), json!([{}])] {
        create(&world, "a", &json!({"k": "1"})).await;
        let after = patch(&world, "b", &json!({"metadata": {"managedFields": nothing}})).await;
        assert!(after["metadata"].get("managedFields").is_none());
        let after = patch(&world, "b", &json!({"data": {"k": "2"}})).await;
        assert!(after["metadata"].get("managedFields").is_none());
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"k": "3"}});
        let error = world.apply(configmaps().named("x"), "c", &config, false).await.unwrap_err();
        assert!(error.message.contains("conflict with \"before-first-apply\" using v1: .data.k"), "{error}");
        world.apply(configmaps().named("x"), "c", &config, true).await.unwrap();
        world.delete(configmaps().named("x"), Default::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_the_entries_out_or_breaks_them_ends_nothing() {
    let world = world().await;
    let made = create(&world, "a", &json!({"k": "1"})).await;
    for broken in [json!(null), json!([{"manager": "b", "operation": "Steal"}])] {
        let mut object = made.clone();
        object["metadata"]["managedFields"] = broken;
        let verb = Verb::Update { body: object.to_string().into(), options: by("b") };
        assert_eq!(world.ask(configmaps().named("x"), verb).await.unwrap(), made);
    }
}

#[tokio::test]
async fn new_objects_do_not_inherit_entries() {
    let world = world().await;
    let object = json!({
        "metadata": {"name": "x", "managedFields": [{
            "manager": "old", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:z": {}}},
        }]},
        "data": {"k": "1"},
    });
    let verb = Verb::Create { body: object.to_string().into(), options: by("a") };
    assert_eq!(owned(&world.ask(configmaps(), verb).await.unwrap()).len(), 1);
}

#[tokio::test]
async fn a_client_that_writes_more_owners_than_anybody_needs_is_refused() {
    let world = world().await;
    let mut object = create(&world, "kubectl", &json!({"k": "1"})).await;
    let entry = |n: usize| {
        json!({"manager": format!("m{n}"), "operation": "Apply", "apiVersion": "v1",
               "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}})
    };
    let mut write = async |count: usize| {
        object["metadata"]["managedFields"] = (0..count).map(entry).collect();
        object["metadata"]["resourceVersion"] = Value::Null;
        world.update(configmaps().named("x"), &object).await
    };
    let error = write(1_001).await.unwrap_err();
    assert_eq!(error.code, 422);
    let cause = &error.details.causes[0];
    assert_eq!(cause.field, "metadata.managedFields");
    assert_eq!(cause.message, "Too many: 1001: must have at most 1000 items");
    assert_eq!(managed(&write(1_000).await.unwrap()).len(), 1_000);
}
