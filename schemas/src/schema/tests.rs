//! The schema engine on the schemas of served kinds.

use serde_json::{Value, json};

use super::*;
use crate::Registry;

fn with_schema<T>(api_version: &str, kind: &str, use_it: impl FnOnce(&Schema) -> T) -> T {
    use_it(Registry::builtin().kind(api_version, kind).unwrap().compiled())
}

fn pod(object: &Value) -> Report {
    with_schema("v1", "Pod", |schema| schema.check(object))
}

#[test]
fn a_sound_object_has_no_faults() {
    let report = with_schema("apps/v1", "Deployment", |schema| {
        schema.check(&json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "web",
                "labels": {"a": "b"},
                "creationTimestamp": null,
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"f:anything": {}}}}],
            },
            "spec": {
                "replicas": 2,
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}},
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [{
                    "name": "c",
                    "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": 0.5}},
                    "livenessProbe": {"httpGet": {"port": "web"}},
                    "readinessProbe": {"httpGet": {"port": 80}},
                }]}},
            },
            "status": {},
        }))
    });
    assert_eq!(report, Report::default());
}

#[test]
fn unknown_fields_are_named_by_their_exact_path() {
    let report = pod(&json!({
        "spce": {},
        "spec": {"containers": [{"name": "a"}, {"name": "b", "imagee": "x", "env": [{"nmae": null}]}]},
        "metadata": {"labels": {"anything.goes/here": "x"}},
    }));
    let mut unknown = report.unknown;
    unknown.sort();
    assert_eq!(unknown, ["spce", "spec.containers[1].env[0].nmae", "spec.containers[1].imagee"]);
    assert!(report.errors.is_empty());
}

#[test]
fn wrong_types_are_named_by_path_value_and_demand() {
    for (object, field, message) in [
        (
            json!({"spec": {"containers": [{"name": 7}]}}),
            "spec.containers[0].name",
            "Invalid value: 7: must be a string",
        ),
        (json!({"spec": {"containers": {}}}), "spec.containers", "Invalid value: object: must be a list"),
        (json!({"spec": []}), "spec", "Invalid value: list: must be an object"),
        (
            json!({"spec": {"hostNetwork": "yes"}}),
            "spec.hostNetwork",
            "Invalid value: \"yes\": must be true or false",
        ),
        (
            json!({"spec": {"priority": 4_000_000_000_u32}}),
            "spec.priority",
            "Invalid value: 4000000000: must be an integer of 32 bits",
        ),
        (
            json!({"spec": {"priority": 1.5}}),
            "spec.priority",
            "Invalid value: 1.5: must be an integer of 32 bits",
        ),
        (
            json!({"metadata": {"labels": {"a": true}}}),
            "metadata.labels.a",
            "Invalid value: true: must be a string",
        ),
        (
            json!({"metadata": {"creationTimestamp": "yesterday"}}),
            "metadata.creationTimestamp",
            "Invalid value: \"yesterday\": must be a time as in RFC 3339, such as 2006-01-02T15:04:05Z",
        ),
    ] {
        let report = pod(&object);
        let found: Vec<_> = report.errors.iter().map(|c| (c.field.as_str(), c.message.as_str())).collect();
        assert_eq!(found, [(field, message)], "{object}");
    }
}

#[test]
fn quantities_and_base64_are_checked() {
    for (cpu, sound) in [
        (json!("500m"), true),
        (json!(2), true),
        (json!(0.1), true),
        (json!("fast"), false),
        (json!(true), false),
    ] {
        let report = pod(&json!({"spec": {"containers": [{"resources": {"limits": {"cpu": cpu}}}]}}));
        assert_eq!(report.errors.is_empty(), sound, "{cpu}");
    }
    for (data, sound) in
        [("", true), ("aGk=", true), ("aGk", false), ("a*k=", false), ("====", false), ("aGVsbG8=", true)]
    {
        let report = with_schema("v1", "Secret", |schema| schema.check(&json!({"data": {"k": data}})));
        assert_eq!(report.errors.is_empty(), sound, "{data}");
    }
}

#[test]
fn faults_of_one_object_are_bounded() {
    let fields: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("x{n}"), json!(1))).collect();
    assert_eq!(pod(&Value::Object(fields)).unknown.len(), 50);
}

#[test]
fn normalizing_drops_what_is_unknown_or_null_and_writes_quantities_one_way() {
    let mut object = json!({
        "spce": {},
        "metadata": {"creationTimestamp": null, "labels": {"a": null, "b": "c"}},
        "spec": {
            "nodeName": null,
            "containers": [
                {"name": "c", "imagee": "x", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "nvidia.com/gpu": 1}}},
            ],
        },
    });
    with_schema("v1", "Pod", |schema| schema.normalize(&mut object));
    assert_eq!(
        object,
        json!({
            "metadata": {"labels": {"a": "", "b": "c"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "1"}}}]},
        })
    );
}

#[test]
fn times_are_stored_as_upstream_stores_them() {
    let mut lease = json!({
        "metadata": {"creationTimestamp": "2026-01-02T03:04:05.678+01:00"},
        "spec": {"acquireTime": "2026-01-02T03:04:05Z", "renewTime": "2026-01-02T03:04:05.1234567+01:00"},
    });
    with_schema("coordination.k8s.io/v1", "Lease", |schema| {
        assert_eq!(schema.check(&lease), Report::default());
        schema.normalize(&mut lease);
    });
    assert_eq!(lease["metadata"]["creationTimestamp"], "2026-01-02T02:04:05Z");
    assert_eq!(lease["spec"]["acquireTime"], "2026-01-02T03:04:05.000000Z");
    assert_eq!(lease["spec"]["renewTime"], "2026-01-02T02:04:05.123456Z");
}

#[test]
fn a_normalized_object_decodes_as_the_typed_kind() {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "creationTimestamp": "2026-01-02T03:04:05Z", "annotations": {"a": null}},
        "spec": {
            "containers": [null, {"name": "c", "args": [null], "resources": {"requests": {"cpu": 2}}}],
            "tolerations": [{"tolerationSeconds": 300}],
        },
    });
    with_schema("v1", "Pod", |schema| {
        assert!(schema.check(&object).errors.is_empty());
        schema.normalize(&mut object);
    });
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(object).unwrap();
    assert_eq!(pod.spec.unwrap().containers.len(), 2);
}

#[test]
fn places_know_how_lists_are_merged() {
    with_schema("apps/v1", "Deployment", |schema| {
        let pod_spec = ["spec", "template", "spec"]
            .into_iter()
            .fold(schema.root(), |place, name| place.field(name).unwrap());
        let containers = pod_spec.field("containers").unwrap();
        assert_eq!(containers.rule().unwrap().merge_key, Some("name"));
        let ports = containers.items().unwrap().field("ports").unwrap();
        assert_eq!(ports.rule().unwrap().list, Some(ListType::Map(&["containerPort", "protocol"])));
        assert!(schema.root().field("spec").unwrap().field("strategy").unwrap().rule().unwrap().retain_keys);
        assert!(schema.root().field("nonsense").is_none());
    });
}

#[test]
fn every_served_kind_compiles_to_a_structure_with_metadata() {
    for kind in crate::kinds::all() {
        let name = kind.compiled().root().field("metadata").and_then(|place| place.field("name"));
        assert_eq!(name.and_then(Place::scalar), Some(Scalar::String), "{}", kind.kind);
    }
}
