//! Definitions, sound and broken.

use serde_json::json;

use super::*;

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"]},
            "conversion": {"strategy": "None"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "size": {"type": "integer", "default": 1, "minimum": 0},
                }}}}},
            }],
        },
        "status": {"storedVersions": ["v1"]},
    })
}

fn faults_of(judge: impl FnOnce(&mut Faults)) -> Vec<(String, String)> {
    let mut faults = Faults::default();
    judge(&mut faults);
    faults.into_causes().into_iter().map(|cause| (cause.field, cause.message)).collect()
}

/// What is wrong with a definition in the place of another, as the pipeline asks.
fn update(old: &Value, new: &Value, faults: &mut Faults) {
    judge(Some(old), new, faults);
    if old["status"] != new["status"] {
        judge_status(new, faults);
    }
}

/// A definition with one place changed, and what is wrong with it then.
fn broken(pointer: &str, value: Value) -> Vec<(String, String)> {
    let mut object = definition();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    faults_of(|faults| judge(None, &object, faults))
}

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

#[test]
fn a_sound_definition_has_no_faults() {
    assert_eq!(faults_of(|faults| judge(None, &definition(), faults)), []);
}

#[test]
fn each_fault_of_a_definition_is_named() {
    for (pointer, value, field, words) in [
        (
            "/metadata/name",
            json!("x.example.com"),
            "metadata.name",
            "must be spec.names.plural+\".\"+spec.group",
        ),
        ("/spec/scope", json!("Galaxy"), "spec.scope", "supported values: \"Cluster\", \"Namespaced\""),
        ("/spec/names/kind", json!("Wid_get"), "spec.names.kind", "DNS-1035 label"),
        (
            "/spec/names/listKind",
            json!("Widget"),
            "spec.names.listKind",
            "kind and listKind may not be the same",
        ),
        ("/spec/names/shortNames", json!(["W"]), "spec.names.shortNames[0]", "DNS-1035 label"),
        ("/spec/preserveUnknownFields", json!(true), "spec.preserveUnknownFields", "cannot set to true"),
        (
            "/spec/versions/0/storage",
            json!(false),
            "spec.versions",
            "exactly one version marked as storage version",
        ),
        (
            "/spec/versions/0/schema",
            json!({}),
            "spec.versions[0].schema.openAPIV3Schema",
            "schemas are required",
        ),
        ("/spec/conversion", json!({"strategy": "Magic"}), "spec.conversion.strategy", "supported values"),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook"}),
            "spec.conversion.webhook",
            "required when strategy is set to Webhook",
        ),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": "http://x"}}}),
            "spec.conversion.webhook.clientConfig.url",
            "'https' is the only allowed URL scheme",
        ),
        (
            "/spec/versions/0/additionalPrinterColumns",
            json!([{"name": "A", "type": "text", "jsonPath": ".a"}]),
            "spec.versions[0].additionalPrinterColumns[0].type",
            "supported values",
        ),
        (
            "/spec/versions/0/additionalPrinterColumns",
            json!([{"name": "A", "type": "string", "jsonPath": "spec["}]),
            "spec.versions[0].additionalPrinterColumns[0].jsonPath",
            "invalid json path",
        ),
        (
            "/spec/versions/0/selectableFields",
            json!([{"jsonPath": ".spec.nope"}]),
            "spec.versions[0].selectableFields[0].jsonPath",
            "does not refer to a valid field",
        ),
        (
            "/spec/versions/0/subresources",
            json!({"scale": {"specReplicasPath": ".x.size", "statusReplicasPath": ".status.n"}}),
            "spec.versions[0].subresources.scale.specReplicasPath",
            "should be a json path under .spec",
        ),
    ] {
        let found = broken(pointer, value);
        assert!(
            found.iter().any(|(place, message)| place == field && message.contains(words)),
            "{pointer}: {found:?}"
        );
    }
}

#[test]
fn each_break_of_structure_is_named() {
    let size = format!("{SCHEMA}/properties/spec/properties/size");
    let at = |rest: &str| format!("spec.versions[0].schema.openAPIV3Schema{rest}");
    for (pointer, value, field, words) in [
        (format!("{SCHEMA}/type"), json!(""), at(".type"), "must not be empty at the root"),
        (format!("{SCHEMA}/type"), json!("array"), at(".type"), "must be object at the root"),
        (
            size.clone(),
            json!({}),
            at(".properties[spec].properties[size].type"),
            "must not be empty for specified object fields",
        ),
        (
            size.clone(),
            json!({"type": "array"}),
            at(".properties[spec].properties[size].items"),
            "must be specified",
        ),
        (
            size.clone(),
            json!({"type": "array", "items": {}}),
            at(".properties[spec].properties[size].items.type"),
            "for specified array items",
        ),
        (
            size.clone(),
            json!({"type": "text"}),
            at(".properties[spec].properties[size].type"),
            "supported values",
        ),
        (
            size.clone(),
            json!({"type": "string", "uniqueItems": true}),
            at(".properties[spec].properties[size].uniqueItems"),
            "cannot be set to true",
        ),
        (
            size.clone(),
            json!({"$ref": "#/x", "type": "string"}),
            at(".properties[spec].properties[size].$ref"),
            "$ref is not supported",
        ),
        (
            size.clone(),
            json!({"type": "integer", "x-kubernetes-int-or-string": true}),
            at(".properties[spec].properties[size].type"),
            "must be empty if",
        ),
        (
            size.clone(),
            json!({"type": "string", "pattern": "("}),
            at(".properties[spec].properties[size].pattern"),
            "valid regular expression",
        ),
        (
            size.clone(),
            json!({"type": "string", "anyOf": [{"type": "string"}]}),
            at(".properties[spec].properties[size].anyOf[0].type"),
            "to be structural",
        ),
        (
            size.clone(),
            json!({"type": "object", "anyOf": [{"properties": {"x": {}}}]}),
            at(".properties[spec].properties[size].anyOf[0].properties[x]"),
            "must be defined in the structural part",
        ),
        (
            size.clone(),
            json!({"type": "integer", "default": "x"}),
            at(".properties[spec].properties[size].default"),
            "must be of type integer",
        ),
        (
            size.clone(),
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            at(".properties[spec].properties[size].additionalProperties"),
            "mutual exclusive",
        ),
        (
            size.clone(),
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
            at(".properties[spec].properties[size].x-kubernetes-list-map-keys"),
            "must not be empty",
        ),
        (
            size.clone(),
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
            at(".properties[spec].properties[size].x-kubernetes-list-type"),
            "scalar or atomic",
        ),
        (
            size.clone(),
            json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self.x > 1"}]}),
            at(".properties[spec].properties[size].x-kubernetes-validations[0].rule"),
            "compilation failed",
        ),
        (
            size.clone(),
            json!({"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > oldSelf"}]}}),
            at(".properties[spec].properties[size].items.x-kubernetes-validations[0].rule"),
            "uncorrelatable",
        ),
        (
            format!("{SCHEMA}/properties/metadata"),
            json!({"type": "object", "properties": {"labels": {"type": "object"}}}),
            at(".properties[metadata]"),
            "name and generateName",
        ),
    ] {
        let found = broken(&pointer, value);
        assert!(
            found.iter().any(|(place, message)| *place == field && message.contains(words)),
            "{pointer} {field} {words}: {found:?}"
        );
    }
}

#[test]
fn protected_groups_need_approval() {
    let mut object = definition();
    object["spec"]["group"] = json!("widgets.k8s.io");
    object["metadata"]["name"] = json!("widgets.widgets.k8s.io");
    let found = faults_of(|faults| judge(None, &object, faults));
    assert_eq!(found[0].0, "metadata.annotations[api-approved.kubernetes.io]");
    object["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, an experiment"});
    assert_eq!(faults_of(|faults| judge(None, &object, faults)), []);
}

#[test]
fn some_of_a_definition_never_changes() {
    let mut old = definition();
    let mut new = definition();
    new["spec"]["scope"] = json!("Cluster");
    assert_eq!(
        faults_of(|faults| update(&old, &new, faults)),
        [],
        "nothing relies on it before it is established"
    );
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let found = faults_of(|faults| update(&old, &new, faults));
    assert_eq!(
        found,
        [("spec.scope".to_owned(), "Invalid value: \"Cluster\": field is immutable".to_owned())]
    );
}

#[test]
fn a_version_that_objects_are_stored_in_stays() {
    let old = definition();
    let mut new = definition();
    new["spec"]["versions"][0]["name"] = json!("v2");
    new["status"]["storedVersions"] = json!(["v1", "v2"]);
    let found = faults_of(|faults| update(&old, &new, faults));
    assert_eq!(
        found,
        [(
            "status.storedVersions[0]".to_owned(),
            "Invalid value: \"v1\": must appear in spec.versions".to_owned()
        )]
    );
}
