//! Errors: always a `Status`, with the code, the reason and the details that clients match on.

use serde_json::json;

use crate::server::{APPLY, DATASETS, MAPS, MERGE, Rig, STRATEGIC, dataset, map, status};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_by_its_plural_group_and_name() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    for (path, group, plural, qualified) in [
        (MAPS, None, "configmaps", "configmaps"),
        (DATASETS, Some("data.example.com"), "datasets", "datasets.data.example.com"),
    ] {
        for verb in ["GET", "DELETE", "PUT", "PATCH"] {
            let body = if verb == "PUT" && path == DATASETS { dataset("x") } else { map("x") };
            let body = if verb == "DELETE" { String::new() } else { body.to_string() };
            // A replacement of a custom object has to say what it replaces.
            let body = body.replace(r#""name":"x""#, r#""name":"x","resourceVersion":"1""#);
            let headers =
                [format!("content-type: {}", if verb == "PATCH" { MERGE } else { "application/json" })];
            let headers: Vec<_> = headers.iter().map(String::as_str).collect();
            let told = status(&rig.send(&format!("{verb} {path}/x"), &headers, &body).await, "NotFound", 404);
            assert_eq!(told["message"], format!("{qualified} \"x\" not found"), "{verb}");
            let details = &told["details"];
            assert_eq!((&details["name"], &details["kind"]), (&json!("x"), &json!(plural)), "{verb}");
            assert_eq!(details["group"].as_str(), group, "{verb}");
        }
    }
    for path in ["/nowhere", "/apis/none/v1", "/apis/none/v1/things", "/api/v1/namespaces/default/things"] {
        let told = status(&rig.send(&format!("GET {path}"), &[], "").await, "NotFound", 404);
        assert_eq!(told["message"], "the server could not find the requested resource", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_or_was_changed_meanwhile_is_409_in_different_words() {
    let rig = Rig::start().await;
    let first = rig.map("a").await;
    let taken =
        status(&rig.send(&format!("POST {MAPS}"), &[], &map("a").to_string()).await, "AlreadyExists", 409);
    assert_eq!(taken["message"], "configmaps \"a\" already exists");
    let one = format!("{MAPS}/a");
    rig.patch(&one, MERGE, &json!({"data": {"k": "2"}})).await.expect(200);
    let stale = status(&rig.put(&one, &first).await, "Conflict", 409);
    assert_eq!(
        stale["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; \
         please apply your changes to the latest version and try again"
    );
    assert_eq!((&stale["details"]["name"], &stale["details"]["kind"]), (&json!("a"), &json!("configmaps")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_validate_is_422_with_a_cause_for_every_field() {
    let rig = Rig::start().await;
    let mut object = map("Not_A_Name");
    object["data"] = json!({"not a key": "v"});
    let told = status(&rig.send(&format!("POST {MAPS}"), &[], &object.to_string()).await, "Invalid", 422);
    let details = &told["details"];
    assert_eq!((&details["name"], &details["kind"]), (&json!("Not_A_Name"), &json!("ConfigMap")));
    let causes: Vec<_> = details["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| (&cause["reason"], &cause["field"]))
        .collect();
    let invalid = json!("FieldValueInvalid");
    assert_eq!(causes, [(&invalid, &json!("metadata.name")), (&invalid, &json!("data[not a key]"))]);
    assert!(
        told["message"].as_str().unwrap().starts_with("ConfigMap \"Not_A_Name\" is invalid: ["),
        "{told}"
    );
    let nameless = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}});
    let told = status(&rig.send(&format!("POST {MAPS}"), &[], &nameless.to_string()).await, "Invalid", 422);
    assert_eq!(told["details"]["causes"][0]["reason"], "FieldValueRequired");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_do_is_405_406_and_415() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    rig.post(DATASETS, &dataset("d")).await;
    for request in [
        format!("PUT {MAPS}"),
        format!("POST {MAPS}/x"),
        "POST /version".to_owned(),
        "DELETE /apis".to_owned(),
    ] {
        status(&rig.send(&request, &[], "{}").await, "MethodNotAllowed", 405);
    }
    status(&rig.send(&format!("GET {MAPS}"), &["accept: text/html"], "").await, "NotAcceptable", 406);
    let post = format!("POST {MAPS}");
    status(&rig.send(&post, &["content-type: text/plain"], "{}").await, "UnsupportedMediaType", 415);
    let patch = format!("{DATASETS}/d");
    let told = status(&rig.patch(&patch, STRATEGIC, &json!({})).await, "UnsupportedMediaType", 415);
    let message = told["message"].as_str().unwrap();
    for accepted in ["application/json-patch+json", "application/merge-patch+json", APPLY] {
        assert!(message.contains(accepted), "{message}");
    }
    assert!(!message.rsplit("include:").next().unwrap().contains("strategic"), "{message}");
}
