//! Creating and replacing, and the options that every write takes.

use serde_json::{Value, json};

use crate::server::{
    APPLY, DATASETS, DEPLOYMENTS, MAPS, MERGE, Rig, array, dataset, deployment, map, revision, status,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_create_is_201_and_a_replacement_200_at_the_revision_that_was_read() {
    let rig = Rig::start().await;
    let mut object = rig.map("a").await;
    assert!(revision(&object) > 0 && object["metadata"]["uid"].is_string());
    object["data"]["k"] = json!("2");
    let newer = rig.put(&format!("{MAPS}/a"), &object).await.expect(200);
    assert!(revision(&newer) > revision(&object));
    status(&rig.put(&format!("{MAPS}/a"), &object).await, "Conflict", 409);
    let generated = rig.post(MAPS, &json!({"metadata": {"generateName": "g-"}})).await;
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_object_is_replaced_only_by_who_names_its_revision() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    let mut object = rig.post(DATASETS, &dataset("d")).await;
    let one = format!("{DATASETS}/d");
    let told = status(&rig.put(&one, &dataset("d")).await, "Invalid", 422);
    assert_eq!(told["details"]["causes"][0]["field"], "metadata.resourceVersion");
    assert!(told["message"].as_str().unwrap().contains("must be specified for an update"), "{told}");
    object["spec"]["copies"] = json!(2);
    rig.put(&one, &object).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_of_kubectl_is_the_manager_of_what_it_writes() {
    let rig = Rig::start().await;
    rig.send(&format!("POST {MAPS}?fieldManager=kubectl-create"), &[], &map("a").to_string())
        .await
        .expect(201);
    for manager in
        ["kubectl-edit", "kubectl-patch", "kubectl-label", "kubectl-annotate", "kubectl-client-side-apply"]
    {
        let path = format!("{MAPS}/a?fieldManager={manager}");
        rig.patch(&path, MERGE, &json!({"data": {manager: "1"}})).await.expect(200);
    }
    let mut object = rig.get(&format!("{MAPS}/a")).await;
    object["data"]["replaced"] = json!("1");
    rig.put(&format!("{MAPS}/a?fieldManager=kubectl-replace"), &object).await.expect(200);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"applied": "1"}});
    object = rig.patch(&format!("{MAPS}/a?fieldManager=kubectl"), APPLY, &config).await.expect(200);
    for (manager, operation, field) in [
        ("kubectl-create", "Update", "f:k"),
        ("kubectl-edit", "Update", "f:kubectl-edit"),
        ("kubectl-label", "Update", "f:kubectl-label"),
        ("kubectl-replace", "Update", "f:replaced"),
        ("kubectl", "Apply", "f:applied"),
    ] {
        let entries = array(&object["metadata"]["managedFields"]);
        let entry = entries.iter().find(|entry| entry["manager"] == manager).unwrap();
        assert_eq!(entry["operation"], operation, "{manager}");
        assert!(entry["fieldsV1"]["f:data"][field].is_object(), "{manager}: {entry}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_field_is_refused_warned_of_or_dropped_on_every_write() {
    let rig = Rig::start().await;
    rig.post(DEPLOYMENTS, &deployment("there")).await;
    let wat = |name: &str| {
        let mut object = deployment(name);
        object["spec"]["wat"] = json!(1);
        object
    };
    for (request, headers, body, code) in [
        (format!("POST {DEPLOYMENTS}"), vec![], wat("new"), 201),
        (format!("PUT {DEPLOYMENTS}/there"), vec![], wat("there"), 200),
        (
            format!("PATCH {DEPLOYMENTS}/there"),
            vec!["content-type: application/merge-patch+json"],
            json!({"spec": {"wat": 1}}),
            200,
        ),
        (
            format!("PATCH {DEPLOYMENTS}/there"),
            vec!["content-type: application/strategic-merge-patch+json"],
            json!({"spec": {"wat": 1}}),
            200,
        ),
    ] {
        let body = body.to_string();
        let ask = |validation: &str| {
            let request = format!("{request}?fieldValidation={validation}");
            let (rig, headers, body) = (&rig, &headers, &body);
            async move { rig.send(&request, headers, body).await }
        };
        let told = status(&ask("Strict").await, "BadRequest", 400);
        let message = told["message"].as_str().unwrap();
        assert!(
            message.contains("strict decoding error: unknown field \"spec.wat\""),
            "{request}: {message}"
        );
        let ignored = ask("Ignore").await;
        assert_eq!(ignored.expect(code)["spec"]["wat"], Value::Null, "{request}");
        assert!(!ignored.headers.contains_key("warning"), "{request}");
        if code == 201 {
            rig.delete(&format!("{DEPLOYMENTS}/new"), &json!({})).await.expect(200);
        }
        let warned = ask("Warn").await;
        assert_eq!(warned.expect(code)["spec"]["wat"], Value::Null, "{request}");
        assert_eq!(warned.headers["warning"], r#"299 - "unknown field \"spec.wat\"""#, "{request}");
    }
    let odd = format!("POST {DEPLOYMENTS}?fieldValidation=Sometimes");
    status(&rig.send(&odd, &[], &deployment("x").to_string()).await, "Invalid", 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_every_write_answers_as_usual_and_stores_nothing() {
    let rig = Rig::start().await;
    let there = rig.map("there").await;
    let (one, mut changed) = (format!("{MAPS}/there"), there.clone());
    changed["data"] = json!({"k": "2"});
    let dry = "dryRun=All";
    let made = rig.post(&format!("{MAPS}?{dry}"), &map("new")).await;
    assert!(made["metadata"]["uid"].is_string());
    let put = rig.put(&format!("{one}?{dry}"), &changed).await.expect(200);
    let merged = rig.patch(&format!("{one}?{dry}"), MERGE, &json!({"data": {"k": "2"}})).await.expect(200);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "2"}});
    let apply = format!("{one}?{dry}&fieldManager=m&force=true");
    let applied = rig.patch(&apply, APPLY, &config).await.expect(200);
    for answer in [put, merged, applied] {
        assert_eq!(answer["data"]["k"], "2");
    }
    rig.delete(&one, &json!({"dryRun": ["All"]})).await.expect(200);
    assert_eq!(rig.get(&one).await, there);
    assert_eq!(rig.send(&format!("GET {MAPS}/new"), &[], "").await.code, 404);
    status(&rig.patch(&format!("{one}?dryRun=Some"), MERGE, &json!({})).await, "Invalid", 422);
}

/// Typed commands of kubectl (`create configmap`, `drain`, ...) send protobuf and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_built_in_kinds_may_be_protobuf_and_answers_are_json() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    let packed = ["content-type: application/vnd.kubernetes.protobuf", "accept: application/json"];
    // Envelope { typeMeta { "v1", KIND }, raw { metadata { name "p" }, ... } }
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    for (path, body) in [
        (MAPS, "k8s\0\n\x0f\n\x02v1\x12\x09ConfigMap\x12\x0d\n\x03\n\x01p\x12\x06\n\x01a\x12\x01b"),
        (accounts, "k8s\0\n\x14\n\x02v1\x12\x0eServiceAccount\x12\x05\n\x03\n\x01p"),
    ] {
        let made = rig.send(&format!("POST {path}"), &packed, body).await;
        assert_eq!(made.headers["content-type"], "application/json");
        assert_eq!(made.expect(201)["metadata"]["name"], "p");
    }
    assert_eq!(rig.get(&format!("{MAPS}/p")).await["data"], json!({"a": "b"}));
    // DeleteOptions { preconditions { uid "q" } } of another incarnation, then of any.
    let options = "k8s\0\n\x13\n\x02v1\x12\x0dDeleteOptions\x12\x05\x12\x03\n\x01q";
    status(&rig.send(&format!("DELETE {MAPS}/p"), &packed, options).await, "Conflict", 409);
    let options = "k8s\0\n\x13\n\x02v1\x12\x0dDeleteOptions\x12\x02\x08\0";
    rig.send(&format!("DELETE {MAPS}/p"), &packed, options).await.expect(200);
    let custom = "k8s\0\n\x1e\n\x13data.example.com/v1\x12\x07Dataset\x12\0";
    status(&rig.send(&format!("POST {DATASETS}"), &packed, custom).await, "UnsupportedMediaType", 415);
}
