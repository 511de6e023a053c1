//! OpenAPI: what kubectl validates, explains and patches by.

use serde_json::Value;

use crate::server::{Rig, array};

#[tokio::test(flavor = "multi_thread")]
async fn openapi_v3_is_an_index_of_documents_that_are_kept_by_their_hash() {
    let rig = Rig::start().await;
    let index = rig.get("/openapi/v3").await;
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/apps/v1"));
    let url = paths["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let (path, hash) = url.split_once("?hash=").unwrap();
    assert_eq!((path, hash.is_empty()), ("/openapi/v3/apis/apps/v1", false));
    let document = rig.send(&format!("GET {url}"), &[], "").await;
    assert!(document.expect(200)["openapi"].as_str().unwrap().starts_with("3."));
    let tag = document.headers["etag"].to_str().unwrap();
    assert_eq!(tag, format!("\"{hash}\""));
    let again = rig.send(&format!("GET {url}"), &[&format!("if-none-match: {tag}")], "").await;
    assert_eq!((again.code, again.body.len()), (304, 0));

    rig.define_datasets().await;
    let later = rig.get("/openapi/v3").await;
    assert!(later["paths"]["apis/data.example.com/v1"].is_object());
    assert_eq!(
        later["paths"]["apis/apps/v1"], index["paths"]["apis/apps/v1"],
        "what did not change stays known"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_and_operations_name_their_kinds_and_writes_take_field_validation() {
    let rig = Rig::start().await;
    rig.define_datasets().await;
    for (path, collection, kind) in [
        ("/openapi/v3/apis/apps/v1", "/apis/apps/v1/namespaces/{namespace}/deployments", "Deployment"),
        (
            "/openapi/v3/apis/data.example.com/v1",
            "/apis/data.example.com/v1/namespaces/{namespace}/datasets",
            "Dataset",
        ),
    ] {
        let document = rig.get(path).await;
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let names_kind = |schema: &Value| {
            array(&schema["x-kubernetes-group-version-kind"]).iter().any(|known| known["kind"] == kind)
        };
        assert!(schemas.values().any(names_kind), "{kind} is named by its schema");
        let one = format!("{collection}/{{name}}");
        for (path, method, action) in [
            (collection, "post", "post"),
            (&*one, "put", "put"),
            (&*one, "patch", "patch"),
            (&*one, "get", "get"),
        ] {
            let item = &document["paths"][path];
            let operation = &item[method];
            assert_eq!(operation["x-kubernetes-action"], action, "{method} {path}");
            assert_eq!(operation["x-kubernetes-group-version-kind"]["kind"], kind, "{method} {path}");
            let parameters = [array(&operation["parameters"]), array(&item["parameters"])].concat();
            let takes = parameters.iter().any(|parameter| parameter["name"] == "fieldValidation");
            assert_eq!(takes, method != "get", "{method} {path}");
        }
    }
}

/// Without it, 1.20 can neither apply nor explain.
#[tokio::test(flavor = "multi_thread")]
async fn openapi_v2_comes_as_protobuf_to_who_asks_and_as_json_to_others() {
    let rig = Rig::start().await;
    let media = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    // kube-apiserver's answer has a form of the name that is allowed in a header.
    let answered = media.replace('@', ".");
    let packed = rig.send("GET /openapi/v2", &[&format!("accept: {media}")], "").await;
    assert_eq!((packed.code, packed.headers["content-type"].to_str().unwrap()), (200, &*answered));
    // Field 1 of the document is text: `swagger`.
    assert!(packed.body.starts_with(b"\x0a\x032.0"), "{:?}", &packed.body[..8]);
    assert!(packed.body.windows(10).any(|part| part == b"Deployment"));
    let tag = packed.headers["etag"].to_str().unwrap();
    let again = rig
        .send("GET /openapi/v2", &[&format!("accept: {media}"), &format!("if-none-match: {tag}")], "")
        .await;
    assert_eq!(again.code, 304);
    let plain = rig.get("/openapi/v2").await;
    assert_eq!(plain["swagger"], "2.0");
}
