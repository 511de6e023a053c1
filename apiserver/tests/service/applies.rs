//! Server-side apply through the whole service: what it makes and changes, whom it asks, what it refuses.

use claw_client::{
    Verb,
    request::{FieldValidation, PatchKind, View, WriteOptions},
};
use claw_schemas::status::Reason;
use serde_json::{Value, json};

use crate::world::{
    World, by, configmaps, deployment, deployments, namespaces, parse, pods, revision, world,
};

fn configmap(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
}

/// A workload as far as one applier wants it.
fn wish(spec: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn scale(replicas: i64) -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}})
}

/// (manager, operation, subresource) of every entry.
fn owners(object: &Value) -> Vec<(&str, &str, &str)> {
    object["metadata"]["managedFields"].as_array().into_iter().flatten().map(entry).collect()
}

fn entry(entry: &Value) -> (&str, &str, &str) {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    (text("manager"), text("operation"), text("subresource"))
}

fn fields_of<'o>(object: &'o Value, manager: &str) -> &'o Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let found = entries.iter().find(|entry| entry["manager"] == manager);
    &found.unwrap_or_else(|| panic!("no {manager} in {entries:?}"))["fieldsV1"]
}

async fn web(world: &World) -> Value {
    world.get(deployments().named("web")).await.unwrap()
}

#[tokio::test]
async fn apply_makes_what_is_not_there_and_changes_what_is() {
    let world = world().await;
    let x = || configmaps().named("x");
    let made = world.apply(x(), "a", &configmap(&json!({"k": "1"})), false).await.unwrap();
    assert_eq!(made.code, 201);
    let object = parse(&made.body);
    assert!(object["metadata"]["uid"].is_string());
    assert_eq!(owners(&object), [("a", "Apply", "")]);
    assert_eq!(fields_of(&object, "a"), &json!({"f:data": {"f:k": {}}}));
    let changed = world.apply(x(), "a", &configmap(&json!({"l": "2"})), false).await.unwrap();
    assert_eq!(changed.code, 200);
    assert_eq!(parse(&changed.body)["data"], json!({"l": "2"}), "what it no longer names is gone");
}

#[tokio::test]
async fn applying_the_same_again_writes_nothing() {
    let world = world().await;
    let x = || configmaps().named("x");
    let config = configmap(&json!({"k": "1"}));
    let made = parse(&world.apply(x(), "a", &config, false).await.unwrap().body);
    let again = parse(&world.apply(x(), "a", &config, false).await.unwrap().body);
    assert_eq!(again, made);
    let shared = parse(&world.apply(x(), "b", &config, false).await.unwrap().body);
    assert_ne!(revision(&shared), revision(&made), "a new owner is worth a write");
    assert_eq!(owners(&shared).len(), 2);
}

#[tokio::test]
async fn a_conflict_names_manager_version_and_field_and_force_wins_it() {
    let world = world().await;
    let web = || deployments().named("web");
    let options = by("kubectl-create");
    let body = deployment("web", 2).to_string().into();
    world.ask(deployments(), Verb::Create { body, options }).await.unwrap();
    let error = world.apply(web(), "ci", &wish(&json!({"replicas": 3})), false).await.unwrap_err();
    assert_eq!((error.code, error.reason), (409, Reason::Conflict));
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    let cause = &error.details.causes[0];
    assert_eq!(cause.reason, "FieldManagerConflict");
    assert_eq!(cause.message, "conflict with \"kubectl-create\" using apps/v1");
    assert_eq!(cause.field, ".spec.replicas");
    let forced = world.apply(web(), "ci", &wish(&json!({"replicas": 3})), true).await.unwrap();
    let forced = parse(&forced.body);
    assert_eq!((&forced["spec"]["replicas"], &forced["metadata"]["generation"]), (&json!(3), &json!(2)));
    assert_eq!(fields_of(&forced, "ci"), &json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields_of(&forced, "kubectl-create")["f:spec"].get("f:replicas").is_none());
}

#[tokio::test]
async fn a_configuration_that_says_nothing_changes_nothing() {
    let world = world().await;
    let x = || configmaps().named("x");
    let made = parse(&world.apply(x(), "a", &configmap(&json!({"k": "1"})), false).await.unwrap().body);
    let nothing = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let same = parse(&world.apply(x(), "b", &nothing, false).await.unwrap().body);
    assert_eq!(same, made);
}

/// The example of the documentation: the user may forget the count before the autoscaler has said anything.
#[tokio::test]
async fn replicas_are_handed_over_from_a_manifest_to_an_autoscaler_without_a_gap() {
    let world = world().await;
    let web_of = || deployments().named("web");
    world.apply(web_of(), "user", &deployment("web", 3), false).await.unwrap();
    world.apply(web_of(), "handover-to-hpa", &wish(&json!({"replicas": 3})), false).await.unwrap();
    let mut manifest = deployment("web", 3);
    manifest["spec"].as_object_mut().unwrap().remove("replicas");
    world.apply(web_of(), "user", &manifest, false).await.unwrap();
    assert_eq!(web(&world).await["spec"]["replicas"], 3, "it was not reset to its default");
    let body = r#"{"spec":{"replicas":6}}"#.into();
    let verb = Verb::Patch { kind: PatchKind::Merge, body, options: by("hpa"), force: false };
    world.ask(web_of().sub("scale"), verb).await.unwrap();
    assert_eq!(owners(&web(&world).await), [("user", "Apply", ""), ("hpa", "Update", "scale")]);
    world.apply(web_of(), "user", &manifest, false).await.unwrap();
    assert_eq!(web(&world).await["spec"]["replicas"], 6);
}

#[tokio::test]
async fn an_applier_must_say_who_it_is() {
    let world = world().await;
    let patch = |options: WriteOptions, force: bool, kind: PatchKind| {
        let body = configmap(&json!({})).to_string().into();
        world.ask(configmaps().named("x"), Verb::Patch { kind, body, options, force })
    };
    let agent = || WriteOptions { user_agent: Some("curl/8".to_owned()), ..WriteOptions::default() };
    let error = patch(agent(), false, PatchKind::Apply).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
        )
    );
    for name in ["x".repeat(129), "a\nb".to_owned()] {
        let error = patch(by(&name), false, PatchKind::Apply).await.unwrap_err();
        assert_eq!((error.code, error.details.causes[0].field.as_str()), (422, "fieldManager"));
    }
    world.configmap("x", &json!({})).await;
    let error = patch(by("a"), true, PatchKind::Merge).await.unwrap_err();
    assert_eq!((error.code, error.details.causes[0].field.as_str()), (422, "force"));
}

#[tokio::test]
async fn a_configuration_says_its_type_and_nothing_about_owners() {
    let world = world().await;
    let x = || configmaps().named("x");
    let typed = configmap(&json!({"k": "1"}));
    let mut owned = typed.clone();
    owned["metadata"]["managedFields"] = json!([{"manager": "me"}]);
    let mut other = typed.clone();
    other["kind"] = json!("Secret");
    let mut renamed = typed.clone();
    renamed["metadata"]["name"] = json!("y");
    for (config, words) in [
        (json!({"metadata": {"name": "x"}}), "invalid object type: , Kind="),
        (other, "invalid object type: v1, Kind=Secret"),
        (owned, "metadata.managedFields must be nil"),
        (renamed, "does not match the name on the URL (x)"),
    ] {
        let error = world.apply(x(), "a", &config, false).await.unwrap_err();
        assert_eq!(error.code, 400, "{config}");
        assert!(error.message.contains(words), "{error}");
    }
}

#[tokio::test]
async fn items_that_cannot_be_told_apart_are_refused_with_their_path() {
    let world = world().await;
    let twice = json!([{"name": "a", "image": "i"}, {"name": "a", "image": "j"}]);
    let config = wish(&json!({"template": {"spec": {"containers": twice}}}));
    let error = world.apply(deployments().named("web"), "a", &config, false).await.unwrap_err();
    assert_eq!(error.code, 422);
    assert_eq!(
        error.message,
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_dropped_as_asked() {
    let world = world().await;
    let mut config = configmap(&json!({"k": "1"}));
    config["dta"] = json!({});
    let apply = |field_validation| {
        let options = WriteOptions { field_validation, ..by("a") };
        let body = config.to_string().into();
        let verb = Verb::Patch { kind: PatchKind::Apply, body, options, force: false };
        world.ask_whole(configmaps().named("x"), verb, View::Object)
    };
    let error = apply(FieldValidation::Strict).await.unwrap_err();
    assert_eq!(error.code, 400);
    assert!(error.message.ends_with(".dta: field not declared in schema"), "{error}");
    let warned = apply(FieldValidation::Warn).await.unwrap();
    assert_eq!((warned.code, warned.warnings), (201, vec!["unknown field \"dta\"".to_owned()]));
    assert!(apply(FieldValidation::Ignore).await.unwrap().warnings.is_empty());
}

#[tokio::test]
async fn yaml_is_applied_like_json() {
    let world = world().await;
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  k: '1'\n  k: '2'\n";
    let verb = |field_validation| Verb::Patch {
        kind: PatchKind::Apply,
        body: body.into(),
        options: WriteOptions { field_validation, ..by("a") },
        force: false,
    };
    let strict = world.ask(configmaps().named("x"), verb(FieldValidation::Strict)).await.unwrap_err();
    assert!(strict.message.contains("duplicate field \"data.k\""), "{strict}");
    let made = world.ask(configmaps().named("x"), verb(FieldValidation::Warn)).await.unwrap();
    assert_eq!(made["data"]["k"], "2");
}

#[tokio::test]
async fn revision_and_uid_in_a_configuration_are_conditions() {
    let world = world().await;
    let x = || configmaps().named("x");
    let mut config = configmap(&json!({"k": "1"}));
    config["metadata"]["uid"] = json!("u");
    let error = world.apply(x(), "a", &config, false).await.unwrap_err();
    assert_eq!(error.code, 409);
    assert!(error.message.contains("the provided object specified uid u"), "{error}");
    let stale = world.configmap("x", &json!({})).await;
    assert_eq!(world.apply(x(), "a", &config, true).await.unwrap_err().code, 409);
    world.merge(x(), &json!({"data": {"n": "1"}})).await.unwrap();
    let mut config = configmap(&json!({"k": "2"}));
    config["metadata"]["resourceVersion"] = json!(stale);
    assert_eq!(world.apply(x(), "a", &config, true).await.unwrap_err().reason, Reason::Conflict);
    config["metadata"]["resourceVersion"] =
        world.get(x()).await.unwrap()["metadata"]["resourceVersion"].clone();
    let applied = parse(&world.apply(x(), "a", &config, true).await.unwrap().body);
    assert_eq!(fields_of(&applied, "a"), &json!({"f:data": {"f:k": {}}}), "conditions are not owned");
}

#[tokio::test]
async fn a_dry_run_answers_as_usual_and_stores_nothing() {
    let world = world().await;
    let x = || configmaps().named("x");
    let dry = |data: Value| {
        let options = WriteOptions { dry_run: true, ..by("a") };
        let body = configmap(&data).to_string().into();
        let verb = Verb::Patch { kind: PatchKind::Apply, body, options, force: false };
        world.ask_whole(x(), verb, View::Object)
    };
    assert_eq!(dry(json!({"k": "1"})).await.unwrap().code, 201);
    assert_eq!(world.get(x()).await.unwrap_err().code, 404);
    world.apply(x(), "a", &configmap(&json!({"k": "1"})), false).await.unwrap();
    let before = world.get(x()).await.unwrap();
    let answer = dry(json!({"k": "2"})).await.unwrap();
    assert_eq!(parse(&answer.body)["data"]["k"], "2");
    assert_eq!(world.get(x()).await.unwrap(), before);
}

#[tokio::test]
async fn what_is_applied_is_held_to_the_rules_of_its_kind() {
    let world = world().await;
    let web = || deployments().named("web");
    let error = world.apply(web(), "a", &wish(&json!({"replicas": 1})), false).await.unwrap_err();
    assert_eq!((error.code, error.reason), (422, Reason::Invalid), "no template: {error}");
    world.create(deployments(), &deployment("web", 1)).await.unwrap();
    let error = world.apply(web(), "a", &wish(&json!({"replicas": -1})), true).await.unwrap_err();
    assert_eq!(error.code, 422);
    let nowhere = deployments().in_namespace("nowhere").named("web");
    let error = world.apply(nowhere, "a", &deployment("web", 1), false).await.unwrap_err();
    assert_eq!(error.message, "namespaces \"nowhere\" not found");
}

#[tokio::test]
async fn what_is_given_up_falls_back_to_its_default() {
    let world = world().await;
    let web_of = || deployments().named("web");
    world.apply(web_of(), "a", &deployment("web", 5), false).await.unwrap();
    let mut config = deployment("web", 5);
    config["spec"].as_object_mut().unwrap().remove("replicas");
    world.apply(web_of(), "a", &config, false).await.unwrap();
    let after = web(&world).await;
    assert_eq!(after["spec"]["replicas"], 1);
    assert!(fields_of(&after, "a")["f:spec"].get("f:replicas").is_none());
}

#[tokio::test]
async fn spec_and_status_are_applied_through_their_own_paths() {
    let world = world().await;
    world.apply(deployments().named("web"), "a", &deployment("web", 1), false).await.unwrap();
    let mut both = wish(&json!({"replicas": 9}));
    both["status"] = json!({"replicas": 1});
    both["metadata"]["labels"] = json!({"a": "b"});
    let status = deployments().named("web").sub("status");
    let after = parse(&world.apply(status, "ctl", &both, false).await.unwrap().body);
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(1), &json!(1)));
    assert!(after["metadata"].get("labels").is_none());
    assert_eq!(owners(&after), [("a", "Apply", ""), ("ctl", "Apply", "status")]);
    assert_eq!(fields_of(&after, "ctl"), &json!({"f:status": {"f:replicas": {}}}));
    both["status"] = json!({"replicas": 7});
    both["spec"] = deployment("web", 2)["spec"].clone();
    let after = parse(&world.apply(deployments().named("web"), "a", &both, false).await.unwrap().body);
    assert_eq!((&after["spec"]["replicas"], &after["status"]["replicas"]), (&json!(2), &json!(1)));
    assert!(fields_of(&after, "a").get("f:status").is_none());
    let nothing = deployments().named("none").sub("status");
    let mut config = both.clone();
    config["metadata"]["name"] = json!("none");
    assert_eq!(world.apply(nothing, "a", &config, false).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn replicas_change_owner_through_scale() {
    let world = world().await;
    world.apply(deployments().named("web"), "a", &deployment("web", 1), false).await.unwrap();
    let path = || deployments().named("web").sub("scale");
    let error = world.apply(path(), "hpa", &scale(4), false).await.unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let answer = parse(&world.apply(path(), "hpa", &scale(4), true).await.unwrap().body);
    assert_eq!((&answer["kind"], &answer["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
    let after = web(&world).await;
    assert_eq!(owners(&after), [("a", "Apply", ""), ("hpa", "Apply", "scale")]);
    assert_eq!(fields_of(&after, "hpa"), &json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields_of(&after, "a")["f:spec"].get("f:replicas").is_none());
    let verb = Verb::Patch {
        kind: PatchKind::Merge,
        body: r#"{"spec":{"replicas":6}}"#.into(),
        options: by("kubectl"),
        force: false,
    };
    world.ask(path(), verb).await.unwrap();
    let after = web(&world).await;
    assert_eq!(owners(&after), [("a", "Apply", ""), ("kubectl", "Update", "scale")]);
    let untyped = json!({"spec": {"replicas": 1}});
    assert_eq!(world.apply(path(), "hpa", &untyped, true).await.unwrap_err().code, 400);
}

#[tokio::test]
async fn kubectl_goes_on_from_client_side_apply() {
    let world = world().await;
    let mut manifest = deployment("web", 1);
    let kept = format!("{manifest}\n");
    manifest["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": kept});
    let (body, options) = (manifest.to_string().into(), by("kubectl-client-side-apply"));
    world.ask(deployments(), Verb::Create { body, options }).await.unwrap();
    let next = deployment("web", 3);
    let path = || deployments().named("web");
    assert_eq!(world.apply(path(), "other", &next, false).await.unwrap_err().code, 409);
    let after = parse(&world.apply(path(), "kubectl", &next, false).await.unwrap().body);
    assert_eq!(after["spec"]["replicas"], 3);
    let kept = after["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    assert_eq!(parse(kept.unwrap().as_bytes())["spec"]["replicas"], 3);
}

#[tokio::test]
async fn an_object_that_is_being_deleted_gets_no_new_finalizers_by_apply() {
    let world = world().await;
    let held = json!({"metadata": {"name": "x", "finalizers": ["a.example/hold"]}});
    world.create(configmaps(), &held).await.unwrap();
    world.delete(configmaps().named("x"), Default::default()).await.unwrap();
    let mut config = configmap(&json!({}));
    config["metadata"]["finalizers"] = json!(["b.example/more"]);
    assert_eq!(world.apply(configmaps().named("x"), "a", &config, false).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn cluster_kinds_and_pods_are_applied_too() {
    let world = world().await;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": "y"}}});
    let made = parse(&world.apply(namespaces().named("a"), "m", &namespace, false).await.unwrap().body);
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(fields_of(&made, "m"), &json!({"f:metadata": {"f:labels": {"f:x": {}}}}));
    let mut pod = crate::world::pod("p");
    pod["metadata"] = json!({"name": "p"});
    let made = parse(&world.apply(pods().named("p"), "m", &pod, false).await.unwrap().body);
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let again = parse(&world.apply(pods().named("p"), "m", &pod, false).await.unwrap().body);
    assert_eq!(again, made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appliers_of_one_object_all_get_their_part() {
    let world = std::sync::Arc::new(world().await);
    let appliers = (0..16).map(|n| {
        let world = world.clone();
        tokio::spawn(async move {
            let config = configmap(&json!({format!("k{n}"): "1"}));
            world.apply(configmaps().named("x"), &format!("m{n}"), &config, false).await.unwrap();
        })
    });
    for applier in appliers.collect::<Vec<_>>() {
        applier.await.unwrap();
    }
    let object = world.get(configmaps().named("x")).await.unwrap();
    assert_eq!(object["data"].as_object().unwrap().len(), 16);
    assert_eq!(owners(&object).len(), 16);
}
