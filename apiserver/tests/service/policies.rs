//! Admission policies in CEL, and the bindings that put them into force.

use claw_apiserver::auth::Identity;
use claw_client::{
    Request, ResourceRef, Verb,
    request::{DeleteOptions, View, WriteOptions},
};
use claw_schemas::{ApiError, status::Reason};
use serde_json::{Value, json};

use crate::{
    custom::define,
    world::{World, configmaps, deployment, deployments, namespaces, world},
};

fn policies() -> ResourceRef {
    ResourceRef::collection("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies")
}

fn bindings() -> ResourceRef {
    ResourceRef::collection("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings")
}

/// A policy about ConfigMaps, unless `spec` says otherwise.
fn policy(name: &str, spec: &Value) -> Value {
    let rule = json!({"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
    let mut whole = json!({"matchConstraints": {"resourceRules": [rule]}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": whole})
}

fn binding(policy: &str, spec: &Value) -> Value {
    let mut whole = json!({"policyName": policy, "validationActions": ["Deny"]});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({"metadata": {"name": format!("{policy}-binding")}, "spec": whole})
}

/// A world in which a policy is in force.
async fn ruled_by(spec: &Value, bound: &Value) -> World {
    let world = world().await;
    world.create(policies(), &policy("p", spec)).await.unwrap();
    world.create(bindings(), &binding("p", bound)).await.unwrap();
    world
}

fn configmap(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": value}})
}

fn validation(expression: &str) -> Value {
    json!({"validations": [{"expression": expression}]})
}

#[tokio::test]
async fn a_policy_refuses_what_does_not_comply_once_a_binding_puts_it_into_force() {
    let world = world().await;
    let spec = json!({"validations": [
        {"expression": "object.data.k != 'bad'", "messageExpression": "'k must not be ' + object.data.k"},
        {"expression": "object.data.k != 'worse'", "message": "not this", "reason": "Forbidden"},
    ]});
    world.create(policies(), &policy("p", &spec)).await.unwrap();
    world.create(configmaps(), &configmap("before", "bad")).await.unwrap();
    world.create(bindings(), &binding("p", &json!({}))).await.unwrap();
    let error = world.create(configmaps(), &configmap("a", "bad")).await.unwrap_err();
    let said = "ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: k must not be bad";
    assert_eq!((error.code, error.reason), (422, Reason::Invalid));
    assert_eq!(error.message, format!("configmaps \"a\" is forbidden: {said}"));
    assert_eq!(error.details.causes[0].message, said);
    let error = world.create(configmaps(), &configmap("a", "worse")).await.unwrap_err();
    assert!(error.code == 403 && error.message.ends_with("denied request: not this"), "{error}");
    world.create(configmaps(), &configmap("a", "good")).await.unwrap();
    // Changes count, whoever makes them and how.
    let patched = world.merge(configmaps().named("a"), &json!({"data": {"k": "bad"}})).await;
    assert_eq!(patched.unwrap_err().code, 422);
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "bad"}});
    assert_eq!(world.apply(configmaps().named("a"), "m", &config, true).await.unwrap_err().code, 422);
    world.delete(bindings().named("p-binding"), DeleteOptions::default()).await.unwrap();
    world.merge(configmaps().named("a"), &json!({"data": {"k": "bad"}})).await.unwrap();
}

#[tokio::test]
async fn a_binding_may_only_warn_and_narrow() {
    let narrowed = json!({
        "validationActions": ["Warn", "Audit"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}},
    });
    let world = ruled_by(&validation("object.data.k == 'good'"), &narrowed).await;
    world.create(namespaces(), &json!({"metadata": {"name": "n"}})).await.unwrap();
    let warnings = async |resource: ResourceRef| {
        let body = configmap("a", "bad").to_string().into();
        let verb = Verb::Create { body, options: WriteOptions::default() };
        world.ask_whole(resource, verb, View::Object).await.unwrap().warnings
    };
    assert_eq!(
        warnings(configmaps()).await,
        [
            "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-binding': failed expression: object.data.k == 'good'"
        ]
    );
    let elsewhere = ResourceRef::collection("", "v1", "configmaps").in_namespace("n");
    assert_eq!(warnings(elsewhere).await, Vec::<String>::new());
}

#[tokio::test]
async fn exclusions_names_and_conditions_narrow_a_policy() {
    let rule = |names: &[&str]| json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "resourceNames": names});
    let spec = json!({
        "matchConstraints": {"resourceRules": [rule(&[])], "excludeResourceRules": [rule(&["spared"])]},
        "matchConditions": [{"name": "c", "expression": "request.operation != 'DELETE' && !has(object.metadata.labels)"}],
        "validations": [{"expression": "false"}],
    });
    let world = ruled_by(&spec, &json!({})).await;
    world.create(configmaps(), &configmap("a", "x")).await.unwrap_err();
    world.create(configmaps(), &configmap("spared", "x")).await.unwrap();
    let labelled = json!({"metadata": {"name": "a", "labels": {"a": "b"}}});
    world.create(configmaps(), &labelled).await.unwrap();
    world.delete(configmaps().named("a"), DeleteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn expressions_know_the_request_the_past_the_namespace_and_each_other() {
    let spec = json!({
        "variables": [
            {"name": "team", "expression": "namespaceObject.metadata.labels['team']"},
            {"name": "grew", "expression": "oldObject == null || size(object.data) >= size(oldObject.data)"},
        ],
        "validations": [
            {"expression": "variables.team == 'blue'", "messageExpression": "'team ' + variables.team"},
            {"expression": "variables.grew", "message": "it shrank"},
            {"expression": "request.userInfo.username == 'system:test' && request.namespace == 'n'"},
            {"expression": "authorizer.requestResource.check('update').allowed()"},
        ],
    });
    let world = ruled_by(&spec, &json!({})).await;
    let team = |name: &str| json!({"metadata": {"name": "n", "labels": {"team": name}}});
    world.create(namespaces(), &team("blue")).await.unwrap();
    let there = || ResourceRef::collection("", "v1", "configmaps").in_namespace("n");
    world.create(there(), &configmap("a", "x")).await.unwrap();
    let shrunk = world.merge(there().named("a"), &json!({"data": null})).await.unwrap_err();
    assert!(shrunk.message.contains("it shrank") || shrunk.message.contains("no such key"), "{shrunk}");
    world.merge(namespaces().named("n"), &team("red")).await.unwrap();
    let error = world.create(there(), &configmap("b", "x")).await.unwrap_err();
    assert!(error.message.ends_with("denied request: team red"), "{error}");
}

async fn refused(world: &World, resource: ResourceRef, object: &Value) -> ApiError {
    world.create(resource, object).await.unwrap_err()
}

#[tokio::test]
async fn parameters_are_found_by_name_or_by_labels_and_each_is_held_against_the_object() {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.max)", "messageExpression": "'at most ' + params.data.max"}],
    });
    let limits = |name: &str, max: &str| json!({"metadata": {"name": name, "labels": {"limits": "yes"}}, "data": {"max": max}});
    let named = json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    let world = ruled_by(&spec, &named).await;
    let error = refused(&world, deployments(), &deployment("web", 1)).await;
    assert!(
        error.message.ends_with(
            "denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        ),
        "{error}"
    );
    world.create(configmaps(), &limits("limits", "3")).await.unwrap();
    world.create(deployments(), &deployment("web", 3)).await.unwrap();
    assert!(refused(&world, deployments(), &deployment("big", 4)).await.message.ends_with("at most 3"));
    world.merge(configmaps().named("limits"), &json!({"data": {"max": "4"}})).await.unwrap();
    world.create(deployments(), &deployment("big", 4)).await.unwrap();

    let selected = json!({"spec": {"paramRef": {
        "name": null, "selector": {"matchLabels": {"limits": "yes"}}, "parameterNotFoundAction": "Allow",
    }}});
    world.merge(bindings().named("p-binding"), &selected).await.unwrap();
    world.create(configmaps(), &limits("stricter", "2")).await.unwrap();
    assert!(refused(&world, deployments(), &deployment("c", 3)).await.message.ends_with("at most 2"));
    for name in ["limits", "stricter"] {
        world.delete(configmaps().named(name), DeleteOptions::default()).await.unwrap();
    }
    world.create(deployments(), &deployment("c", 100)).await.unwrap();
}

#[tokio::test]
async fn parameters_of_a_kind_of_ones_own_and_of_none_that_is_served() {
    let spec = json!({
        "paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"},
        "validations": [{"expression": "params.spec.allowed == object.data.k"}],
    });
    let bound = json!({"paramRef": {"name": "l", "parameterNotFoundAction": "Deny"}});
    let world = ruled_by(&spec, &bound).await;
    let error = refused(&world, configmaps(), &configmap("a", "x")).await;
    assert!(
        error.message.contains("'p' denied request: failed to configure policy: failed to find resource referenced by paramKind: 'example.com/v1, Kind=Limit'"),
        "{error}"
    );
    let definition = json!({
        "metadata": {"name": "limits.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": "limits", "kind": "Limit"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"allowed": {"type": "string"}}}}}}}]},
    });
    define(&world, &definition).await;
    let limits = ResourceRef::collection("example.com", "v1", "limits");
    let limit = json!({"apiVersion": "example.com/v1", "kind": "Limit", "metadata": {"name": "l"}, "spec": {"allowed": "x"}});
    world.create(limits, &limit).await.unwrap();
    world.create(configmaps(), &configmap("a", "x")).await.unwrap();
    refused(&world, configmaps(), &configmap("b", "y")).await;
}

#[tokio::test]
async fn what_cannot_be_judged_follows_the_policy_for_failures() {
    for (policy, passes) in [("Fail", false), ("Ignore", true)] {
        let spec =
            json!({"failurePolicy": policy, "validations": [{"expression": "object.spec.missing == 1"}]});
        let world = ruled_by(&spec, &json!({})).await;
        match world.create(configmaps(), &configmap("a", "x")).await {
            Ok(_) => assert!(passes),
            Err(error) => {
                assert!(!passes);
                assert_eq!(
                    error.details.causes[0].message,
                    "ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: expression 'object.spec.missing == 1' resulted in error: no such key: spec"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_expression_that_does_not_compile_is_refused_with_its_place() {
    let world = world().await;
    let good = json!([{"expression": "true"}]);
    for (spec, field, why) in [
        (
            json!({"validations": [{"expression": "object."}]}),
            "spec.validations[0].expression",
            "compilation failed",
        ),
        (validation("'text'"), "spec.validations[0].expression", "must evaluate to bool"),
        (validation("params.x == 1"), "spec.validations[0].expression", "undeclared reference to 'params'"),
        (validation("variables.x == 1"), "spec.validations[0].expression", "undefined field 'x'"),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "1"}]}),
            "spec.validations[0].messageExpression",
            "must evaluate to string",
        ),
        (
            json!({"validations": good, "variables": [{"name": "a", "expression": "variables.b"}]}),
            "spec.variables[0].expression",
            "undefined field 'b'",
        ),
        (
            json!({"validations": good, "matchConditions": [{"name": "c", "expression": "nothing"}]}),
            "spec.matchConditions[0].expression",
            "undeclared reference",
        ),
        (
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "1"}]}),
            "spec.auditAnnotations[0].valueExpression",
            "must evaluate to one of",
        ),
        (
            validation("namespaceObject.spec.nothing == 1"),
            "spec.validations[0].expression",
            "undefined field 'nothing'",
        ),
        (
            validation("authorizer.group('').nothing()"),
            "spec.validations[0].expression",
            "undeclared reference to 'nothing'",
        ),
    ] {
        let error = world.create(policies(), &policy("p", &spec)).await.unwrap_err();
        let cause = &error.details.causes[0];
        assert_eq!((error.code, cause.field.as_str()), (422, field), "{error}");
        assert!(cause.message.contains(why), "{}", cause.message);
    }
}

#[tokio::test]
async fn no_policy_has_a_say_in_policies_and_none_in_what_the_server_does_for_itself() {
    let everything = json!({
        "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]},
        "validations": [{"expression": "false"}],
    });
    let world = ruled_by(&everything, &json!({})).await;
    refused(&world, configmaps(), &configmap("a", "x")).await;
    world.service.ensure_bootstrap_objects().await.unwrap();
    world.merge(policies().named("p"), &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    world.delete(bindings().named("p-binding"), DeleteOptions::default()).await.unwrap();
    world.create(configmaps(), &configmap("a", "x")).await.unwrap();
}

#[tokio::test]
async fn who_asks_is_who_the_expressions_see() {
    let world = ruled_by(
        &validation("request.userInfo.username == 'alice' && 'staff' in request.userInfo.groups"),
        &json!({}),
    )
    .await;
    refused(&world, configmaps(), &configmap("a", "x")).await;
    let alice = Identity::of("alice", &["staff"]);
    let verb =
        Verb::Create { body: configmap("a", "x").to_string().into(), options: WriteOptions::default() };
    let request = Request { resource: configmaps(), verb, view: View::Object };
    world.service.call(&alice, request).await.unwrap();
}

#[tokio::test]
async fn whoever_makes_a_policy_is_not_told_that_nobody_acts_on_it() {
    let world = world().await;
    let verb = Verb::Create {
        body: policy("p", &validation("true")).to_string().into(),
        options: WriteOptions::default(),
    };
    let made = world.ask_whole(policies(), verb, View::Object).await.unwrap();
    assert_eq!(made.warnings, Vec::<String>::new());
    assert_eq!(world.get(policies().named("p")).await.unwrap()["status"]["conditions"], Value::Null);
}

#[tokio::test]
async fn a_policy_says_what_its_expressions_say_of_fields_that_are_not_there() {
    let world = world().await;
    let made = world.create(policies(), &policy("p", &validation("object.dota.k == 'x'"))).await.unwrap();
    let warning = json!({"fieldRef": "spec.validations[0].expression", "warning": "/v1, Kind=ConfigMap: undefined field 'dota'\n"});
    assert_eq!(
        made["status"],
        json!({"observedGeneration": 1, "typeChecking": {"expressionWarnings": [warning]}})
    );
    let owned = made["metadata"]["managedFields"].to_string();
    assert!(!owned.contains("f:typeChecking"), "nobody owns what the server says: {owned}");
    let mended = world
        .merge(
            policies().named("p"),
            &json!({"spec": {"validations": [{"expression": "object.data.k == 'x'"}]}}),
        )
        .await
        .unwrap();
    assert_eq!(mended["status"], json!({"observedGeneration": 2, "typeChecking": {}}));
    let labelled =
        world.merge(policies().named("p"), &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(labelled["status"], mended["status"]);
}

#[tokio::test]
async fn expressions_ask_about_objects_with_certain_fields_or_labels() {
    let world = ruled_by(
        &json!({"validations": [
            {"expression": "authorizer.group('').resource('pods').fieldSelector('spec.nodeName=n1').check('list').allowed()", "message": "all"},
            {"expression": "authorizer.group('').resource('pods').labelSelector('a=b').fieldSelector('?').check('list').allowed()", "message": "any"},
            {"expression": "authorizer.group('').resource('pods').fieldSelector('metadata.name=spared').check('list').reason() == ''", "message": "reason"},
        ]}),
        &json!({}),
    )
    .await;
    world.create(configmaps(), &configmap("a", "x")).await.unwrap();
}
