//! The service on the durable store, across restarts.

use claw_apiserver::store;
use serde_json::json;

use crate::{
    custom,
    world::{World, configmaps, names, namespaces, revision},
};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_revisions_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::on(store::open_sled(folder.path()).unwrap()).await;
    world.configmap("kept", &json!({})).await;
    world.configmap("gone", &json!({})).await;
    world.delete(configmaps().named("gone"), Default::default()).await.unwrap();
    let before = world.list(configmaps(), Default::default()).await.unwrap();
    world.service.close_watches();
    world.service.store().close().await;
    let refused = world.create(configmaps(), &json!({"metadata": {"name": "late"}})).await.unwrap_err();
    assert_eq!(refused.code, 503, "a closed store takes no writes: {refused}");
    drop(world);

    let world = World::on(store::open_sled(folder.path()).unwrap()).await;
    let after = world.list(configmaps(), Default::default()).await.unwrap();
    assert_eq!(after, before, "the same objects at the same revision: the bootstrap wrote nothing again");
    let next: u64 = world.configmap("new", &json!({})).await.parse().unwrap();
    assert_eq!(next, revision(&before).parse::<u64>().unwrap() + 1);
    assert_eq!(names(&world.list(namespaces(), Default::default()).await.unwrap()).len(), 4);
}

#[tokio::test]
async fn a_defined_kind_is_served_from_the_first_request_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::on(store::open_sled(folder.path()).unwrap()).await;
    custom::define(&world, &custom::definition(&[custom::version("v1", true)])).await;
    world.create(custom::widgets("v1"), &custom::widget("a", &json!({"color": "red"}))).await.unwrap();
    world.service.close_watches();
    world.service.store().close().await;
    drop(world);

    let world = World::on(store::open_sled(folder.path()).unwrap()).await;
    let list = world.list(custom::widgets("v1"), Default::default()).await.unwrap();
    assert_eq!((names(&list), &list["items"][0]["spec"]["replicas"]), (vec!["a"], &json!(1)));
    let refused = world.create(custom::widgets("v1"), &custom::widget("b", &json!({}))).await.unwrap_err();
    assert_eq!(refused.code, 422, "its rules are back, too");
}
