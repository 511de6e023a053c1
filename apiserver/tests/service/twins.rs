//! Kinds that are served in two versions, or in two groups, over the same stored objects.

use claw_client::{
    ResourceRef, Verb,
    request::{DeleteOptions, IncludeObject, ListOptions, PatchKind, View, WatchOptions, WriteOptions},
};
use serde_json::{Value, json};

use crate::world::{World, world};

fn scalers(version: &str) -> ResourceRef {
    ResourceRef::collection("autoscaling", version, "horizontalpodautoscalers").in_namespace("default")
}

fn events(group: &str) -> ResourceRef {
    ResourceRef::collection(group, "v1", "events").in_namespace("default")
}

fn scaler_v1(name: &str) -> Value {
    let of = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {"scaleTargetRef": of, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60},
    })
}

fn event(name: &str) -> Value {
    json!({
        "metadata": {"name": name}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "c-1",
        "action": "Act", "reason": "Because", "note": "so it is", "type": "Normal",
    })
}

#[tokio::test]
async fn an_autoscaler_of_v1_is_the_same_object_in_v2() {
    let world = world().await;
    let made = world.create(scalers("v1"), &scaler_v1("web")).await.unwrap();
    assert_eq!((&made["apiVersion"], &made["spec"]["minReplicas"]), (&json!("autoscaling/v1"), &json!(1)));
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 60);
    let newer = world.get(scalers("v2").named("web")).await.unwrap();
    assert_eq!(newer["apiVersion"], "autoscaling/v2");
    assert_eq!(newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    assert_eq!(newer["status"]["conditions"][0]["type"], "ControllerAvailable");
    for field in ["uid", "resourceVersion"] {
        assert_eq!(newer["metadata"][field], made["metadata"][field], "{field}");
    }
    // What only v2 can say survives a write of v1.
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let metrics = json!([newer["spec"]["metrics"][0], memory]);
    world.merge(scalers("v2").named("web"), &json!({"spec": {"metrics": metrics}})).await.unwrap();
    let older = world.get(scalers("v1").named("web")).await.unwrap();
    let kept = older["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap();
    assert!(kept.contains("\"targetAverageValue\":\"1Gi\""), "{kept}");
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 75}});
    world.patch(scalers("v1").named("web"), PatchKind::Strategic, &patch).await.unwrap();
    let newer = world.get(scalers("v2").named("web")).await.unwrap();
    let targets: Vec<_> =
        newer["spec"]["metrics"].as_array().unwrap().iter().map(|one| &one["resource"]["target"]).collect();
    assert!(targets.contains(&&json!({"type": "Utilization", "averageUtilization": 75})), "{targets:?}");
    assert!(targets.contains(&&json!({"type": "AverageValue", "averageValue": "1Gi"})), "{targets:?}");
    assert_eq!(newer["metadata"]["annotations"], Value::Null, "annotations are for v1 alone");
}

#[tokio::test]
async fn a_write_of_v1_that_forgets_the_annotations_leaves_the_status_alone() {
    let world = world().await;
    let mut made = world.create(scalers("v1"), &scaler_v1("web")).await.unwrap();
    let before = world.get(scalers("v2").named("web")).await.unwrap();
    made["metadata"].as_object_mut().unwrap().remove("annotations");
    made["spec"]["maxReplicas"] = json!(7);
    world.update(scalers("v1").named("web"), &made).await.unwrap();
    let after = world.get(scalers("v2").named("web")).await.unwrap();
    assert_eq!((&after["spec"]["maxReplicas"], &after["status"]), (&json!(7), &before["status"]));
}

#[tokio::test]
async fn what_changes_nothing_is_no_write_in_either_version() {
    let world = world().await;
    world.create(scalers("v1"), &scaler_v1("web")).await.unwrap();
    for version in ["v1", "v2"] {
        let before = world.get(scalers(version).named("web")).await.unwrap();
        let after = world.update(scalers(version).named("web"), &before).await.unwrap();
        assert_eq!(after, before, "{version}");
    }
}

#[tokio::test]
async fn an_autoscaler_without_a_measure_gets_the_usual_one_and_is_judged_by_the_rules_of_v2() {
    let world = world().await;
    let mut plain = scaler_v1("web");
    plain["spec"].as_object_mut().unwrap().remove("targetCPUUtilizationPercentage");
    let made = world.create(scalers("v1"), &plain).await.unwrap();
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 80);
    let mut odd = scaler_v1("odd");
    odd["spec"]["targetCPUUtilizationPercentage"] = json!(0);
    let error = world.create(scalers("v1"), &odd).await.unwrap_err();
    assert_eq!((error.code, error.message.contains("must be greater than 0")), (422, true), "{error}");
}

#[tokio::test]
async fn lists_tables_and_watches_show_the_version_that_was_asked_for() {
    let world = world().await;
    let mut watches = Vec::new();
    for version in ["v1", "v2"] {
        watches.push((version, world.watch(scalers(version), WatchOptions::default()).await));
    }
    world.create(scalers("v1"), &scaler_v1("web")).await.unwrap();
    world.delete(scalers("v2").named("web"), DeleteOptions::default()).await.unwrap();
    for (version, watch) in &mut watches {
        for expected in ["ADDED", "DELETED"] {
            let (kind, object) = watch.next().await.unwrap();
            assert_eq!((kind, &object["apiVersion"]), (expected, &json!(format!("autoscaling/{version}"))));
            let has_share = object["spec"]["targetCPUUtilizationPercentage"] == 60;
            assert_eq!(has_share, *version == "v1", "{object}");
        }
    }
    world.create(scalers("v2"), &json!({"metadata": {"name": "b"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "b"}, "maxReplicas": 3}})).await.unwrap();
    for version in ["v1", "v2"] {
        let list = world.list(scalers(version), ListOptions::default()).await.unwrap();
        assert_eq!(list["apiVersion"], format!("autoscaling/{version}"));
        assert_eq!(list["items"][0]["apiVersion"], format!("autoscaling/{version}"));
        let verb = Verb::List(ListOptions::default());
        let table = world.ask_whole(scalers(version), verb, View::Table(IncludeObject::None)).await.unwrap();
        let table: Value = serde_json::from_slice(&table.body).unwrap();
        assert_eq!(table["rows"][0]["cells"][2], "cpu: <unknown>/80%", "{version}: {table}");
    }
}

#[tokio::test]
async fn an_event_is_one_object_in_two_groups() {
    let world = world().await;
    let mut watch = world.watch(events(""), WatchOptions::default()).await;
    let made = world.create(events("events.k8s.io"), &event("e")).await.unwrap();
    assert_eq!((&made["apiVersion"], &made["note"]), (&json!("events.k8s.io/v1"), &json!("so it is")));
    let core = world.get(events("").named("e")).await.unwrap();
    assert_eq!((&core["apiVersion"], &core["kind"]), (&json!("v1"), &json!("Event")));
    assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("so it is"), &json!("p")));
    assert_eq!(core["reportingComponent"], "c");
    let (kind, told) = watch.next().await.unwrap();
    assert_eq!((kind, &told), ("ADDED", &core));
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    world.merge(events("events.k8s.io").named("e"), &series).await.unwrap();
    assert_eq!(world.get(events("").named("e")).await.unwrap()["series"]["count"], 2);
    let error =
        world.merge(events("events.k8s.io").named("e"), &json!({"note": "not so"})).await.unwrap_err();
    assert_eq!(error.code, 422, "{error}");
    world.delete(events("").named("e"), DeleteOptions::default()).await.unwrap();
    assert_eq!(world.get(events("events.k8s.io").named("e")).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn events_are_found_by_the_field_names_of_their_group() {
    let world = world().await;
    world.create(events("events.k8s.io"), &event("e")).await.unwrap();
    let of_core = json!({"metadata": {"name": "f"}, "involvedObject": {"kind": "Node", "name": "n"}, "message": "m", "reason": "R", "type": "Normal"});
    world.create(events(""), &of_core).await.unwrap();
    for (group, selector, expected) in [
        ("events.k8s.io", "regarding.name=p,reportingController=c", "e"),
        ("events.k8s.io", "regarding.kind=Node", "f"),
        ("", "involvedObject.name=p", "e"),
        ("", "involvedObject.kind=Node", "f"),
    ] {
        let options = ListOptions { field_selector: selector.to_owned(), ..ListOptions::default() };
        let list = world.list(events(group), options).await.unwrap();
        let names: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|one| &one["metadata"]["name"]).collect();
        assert_eq!(names, [expected], "{group} {selector}");
    }
    let unknown =
        ListOptions { field_selector: "involvedObject.name=p".to_owned(), ..ListOptions::default() };
    assert_eq!(world.list(events("events.k8s.io"), unknown).await.unwrap_err().code, 400);
}

async fn applied(world: &World, version: &str, spec: Value) -> Result<Value, claw_schemas::ApiError> {
    let config = json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": spec});
    let answer = world.apply(scalers(version).named("web"), "m", &config, false).await?;
    Ok(serde_json::from_slice(&answer.body).unwrap())
}

#[tokio::test]
async fn apply_owns_fields_in_the_version_in_which_it_says_them() {
    let world = world().await;
    let of = json!({"kind": "Deployment", "name": "web"});
    let spec = json!({"scaleTargetRef": of, "maxReplicas": 4, "targetCPUUtilizationPercentage": 70});
    let made = applied(&world, "v1", spec).await.unwrap();
    assert_eq!(made["metadata"]["managedFields"][0]["apiVersion"], "autoscaling/v1");
    let again = applied(&world, "v1", json!({"scaleTargetRef": of, "maxReplicas": 6})).await.unwrap();
    assert_eq!(
        (&again["spec"]["maxReplicas"], &again["spec"]["targetCPUUtilizationPercentage"]),
        (&json!(6), &json!(80))
    );
}

#[tokio::test]
async fn a_dry_run_stores_nothing_in_either_form() {
    let world = world().await;
    let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let verb = Verb::Create { body: scaler_v1("web").to_string().into(), options };
    let made = world.ask(scalers("v1"), verb).await.unwrap();
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    assert_eq!(world.get(scalers("v2").named("web")).await.unwrap_err().code, 404);
}
