//! Patches against targets, by the documented semantics of each format.

use std::sync::LazyLock;

use claw_schemas::Registry;
use serde_json::json;

use super::*;

/// One for all tests, so that each schema is compiled once.
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

fn strategic_on(api_version: &str, kind: &str, target: &Value, patch: &Value) -> Result<Value, ApiError> {
    let registry = &*REGISTRY;
    let schema = registry.kind(api_version, kind).unwrap().compiled();
    apply(PatchKind::Strategic, target, patch.to_string().as_bytes(), Some(schema))
}

fn pod(containers: &Value) -> Value {
    json!({"spec": {"containers": containers}})
}

/// (what, target, patch, result), on a Pod.
fn pod_cases() -> Vec<(&'static str, Value, Value, Value)> {
    vec![
        (
            "containers merge by name",
            pod(&json!([{"name": "a", "image": "a:1", "tty": true}, {"name": "b", "image": "b:1"}])),
            pod(&json!([{"name": "a", "image": "a:2"}])),
            pod(&json!([{"name": "a", "image": "a:2", "tty": true}, {"name": "b", "image": "b:1"}])),
        ),
        (
            "a new container comes first, as upstream documents it",
            pod(&json!([{"name": "a"}])),
            pod(&json!([{"name": "b", "image": "b:1"}])),
            pod(&json!([{"name": "b", "image": "b:1"}, {"name": "a"}])),
        ),
        (
            "an item is deleted by directive",
            pod(&json!([{"name": "a"}, {"name": "b"}])),
            pod(&json!([{"$patch": "delete", "name": "a"}])),
            pod(&json!([{"name": "b"}])),
        ),
        (
            "deleting an item that is not there changes nothing",
            pod(&json!([{"name": "a"}])),
            pod(&json!([{"$patch": "delete", "name": "x"}])),
            pod(&json!([{"name": "a"}])),
        ),
        (
            "a list is replaced by directive",
            pod(&json!([{"name": "a", "image": "a:1"}, {"name": "b"}])),
            pod(&json!([{"name": "c", "image": "c:1", "tty": null}, {"$patch": "replace"}])),
            pod(&json!([{"name": "c", "image": "c:1"}])),
        ),
        (
            "an object is replaced by directive",
            json!({"spec": {"securityContext": {"runAsUser": 1, "runAsGroup": 2}}}),
            json!({"spec": {"securityContext": {"$patch": "replace", "runAsUser": 3}}}),
            json!({"spec": {"securityContext": {"runAsUser": 3}}}),
        ),
        (
            "an object is emptied by directive",
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {}}}),
        ),
        (
            "null removes",
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeName": "n"}}),
            json!({"metadata": {"labels": {"a": null}}, "spec": {"nodeName": null, "hostname": null}}),
            json!({"metadata": {"labels": {"b": "2"}}, "spec": {}}),
        ),
        (
            "lists without a merge key are replaced",
            json!({"spec": {"containers": [{"name": "a", "args": ["x", "y"]}], "tolerations": [{"key": "a"}]}}),
            json!({"spec": {"containers": [{"name": "a", "args": ["z"]}], "tolerations": [{"key": "b"}]}}),
            json!({"spec": {"containers": [{"name": "a", "args": ["z"]}], "tolerations": [{"key": "b"}]}}),
        ),
        (
            "values of a primitive list are added once and deleted by directive",
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            json!({"metadata": {
                "$deleteFromPrimitiveList/finalizers": ["b"],
                "$setElementOrder/finalizers": ["a", "c", "d"],
                "finalizers": ["d"],
            }}),
            json!({"metadata": {"finalizers": ["a", "c", "d"]}}),
        ),
        (
            "the order of the patch rules, others stay where the server had them",
            pod(&json!([{"name": "injected"}, {"name": "a"}, {"name": "b"}])),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "b:2"}]}}),
            pod(&json!([{"name": "injected"}, {"name": "b", "image": "b:2"}, {"name": "a"}])),
        ),
        (
            "an order alone sorts",
            pod(&json!([{"name": "a"}, {"name": "b"}])),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            pod(&json!([{"name": "b"}, {"name": "a"}])),
        ),
        (
            "a volume that changes its source keeps only what the patch retains",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}, {"name": "w", "emptyDir": {}}]}}),
        ),
        (
            "ports that share a number are told apart by protocol",
            pod(
                &json!([{"name": "a", "ports": [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]}]),
            ),
            pod(&json!([{"name": "a", "ports": [{"containerPort": 53, "protocol": "UDP", "name": "dns"}]}])),
            pod(
                &json!([{"name": "a", "ports": [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP", "name": "dns"}]}]),
            ),
        ),
        (
            "merging is what happens without a directive too",
            json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}}),
            json!({
                "metadata": {"labels": {"$patch": "merge", "b": "2"}},
                "spec": {"containers": [{"$patch": "merge", "name": "a", "tty": true}]},
            }),
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [{"name": "a", "image": "a:1", "tty": true}]}}),
        ),
        (
            "every item with the key goes when it is deleted",
            pod(
                &json!([{"name": "a", "ports": [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]}]),
            ),
            pod(&json!([{"name": "a", "ports": [{"$patch": "delete", "containerPort": 53}]}])),
            pod(&json!([{"name": "a", "ports": [{"containerPort": 80}]}])),
        ),
        (
            "what is not there needs no deleting",
            json!({"metadata": {}}),
            json!({"metadata": {
                "$deleteFromPrimitiveList/finalizers": ["a/b"],
                "labels": {"$patch": "delete"},
                "ownerReferences": [{"$patch": "delete", "uid": "u"}],
            }}),
            json!({"metadata": {"labels": {}, "ownerReferences": []}}),
        ),
        (
            "an item is replaced within its list",
            pod(
                &json!([{"name": "a", "image": "a:1", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}]),
            ),
            pod(&json!([{"name": "a", "resources": {"$patch": "replace", "limits": {"cpu": "2"}}}])),
            pod(&json!([{"name": "a", "image": "a:1", "resources": {"limits": {"cpu": "2"}}}])),
        ),
        (
            "nothing of a directive is stored where there is nothing to merge with",
            json!({}),
            json!({"metadata": {"labels": {"a": "1", "b": null}}, "spec": {
                "$setElementOrder/containers": [{"name": "a"}],
                "containers": [{"name": "a", "env": [{"name": "X", "value": "1", "valueFrom": null}, {"$patch": "delete", "name": "Y"}]}],
            }}),
            json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]}}),
        ),
    ]
}

#[test]
fn strategic_patches_do_what_their_documentation_says() {
    for (what, target, patch, expected) in pod_cases() {
        assert_eq!(strategic_on("v1", "Pod", &target, &patch).unwrap(), expected, "{what}");
    }
}

#[test]
fn applying_a_strategic_patch_twice_changes_nothing_more() {
    for (what, target, patch, expected) in pod_cases() {
        if what.contains("new container") {
            continue; // the second time the container is not new, and keeps its place anyway
        }
        let once = strategic_on("v1", "Pod", &target, &patch).unwrap();
        assert_eq!(strategic_on("v1", "Pod", &once, &patch).unwrap(), expected, "{what}");
    }
}

/// What kubectl sends when a manifest changes an image, drops a container, changes and drops environment variables,
/// and switches the strategy.
#[test]
fn a_client_side_apply_of_a_deployment_comes_out_right() {
    let live = json!({
        "metadata": {"annotations": {"deployment.kubernetes.io/revision": "3"}},
        "spec": {
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"spec": {"restartPolicy": "Always", "containers": [
                {"name": "web", "image": "web:1", "imagePullPolicy": "IfNotPresent",
                 "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "side", "image": "side:1"},
            ]}},
        },
    });
    let patch = json!({
        "spec": {
            "strategy": {"$retainKeys": ["type"], "rollingUpdate": null, "type": "Recreate"},
            "template": {"spec": {
                "$setElementOrder/containers": [{"name": "web"}],
                "containers": [
                    {"name": "web", "image": "web:2",
                     "$setElementOrder/env": [{"name": "A"}, {"name": "C"}],
                     "env": [{"name": "A", "value": "9"}, {"name": "C", "value": "3"}, {"$patch": "delete", "name": "B"}]},
                    {"$patch": "delete", "name": "side"},
                ],
            }},
        },
    });
    let expected = json!({
        "metadata": {"annotations": {"deployment.kubernetes.io/revision": "3"}},
        "spec": {
            "strategy": {"type": "Recreate"},
            "template": {"spec": {"restartPolicy": "Always", "containers": [
                {"name": "web", "image": "web:2", "imagePullPolicy": "IfNotPresent",
                 "env": [{"name": "A", "value": "9"}, {"name": "C", "value": "3"}]},
            ]}},
        },
    });
    let once = strategic_on("apps/v1", "Deployment", &live, &patch).unwrap();
    assert_eq!(once, expected);
    assert_eq!(strategic_on("apps/v1", "Deployment", &once, &patch).unwrap(), expected);
}

#[test]
fn malformed_strategic_patches_are_refused_with_the_reason() {
    let target = pod(&json!([{"name": "a"}, {"name": "b"}]));
    for (patch, reason) in [
        (json!([1]), "must be a JSON object"),
        (pod(&json!([{"image": "x"}])), "merge key \"name\""),
        (pod(&json!(["a"])), "merge key \"name\""),
        (pod(&json!([{"name": "a", "$patch": "explode"}])), "unknown patch type"),
        (json!({"spec": {"$retainKeys": "all"}}), "$retainKeys"),
        (json!({"spec": {"$setElementOrder/containers": 1}}), "must be a list"),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b"}, {"name": "a"}]}}),
            "$setElementOrder",
        ),
        (json!({"metadata": {"finalizers": [{}]}}), "plain values"),
    ] {
        let error = strategic_on("v1", "Pod", &target, &patch).unwrap_err();
        assert_eq!(error.code, 400, "{patch}");
        assert!(error.message.contains(reason), "{patch}: {}", error.message);
    }
}

#[test]
fn a_patch_that_sets_what_it_does_not_retain_is_invalid() {
    let patch = json!({"spec": {"$retainKeys": ["hostname"], "hostname": "h", "nodeName": "n"}});
    let error = strategic_on("v1", "Pod", &pod(&json!([])), &patch).unwrap_err();
    assert_eq!((error.code, error.reason), (422, Reason::Invalid));
    assert!(error.message.contains("nodeName"), "{error}");
}

#[test]
fn merge_patches_follow_rfc_7386() {
    for (target, patch, expected) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        let result = apply(PatchKind::Merge, &target, patch.to_string().as_bytes(), None).unwrap();
        assert_eq!(result, expected, "{target} {patch}");
    }
}

fn json_on(target: &Value, patch: &Value) -> Result<Value, ApiError> {
    apply(PatchKind::Json, target, patch.to_string().as_bytes(), None)
}

#[test]
fn json_patches_do_all_or_nothing() {
    let target = json!({"spec": {"replicas": 1, "list": ["a"]}});
    let patch = json!([
        {"op": "test", "path": "/spec/replicas", "value": 1},
        {"op": "replace", "path": "/spec/replicas", "value": 3},
        {"op": "add", "path": "/spec/list/-", "value": "b"},
        {"op": "copy", "from": "/spec/list", "path": "/copied"},
        {"op": "remove", "path": "/spec/list/0"},
    ]);
    assert_eq!(
        json_on(&target, &patch).unwrap(),
        json!({"spec": {"replicas": 3, "list": ["b"]}, "copied": ["a", "b"]})
    );
    let failing = json!([
        {"op": "replace", "path": "/spec/replicas", "value": 3},
        {"op": "test", "path": "/spec/replicas", "value": 1},
    ]);
    let error = json_on(&target, &failing).unwrap_err();
    assert_eq!((error.code, error.reason), (422, Reason::Invalid));
    let absent = json!([{"op": "remove", "path": "/nowhere"}]);
    assert_eq!(json_on(&target, &absent).unwrap_err().code, 422);
}

#[test]
fn a_test_for_null_holds_where_there_is_nothing() {
    let absent =
        json!([{"op": "test", "path": "/a/b", "value": null}, {"op": "add", "path": "/c", "value": 1}]);
    assert_eq!(json_on(&json!({"a": {}}), &absent).unwrap(), json!({"a": {}, "c": 1}));
    assert_eq!(json_on(&json!({"a": {"b": 1}}), &absent).unwrap_err().reason, Reason::Invalid);
}

#[test]
fn malformed_json_patches_are_bad_requests() {
    let target = json!({});
    for patch in [json!({}), json!([{"op": "explode", "path": "/a"}]), json!([{"op": "add"}])] {
        assert_eq!(json_on(&target, &patch).unwrap_err().code, 400, "{patch}");
    }
    assert_eq!(apply(PatchKind::Json, &target, b"[", None).unwrap_err().code, 400);
}

#[test]
fn a_small_patch_cannot_make_a_huge_or_bottomless_object() {
    let many: Vec<Value> =
        (0..=OPERATIONS_MAX).map(|_| json!({"op": "test", "path": "", "value": {}})).collect();
    assert_eq!(json_on(&json!({}), &json!(many)).unwrap_err().code, 413);

    let doubling: Vec<Value> =
        (0..64).map(|n| json!({"op": "copy", "from": "", "path": format!("/{n}")})).collect();
    assert_eq!(json_on(&json!({"a": "x".repeat(1000)}), &json!(doubling)).unwrap_err().code, 413);

    let mut path = String::new();
    let nesting: Vec<Value> = (0..200)
        .map(|_| {
            path.push_str("/a");
            json!({"op": "add", "path": path, "value": {}})
        })
        .collect();
    assert_eq!(json_on(&json!({}), &json!(nesting)).unwrap_err().code, 400);
}

#[test]
fn formats_that_are_not_served_name_the_ones_that_are() {
    let error = apply(PatchKind::Strategic, &json!({}), b"{}", None).unwrap_err();
    assert_eq!(error.code, 415);
    assert!(error.message.contains("application/merge-patch+json"));
    assert!(!error.message.contains("strategic"));
    assert_eq!(apply(PatchKind::Apply, &json!({}), b"{}", None).unwrap_err().code, 415);
}

#[test]
fn a_merge_of_endless_lists_is_refused_instead_of_compared() {
    let finalizers = |count: usize| -> Value {
        let names: Vec<String> = (0..count).map(|place| format!("example.com/{place}")).collect();
        json!({"metadata": {"finalizers": names}})
    };
    let error = strategic_on("v1", "ConfigMap", &finalizers(1), &finalizers(100_000)).unwrap_err();
    assert_eq!(error.reason, Reason::RequestEntityTooLarge);
    assert!(error.message.contains("send a merge patch"), "{error}");
    assert!(strategic_on("v1", "ConfigMap", &finalizers(100_000), &finalizers(1000)).is_err());
    assert!(strategic_on("v1", "ConfigMap", &finalizers(200), &finalizers(200)).is_ok());
}

#[test]
fn a_json_patch_that_would_keep_a_core_busy_is_refused() {
    let target = json!({"x": vec![0; 200_000], "y": {"z": vec![0; 200_000]}});
    let many = |operation: Value| {
        let patch = Value::from(vec![operation; 1_000]).to_string();
        apply(PatchKind::Json, &target, patch.as_bytes(), None)
    };
    for operation in [
        json!({"op": "add", "path": "/x/0", "value": 0}),
        json!({"op": "remove", "path": "/x/0"}),
        json!({"op": "move", "from": "/x/1", "path": "/x/0"}),
        json!({"op": "move", "from": "/y", "path": "/y"}),
    ] {
        let error = many(operation.clone()).expect_err(&operation.to_string());
        assert_eq!(error.code, 413, "{operation}: {error}");
        assert!(error.message.contains("send fewer operations at a time"), "{error}");
    }
    for operation in [
        json!({"op": "replace", "path": "/x/0", "value": 1}),
        json!({"op": "add", "path": "/y/a", "value": 1}),
        json!({"op": "test", "path": "/x/0", "value": 0}),
    ] {
        many(operation.clone()).unwrap_or_else(|error| panic!("{operation}: {error}"));
    }
}
