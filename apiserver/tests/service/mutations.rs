//! Mutating admission policies in CEL, and the bindings that put them into force.

use claw_client::{
    ResourceRef, Verb,
    request::{DeleteOptions, View, WriteOptions},
};
use claw_schemas::status::Reason;
use serde_json::{Value, json};

use crate::{
    custom::define,
    webhooks::{appending, configurations, webhook},
    world::{World, configmaps, deployment, deployments, namespaces, world},
};

fn policies() -> ResourceRef {
    ResourceRef::collection("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies")
}

fn bindings() -> ResourceRef {
    ResourceRef::collection("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicybindings")
}

fn rule(group: &str, plural: &str) -> Value {
    json!([{"operations": ["*"], "apiGroups": [group], "apiVersions": ["*"], "resources": [plural]}])
}

/// Lays the object that an expression gives over what comes.
fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// Appends a letter to an annotation.
fn append(letter: &str) -> Value {
    apply(&format!(
        "Object{{metadata: Object.metadata{{annotations: {{'trail': object.metadata.?annotations.?trail.orValue('') + '{letter}'}}}}}}"
    ))
}

/// A policy about ConfigMaps, unless `more` says otherwise.
async fn policy(world: &World, name: &str, mutations: &[Value], more: &Value) {
    let mut spec = json!({
        "matchConstraints": {"resourceRules": rule("", "configmaps")}, "reinvocationPolicy": "Never", "mutations": mutations,
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.create(policies(), &json!({"metadata": {"name": name}, "spec": spec})).await.unwrap();
}

async fn bind(world: &World, policy: &str, more: &Value) {
    let mut spec = json!({"policyName": policy});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let name = format!("{policy}-binding");
    world.create(bindings(), &json!({"metadata": {"name": name}, "spec": spec})).await.unwrap();
}

/// A world in which policies that bear letters append them.
async fn marked_by(names: &[(&str, &str)]) -> World {
    let world = world().await;
    for (name, reinvocation) in names {
        policy(&world, name, &[append(name)], &json!({"reinvocationPolicy": reinvocation})).await;
        bind(&world, name, &json!({})).await;
    }
    world
}

fn configmap(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

fn trail(object: &Value) -> &str {
    object["metadata"]["annotations"]["trail"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_policy_changes_what_is_written_once_a_binding_puts_it_into_force() {
    let world = world().await;
    let mutations = [
        apply(
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: object.spec.template.spec.containers.map(c, Object.spec.template.spec.containers{name: c.name, env: [Object.spec.template.spec.containers.env{name: 'TEAM', value: 'blue'}]})}}}}",
        ),
        apply(
            "Object{metadata: Object.metadata{labels: {'containers': string(size(object.spec.template.spec.containers[0].env))}}}",
        ),
    ];
    policy(
        &world,
        "p",
        &mutations,
        &json!({"matchConstraints": {"resourceRules": rule("apps", "deployments")}}),
    )
    .await;
    let before = world.create(deployments(), &deployment("before", 1)).await.unwrap();
    assert_eq!(before["metadata"]["labels"], Value::Null);
    bind(&world, "p", &json!({})).await;
    let made = world.create(deployments(), &deployment("web", 1)).await.unwrap();
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["env"], json!([{"name": "TEAM", "value": "blue"}]));
    assert_eq!(container["image"], "clawbernetes.io/toolbox:1", "the rest of the item stays");
    assert_eq!(made["metadata"]["labels"]["containers"], "1", "the second sees what the first did");
    let owned = made["metadata"]["managedFields"].to_string();
    assert!(owned.contains("f:replicas") && !owned.contains("f:env"), "{owned}");
    assert_eq!(world.get(deployments().named("web")).await.unwrap(), made);
    // An update is changed, too, however it comes; what is set already changes nothing.
    let scaled = world.merge(deployments().named("before"), &json!({"spec": {"replicas": 2}})).await.unwrap();
    assert_eq!(scaled["metadata"]["labels"]["containers"], "1");
    let again =
        world.merge(deployments().named("web"), &json!({"metadata": {"labels": {"x": "y"}}})).await.unwrap();
    assert_eq!(again["metadata"]["generation"], 1);
    let (body, options) =
        (deployment("dry", 1).to_string().into(), WriteOptions { dry_run: true, ..WriteOptions::default() });
    let dry = world.ask(deployments(), Verb::Create { body, options }).await.unwrap();
    assert_eq!(dry["metadata"]["labels"]["containers"], "1");
    world.delete(bindings().named("p-binding"), DeleteOptions::default()).await.unwrap();
    let after = world.create(deployments(), &deployment("after", 1)).await.unwrap();
    assert_eq!(after["metadata"]["labels"], Value::Null);
}

#[tokio::test]
async fn a_patch_is_applied_unless_one_of_its_tests_fails() {
    let world = world().await;
    let mutations = [
        patch(
            "[JSONPatch{op: 'add', path: '/metadata/labels', value: {}}, JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a.b/c'), value: 'd'}]",
        ),
        patch(
            "[JSONPatch{op: 'test', path: '/data/k', value: 'other'}, JSONPatch{op: 'remove', path: '/data/k'}]",
        ),
        patch(
            "has(object.data) && 'k' in object.data ? [JSONPatch{op: 'copy', from: '/data/k', path: '/data/copy'}] : []",
        ),
    ];
    policy(&world, "p", &mutations, &json!({})).await;
    bind(&world, "p", &json!({})).await;
    let made = world.create(configmaps(), &configmap("a")).await.unwrap();
    assert_eq!(made["data"], json!({"k": "v", "copy": "v"}));
    assert_eq!(made["metadata"]["labels"], json!({"a.b/c": "d"}));
}

#[tokio::test]
async fn conditions_parameters_variables_and_the_namespace_decide() {
    let world = world().await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "c", "expression": "object.metadata.name.startsWith('m')"}],
        "variables": [{"name": "team", "expression": "namespaceObject.metadata.labels['team'] + '-' + params.data.suffix"}],
    });
    let team = apply(
        "Object{metadata: Object.metadata{labels: {?'team': oldObject == null ? optional.of(variables.team) : optional.none(), 'by': request.userInfo.username.replace(':', '-')}}}",
    );
    policy(&world, "p", &[team], &spec).await;
    let reference = json!({"name": "params", "namespace": "default", "parameterNotFoundAction": "Deny"});
    bind(&world, "p", &json!({"paramRef": reference})).await;
    world
        .create(namespaces(), &json!({"metadata": {"name": "n", "labels": {"team": "blue"}}}))
        .await
        .unwrap();
    let there = || ResourceRef::collection("", "v1", "configmaps").in_namespace("n");
    let error = world.create(there(), &configmap("m1")).await.unwrap_err();
    let why = "policy 'p' with binding 'p-binding' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!((error.code, error.reason, &*error.message), (403, Reason::Forbidden, why));
    assert_eq!(error.details.causes[0].message, why);
    let params = json!({"metadata": {"name": "params"}, "data": {"suffix": "x"}});
    // No parameter is needed for what the policy is not about in the end.
    world
        .merge(
            bindings().named("p-binding"),
            &json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}}),
        )
        .await
        .unwrap();
    world.create(configmaps(), &params).await.unwrap();
    let made = world.create(there(), &configmap("m1")).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"team": "blue-x", "by": "system-test"}));
    let other = world.create(there(), &configmap("other")).await.unwrap();
    assert_eq!(other["metadata"]["labels"], Value::Null);
    world.merge(configmaps().named("params"), &json!({"data": {"suffix": "y"}})).await.unwrap();
    let changed = world.merge(there().named("m1"), &json!({"data": {"k": "w"}})).await.unwrap();
    assert_eq!(changed["metadata"]["labels"]["team"], "blue-x");
}

#[tokio::test]
async fn what_cannot_be_changed_follows_the_policy_for_failures() {
    let failing = [
        (
            "object.spec.missing == 1 ? Object{} : Object{}",
            "expression 'object.spec.missing == 1 ? Object{} : Object{}' resulted in error: no such key: spec",
        ),
        (
            "Object{metadata: Object.metadata{ownerReferences: [{'name': 'x'}]}}",
            "error applying patch: failed to convert patch object to typed object: .metadata.ownerReferences: element 0: associative list with keys has an element that omits all key fields [\"uid\"] (and doesn't have default values for any key fields)",
        ),
        (
            "Object{metadata: Object.metadata{name: 'other'}}",
            "it changed metadata.name from \"a\" to \"other\"",
        ),
    ];
    for (expression, why) in failing {
        let world = world().await;
        let mutations = [apply(expression), append("x")];
        policy(&world, "p", &mutations, &json!({})).await;
        bind(&world, "p", &json!({})).await;
        let error = world.create(configmaps(), &configmap("a")).await.unwrap_err();
        let said = format!("policy 'p' with binding 'p-binding' denied request: {why}");
        assert_eq!((error.code, error.reason, &error.message), (403, Reason::Invalid, &said));
        world.merge(policies().named("p"), &json!({"spec": {"failurePolicy": "Ignore"}})).await.unwrap();
        let made = world.create(configmaps(), &configmap("a")).await.unwrap();
        assert_eq!(trail(&made), "x", "the others are made all the same");
    }
}

#[tokio::test]
async fn lists_that_can_only_be_replaced_are_not_changed_by_parts() {
    let world = world().await;
    let tolerate = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{tolerations: [Object.spec.template.spec.tolerations{operator: 'Exists'}]}}}}";
    policy(
        &world,
        "p",
        &[apply(tolerate)],
        &json!({"matchConstraints": {"resourceRules": rule("apps", "deployments")}}),
    )
    .await;
    bind(&world, "p", &json!({})).await;
    let error = world.create(deployments(), &deployment("web", 1)).await.unwrap_err();
    assert!(
        error.message.ends_with("error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.template.spec.tolerations"),
        "{error}"
    );
    let replace = patch(
        "[JSONPatch{op: 'add', path: '/spec/template/spec/tolerations', value: [Object.spec.template.spec.tolerations{operator: 'Exists'}]}]",
    );
    world.merge(policies().named("p"), &json!({"spec": {"mutations": [replace]}})).await.unwrap();
    let made = world.create(deployments(), &deployment("web", 1)).await.unwrap();
    assert_eq!(made["spec"]["template"]["spec"]["tolerations"], json!([{"operator": "Exists"}]));
}

#[tokio::test]
async fn what_a_policy_makes_is_validated() {
    let world = world().await;
    let negative = apply("Object{spec: Object.spec{replicas: -1}}");
    policy(
        &world,
        "p",
        &[negative],
        &json!({"matchConstraints": {"resourceRules": rule("apps", "deployments")}}),
    )
    .await;
    bind(&world, "p", &json!({})).await;
    let error = world.create(deployments(), &deployment("web", 1)).await.unwrap_err();
    assert_eq!((error.code, error.details.causes[0].field.as_str()), (422, "spec.replicas"));
}

#[tokio::test]
async fn policies_come_before_webhooks_and_again_when_those_change_what_they_saw() {
    let world = marked_by(&[("a", "IfNeeded"), ("b", "Never"), ("c", "IfNeeded")]).await;
    let made = world.create(configmaps(), &configmap("alone")).await.unwrap();
    assert_eq!(trail(&made), "abcac", "a did not know of b and c, and c not of what a did then");
    let program = appending("w").await;
    let hooks =
        json!({"metadata": {"name": "h"}, "webhooks": [webhook(&program, "w.example.com", &json!({}))]});
    world.create(configurations("mutating"), &hooks).await.unwrap();
    let made = world.create(configmaps(), &configmap("hooked")).await.unwrap();
    assert_eq!(trail(&made), "abcwac");
    let eager = json!({"metadata": {"name": "h"}, "webhooks": [webhook(&program, "w.example.com", &json!({"reinvocationPolicy": "IfNeeded"}))]});
    world.merge(configurations("mutating").named("h"), &eager).await.unwrap();
    let made = world.create(configmaps(), &configmap("eager")).await.unwrap();
    assert_eq!(trail(&made), "abcwacw");
}

#[tokio::test]
async fn no_policy_changes_policies_or_what_the_server_does_for_itself() {
    let everything = json!({"matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}});
    let world = world().await;
    policy(&world, "p", &[append("x")], &everything).await;
    bind(&world, "p", &json!({})).await;
    assert_eq!(trail(&world.create(configmaps(), &configmap("a")).await.unwrap()), "x");
    let patched =
        world.merge(policies().named("p"), &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(trail(&patched), "");
    world.service.ensure_bootstrap_objects().await.unwrap();
    let system = world.get(namespaces().named("kube-system")).await.unwrap();
    assert_eq!(trail(&system), "");
}

#[tokio::test]
async fn custom_kinds_are_merged_by_what_their_schema_says_and_scales_are_changed_too() {
    let world = world().await;
    let ports = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
        "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "ports": ports, "size": {"type": "integer", "default": 3}, "plain": {"type": "array", "items": {"type": "string"}}}}}});
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
    });
    define(&world, &definition).await;
    let mutations = [
        apply(
            "Object{spec: Object.spec{ports: [Object.spec.ports{port: 80, name: 'web'}, Object.spec.ports{port: 81}], unknown: 1}}",
        ),
        apply("Object{spec: Object.spec{size: object.spec.size * 2}}"),
    ];
    policy(
        &world,
        "p",
        &mutations,
        &json!({"matchConstraints": {"resourceRules": rule("example.com", "things")}}),
    )
    .await;
    bind(&world, "p", &json!({})).await;
    let things = || ResourceRef::collection("example.com", "v1", "things").in_namespace("default");
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"ports": [{"port": 80}]}});
    let made = world.create(things(), &thing).await.unwrap();
    assert_eq!(made["spec"], json!({"ports": [{"port": 80, "name": "web"}, {"port": 81}], "size": 6}));

    let scales = json!({"matchConstraints": {"resourceRules": [{"operations": ["UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]}]}});
    policy(
        &world,
        "s",
        &[apply("Object{spec: Object.spec{replicas: object.spec.replicas > 5 ? 5 : object.spec.replicas}}")],
        &scales,
    )
    .await;
    bind(&world, "s", &json!({})).await;
    world.create(deployments(), &deployment("web", 1)).await.unwrap();
    let scale = deployments().named("web").sub("scale");
    let scaled = world.merge(scale, &json!({"spec": {"replicas": 9}})).await.unwrap();
    assert_eq!(scaled["spec"]["replicas"], 5);
    assert_eq!(world.get(deployments().named("web")).await.unwrap()["spec"]["replicas"], 5);
}

#[tokio::test]
async fn a_policy_about_another_version_changes_the_object_in_that_version() {
    let world = world().await;
    let rules = json!([{"operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"]}]);
    policy(
        &world,
        "p",
        &[apply("Object{spec: Object.spec{targetCPUUtilizationPercentage: 42}}")],
        &json!({"matchConstraints": {"resourceRules": rules}}),
    )
    .await;
    bind(&world, "p", &json!({})).await;
    let scalers =
        ResourceRef::collection("autoscaling", "v2", "horizontalpodautoscalers").in_namespace("default");
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}}});
    let made = world.create(scalers, &scaler).await.unwrap();
    assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 42, "{made}");
}

#[tokio::test]
async fn whoever_makes_one_is_not_told_that_nobody_acts_on_it() {
    let world = world().await;
    let spec = json!({"matchConstraints": {"resourceRules": rule("", "configmaps")}, "reinvocationPolicy": "Never", "mutations": [append("x")]});
    let body = json!({"metadata": {"name": "p"}, "spec": spec}).to_string().into();
    let verb = Verb::Create { body, options: WriteOptions::default() };
    let made = world.ask_whole(policies(), verb, View::Object).await.unwrap();
    assert_eq!(made.warnings, Vec::<String>::new());
    let stored = world.get(policies().named("p")).await.unwrap();
    assert_eq!(
        (&stored["spec"]["failurePolicy"], &stored["metadata"]["generation"]),
        (&json!("Fail"), &json!(1))
    );
    assert_eq!(stored["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
}

#[tokio::test]
async fn what_policies_and_webhooks_do_is_counted_by_their_names() {
    let world = marked_by(&[("a", "Never")]).await;
    policy(&world, "failing", &[apply("Object{spec: object.missing}")], &json!({"failurePolicy": "Ignore"}))
        .await;
    bind(&world, "failing", &json!({})).await;
    let validating = |plural: &str| ResourceRef::collection("admissionregistration.k8s.io", "v1", plural);
    let no = json!({"matchConstraints": {"resourceRules": rule("", "configmaps")}, "validations": [{"expression": "object.metadata.name != 'no'"}]});
    let no = json!({"metadata": {"name": "no"}, "spec": no});
    world.create(validating("validatingadmissionpolicies"), &no).await.unwrap();
    let bound = json!({"metadata": {"name": "no"}, "spec": {"policyName": "no", "validationActions": ["Deny", "Audit"]}});
    world.create(validating("validatingadmissionpolicybindings"), &bound).await.unwrap();
    let program = appending("w").await;
    let hooks =
        json!({"metadata": {"name": "h"}, "webhooks": [webhook(&program, "w.example.com", &json!({}))]});
    world.create(configurations("mutating"), &hooks).await.unwrap();
    world.create(configmaps(), &configmap("yes")).await.unwrap();
    world.create(configmaps(), &configmap("no")).await.unwrap_err();
    let mut text = claw_apiserver::metrics::Text::default();
    world.service.metrics().write(&mut text);
    let text = text.into_string();
    for line in [
        r#"apiserver_mutating_admission_policy_check_total{policy="a",policy_binding="a-binding",error_type="no_error"} 2"#,
        r#"apiserver_mutating_admission_policy_check_total{policy="failing",policy_binding="failing-binding",error_type="invalid_error"} 2"#,
        r#"apiserver_validating_admission_policy_check_total{policy="no",policy_binding="no",error_type="no_error",enforcement_action="deny"} 1"#,
        r#"apiserver_validating_admission_policy_check_total{policy="no",policy_binding="no",error_type="no_error",enforcement_action="audit"} 1"#,
        r#"apiserver_admission_webhook_request_total{name="w.example.com",type="admit",operation="CREATE",code="200",rejected="false"} 2"#,
        r#"apiserver_admission_webhook_admission_duration_seconds_count{name="w.example.com",type="admit",operation="CREATE",rejected="false"} 2"#,
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
    }
}
