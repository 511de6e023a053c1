//! Webhooks that have a say in writes, over real TLS.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use claw_client::{
    ResourceRef, Verb,
    request::{DeleteOptions, ListOptions, PatchKind, View, WriteOptions},
};
use claw_schemas::{ApiError, status::Reason};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{
    programs::Program,
    world::{World, bound_pod, configmaps, deployment, deployments, namespaces, parse, pod, pods, world},
};

pub fn configurations(kind: &str) -> ResourceRef {
    ResourceRef::collection("admissionregistration.k8s.io", "v1", &format!("{kind}webhookconfigurations"))
}

/// A yes with whatever else there is to say.
fn answer(review: &Value, response: Value) -> Value {
    let mut response = response;
    response["uid"] = review["request"]["uid"].clone();
    if response["allowed"].is_null() {
        response["allowed"] = true.into();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn patch(operations: &Value) -> Value {
    json!({"patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

/// A program that says the same of everything.
async fn saying(response: Value) -> Arc<Program> {
    Program::start(move |review| answer(review, response.clone())).await
}

/// A program that appends a letter to an annotation.
pub async fn appending(letter: &'static str) -> Arc<Program> {
    Program::start(move |review| {
        let annotations = &review["request"]["object"]["metadata"]["annotations"];
        let so_far = annotations["trail"].as_str().unwrap_or_default();
        let operation = if annotations.is_object() {
            json!({"op": "add", "path": "/metadata/annotations/trail", "value": format!("{so_far}{letter}")})
        } else {
            json!({"op": "add", "path": "/metadata/annotations", "value": {"trail": letter}})
        };
        answer(review, patch(&json!([operation])))
    })
    .await
}

/// All operations on these resources.
fn rules(group: &str, resources: &[&str]) -> Value {
    json!([{"operations": ["*"], "apiGroups": [group], "apiVersions": ["*"], "resources": resources}])
}

/// A webhook that is asked about ConfigMaps, unless `more` says otherwise.
pub fn webhook(program: &Program, name: &str, more: &Value) -> Value {
    let mut webhook = json!({
        "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": program.client_config(), "rules": rules("", &["configmaps"]),
    });
    json_merge(&mut webhook, more);
    webhook
}

fn json_merge(target: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        target[key] = value.clone();
    }
}

async fn configure(world: &World, kind: &str, name: &str, webhooks: &[Value]) {
    let object = json!({"metadata": {"name": name}, "webhooks": webhooks});
    world.create(configurations(kind), &object).await.unwrap();
}

/// A world with one validating webhook, `v.example.com`.
async fn judged_by(program: &Program, more: &Value) -> World {
    let world = world().await;
    configure(&world, "validating", "v", &[webhook(program, "v.example.com", more)]).await;
    world
}

fn configmap(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

async fn refused(world: &World) -> ApiError {
    world.create(configmaps(), &configmap("refused")).await.unwrap_err()
}

/// What was asked, in short: operation, kind, resource with subresource, name.
fn asked(program: &Program) -> Vec<String> {
    let short = |review: &Value| {
        let request = &review["request"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, resource) = (text(&request["kind"]["kind"]), text(&request["resource"]["resource"]));
        let sub = request["subResource"].as_str().map(|sub| format!("/{sub}")).unwrap_or_default();
        format!("{} {kind} {resource}{sub} {}", text(&request["operation"]), text(&request["name"]))
    };
    program.asked().iter().map(short).collect()
}

#[tokio::test]
async fn a_validating_webhook_is_told_all_and_its_no_is_one() {
    let program = saying(json!({"allowed": false, "status": {"code": 403, "message": "not today"}})).await;
    let world = judged_by(&program, &json!({})).await;
    let error = refused(&world).await;
    assert_eq!(
        (error.code, error.message.as_str()),
        (403, "admission webhook \"v.example.com\" denied the request: not today")
    );
    assert_eq!(world.get(configmaps().named("refused")).await.unwrap_err().reason, Reason::NotFound);
    let review = &program.asked()[0];
    assert_eq!(
        (&review["apiVersion"], &review["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    let request = &review["request"];
    assert!(request["uid"].as_str().is_some_and(|uid| uid.len() == 36));
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["requestResource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&request["operation"], &request["namespace"]), (&json!("CREATE"), &json!("default")));
    assert_eq!(request["userInfo"], json!({"username": "system:test", "groups": ["system:masters"]}));
    assert_eq!((&request["dryRun"], &request["options"]["kind"]), (&json!(false), &json!("CreateOptions")));
    assert_eq!((&request["object"]["data"]["k"], &request["oldObject"]), (&json!("v"), &Value::Null));
    assert!(request["object"]["metadata"]["uid"].is_string(), "as it is about to be stored");
}

#[tokio::test]
async fn updates_show_both_objects_and_deletions_the_one_that_goes() {
    let program = saying(json!({})).await;
    let world = judged_by(&program, &json!({})).await;
    for name in ["a", "b"] {
        world.create(configmaps(), &configmap(name)).await.unwrap();
    }
    world.merge(configmaps().named("a"), &json!({"data": {"k": "w"}})).await.unwrap();
    world.delete(configmaps().named("a"), DeleteOptions::default()).await.unwrap();
    let all = Verb::DeleteCollection { list: ListOptions::default(), delete: DeleteOptions::default() };
    world.ask(configmaps(), all).await.unwrap();
    assert_eq!(
        asked(&program),
        [
            "CREATE ConfigMap configmaps a",
            "CREATE ConfigMap configmaps b",
            "UPDATE ConfigMap configmaps a",
            "DELETE ConfigMap configmaps a",
            "DELETE ConfigMap configmaps b",
        ]
    );
    let (update, delete) = (&program.asked()[2]["request"], &program.asked()[3]["request"]);
    assert_eq!(
        (&update["oldObject"]["data"]["k"], &update["object"]["data"]["k"]),
        (&json!("v"), &json!("w"))
    );
    assert_eq!(
        (&delete["object"], &delete["oldObject"]["data"]["k"], &delete["options"]["kind"]),
        (&Value::Null, &json!("w"), &json!("DeleteOptions"))
    );
}

#[tokio::test]
async fn a_deletion_can_be_refused() {
    let program = saying(json!({"allowed": false})).await;
    let only = json!({"rules": [{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    let world = judged_by(&program, &only).await;
    world.create(configmaps(), &configmap("a")).await.unwrap();
    let error = world.delete(configmaps().named("a"), DeleteOptions::default()).await.unwrap_err();
    assert_eq!(error.message, "admission webhook \"v.example.com\" denied the request without explanation");
    let all = Verb::DeleteCollection { list: ListOptions::default(), delete: DeleteOptions::default() };
    world.ask(configmaps(), all).await.unwrap_err();
    world.get(configmaps().named("a")).await.unwrap();
}

#[tokio::test]
async fn mutating_webhooks_change_the_object_one_after_the_other_by_their_names() {
    let (first, second, third) = (appending("1").await, appending("2").await, appending("3").await);
    let world = world().await;
    configure(&world, "mutating", "b", &[webhook(&third, "z.example.com", &json!({}))]).await;
    let both = [webhook(&first, "y.example.com", &json!({})), webhook(&second, "x.example.com", &json!({}))];
    configure(&world, "mutating", "a", &both).await;
    let made = world.create(configmaps(), &configmap("a")).await.unwrap();
    assert_eq!(made["metadata"]["annotations"]["trail"], "123");
    let shown = &third.asked()[0]["request"]["object"]["metadata"];
    assert_eq!(shown["annotations"]["trail"], "12", "each sees what those before it did");
    assert!(shown["uid"].is_null() && shown["creationTimestamp"].is_null(), "not given yet");
    let changed = world.merge(configmaps().named("a"), &json!({"data": {"k": "w"}})).await.unwrap();
    assert_eq!(changed["metadata"]["annotations"]["trail"], "123123");
    assert_eq!(changed["metadata"]["uid"], made["metadata"]["uid"]);
}

#[tokio::test]
async fn a_webhook_that_wishes_is_asked_once_more_after_others_changed_the_object() {
    let (keen, calm, last) = (appending("k").await, appending("c").await, appending("l").await);
    let world = world().await;
    let webhooks = [
        webhook(&keen, "keen.example.com", &json!({"reinvocationPolicy": "IfNeeded"})),
        webhook(&calm, "calm.example.com", &json!({})),
        webhook(&last, "last.example.com", &json!({"reinvocationPolicy": "IfNeeded"})),
    ];
    configure(&world, "mutating", "m", &webhooks).await;
    let made = world.create(configmaps(), &configmap("a")).await.unwrap();
    // In the second round the last one is asked again, because the keen one changed something; nobody a third time.
    assert_eq!(made["metadata"]["annotations"]["trail"], "kclkl");
    assert_eq!((keen.asked().len(), calm.asked().len(), last.asked().len()), (2, 1, 2));
}

#[tokio::test]
async fn what_a_webhook_adds_is_completed_and_judged_like_everything() {
    let container =
        json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": "i:1"}}]);
    let program = saying(patch(&container)).await;
    let world = world().await;
    let about_pods = json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &about_pods)]).await;
    let made = world.create(pods(), &pod("a")).await.unwrap();
    let side = &made["spec"]["containers"][1];
    assert_eq!(made["spec"]["volumes"].as_array().map(Vec::len), Some(1), "one token serves all");
    assert_eq!(
        (&side["imagePullPolicy"], &side["terminationMessagePath"]),
        (&json!("IfNotPresent"), &json!("/dev/termination-log"))
    );
    assert_eq!(side["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");

    let bad = saying(patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {"a b": "c"}}]))).await;
    configure(&world, "mutating", "bad", &[webhook(&bad, "bad.example.com", &json!({}))]).await;
    let error = refused(&world).await;
    assert_eq!((error.code, error.details.causes[0].field.as_str()), (422, "metadata.labels"));
}

#[tokio::test]
async fn what_is_the_servers_to_say_no_webhook_changes() {
    let forged = json!([
        {"op": "add", "path": "/metadata/uid", "value": "forged"},
        {"op": "add", "path": "/metadata/generation", "value": 9},
        {"op": "add", "path": "/metadata/deletionTimestamp", "value": "2020-01-01T00:00:00Z"},
        {"op": "add", "path": "/metadata/managedFields", "value": []},
        {"op": "add", "path": "/status", "value": {"replicas": 7}},
        {"op": "add", "path": "/unknown", "value": 1},
    ]);
    let program = saying(patch(&forged)).await;
    let world = world().await;
    let about = json!({"rules": rules("apps", &["deployments"])});
    configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &about)]).await;
    let made = world.create(deployments(), &deployment("web", 1)).await.unwrap();
    let metadata = &made["metadata"];
    assert_ne!(metadata["uid"], "forged");
    assert_eq!((&metadata["generation"], &metadata["deletionTimestamp"]), (&json!(1), &Value::Null));
    assert_eq!(metadata["managedFields"].as_array().map(Vec::len), Some(1));
    assert_eq!((&made["status"]["replicas"], &made["unknown"]), (&Value::Null, &Value::Null));

    let renames =
        saying(patch(&json!([{"op": "replace", "path": "/metadata/name", "value": "other"}]))).await;
    configure(&world, "mutating", "r", &[webhook(&renames, "r.example.com", &json!({}))]).await;
    let error = refused(&world).await;
    assert!(error.code == 500 && error.message.contains("it changed metadata.name"), "{error}");
}

#[tokio::test]
async fn subresources_are_asked_about_as_what_they_are() {
    let program = saying(json!({})).await;
    let everything = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    let world = judged_by(&program, &everything).await;
    bound_pod(&world, "p").await;
    world.merge(pods().named("p").sub("status"), &json!({"status": {"phase": "Running"}})).await.unwrap();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    world.create(pods().named("p").sub("eviction"), &eviction).await.unwrap();
    world.create(deployments(), &deployment("web", 1)).await.unwrap();
    world.merge(deployments().named("web").sub("scale"), &json!({"spec": {"replicas": 3}})).await.unwrap();
    world.create(namespaces(), &json!({"metadata": {"name": "n"}})).await.unwrap();
    world.merge(namespaces().named("n"), &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(
        asked(&program),
        [
            "CREATE Pod pods p",
            "CREATE Binding pods/binding p",
            "UPDATE Pod pods/status p",
            "CREATE Eviction pods/eviction p",
            "CREATE Deployment deployments web",
            "UPDATE Scale deployments/scale web",
            "CREATE Namespace namespaces n",
            "UPDATE Namespace namespaces n",
        ]
    );
    let all = program.asked();
    let scale = &all[5]["request"];
    assert_eq!(
        (&scale["object"]["spec"], &scale["oldObject"]["spec"]),
        (&json!({"replicas": 3}), &json!({"replicas": 1}))
    );
    assert_eq!(scale["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(all[1]["request"]["object"]["target"]["name"], "n1");
    assert_eq!(all[7]["request"]["namespace"], "n", "a namespace is in itself");
}

#[tokio::test]
async fn a_webhook_can_change_a_scale_and_a_binding() {
    let five = saying(patch(&json!([{"op": "replace", "path": "/spec/replicas", "value": 5}]))).await;
    let elsewhere = saying(patch(&json!([{"op": "replace", "path": "/target/name", "value": "n2"}]))).await;
    let world = world().await;
    let webhooks = [
        webhook(&five, "five.example.com", &json!({"rules": rules("apps", &["deployments/scale"])})),
        webhook(&elsewhere, "there.example.com", &json!({"rules": rules("", &["pods/binding"])})),
    ];
    configure(&world, "mutating", "m", &webhooks).await;
    world.create(deployments(), &deployment("web", 1)).await.unwrap();
    let scale = world.merge(deployments().named("web").sub("scale"), &json!({"spec": {"replicas": 3}})).await;
    assert_eq!(scale.unwrap()["spec"]["replicas"], 5);
    assert_eq!(world.get(deployments().named("web")).await.unwrap()["spec"]["replicas"], 5);
    assert_eq!(bound_pod(&world, "p").await["spec"]["nodeName"], "n2");
}

#[tokio::test]
async fn selectors_choose_by_labels_of_the_namespace_and_of_the_object() {
    let program = saying(json!({"allowed": false})).await;
    let selectors = json!({
        "namespaceSelector": {"matchLabels": {"guarded": "yes"}},
        "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
    });
    let world = judged_by(&program, &selectors).await;
    world.create(configmaps(), &configmap("elsewhere")).await.unwrap();
    let guarded = json!({"metadata": {"name": "g", "labels": {"guarded": "yes"}}});
    world.create(namespaces(), &guarded).await.unwrap();
    let there = || ResourceRef::collection("", "v1", "configmaps").in_namespace("g");
    world.create(there(), &configmap("a")).await.unwrap_err();
    let skipped = json!({"metadata": {"name": "a", "labels": {"skip": ""}}});
    world.create(there(), &skipped).await.unwrap();
    // Selected by what it was or by what it would be.
    world.merge(there().named("a"), &json!({"metadata": {"labels": {"skip": null}}})).await.unwrap_err();
    world.merge(there().named("a"), &json!({"data": {"k": "w"}})).await.unwrap();
    world.merge(namespaces().named("g"), &json!({"metadata": {"labels": {"guarded": "no"}}})).await.unwrap();
    world.merge(there().named("a"), &json!({"metadata": {"labels": {"skip": null}}})).await.unwrap();
}

#[tokio::test]
async fn conditions_in_cel_must_hold_before_anybody_is_asked() {
    let program = saying(json!({"allowed": false})).await;
    let conditions = json!({"matchConditions": [
        {"name": "not-nodes", "expression": "!('system:nodes' in request.userInfo.groups)"},
        {"name": "new-or-changed", "expression": "oldObject == null || object.data != oldObject.data"},
        {"name": "named", "expression": "object.metadata.name.startsWith('guarded') && request.operation != 'DELETE'"},
        {"name": "may", "expression": "authorizer.group('').resource('configmaps').namespace('default').check('update').allowed()"},
    ]});
    let world = judged_by(&program, &conditions).await;
    world.create(configmaps(), &configmap("free")).await.unwrap();
    world.create(configmaps(), &configmap("guarded")).await.unwrap_err();
    assert_eq!(asked(&program), ["CREATE ConfigMap configmaps guarded"]);
}

#[tokio::test]
async fn a_condition_that_does_not_compile_is_refused_with_its_place() {
    let (world, program) = (world().await, saying(json!({})).await);
    for (expression, why) in [
        ("object.", "compilation failed"),
        ("request.nothing == ''", "undefined field 'nothing'"),
        ("params.x", "undeclared reference to 'params'"),
        ("request.name", "must evaluate to bool"),
    ] {
        let more = json!({"matchConditions": [{"name": "ok", "expression": "true"}, {"name": "c", "expression": expression}]});
        let object =
            json!({"metadata": {"name": "v"}, "webhooks": [webhook(&program, "v.example.com", &more)]});
        let error = world.create(configurations("validating"), &object).await.unwrap_err();
        let cause = &error.details.causes[0];
        assert_eq!(
            (error.code, cause.field.as_str()),
            (422, "webhooks[0].matchConditions[1].expression"),
            "{error}"
        );
        assert!(cause.message.contains(why), "{expression}: {}", cause.message);
    }
}

#[tokio::test]
async fn a_condition_that_fails_follows_the_policy_for_failures() {
    let program = saying(json!({"allowed": false})).await;
    for (policy, passes) in [("Fail", false), ("Ignore", true)] {
        let more = json!({
            "failurePolicy": policy,
            "matchConditions": [{"name": "c", "expression": "object.spec.missing == 1"}],
        });
        let world = judged_by(&program, &more).await;
        match world.create(configmaps(), &configmap("a")).await {
            Ok(_) => assert!(passes),
            Err(error) => {
                assert!(!passes);
                assert_eq!(
                    (error.code, error.message.as_str()),
                    (
                        403,
                        "configmaps \"a\" is forbidden: expression 'object.spec.missing == 1' resulted in error: no such key: spec"
                    )
                );
            }
        }
        // One condition that does not hold decides, whatever is wrong with another.
        let more = json!({"matchConditions": [
            {"name": "c", "expression": "object.spec.missing == 1"}, {"name": "d", "expression": "false"},
        ]});
        judged_by(&program, &more).await.create(configmaps(), &configmap("a")).await.unwrap();
    }
    assert_eq!(program.asked().len(), 0);
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_stops_the_write_unless_it_may_be_ignored() {
    let program = saying(json!({})).await;
    let unreachable = json!({"url": "https://localhost:1/x", "caBundle": program.bundle});
    let nameless = json!({"service": {"namespace": "x", "name": "y"}});
    let foreign = json!({"url": program.url, "caBundle": saying(json!({})).await.bundle});
    for (config, words) in [
        (unreachable, "failed to call webhook: Post \"https://localhost:1/x?timeout=10s\""),
        (nameless, "this cluster has no Services yet"),
        (foreign, "certificate"),
    ] {
        let error = refused(&judged_by(&program, &json!({"clientConfig": config})).await).await;
        assert_eq!((error.code, error.reason), (500, Reason::InternalError));
        let begins = "Internal error occurred: failed calling webhook \"v.example.com\": ";
        assert!(error.message.starts_with(begins) && error.message.contains(words), "{error}");
        let may_fail = json!({"clientConfig": config, "failurePolicy": "Ignore"});
        let world = judged_by(&program, &may_fail).await;
        configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &may_fail)]).await;
        world.create(configmaps(), &configmap("a")).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_is_none_counts_as_none() {
    let large = "x".repeat(4 << 20);
    let answers: [(Value, &str); 5] = [
        (json!({"uid": "other"}), "expected response.uid"),
        (
            json!({"patch": "W10=", "patchType": "JSONPatch"}),
            "validating webhook may not return response.patch",
        ),
        (json!({"warnings": [large]}), "the answer breaks off"),
        (json!("text"), "webhook response was absent"),
        (Value::Null, "webhook response was absent"),
    ];
    for (response, why) in answers {
        let program = Program::start(move |review| {
            let mut whole = answer(review, json!({}));
            match response.as_object() {
                Some(fields) => {
                    fields.iter().for_each(|(key, value)| whole["response"][key] = value.clone());
                }
                None => whole["response"] = response.clone(),
            }
            whole
        })
        .await;
        let error = refused(&judged_by(&program, &json!({})).await).await;
        assert!(error.code == 500 && error.message.contains(why), "{error}");
        judged_by(&program, &json!({"failurePolicy": "Ignore"}))
            .await
            .create(configmaps(), &configmap("a"))
            .await
            .unwrap();
    }
}

/// A program that answers yes when it is let, and counts who waits.
async fn held(gate: Arc<Semaphore>, waiting: Arc<AtomicUsize>) -> Arc<Program> {
    Program::start_with(move |review| {
        let (gate, waiting, yes) = (gate.clone(), waiting.clone(), answer(review, json!({})));
        Box::pin(async move {
            waiting.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            Bytes::from(yes.to_string())
        })
    })
    .await
}

#[tokio::test]
async fn a_slow_webhook_is_not_waited_for_beyond_its_time() {
    let program = held(Arc::new(Semaphore::new(0)), Arc::default()).await;
    let error = refused(&judged_by(&program, &json!({"timeoutSeconds": 1})).await).await;
    assert!(error.message.ends_with("?timeout=1s\": context deadline exceeded"), "{error}");
    let forgiven = json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"});
    judged_by(&program, &forgiven).await.create(configmaps(), &configmap("a")).await.unwrap();
}

#[tokio::test]
async fn a_slow_webhook_holds_up_nobody_but_those_who_must_ask_it() {
    let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let program = held(gate.clone(), waiting.clone()).await;
    let slow = json!({
        "timeoutSeconds": 30, "matchConditions": [{"name": "slow", "expression": "object.metadata.name.startsWith('slow')"}],
    });
    let world = Arc::new(judged_by(&program, &slow).await);
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "10"}}});
    let quotas = ResourceRef::collection("", "v1", "resourcequotas").in_namespace("default");
    world.create(quotas, &quota).await.unwrap();
    let writes: Vec<_> = (0..3)
        .map(|number| {
            let world = world.clone();
            tokio::spawn(
                async move { world.create(configmaps(), &configmap(&format!("slow-{number}"))).await },
            )
        })
        .collect();
    while waiting.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    // The same namespace, the same kind, the same quota.
    world.create(configmaps(), &configmap("quick")).await.unwrap();
    gate.add_permits(3);
    for write in writes {
        write.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn connections_to_a_webhook_are_kept() {
    let program = saying(json!({})).await;
    let world = judged_by(&program, &json!({})).await;
    for number in 0..10 {
        world.create(configmaps(), &configmap(&number.to_string())).await.unwrap();
        // Other configurations come and go meanwhile.
        configure(&world, "mutating", &number.to_string(), &[]).await;
    }
    // One is put back a moment after its answer, so that the next question may find none.
    assert!(
        program.asked().len() == 10 && program.connections() < 10,
        "{} connections",
        program.connections()
    );
}

#[tokio::test]
async fn a_dry_run_asks_and_says_that_it_is_one() {
    let program = saying(json!({})).await;
    let world = judged_by(&program, &json!({})).await;
    let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let body = || Bytes::from(configmap("a").to_string());
    world.ask(configmaps(), Verb::Create { body: body(), options: options.clone() }).await.unwrap();
    world.create(configmaps(), &configmap("b")).await.unwrap();
    let dry = DeleteOptions { dry_run: true, ..DeleteOptions::default() };
    world.delete(configmaps().named("b"), dry).await.unwrap();
    let requests = program.asked();
    for (index, dry) in [(0, true), (1, false), (2, true)] {
        let request = &requests[index]["request"];
        assert_eq!(request["dryRun"], dry);
        assert_eq!(request["options"]["dryRun"], if dry { json!(["All"]) } else { Value::Null });
    }
    world.get(configmaps().named("b")).await.unwrap();
}

#[tokio::test]
async fn warnings_of_webhooks_come_with_the_answer_whatever_it_is() {
    let program = Program::start(|review| {
        let allowed = review["request"]["name"] != "refused";
        answer(review, json!({"allowed": allowed, "warnings": ["mind the gap", "x".repeat(300)]}))
    })
    .await;
    let world = judged_by(&program, &json!({})).await;
    configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &json!({}))]).await;
    let verb = Verb::Create { body: configmap("a").to_string().into(), options: WriteOptions::default() };
    let warnings = world.ask_whole(configmaps(), verb, View::Object).await.unwrap().warnings;
    assert_eq!((warnings.len(), warnings[0].as_str()), (2, "mind the gap"), "each once, though two say it");
    assert!(warnings[1].len() < 300);
    assert_eq!(refused(&world).await.warnings[0], "mind the gap");
}

#[tokio::test]
async fn no_webhook_has_a_say_in_webhooks() {
    let program = saying(json!({"allowed": false})).await;
    let everything = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    let world = judged_by(&program, &everything).await;
    configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &everything)]).await;
    world.create(configmaps(), &configmap("a")).await.unwrap_err();
    world
        .merge(configurations("mutating").named("m"), &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap();
    for (kind, name) in [("validating", "v"), ("mutating", "m")] {
        world.delete(configurations(kind).named(name), DeleteOptions::default()).await.unwrap();
    }
    // From the next write on nobody is asked any more.
    world.create(configmaps(), &configmap("a")).await.unwrap();
    assert_eq!(asked(&program), ["CREATE ConfigMap configmaps a"]);
}

#[tokio::test]
async fn all_who_refuse_are_heard() {
    let (one, two) = (
        saying(json!({"allowed": false, "status": {"code": 409, "message": "one"}})).await,
        saying(json!({"allowed": false, "status": {"message": "two"}})).await,
    );
    let world = world().await;
    let webhooks =
        [webhook(&one, "one.example.com", &json!({})), webhook(&two, "two.example.com", &json!({}))];
    configure(&world, "validating", "v", &webhooks).await;
    let error = refused(&world).await;
    assert_eq!(error.code, 409);
    assert_eq!(
        error.message,
        "[admission webhook \"one.example.com\" denied the request: one, admission webhook \"two.example.com\" denied the request: two]"
    );
}

#[tokio::test]
async fn a_write_that_loses_a_race_asks_again_about_what_it_would_write_then() {
    let world = Arc::new(world().await);
    let (other, first) = (Arc::downgrade(&world), Arc::new(AtomicUsize::new(0)));
    let program = Program::start_with(move |review| {
        let (other, yes) = (other.clone(), answer(review, json!({})));
        let is_first =
            review["request"]["operation"] == "UPDATE" && first.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            if is_first && let Some(world) = other.upgrade() {
                world.merge(configmaps().named("a"), &json!({"data": {"other": "x"}})).await.unwrap();
            }
            Bytes::from(yes.to_string())
        })
    })
    .await;
    configure(&world, "validating", "v", &[webhook(&program, "v.example.com", &json!({}))]).await;
    world.create(configmaps(), &configmap("a")).await.unwrap();
    world.merge(configmaps().named("a"), &json!({"data": {"k": "w"}})).await.unwrap();
    let shown: Vec<Value> =
        program.asked().iter().map(|review| review["request"]["object"]["data"].clone()).collect();
    assert_eq!(
        shown,
        [
            json!({"k": "v"}),
            json!({"k": "w"}),
            json!({"k": "v", "other": "x"}),
            json!({"k": "w", "other": "x"})
        ]
    );
}

#[tokio::test]
async fn a_webhook_that_knows_another_version_sees_and_changes_that() {
    let program = saying(patch(&json!([{"op": "replace", "path": "/spec/maxReplicas", "value": 9}]))).await;
    let world = world().await;
    let v2 = json!({"rules": [{"operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["*"]}]});
    configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &v2)]).await;
    let v1 = ResourceRef::collection("autoscaling", "v1", "horizontalpodautoscalers").in_namespace("default");
    let scaler = json!({
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
    });
    let made = world.create(v1.clone(), &scaler).await.unwrap();
    assert_eq!((&made["apiVersion"], &made["spec"]["maxReplicas"]), (&json!("autoscaling/v1"), &json!(9)));
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 50);
    let request = &program.asked()[0]["request"];
    assert_eq!(
        (&request["kind"]["version"], &request["requestKind"]["version"], &request["object"]["apiVersion"]),
        (&json!("v2"), &json!("v1"), &json!("autoscaling/v2"))
    );
    assert_eq!(request["object"]["spec"]["metrics"][0]["type"], "Resource");

    let exact = json!({"rules": v2["rules"], "matchPolicy": "Exact"});
    world
        .merge(
            configurations("mutating").named("m"),
            &json!({"webhooks": [webhook(&program, "m.example.com", &exact)]}),
        )
        .await
        .unwrap();
    world.merge(v1.named("h"), &json!({"spec": {"maxReplicas": 4}})).await.unwrap();
    assert_eq!(program.asked().len(), 1);
}

#[tokio::test]
async fn what_a_webhook_sets_is_owned_by_nobody_until_somebody_applies_it() {
    let label = json!([{"op": "add", "path": "/metadata/labels", "value": {"team": "blue"}}]);
    let program = saying(patch(&label)).await;
    let world = world().await;
    let creates = json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &creates)]).await;
    let mut config = configmap("a");
    json_merge(&mut config, &json!({"apiVersion": "v1", "kind": "ConfigMap"}));
    let made = world.apply(configmaps().named("a"), "one", &config, false).await.unwrap();
    let owners = |object: &Value| -> BTreeMap<String, Value> {
        let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
        entries
            .map(|entry| (entry["manager"].as_str().unwrap().to_owned(), entry["fieldsV1"].clone()))
            .collect()
    };
    let object = parse(&made.body);
    assert_eq!((made.code, &object["metadata"]["labels"]["team"]), (201, &json!("blue")));
    assert_eq!(owners(&object)["one"]["f:metadata"], Value::Null, "{object}");
    // Applied again without the label, it stays: nobody gives up what they never had.
    let again = world.apply(configmaps().named("a"), "one", &config, false).await.unwrap();
    assert_eq!(parse(&again.body)["metadata"]["labels"]["team"], "blue");
    config["metadata"]["labels"] = json!({"team": "red"});
    let taken = world.apply(configmaps().named("a"), "two", &config, false).await.unwrap();
    let object = parse(&taken.body);
    assert_eq!(object["metadata"]["labels"]["team"], "red", "there was no conflict");
    assert!(owners(&object)["two"]["f:metadata"]["f:labels"]["f:team"].is_object());
}

#[tokio::test]
async fn objects_without_a_name_are_asked_about_without_one_and_may_be_given_one() {
    let program = saying(json!({})).await;
    let world = judged_by(&program, &json!({})).await;
    configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &json!({}))]).await;
    let made = world.create(configmaps(), &json!({"metadata": {"generateName": "g-"}})).await.unwrap();
    let (mutating, validating) = (&program.asked()[0]["request"], &program.asked()[1]["request"]);
    assert_eq!((&mutating["name"], &mutating["object"]["metadata"]["name"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&validating["name"], &validating["object"]["metadata"]["name"]),
        (&Value::Null, &made["metadata"]["name"])
    );

    let naming = saying(patch(&json!([{"op": "add", "path": "/metadata/name", "value": "chosen"}]))).await;
    configure(&world, "mutating", "n", &[webhook(&naming, "n.example.com", &json!({}))]).await;
    let named = world.create(configmaps(), &json!({"metadata": {"generateName": "g-"}})).await.unwrap();
    assert_eq!(named["metadata"]["name"], "chosen");
}

#[tokio::test]
async fn whoever_changes_what_goes_is_told_that_this_cannot_be() {
    let program = saying(patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {}}]))).await;
    let world = world().await;
    world.create(configmaps(), &configmap("a")).await.unwrap();
    configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &json!({}))]).await;
    let error = world.delete(configmaps().named("a"), DeleteOptions::default()).await.unwrap_err();
    assert!(error.message.contains("attempted to modify the object, which is not supported"), "{error}");
}

#[tokio::test]
async fn webhooks_judge_the_objects_of_custom_kinds_too() {
    let program = saying(patch(&json!([{"op": "add", "path": "/spec/extra", "value": 1}, {"op": "add", "path": "/spec/size", "value": 7}]))).await;
    let world = world().await;
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 5}}}}}}}]},
    });
    crate::custom::define(&world, &definition).await;
    let things = ResourceRef::collection("example.com", "v1", "things").in_namespace("default");
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"size": 1}});
    let about = json!({"rules": rules("example.com", &["things"])});
    configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &about)]).await;
    let error = world.create(things.clone(), &thing).await.unwrap_err();
    assert_eq!((error.code, error.details.causes[0].field.as_str()), (422, "spec.size"));
    world.delete(configurations("mutating").named("m"), DeleteOptions::default()).await.unwrap();
    let made = world.patch(things.named("t"), PatchKind::Merge, &json!({})).await;
    assert_eq!(made.unwrap_err().reason, Reason::NotFound);
}

#[tokio::test]
async fn a_patch_that_leaves_no_object_is_told_and_harms_nobody() {
    for left in [json!([]), json!(7), json!("text"), json!(null)] {
        let program = saying(patch(&json!([{"op": "replace", "path": "", "value": left}]))).await;
        let world = world().await;
        configure(&world, "mutating", "m", &[webhook(&program, "m.example.com", &json!({}))]).await;
        let error = refused(&world).await;
        let why = "admission webhook \"m.example.com\" made an invalid object: its patch leaves no object";
        assert!(error.code == 500 && error.message.contains(why), "{left}: {error}");
    }
}

#[tokio::test]
async fn connections_into_pods_are_asked_about_with_their_options() {
    let program = Program::start(|review| {
        let is_harmless = review["request"]["object"]["command"] == json!(["true"]);
        let why = json!({"code": 403, "message": "only the harmless"});
        answer(review, json!({"allowed": is_harmless, "status": why}))
    })
    .await;
    let world = judged_by(&program, &json!({"rules": rules("", &["pods/exec"])})).await;
    bound_pod(&world, "x").await;
    let reach = async |command: &str| {
        let query = [("command", command), ("stdout", "true")];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        world.service.reach(&world.who, "create", pods().named("x").sub("exec"), query).await.err().unwrap()
    };
    let refused = reach("rm").await;
    assert!(refused.code == 403 && refused.message.ends_with("only the harmless"), "{refused}");
    assert_eq!(asked(&program), ["CONNECT PodExecOptions pods/exec x"]);
    assert_eq!(program.asked()[0]["request"]["object"]["container"], "main");
    assert_eq!(reach("true").await.reason, Reason::ServiceUnavailable, "there are no nodes here");
}
