//! The documents, held against what clients look for in them.

use std::collections::BTreeSet;

use super::*;

fn openapi() -> OpenApi {
    OpenApi::new(Arc::new(Registry::builtin()))
}

fn v3(group: &str, version: &str) -> Value {
    serde_json::from_slice(&openapi().group_version(group, version).unwrap().body).unwrap()
}

/// Every `$ref` in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "$ref") {
                    Some(reference) => drop(found.insert(reference.to_owned())),
                    None => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_a_type() {
    let v2: Value = serde_json::from_slice(&openapi().v2_json().body).unwrap();
    for document in
        [v2, v3("", "v1"), v3("apps", "v1"), v3("coordination.k8s.io", "v1"), v3("clawbernetes.io", "v1")]
    {
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 5);
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}

#[test]
fn the_index_names_each_group_version_with_the_hash_of_its_document() {
    let openapi = openapi();
    let index = openapi.index();
    let paths: Vec<_> = index["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths[..4],
        ["api/v1", "apis/admissionregistration.k8s.io/v1", "apis/apiextensions.k8s.io/v1", "apis/apps/v1",]
    );
    assert_eq!(paths.len(), 20);
    let hash = openapi.group_version("apps", "v1").unwrap().hash;
    assert_eq!(
        index["paths"]["apis/apps/v1"]["serverRelativeURL"],
        format!("/openapi/v3/apis/apps/v1?hash={hash}")
    );
    assert!(openapi.group_version("apps", "v1beta1").is_none());
}

#[test]
fn operations_say_what_they_accept() {
    let document = v3("apps", "v1");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<_> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["pretty", "dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
}

#[test]
fn operation_ids_are_unique() {
    let v2: Value = serde_json::from_slice(&openapi().v2_json().body).unwrap();
    let mut seen = BTreeSet::new();
    for (path, item) in v2["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values().filter(|value| value.is_object()) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(seen.insert(id.to_owned()), "{id} again at {path}");
        }
    }
}

#[test]
fn types_carry_their_kind_and_their_merge_rules() {
    let document = v3("apps", "v1");
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    assert_eq!(
        deployment["properties"]["spec"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(
        schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"]["x-kubernetes-map-type"],
        "atomic"
    );
}

#[test]
fn kinds_of_our_own_are_told_like_those_of_kubernetes() {
    let document = v3("clawbernetes.io", "v1");
    let schemas = &document["components"]["schemas"];
    let job = &schemas["io.clawbernetes.v1.KernelJob"];
    assert_eq!(
        job["x-kubernetes-group-version-kind"],
        json!([{"group": "clawbernetes.io", "version": "v1", "kind": "KernelJob"}])
    );
    assert!(job["description"].as_str().unwrap().starts_with("A graph of tensor operations"), "{job}");
    let spec = &schemas["io.clawbernetes.v1.KernelJobSpec"]["properties"];
    assert_eq!(spec["runs"]["type"], "integer", "what may be absent is no alternative");
    assert_eq!(spec["device"]["allOf"][0]["$ref"], "#/components/schemas/io.clawbernetes.v1.KernelDevice");
    assert_eq!(spec["volumes"]["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(spec["operations"]["x-kubernetes-list-type"], "atomic");
    let operation = &schemas["io.clawbernetes.v1.Operation"];
    assert_eq!(operation["required"], json!(["name", "op"]));
    assert_eq!(operation.get("additionalProperties"), None);
    assert_eq!(operation["properties"]["axis"]["type"], "integer");
}

#[test]
fn int_or_string_and_quantities_are_written_in_each_dialect() {
    let (int, quantity) =
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "io.k8s.apimachinery.pkg.api.resource.Quantity");
    let v2: Value = serde_json::from_slice(&openapi().v2_json().body).unwrap();
    assert_eq!(v2["definitions"][int]["type"], "string");
    assert_eq!(v2["definitions"][int]["format"], "int-or-string");
    assert_eq!(v2["definitions"][quantity]["type"], "string");
    let document = v3("apps", "v1");
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas[int]["oneOf"], json!([{"type": "integer"}, {"type": "string"}]));
    assert_eq!(schemas[quantity]["oneOf"], json!([{"type": "string"}, {"type": "number"}]));
    assert!(schemas[quantity].get("format").is_none());
}

#[test]
fn documents_are_the_same_every_time() {
    assert_eq!(openapi().v2_protobuf().hash, openapi().v2_protobuf().hash);
    assert_ne!(openapi().v2_protobuf().hash, openapi().v2_json().hash);
}

#[test]
fn both_spellings_of_the_protobuf_form_are_understood() {
    assert!(asks_for_protobuf("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"));
    assert!(asks_for_protobuf(
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf, application/json"
    ));
    assert!(!asks_for_protobuf("application/json"));
}

/// A registry with a kind that arrived at run time.
fn with_widgets(registry: &Registry) -> Registry {
    use crate::{
        columns::{name_and_age, name_and_age_cells},
        registry::{Cells, SchemaSource, Scope},
        schema::Compiled,
    };
    let schema = json!({"type": "object", "required": ["spec"], "description": "A thing that turns.", "properties": {
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer", "nullable": true, "default": 1},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
        }},
    }});
    let mut registry = registry.clone();
    registry.insert(Descriptor {
        group: "example.com".into(),
        version: "v1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
        singular: "widget".into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope: Scope::Namespaced,
        subresources: Vec::new(),
        selectable_fields: Vec::new(),
        columns: name_and_age(),
        cells: Cells::Builtin(name_and_age_cells),
        cells_read: Vec::new(),
        schema: SchemaSource::Custom(Arc::new(schema)),
        compiled: Compiled::default(),
        has_generation: true,
        builtin: false,
        stored_as: None,
    });
    registry
}

#[test]
fn a_kind_that_comes_changes_only_the_document_of_its_group() {
    let before = openapi();
    let index = before.index();
    let registry = Arc::new(with_widgets(before.registry()));
    let after = before.renewed(Arc::clone(&registry));
    assert_eq!(
        after.index(),
        OpenApi::new(registry).index(),
        "what is taken over is what would be worked out"
    );
    let mut paths = after.index()["paths"].clone();
    let added = paths.as_object_mut().unwrap().remove("apis/example.com/v1");
    assert!(added.is_some());
    assert_eq!(paths, index["paths"]);
    let gone = after.renewed(Arc::clone(before.registry()));
    assert_eq!(gone.index(), index);
}

#[test]
fn a_custom_kind_is_described_like_any_other_in_both_dialects() {
    let openapi = OpenApi::new(Arc::new(with_widgets(&Registry::builtin())));
    let v3: Value =
        serde_json::from_slice(&openapi.group_version("example.com", "v1").unwrap().body).unwrap();
    let v2: Value = serde_json::from_slice(&openapi.v2_json().body).unwrap();
    for (document, types) in [(&v3, "/components/schemas"), (&v2, "/definitions")] {
        let types = document.pointer(types).unwrap();
        let widget = &types["com.example.v1.Widget"];
        assert_eq!(widget["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
        assert_eq!(widget["required"], json!(["spec"]));
        assert!(widget["properties"]["metadata"].to_string().contains("ObjectMeta"));
        assert!(types["com.example.v1.WidgetList"].is_object());
        let mut found = BTreeSet::new();
        references(document, &mut found);
        assert!(found.iter().all(|reference| document.pointer(reference.trim_start_matches('#')).is_some()));
    }
    let field = |document: &Value, types: &str, name: &str| {
        document.pointer(types).unwrap()["com.example.v1.Widget"]["properties"]["spec"]["properties"][name]
            .clone()
    };
    let (v3_types, v2_types) = ("/components/schemas", "/definitions");
    assert!(field(&v3, v3_types, "free")["properties"].is_object());
    assert!(
        field(&v2, v2_types, "free").get("properties").is_none(),
        "old clients would refuse what is not named"
    );
    assert_eq!(field(&v3, v3_types, "size")["nullable"], true);
    assert_eq!(field(&v2, v2_types, "size").get("nullable"), None);
}
