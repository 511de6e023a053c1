//! Pods get the priority of their class when they are made.

use claw_client::{ResourceRef, request::DeleteOptions};
use claw_schemas::status::Reason;
use serde_json::{Value, json};

use crate::world::{World, pod, pods, world};

fn classes() -> ResourceRef {
    ResourceRef::collection("scheduling.k8s.io", "v1", "priorityclasses")
}

async fn class(world: &World, name: &str, more: &Value) {
    let mut class = json!({"metadata": {"name": name}});
    class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.create(classes(), &class).await.unwrap();
}

fn of_class(name: &str, class: &str, more: &Value) -> Value {
    let mut pod = pod(name);
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.insert("priorityClassName".to_owned(), class.into());
    spec.extend(more.as_object().unwrap().clone());
    pod
}

/// Class, priority and policy.
fn standing(pod: &Value) -> (&Value, &Value, &Value) {
    let spec = &pod["spec"];
    (&spec["priorityClassName"], &spec["priority"], &spec["preemptionPolicy"])
}

#[tokio::test]
async fn a_pod_has_the_priority_of_its_class_and_keeps_it() {
    let world = world().await;
    let plain = world.create(pods(), &pod("plain")).await.unwrap();
    assert_eq!(standing(&plain), (&Value::Null, &json!(0), &json!("PreemptLowerPriority")));
    class(&world, "high", &json!({"value": 1000, "preemptionPolicy": "Never"})).await;
    let high = world.create(pods(), &of_class("high", "high", &json!({}))).await.unwrap();
    assert_eq!(standing(&high), (&json!("high"), &json!(1000), &json!("Never")));
    let agrees = json!({"priority": 1000, "preemptionPolicy": "Never"});
    world.create(pods(), &of_class("agrees", "high", &agrees)).await.unwrap();
    let system = world.create(pods(), &of_class("system", "system-node-critical", &json!({}))).await.unwrap();
    assert_eq!(standing(&system).1, &json!(2_000_001_000_i64));
    // An update that says nothing of it keeps it, even without the class.
    world.delete(classes().named("high"), DeleteOptions::default()).await.unwrap();
    let mut again = high.clone();
    again["metadata"]["labels"]["a"] = json!("b");
    again["spec"]
        .as_object_mut()
        .unwrap()
        .retain(|field, _| !["priority", "preemptionPolicy"].contains(&&**field));
    let updated = world.update(pods().named("high"), &again).await.unwrap();
    assert_eq!(standing(&updated), standing(&high));
    assert_eq!(updated["metadata"]["labels"]["a"], "b");
}

#[tokio::test]
async fn a_class_that_is_not_there_and_a_priority_that_is_not_its_own_are_refused() {
    let world = world().await;
    class(&world, "high", &json!({"value": 1000})).await;
    for (class, more, why) in [
        ("none", json!({}), "no PriorityClass with name none was found"),
        (
            "high",
            json!({"priority": 5}),
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name",
        ),
        (
            "high",
            json!({"preemptionPolicy": "Never"}),
            "the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority admission controller computed PreemptLowerPriority from the given PriorityClass name",
        ),
        (
            "",
            json!({"priority": 5}),
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
        ),
    ] {
        let error = world.create(pods(), &of_class("p", class, &more)).await.unwrap_err();
        assert_eq!((error.code, error.reason), (403, Reason::Forbidden));
        assert_eq!(error.message, format!("pods \"p\" is forbidden: {why}"));
    }
}

#[tokio::test]
async fn one_class_is_that_of_pods_without_any() {
    let world = world().await;
    class(&world, "usual", &json!({"value": 50, "globalDefault": true})).await;
    class(&world, "other", &json!({"value": 60})).await;
    let made = world.create(pods(), &pod("a")).await.unwrap();
    assert_eq!(standing(&made), (&json!("usual"), &json!(50), &json!("PreemptLowerPriority")));
    let second = json!({"metadata": {"name": "second"}, "value": 1, "globalDefault": true});
    let why = "is forbidden: PriorityClass usual is already marked as default. Only one default can exist";
    let error = world.create(classes(), &second).await.unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (403, &*format!("priorityclasses.scheduling.k8s.io \"second\" {why}"))
    );
    let error = world.merge(classes().named("other"), &json!({"globalDefault": true})).await.unwrap_err();
    assert_eq!(error.message, format!("priorityclasses.scheduling.k8s.io \"other\" {why}"));
    world.merge(classes().named("usual"), &json!({"description": "still"})).await.unwrap();
    world.merge(classes().named("usual"), &json!({"globalDefault": false})).await.unwrap();
    world.merge(classes().named("other"), &json!({"globalDefault": true})).await.unwrap();
    assert_eq!(standing(&world.create(pods(), &pod("b")).await.unwrap()).1, &json!(60));
}

#[tokio::test]
async fn of_many_who_want_to_be_the_default_at_once_one_becomes_it() {
    let world = world().await;
    let make = |at: usize| {
        let class = json!({"metadata": {"name": format!("c{at}")}, "value": at, "globalDefault": true});
        let world = &world;
        async move { world.create(classes(), &class).await }
    };
    let made = futures::future::join_all((0..8).map(make)).await;
    assert_eq!(made.iter().filter(|one| one.is_ok()).count(), 1, "{made:?}");
}
